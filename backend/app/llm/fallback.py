"""Language models that stand in for each other: whoever is first answers; if it breaks off, another one goes on."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from app.core.errors import AhoyError, BrokenOffError, ProviderError, ServiceError
from app.llm.base import LanguageModel, Message
from app.llm.tokens import fitting
from app.remote.chain import Chain, Member, stop_stream
from app.remote.faults import late

log = logging.getLogger(__name__)

Models = Sequence[Member[LanguageModel]]


class FallbackModel:
    """Implements LanguageModel with the models of `chain`, which are its own to close.

    Each one is given as much of the context as fits into its own. A reply that breaks off after something of it was
    given raises BrokenOffError if somebody else can go on, and the error itself if not.
    """

    def __init__(self, chain: Chain[LanguageModel]) -> None:
        self._chain = chain

    @property
    def context_tokens(self) -> int:
        """How many tokens one conversation's context and reply may have together: what the roomiest one takes."""
        return max(member.provider.context_tokens for member in self._chain.members)

    def count_tokens(self, text: str) -> int:
        """About how many tokens `text` costs the first one of the chain."""
        return self._chain.members[0].provider.count_tokens(text)

    def reply(self, messages: Sequence[Message], *, max_tokens: int) -> AsyncGenerator[str, None]:
        """Stream the reply; see LanguageModel. Raises BrokenOffError as well."""
        return self._reply(tuple(messages), max_tokens, without=())

    async def warm(self, messages: Sequence[Message]) -> None:
        """Prepare the one that would be asked now."""
        model = self._chain.preferred.provider
        await model.warm(_fitting(messages, model, 0))

    async def close(self) -> None:
        """Stop all models."""
        await asyncio.gather(*(member.provider.close() for member in self._chain.members))

    async def _reply(self, messages: Sequence[Message], max_tokens: int, without: Models) -> AsyncGenerator[str, None]:
        async def begin(model: LanguageModel) -> tuple[str, AsyncGenerator[str, None]]:
            fits = _fitting(messages, model, max_tokens)
            return await _first_words(model.reply(fits, max_tokens=max_tokens))

        member, (piece, stream) = await self._chain.first(begin, dispose=stop_stream, without=without)
        gone = (*without, member)
        others = any(other not in gone for other in self._chain.members)

        def go_on(said: str) -> AsyncGenerator[str, None]:
            context = (*messages, Message("assistant", said)) if said.strip() else messages
            return self._reply(context, max_tokens, gone)

        async with aclosing(stream):
            while piece:
                yield piece
                try:
                    piece = await _next_words(stream, member, patient=not others)
                except Exception as error:
                    failure = _known(error)
                    member.health.broke_off(failure)
                    if not others or failure.code == "content_filtered":
                        raise failure from error
                    raise BrokenOffError(f"{member.name} broke off: {failure.message}", go_on) from error
            member.health.completed()


async def _first_words(stream: AsyncGenerator[str, None]) -> tuple[str, AsyncGenerator[str, None]]:
    """What a reply begins with, once there is something to say in it. Raises ServiceError if there never is."""
    begun = ""
    try:
        async for piece in stream:
            begun += piece
            if begun.strip():
                return begun, stream
    except BaseException:
        await stream.aclose()
        raise
    raise ServiceError("The language model gave no words to say.", code="service_answer")


async def _next_words(stream: AsyncGenerator[str, None], member: Member[LanguageModel], *, patient: bool) -> str:
    """The next piece that is one; empty at the end. One that takes too long is not waited for if there is somebody
    else to ask."""
    try:
        async with asyncio.timeout(None if patient else member.patience_s):
            async for piece in stream:
                if piece:
                    return piece
    except TimeoutError:
        raise late(member.name, member.patience_s) from None
    return ""


def _known(error: Exception) -> AhoyError:
    if isinstance(error, AhoyError):
        return error
    log.error("A language model failed with a defect", exc_info=error)
    return ProviderError("A language model failed; the log says how.")


def _fitting(messages: Sequence[Message], model: LanguageModel, max_tokens: int) -> Sequence[Message]:
    return fitting(messages, model.context_tokens - max_tokens, model.count_tokens)

"""The server: its address, its key, its endpoints, and how it dies and stops."""

import asyncio
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from aiohttp import web
from openai.types import Model

from openai_service.certificate import make_certificate
from openai_service.chat import Chat
from openai_service.endpoint import Endpoint
from openai_service.exchange import Answer, Exchange, House, Piece, error_response
from openai_service.listener import Listener
from openai_service.names import MODELS
from openai_service.realtime import Realtime
from openai_service.refusals import Status
from openai_service.speech import Speech
from openai_service.transcriptions import Transcriptions

KEY = "sk-test-ahoy-0123456789abcdef"
MAX_BODY_BYTES = 32 << 20
_ALL = "/{any:.*}"


class ModelList(Endpoint):
    """GET /v1/models."""

    async def answer(self, request: web.Request, exchange: Exchange) -> Answer:
        """All models, in the shape of the SDK's Model."""
        now = int(time.time())
        listed = [Model(id=name, created=now, object="model", owned_by="system") for name in self.house.models]
        body = ",".join(model.model_dump_json(exclude_unset=True) for model in listed)
        return Answer("application/json", [Piece(f'{{"object":"list","data":[{body}]}}'.encode())], streamed=False)


class OpenAiService(House):
    """A strict imitation of OpenAI's API on loopback; see the package for what it can do.

    `key` is the good key (None: none is needed). `models` are the names it offers. `compatible`: it is not OpenAI but
    a server that speaks the same API: any model and voice, and none of OpenAI's newer fields.
    """

    def __init__(
        self,
        *,
        key: str | None = KEY,
        models: tuple[str, ...] = MODELS,
        compatible: bool = False,
        tls: bool = False,
    ) -> None:
        self.key = key
        self.models = list(models)
        self.compatible = compatible
        self.chat = Chat(self)
        self.speech = Speech(self)
        self.transcriptions = Transcriptions(self)
        self.realtime = Realtime(self)
        self.model_list = ModelList(self)
        self._tls = tls
        self._ca_file: Path | None = None
        self._warm = asyncio.Event()
        self._warm.set()
        self._mistakes: list[Exception] = []
        self._stack = ExitStack()
        self._runner: web.AppRunner | None = None
        self._listener: Listener | None = None

    @property
    def base_url(self) -> str:
        """What clients call the base URL: "http://127.0.0.1:PORT/v1"."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self._listening.port}/v1"

    @property
    def ca_file(self) -> Path:
        """The certificate to trust, with `tls=True`."""
        assert self._ca_file, "the service does not serve https"
        return self._ca_file

    @property
    def connections(self) -> int:
        """How many TCP connections have been accepted so far."""
        return self._listening.accepted

    @property
    def open_connections(self) -> int:
        """How many there are now."""
        return self._listening.open_connections

    @property
    def refused(self) -> list[Exchange]:
        """Requests that broke a rule, of all endpoints; most tests end with `assert not service.refused`."""
        return [exchange for endpoint in self._endpoints.values() for exchange in endpoint.refused]

    async def __aenter__(self) -> Self:
        context = None
        if self._tls:
            folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
            context, self._ca_file = await asyncio.to_thread(make_certificate, folder)
        self._runner = web.AppRunner(self._application(), handler_cancellation=True, access_log=None)
        await self._runner.setup()
        assert self._runner.server
        self._listener = Listener(self._runner.server, context)
        self._listener.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.kill()
        self._warm.set()
        assert self._runner
        await self._runner.cleanup()
        self._stack.close()
        if error is None and self._mistakes:
            raise AssertionError("the service failed, not its client") from self._mistakes[0]

    async def kill(self) -> None:
        """Stop listening and cut all connections, as a process does that dies."""
        for endpoint in self._endpoints.values():
            endpoint.killed()
        await self._listening.close()

    async def revive(self) -> None:
        """Listen again on the same port; everything scripted is still there."""
        self.thaw()
        self._listening.open()

    async def freeze(self) -> None:
        """Answer nothing and accept nothing, but close nothing either, as a process that is stopped."""
        self._warm.clear()
        await self._listening.pause()

    def thaw(self) -> None:
        """Go on where `freeze` has stopped."""
        self._warm.set()
        self._listening.resume()

    async def thawed(self) -> None:
        """Returns as soon as the service is not frozen."""
        await self._warm.wait()

    def mistake(self, error: Exception) -> None:
        """Something went wrong that no test has asked for; leaving the service raises it."""
        self._mistakes.append(error)

    @property
    def _listening(self) -> Listener:
        assert self._listener, "the service has not been entered"
        return self._listener

    @property
    def _endpoints(self) -> dict[tuple[str, str], Endpoint]:
        return {
            ("GET", "/v1/models"): self.model_list,
            ("POST", "/v1/chat/completions"): self.chat,
            ("POST", "/v1/audio/speech"): self.speech,
            ("POST", "/v1/audio/transcriptions"): self.transcriptions,
            ("GET", "/v1/realtime"): self.realtime,
        }

    def _application(self) -> web.Application:
        application = web.Application(client_max_size=MAX_BODY_BYTES)
        for (method, path), endpoint in self._endpoints.items():
            application.router.add_route(method, path, endpoint.handle)
        application.router.add_route("*", _ALL, self._nothing_here)
        return application

    async def _nothing_here(self, request: web.Request) -> web.Response:
        await self.thawed()
        known = any(path == request.path for _, path in self._endpoints)
        message = f"Invalid URL ({request.method} {request.path})"
        if known:
            return error_response(Status(405, "method_not_supported", f"Not allowed to {request.method} here."))
        return error_response(Status(404, None, message))

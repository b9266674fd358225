"""The telephone of this server: its calls, who admits them, and what can be done with one that goes on."""

import asyncio
import logging
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import replace
from typing import Any

from app.conversation.options import Options
from app.conversation.parting import GOODBYE, TRANSFER
from app.conversation.patience import within
from app.conversation.session import BUDGET, Conversation
from app.core.config import TWILIO_PATH, Settings
from app.core.errors import AhoyError, CallError, OverloadedError, TwilioError
from app.engine import Engine
from app.llm.base import Message
from app.twilio import twiml
from app.twilio.calls import Call, Calls, CallStatus, Transfer
from app.twilio.quotas import Quotas
from app.twilio.rest import TwilioRest
from app.twilio.signature import TwilioSignature
from app.twilio.tokens import StreamTokens

ASK_S = 2.0
"""How long the ringing may go on for a question to Twilio."""
HOLD_REMINDER_S = 15.0
"""Who is on hold is told so this often."""
SUMMARY_S = 6.0
"""Time for the summary of a call; Twilio waits 15 s for an answer, and a person who has picked up far less."""
SUMMARY_TOKENS = 60
MAX_STREAMS = 20
"""Media streams that one call may have, one after the other: it comes back from transfers and from lost lines."""
log = logging.getLogger(__name__)


class Telephone:
    """One for each application; `close` ends what it has begun."""

    def __init__(self, settings: Settings, engine: Engine) -> None:
        self.settings = settings
        self.engine = engine
        self.calls = Calls()
        self.tokens = StreamTokens()
        self.signature = TwilioSignature(settings)
        self.rest = TwilioRest(settings)
        self.quotas = Quotas(settings)
        self._tasks: set[asyncio.Task[Any]] = set()

    async def start(self) -> None:
        """Have what is said at the wrong moment ready: synthesising it then would keep the caller waiting."""
        settings = self.settings
        words = [settings.goodbye, settings.hold_phrase, settings.transfer_failed]
        if settings.transfer_number:
            words.append(settings.transfer_phrase)
        for phrase in dict.fromkeys(words):
            try:
                await self.engine.providers.phrases.keep(phrase, settings.voice)
            except AhoyError as error:
                log.warning("A phrase of the telephone cannot be spoken: %s", error.message)

    async def dismiss(self, timeout_s: float) -> None:
        """Wait until Twilio has asked what follows for every call whose conversation the shutdown ended: the caller is
        told something then, which a server that is gone could not do."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                for call in self.calls.live():
                    while call.outcome == "shutdown" and not call.status.final:
                        await call.wait_for_change()

    async def close(self) -> None:
        """End what was begun."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.rest.close()

    # --- conversations

    @property
    def refuses(self) -> bool:
        """No call can be taken now: all lines are busy, the models are not loaded yet, or the server ends."""
        return not self.engine.has_room

    @property
    def turned_away(self) -> str:
        """What a caller hears who cannot be served now."""
        return self.settings.budget_phrase if self.engine.day.over else self.settings.phone_full

    async def goes_on(self, sid: str) -> bool:
        """Whether a call that is new to this process has not ended at Twilio: a request about it that was recorded
        before the process began has a good signature as well. Twilio is believed when it cannot be asked in time."""
        if not self.rest.configured:
            return True
        try:
            async with asyncio.timeout(ASK_S):
                state = await self.rest.fetch(sid)
        except TimeoutError:
            return True
        except TwilioError as error:
            return error.http_status != 404
        return state.status not in set(CallStatus) or not CallStatus(state.status).final

    def connect(self, call: Call) -> str:
        """TwiML that connects the call to a conversation."""
        settings = self.settings
        parameters = {
            "token": self.tokens.issue(call.sid),
            "caller": call.caller,
            "direction": call.direction,
        }
        return twiml.stream(
            settings.public_twilio_ws_url,
            action=self.url("/after"),
            status_callback=self.url("/stream-status"),
            parameters=parameters,
        )

    def open(self, call: Call, outlet: Any) -> Conversation:
        """The conversation of the call's next stream. Raises OverloadedError when there is no room for it."""
        if call.streams >= MAX_STREAMS:
            raise OverloadedError(f"A call cannot have more than {MAX_STREAMS} streams.")
        options = Options.for_telephone(self.settings)
        if call.resumes_with is not None:
            options = replace(options, greeting=call.resumes_with)
        self.let_go(call)
        conversation = self.engine.open(call.sid, options, outlet, history=call.history, account=call.account)
        call.account = conversation.account
        call.streams += 1
        call.conversation, call.outcome, call.on_hold = conversation, "", False
        call.moved_to(CallStatus.IN_PROGRESS)
        return conversation

    def let_go(self, call: Call) -> None:
        """The call's stream is over, by Twilio's word: the connection may not know it yet."""
        if conversation := call.conversation:
            conversation.end("lost")  # unless it has ended for another reason
            self._keep(call, conversation)

    async def ended(self, call: Call, conversation: Conversation) -> None:
        """The call's conversation is over. An end that the assistant means ends the call as well."""
        outcome = conversation.reason
        if call.conversation is conversation:  # it has not gone on in another stream
            self._keep(call, conversation)
        if outcome in {GOODBYE, BUDGET} and self.rest.configured:
            try:
                await self.rest.complete(call.sid)
            except CallError as error:  # closing the stream ends the call as well: `after` says so
                log.warning("A call could not be ended over Twilio's API: %s", error.message)

    def _keep(self, call: Call, conversation: Conversation) -> None:
        call.history = conversation.history
        call.conversation, call.outcome, call.on_hold = None, conversation.reason, False
        if call.holding:
            call.holding.cancel()
        call.changed()

    def url(self, path: str) -> str:
        """The public address of one of Twilio's routes here."""
        return self.settings.public_url(TWILIO_PATH + path)

    # --- what can be done with a call

    async def hang_up(self, call: Call) -> None:
        """End the call now. Raises CallError when Twilio does not do it."""
        if call.status.final:
            return
        if self.rest.configured:
            await self.rest.complete(call.sid)
        if call.conversation:
            call.conversation.end("hangup")
        if call.direction == "outbound" and call.answered_s is None:
            call.moved_to(CallStatus.CANCELED, "Hung up before anybody answered.")
        else:
            call.moved_to(CallStatus.COMPLETED)

    async def transfer(self, call: Call, number: str, *, warm: bool) -> None:
        """Put the call through to `number` (E.164), after the caller was told so; `warm` tells whoever answers there
        what it is about first. The caller comes back when nobody does. Raises CallError if it is not in conversation.
        """
        conversation = self._conversation(call)
        self._begin_transfer(call, conversation, number, warm=warm)
        conversation.announce(self.settings.transfer_phrase, then_end=TRANSFER)

    def put_through(self, call: Call) -> str:
        """TwiML that puts the call through, as its conversation has ended for that."""
        settings = self.settings
        transfer = call.transfer
        if transfer is None:
            if settings.transfer_number is None:
                call.moved_to(CallStatus.COMPLETED, "There is no number to put it through to.")
                return twiml.hang_up(settings.phone_failed)
            transfer = call.transfer = Transfer(settings.transfer_number, warm=True)
        if transfer.warm and transfer.summary is None and call.history:
            transfer.summary = self._spawn(self._summarise(call.history.context()))
        return twiml.put_through(
            transfer.number,
            caller_id=settings.twilio_phone_number,
            timeout_s=settings.transfer_timeout_s,
            action=self.url("/transferred"),
            whisper=self.url(f"/whisper/{call.sid}") if transfer.warm else "",
        )

    def hold(self, call: Call, held: bool) -> None:
        """Put the caller on hold, or take them back: on hold they are not heard, and told to wait now and then. Raises
        CallError if the call is not in conversation."""
        conversation = self._conversation(call)
        if call.on_hold == held:
            return
        call.on_hold = held
        conversation.mute(held)
        if call.holding:
            call.holding.cancel()
        call.holding = self._spawn(self._keep_holding(conversation)) if held else None
        call.changed()

    async def summary(self, call: Call) -> str:
        """One sentence about the call for whoever it is put through to."""
        task = call.transfer.summary if call.transfer else None
        if task is None:
            return "This is a call for you."
        return await asyncio.shield(task)

    def _begin_transfer(self, call: Call, conversation: Conversation, number: str, *, warm: bool) -> None:
        call.transfer = Transfer(number, warm)
        if warm:
            call.transfer.summary = self._spawn(self._summarise(conversation.history.context()))

    def _conversation(self, call: Call) -> Conversation:
        if call.conversation is None:
            raise CallError(
                f"The call is not in conversation (it is {call.status.value}).", code="not_in_progress", http_status=409
            )
        return call.conversation

    async def _keep_holding(self, conversation: Conversation) -> None:
        while True:
            conversation.announce(self.settings.hold_phrase)
            await asyncio.sleep(HOLD_REMINDER_S)

    async def _summarise(self, said: list[Message]) -> str:
        """What the call is about, in the words of the language model, or else in the caller's own."""
        asked = [message.content for message in said if message.role == "user"]
        if not asked:
            return "This is a call for you."
        ask = "In one short sentence, tell a colleague who takes over what the caller wants."
        try:
            words = await within(SUMMARY_S, "language model", self._reply([*said, Message("user", ask)]))
        except AhoyError as error:
            log.warning("A call could not be summarised: %s", error.message)
            words = ""
        sentence = words.strip().split("\n")[0].strip()
        return f"A call for you. {sentence}" if sentence else f"A call for you. The caller said: {asked[-1]}"

    async def _reply(self, messages: list[Message]) -> str:
        words = self.engine.providers.llm.reply(messages, max_tokens=SUMMARY_TOKENS)
        return "".join([piece async for piece in words])

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

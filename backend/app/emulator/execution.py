"""Doing what TwiML says, verb by verb."""

import asyncio
from typing import TYPE_CHECKING

from app.emulator import twiml
from app.emulator.dialling import dial
from app.emulator.faults import SCHEMA, TwilioFault
from app.emulator.line import Change, Line
from app.emulator.stream import MediaStream

if TYPE_CHECKING:
    from app.emulator.legs import Leg

APPLICATION_ERROR = "We are sorry, an application error has occurred. Goodbye."
MAX_DOCUMENTS = 100
"""Documents one after the other without a pause of a call: a loop of redirects ends."""


class Execution:
    """Carries out documents on one leg, from a first one to the end, where it may be broken off at any time."""

    def __init__(self, leg: "Leg", *, whisper: bool = False) -> None:
        self.unfinished: tuple[str, str, dict[str, str]] | None = None
        """The action (url, method, parameters) of a verb that was broken off."""
        self._leg = leg
        self._line = leg.line
        self._webhooks = leg.exchange.webhooks
        self._whisper = whisper
        self._base = ""

    async def run(self, change: Change, more: dict[str, str] | None = None) -> str:
        """Carry out the document at an address, or the given one, and all that follow: the status the leg ends with.

        Raises TwilioFault when the server's answer cannot be used.
        """
        if change.twiml:
            verbs, self._base = twiml.parse(change.twiml.encode()), self._webhooks.public_url + "/"
        else:
            verbs, self._base = await self._webhooks.fetch(self._line, change.url, change.method, more)
        for _ in range(MAX_DOCUMENTS):
            for verb in verbs:
                self._line.event("verb", type(verb).__name__)
                match verb:
                    case twiml.Hangup():
                        self._answer()
                        return "completed"
                    case twiml.Reject(reason) if self._line.answered_s is None:
                        return "busy" if reason == "busy" else "no-answer"
                    case twiml.Reject():
                        continue  # an answered call cannot be rejected any more: Twilio goes on
                next_document = await self._do(verb)
                if next_document is not None:
                    verbs = next_document
                    break
            else:
                self._answer()
                return "completed"
        raise TwilioFault(SCHEMA, f"{MAX_DOCUMENTS} TwiML documents one after the other: they go round in circles")

    async def _do(self, verb: twiml.Verb) -> list[twiml.Verb] | None:
        """Carry out one verb; the document to go on with instead, if there is one."""
        if self._whisper and isinstance(verb, (twiml.Connect, twiml.Dial)):
            raise TwilioFault(SCHEMA, f"<{type(verb).__name__}> is not allowed for the called party of a <Number>")
        match verb:
            case twiml.Say(text):
                self._answer()
                self._line.spoken.append(text)
                self._line.event("say", text)
                await asyncio.sleep(self._leg.exchange.speaking_s(text))
            case twiml.Play(url):
                self._answer()
                self._line.played.append(self._webhooks.absolute(url, self._base))
            case twiml.Pause(length_s):
                await asyncio.sleep(length_s)
            case twiml.Redirect(url, method):
                return await self._go(url, method)
            case twiml.Connect(noun, action, method):
                self._answer()
                if action is not None:
                    self.unfinished = (self._webhooks.absolute(action, self._base), method, {})
                noun = self._resolved(noun)
                await MediaStream(self._line, noun, self._leg.exchange.account_sid, self._webhooks).run()
                self.unfinished = None
                if action is not None:
                    return await self._go(action, method)
            case twiml.Dial():
                return await self._dial(verb)
        return None

    async def _dial(self, verb: twiml.Dial) -> list[twiml.Verb] | None:
        if not verb.answer_on_bridge:
            self._answer()
        outcome: dict[str, str] = {}
        action = None if verb.action is None else self._webhooks.absolute(verb.action, self._base)
        if action is not None:
            self.unfinished = (action, verb.method, outcome)
        await dial(self._leg, verb, self._base, outcome)
        self.unfinished = None
        return None if action is None else await self._go(action, verb.method, outcome)

    async def _go(self, url: str, method: str, more: dict[str, str] | None = None) -> list[twiml.Verb]:
        verbs, self._base = await self._webhooks.fetch(
            self._line, self._webhooks.absolute(url, self._base), method, more
        )
        return verbs

    def _resolved(self, noun: twiml.Stream) -> twiml.Stream:
        if not noun.status_callback:
            return noun
        callback = self._webhooks.absolute(noun.status_callback, self._base)
        return twiml.Stream(noun.url, noun.name, callback, noun.status_callback_method, noun.parameters)

    def _answer(self) -> None:
        if self._line.answered_s is None:
            self._leg.status("in-progress")
            self._leg.exchange.answered(self._line)


def apologise(line: Line) -> None:
    """What a caller hears of Twilio when a server's answer cannot be used."""
    line.spoken.append(APPLICATION_ERROR)
    line.event("say", APPLICATION_ERROR)

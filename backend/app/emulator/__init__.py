"""A local phone: Twilio on this machine, strict, for tests, benchmarks and for trying things out without an account.

It shares no code with what it tests. A test holds the caller's end of the line in its hand:

    async with Exchange("http://127.0.0.1:8000") as twilio:      # where the server under test listens
        line = await twilio.dial("+15005550001")                 # somebody calls TWILIO_PHONE_NUMBER
        stream = await line.streaming()                          # the server has answered with <Connect><Stream>
        await line.hears_the_end()                               # the greeting
        said = await line.say(samples)                           # int16 [n], 8 kHz, in real time
        onset_ms = await line.hears()                            # the answer; line.heard is all that was heard
        line.press("12#")
        line.hang_up()
        assert await line.ended() == "completed"
        assert line.errors == []                                 # nothing that Twilio would not have taken

The server's settings for that are TWILIO_ACCOUNT_SID=ACCOUNT_SID, TWILIO_AUTH_TOKEN=AUTH_TOKEN,
TWILIO_PHONE_NUMBER=NUMBER, PUBLIC_BASE_URL=PUBLIC_URL and, for calls it places itself, TWILIO_API_URL=twilio.api_url:

        twilio.when_called("+15005550009", Busy())               # Human, Voicemail, NoAnswer, Failed, Rejected, Refused
        ...the server places a call...
        line = await twilio.next_answered()

`stream.marks`, `stream.clears`, `stream.arrivals`, `stream.gaps`, `stream.underruns()` say how the server played;
`line.spoken` what <Say> said; `line.statuses`, `line.events` what happened; `twilio.webhooks.requests` what was asked
of the server. What may go wrong on the line: `stream.mishaps.append("drop" | "duplicate" | "swap" | "garble")` for the
next frame, `stream.inject(raw)` for any message.
"""

from app.emulator.behaviours import Behaviour, Busy, Failed, Human, NoAnswer, Refused, Rejected, Voicemail
from app.emulator.exchange import ACCOUNT_SID, AUTH_TOKEN, NUMBER, PUBLIC_URL, Exchange
from app.emulator.faults import Fault, PhoneError
from app.emulator.line import Event, Line
from app.emulator.mouth import Said
from app.emulator.playback import Gap
from app.emulator.stream import Arrival, Cleared, Marked, MediaStream

__all__ = [
    "ACCOUNT_SID",
    "AUTH_TOKEN",
    "NUMBER",
    "PUBLIC_URL",
    "Arrival",
    "Behaviour",
    "Busy",
    "Cleared",
    "Event",
    "Exchange",
    "Failed",
    "Fault",
    "Gap",
    "Human",
    "Line",
    "Marked",
    "MediaStream",
    "NoAnswer",
    "PhoneError",
    "Refused",
    "Rejected",
    "Said",
    "Voicemail",
]

"""What Twilio is told to do with a call, as TwiML (twilio.com/docs/voice/twiml)."""

from collections.abc import Mapping

from twilio.twiml.voice_response import Connect, Dial, VoiceResponse

PAUSE_S = 3600
"""How long a call is kept open for another program to take it over."""


def stream(url: str, *, action: str, status_callback: str, parameters: Mapping[str, str]) -> str:
    """Connect the call to the media stream at `url` (wss://, no query). When it has ended, `action` is asked what
    follows; `parameters` come with the stream's start message."""
    response = VoiceResponse()
    connect = Connect(action=action, method="POST")
    connected = connect.stream(url=url, status_callback=status_callback, status_callback_method="POST")
    for name, value in parameters.items():
        connected.parameter(name=name, value=value)
    response.append(connect)
    return str(response)


def hang_up(words: str = "") -> str:
    """End the call, after Twilio's voice has said `words`."""
    response = VoiceResponse()
    if words:
        response.say(words)
    response.hangup()
    return str(response)


def keep_open(words: str = "") -> str:
    """Keep the call open until another program gives it new instructions, after Twilio's voice has said `words`."""
    response = VoiceResponse()
    if words:
        response.say(words)
    response.pause(length=PAUSE_S)
    return str(response)


def put_through(number: str, *, caller_id: str | None, timeout_s: int, action: str, whisper: str = "") -> str:
    """Ring `number` and connect it. When that has ended, or nobody answered, `action` is asked what follows. With
    `whisper`, an address, whoever answers hears what it says first."""
    response = VoiceResponse()
    options = {"caller_id": caller_id} if caller_id else {}
    dial = Dial(action=action, method="POST", timeout=timeout_s, **options)
    if whisper:
        dial.number(number, url=whisper, method="POST")
    else:
        dial.number(number)
    response.append(dial)
    return str(response)


def say(words: str) -> str:
    """Say this; what comes then is up to where it is said."""
    response = VoiceResponse()
    response.say(words)
    return str(response)

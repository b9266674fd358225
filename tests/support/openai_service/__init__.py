"""A strict test server that speaks OpenAI's API on loopback, written from OpenAI's documentation and its SDK's types.

    async with OpenAiService() as service:
        service.chat.reply("Hello there!", first_s=0.3)
        ...                                     # the client under test, with service.base_url and service.key
        assert service.chat.requests[0].body["model"] == "gpt-5-mini"
        assert not service.refused              # every request kept the rules

It runs in the test's event loop and imports nothing of the app. A field that is unknown, missing, of a wrong type, out
of range or not for this model is refused with OpenAI's error body, and the request is listed in `service.refused`.
Options: `key=None` (none needed), `models=(...)`, `tls=True` (https, trust `service.ca_file`), `compatible=True` (not
OpenAI but a server that speaks its API: any model and voice, and none of OpenAI's newer fields).

**Endpoints** are `service.chat`, `.speech`, `.transcriptions`, `.realtime` and `.model_list`. Each has
`requests` (Exchange: `body`, `headers` without the key, `chunks` and `bytes` sent so far, `outcome`), `refused`, and
to be awaited `next_request()`, `next_ended()`, `next_gone()` (a client left before the end of its answer: how many
chunks had it been sent?) and `next_stalled()`. `service.connections` counts accepted TCP connections,
`service.open_connections` those there are now.

**Scripts**: `chat.reply(text, tool_calls=, tokens=, finish_reason=, first_s=, pace_s=)`; delays for all replies:
`chat.first_s`, `chat.pace_s`. Without a script, `chat.usual`. `transcriptions.reply(text, delay_s=)`; recordings are
kept in `transcriptions.received` (Heard: `model`, `language`, `prompt`, `samples`, `rate_hz`). `speech` speaks with a
440 Hz tone of 60 ms a character, `speech.first_s` after the request, in pieces of `speech.piece_bytes`, `speech.pace_s`
apart, of odd length with `speech.odd_pieces`. `realtime.reply(text, tokens=, delay_s=)` for each committed item (kept
in `realtime.received`, awaited with `realtime.next_heard()`); with gpt-live-transcribe and gpt-realtime-whisper a word
comes after every `realtime.delta_ms` of audio, the rest after the commit; `realtime.sessions` holds configurations,
client events, and `close()`. Turns are never detected by the service: only a commit ends an item.

**Faults**, one for each of the next requests that keep the rules: `service.chat.fault(rate_limited(5), Cut(after=2))`.
See `faults.py` (Page, Empty, Stall, Cut, HalfCharacter, Insert, OddLength; login_page(), broken_json(), error_event(),
comment()) and `refusals.py` (Status; unauthorized(), forbidden(), model_not_found(), rate_limited(), no_quota(),
context_too_long(), content_refused(), content_filtered(), server_error(), bad_gateway(), overloaded()). A fault that
cannot come, for instance because the answer has fewer pieces, fails the test when the service is left. Handshakes of
`realtime` know Status, Page, Stall and Cut; within sessions there are ErrorEvent, Close, Silence, Drop (at the commit,
or `on=` another event) and FailedTranscription.

**The whole service**: `await service.kill()` and `await service.revive()` (same port, all connections cut, like a
process that dies), `await service.freeze()` and `service.thaw()` (nothing is answered, nothing is closed).
"""

from openai_service.chat import Reply, ToolCall
from openai_service.exchange import Exchange
from openai_service.faults import (
    Close,
    Cut,
    Drop,
    Empty,
    ErrorEvent,
    FailedTranscription,
    HalfCharacter,
    Insert,
    OddLength,
    Page,
    Silence,
    Stall,
    broken_json,
    comment,
    error_event,
    login_page,
)
from openai_service.realtime_session import HeardLive, Session
from openai_service.refusals import (
    Status,
    bad_gateway,
    content_filtered,
    content_refused,
    context_too_long,
    forbidden,
    model_not_found,
    no_quota,
    overloaded,
    rate_limited,
    server_error,
    unauthorized,
)
from openai_service.service import KEY, OpenAiService
from openai_service.tones import CHARACTER_S, tone
from openai_service.transcriptions import Heard

__all__ = [
    "CHARACTER_S",
    "KEY",
    "Close",
    "Cut",
    "Drop",
    "Empty",
    "ErrorEvent",
    "Exchange",
    "FailedTranscription",
    "HalfCharacter",
    "Heard",
    "HeardLive",
    "Insert",
    "OddLength",
    "OpenAiService",
    "Page",
    "Reply",
    "Session",
    "Silence",
    "Stall",
    "Status",
    "ToolCall",
    "bad_gateway",
    "broken_json",
    "comment",
    "content_filtered",
    "content_refused",
    "context_too_long",
    "error_event",
    "forbidden",
    "login_page",
    "model_not_found",
    "no_quota",
    "overloaded",
    "rate_limited",
    "server_error",
    "tone",
    "unauthorized",
]

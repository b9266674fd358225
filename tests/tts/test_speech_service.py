"""Speech from a service, over real connections to a strict one: what is asked, what comes back, and what goes wrong."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

import numpy as np
import pytest
from app.core.errors import ProviderError, ServiceError
from app.remote.client import ServiceClient
from app.tts.tts import SpeechService, text_to_speech
from app.usage.meter import Usage, bind
from openai_service import (
    KEY,
    Cut,
    Empty,
    OddLength,
    OpenAiService,
    Page,
    Stall,
    Status,
    content_refused,
    forbidden,
    login_page,
    no_quota,
    overloaded,
    rate_limited,
    server_error,
    tone,
)

RATE_HZ = 24_000
MS = RATE_HZ // 1000
TEXT = "Hello there, this is secret."
SPOKEN = tone(len(TEXT))
WAIT_S = 10.0
"""No test waits so long unless something is broken."""


class Account:
    """What was reported, all for the first turn."""

    def __init__(self) -> None:
        self.usages: list[Usage] = []
        bind(self, lambda: 1)

    def add(self, usage: Usage, turn: int) -> None:
        assert turn == 1
        self.usages.append(usage)


@pytest.fixture
async def service() -> AsyncIterator[OpenAiService]:
    async with OpenAiService() as service:
        yield service


@pytest.fixture
async def compatible() -> AsyncIterator[OpenAiService]:
    """A server that is not OpenAI's."""
    async with OpenAiService(compatible=True) as service:
        yield service


@pytest.fixture
async def speaking() -> AsyncIterator[Callable[..., SpeechService]]:
    """Makes voices of a service, and closes their connections."""
    clients: list[ServiceClient] = []

    def make(
        service: OpenAiService, model: str = "gpt-4o-mini-tts", voice: str | None = None, **options: Any
    ) -> SpeechService:
        key = options.pop("key", KEY)
        clients.append(ServiceClient("openai", service.base_url, key))
        return SpeechService(clients[-1], model, voice, **{"official": not service.compatible} | options)

    yield make
    for client in clients:
        await client.close()


Speaking = Callable[..., SpeechService]


async def refusal(voice: SpeechService, text: str = TEXT, **options: Any) -> ProviderError:
    """The error that speaking ends with."""
    with pytest.raises(ProviderError) as caught:
        await text_to_speech(text, voice, **options)
    return caught.value


def unwanted(field: str | None) -> Status:
    """400 because of this field, or without a word about the reason."""
    if field is None:
        return Status(422, None, "Unprocessable Entity")
    return Status(400, "unsupported_parameter", f"Unsupported parameter: '{field}'.", param=field)


# --- what is asked


async def test_pcm_is_asked_for_in_the_default_voice_and_nothing_that_need_not_be_said(
    service: OpenAiService, speaking: Speaking
) -> None:
    await text_to_speech(TEXT, speaking(service))
    assert service.speech.requests[0].body == {
        "model": "gpt-4o-mini-tts",
        "input": TEXT,
        "voice": "coral",
        "response_format": "pcm",
    }
    assert not service.refused


async def test_speed_and_manner_are_told(service: OpenAiService, speaking: Speaking) -> None:
    voice = speaking(service, voice="sage", speed=1.5, instructions="Speak warmly.")
    audio = await text_to_speech(TEXT, voice)
    body = service.speech.requests[0].body
    assert (body["voice"], body["speed"], body["instructions"]) == ("sage", 1.5, "Speak warmly.")
    assert np.array_equal(audio, tone(len(TEXT), 1.5))


@pytest.mark.parametrize(
    ("instructions", "language", "told"),
    [
        ("", "de", "Speak German."),
        ("Speak warmly.", "es", "Speak warmly. Speak Spanish."),
        ("", None, None),
        ("", "xx", None),
    ],
)
async def test_the_model_is_told_the_language(
    service: OpenAiService, speaking: Speaking, instructions: str, language: str | None, told: str | None
) -> None:
    await text_to_speech(TEXT, speaking(service, instructions=instructions), language=language)
    assert service.speech.requests[0].body.get("instructions") == told
    assert not service.refused


@pytest.mark.parametrize("model", ["tts-1", "tts-1-hd"])
async def test_older_models_are_not_told_what_they_do_not_know(
    service: OpenAiService, speaking: Speaking, model: str
) -> None:
    voice = speaking(service, model, instructions="Speak warmly.")
    for known in voice.voices:
        await text_to_speech(TEXT, voice, voice=known.id, language="de")
    assert len(service.speech.requests) == 9
    assert not service.refused


async def test_every_voice_of_openai_can_be_chosen_and_an_unknown_one_means_the_default(
    service: OpenAiService, speaking: Speaking
) -> None:
    voice = speaking(service, voice="marin")
    assert voice.voices[0].id == "marin"
    assert len({known.id for known in voice.voices}) == 13
    assert {known.language for known in voice.voices} == {"mul"}, "each speaks every language"
    for known in voice.voices:
        await text_to_speech("Hi.", voice, voice=known.id)
    await text_to_speech("Hi.", voice, voice="heart")
    asked = [request.body["voice"] for request in service.speech.requests]
    assert asked == [*(known.id for known in voice.voices), "marin"]
    assert not service.refused


async def test_a_voice_of_ones_own_is_named_as_openai_wants_it(service: OpenAiService, speaking: Speaking) -> None:
    await text_to_speech("Hi.", speaking(service, voice="voice_1234"))
    assert service.speech.requests[0].body["voice"] == {"id": "voice_1234"}
    assert not service.refused


async def test_servers_that_are_merely_compatible_get_what_all_of_them_know(
    compatible: OpenAiService, speaking: Speaking
) -> None:
    voice = speaking(compatible, "kokoro", "af_heart", speed=1.2)
    await text_to_speech(TEXT, voice, language="en")
    assert set(compatible.speech.requests[0].body) == {"model", "input", "voice", "response_format", "speed"}
    assert not compatible.refused


@pytest.mark.parametrize("text", ["", " \n", "...", "?!", "🎉", "\u200b", "\ud83d"])
async def test_nothing_is_asked_for_text_without_anything_to_pronounce(
    service: OpenAiService, speaking: Speaking, text: str
) -> None:
    account = Account()
    assert not len(await text_to_speech(text, speaking(service)))
    assert service.connections == 0
    assert account.usages == []


@pytest.mark.parametrize("text", ["The ship sailed on. " * 600, "wind " * 2000, "x" * 9000, "a \ud83d b"])
async def test_long_text_is_asked_for_in_parts_and_none_of_it_is_lost(
    service: OpenAiService, speaking: Speaking, text: str
) -> None:
    account = Account()
    await text_to_speech(text, speaking(service))
    parts = [request.body["input"] for request in service.speech.requests]
    assert "".join("".join(parts).split()) == "".join(text.replace("\ud83d", "").split())
    assert [usage.characters for usage in account.usages] == [len(part) for part in parts]
    assert not service.refused
    if text.startswith("The"):
        assert all(part.endswith("on.") for part in parts), "cut where a sentence ends"
    if text.startswith("wind"):
        assert all(part.endswith("wind") for part in parts), "or between words"


# --- what comes back


async def test_the_audio_is_that_of_the_service_to_the_last_sample(service: OpenAiService, speaking: Speaking) -> None:
    assert np.array_equal(await text_to_speech(TEXT, speaking(service)), SPOKEN)


async def test_samples_that_the_network_tears_apart_are_put_together(
    service: OpenAiService, speaking: Speaking
) -> None:
    service.speech.odd_pieces = True
    assert np.array_equal(await text_to_speech(TEXT, speaking(service)), SPOKEN)


async def test_half_a_sample_at_the_end_is_dropped(service: OpenAiService, speaking: Speaking) -> None:
    service.speech.fault(OddLength())
    assert np.array_equal(await text_to_speech(TEXT, speaking(service)), SPOKEN[:-1])


async def test_tiny_pieces_are_gathered(service: OpenAiService, speaking: Speaking) -> None:
    service.speech.piece_bytes = 7
    pieces = [piece async for piece in speaking(service).speak("Hello.")]
    assert np.array_equal(np.concatenate(pieces), tone(6))
    assert all(len(piece) >= 40 * MS for piece in pieces[:-1])


async def test_the_first_audio_is_there_while_the_rest_is_still_being_made(
    service: OpenAiService, speaking: Speaking
) -> None:
    service.speech.fault(Stall(after=1))
    async with asyncio.timeout(WAIT_S), aclosing(speaking(service).speak(TEXT)) as speech:
        first = await anext(speech)
        assert np.array_equal(first, SPOKEN[: 100 * MS])
        service.speech.release()
        rest = [piece async for piece in speech]
    assert np.array_equal(np.concatenate([first, *rest]), SPOKEN)


def pcm(*parts: np.ndarray) -> Page:
    return Page(np.concatenate(parts).astype("<i2").tobytes(), "audio/pcm")


def plateau(length_ms: int, level: int) -> np.ndarray:
    return np.full(length_ms * MS, level, np.int16)


@pytest.mark.parametrize(("silent_ms", "left_ms"), [(5, 5), (200, 10), (310, 10), (800, 500)])
async def test_silence_in_front_is_cut_but_for_a_breath_and_never_more_than_300_ms(
    service: OpenAiService, speaking: Speaking, silent_ms: int, left_ms: int
) -> None:
    service.speech.fault(pcm(plateau(silent_ms, 100), plateau(500, 5000)))
    audio = await text_to_speech(TEXT, speaking(service))
    assert int(np.flatnonzero(audio > 200)[0]) == left_ms * MS
    assert len(audio) == (left_ms + 500) * MS
    if silent_ms > left_ms:
        assert audio[0] == 0, "without a click"


async def test_a_voice_that_is_quiet_all_along_is_heard(service: OpenAiService, speaking: Speaking) -> None:
    service.speech.fault(pcm(plateau(2000, 100)))
    assert len(await text_to_speech(TEXT, speaking(service))) == 1700 * MS


async def test_what_is_said_is_paid_for_once(service: OpenAiService, speaking: Speaking) -> None:
    account = Account()
    await text_to_speech(TEXT, speaking(service))
    audio_s = len(SPOKEN) / RATE_HZ
    assert account.usages == [Usage("tts", "openai", "gpt-4o-mini-tts", characters=len(TEXT), audio_s=audio_s)]


# --- services that take less


async def test_a_service_that_has_no_pcm_is_asked_for_wav_and_then_for_mp3_and_from_then_on_at_once(
    service: OpenAiService, speaking: Speaking
) -> None:
    voice = speaking(service)
    service.speech.fault(unwanted("response_format"))
    assert np.array_equal(await text_to_speech(TEXT, voice), SPOKEN)
    service.speech.fault(unwanted("response_format"))
    mp3 = await text_to_speech(TEXT, voice)
    await text_to_speech(TEXT, voice)
    asked = [request.body["response_format"] for request in service.speech.requests]
    assert asked == ["pcm", "wav", "wav", "mp3", "mp3"]
    assert abs(len(mp3) - len(SPOKEN)) <= 50 * MS


async def test_a_service_that_knows_no_formats_is_not_asked_for_one(service: OpenAiService, speaking: Speaking) -> None:
    voice = speaking(service)
    service.speech.fault(*[unwanted("response_format")] * 3)
    await text_to_speech(TEXT, voice)
    assert "response_format" not in service.speech.requests[3].body
    service.speech.fault(unwanted("response_format"))
    assert (await refusal(voice)).code == "service_refused", "and then there is nothing left to leave out"
    assert len(service.speech.requests) == 5


@pytest.mark.parametrize("field", ["speed", "instructions"])
async def test_a_field_that_is_refused_is_left_out_from_then_on(
    service: OpenAiService, speaking: Speaking, field: str
) -> None:
    account = Account()
    voice = speaking(service, speed=1.5, instructions="Speak warmly.")
    service.speech.fault(unwanted(field))
    await text_to_speech(TEXT, voice)
    await text_to_speech(TEXT, voice)
    first, *others = [set(request.body) for request in service.speech.requests]
    assert others == [first - {field}] * 2
    assert len(account.usages) == 2, "a request that was refused costs nothing"


async def test_instructions_that_a_compatible_server_refuses_are_left_out(
    compatible: OpenAiService, speaking: Speaking
) -> None:
    voice = speaking(compatible, "kokoro", instructions="Speak warmly.")
    await text_to_speech(TEXT, voice)
    await text_to_speech(TEXT, voice)
    assert len(compatible.refused) == 1
    assert len(compatible.speech.requests) == 2


async def test_a_refusal_without_a_reason_is_tried_with_less_until_something_was_taken(
    service: OpenAiService, speaking: Speaking
) -> None:
    voice = speaking(service, speed=1.5)
    service.speech.fault(unwanted(None), unwanted(None))
    await text_to_speech(TEXT, voice)
    fields = [{"speed", "response_format"} & set(request.body) for request in service.speech.requests]
    assert fields == [{"speed", "response_format"}, {"response_format"}, {"response_format"}]
    assert service.speech.requests[-1].body["response_format"] == "wav"
    service.speech.fault(unwanted(None))
    assert (await refusal(voice)).code == "service_refused", "it has taken all of this: the text is what it dislikes"
    assert len(service.speech.requests) == 4


async def test_what_did_not_help_is_not_left_out_the_next_time(service: OpenAiService, speaking: Speaking) -> None:
    voice = speaking(service, speed=1.5)
    service.speech.fault(*[unwanted(None)] * 5)
    assert (await refusal(voice)).code == "service_refused"
    await text_to_speech(TEXT, voice)
    assert service.speech.requests[-1].body["speed"] == 1.5


async def test_a_voice_that_is_refused_is_the_callers_to_mend(service: OpenAiService, speaking: Speaking) -> None:
    error = await refusal(speaking(service, voice="heart"))
    assert isinstance(error, ServiceError)
    assert (error.code, error.parameter) == ("service_refused", "voice")
    assert len(service.refused) == 1


# --- what goes wrong


@pytest.mark.parametrize(
    ("fault", "code", "charged"),
    [
        (server_error(), "service_failed", False),
        (overloaded(), "service_failed", False),
        (Status(502, None, "Bad gateway."), "service_failed", True),
        (rate_limited(5), "rate_limited", False),
        (no_quota(), "quota_exceeded", False),
        (forbidden(), "key_refused", False),
        (content_refused(), "content_filtered", False),
        (login_page(), "service_answer", True),
        (Page(b'{"audio": null}', "application/json"), "service_answer", True),
        (Page(b"ID3 is all there is", "audio/mpeg"), "service_answer", True),
        (Page(b"<html>", "audio/wav"), "service_answer", True),
        (Page(b"RIFF\0\0\0\0WAVE", "audio/wav"), "service_answer", True),
        (Page(b"\x01\x02" * 5000, "audio/pcm;rate=12345"), "service_answer", True),
        (Page(b"\x01", "audio/pcm"), "service_answer", True),
        (Empty(), "service_answer", True),
        (Cut(), "service_unreachable", True),
        (Cut(reset=False), "service_unreachable", True),
        (Cut(after=3), "service_unreachable", True),
        (Cut(after_bytes=4801, reset=False), "service_unreachable", True),
    ],
)
async def test_each_fault_has_its_own_error_is_asked_once_and_holds_nothing_of_what_was_to_be_said(
    service: OpenAiService,
    speaking: Speaking,
    caplog: pytest.LogCaptureFixture,
    fault: Any,
    code: str,
    charged: bool,
) -> None:
    """A request that may have been processed is charged, on the high side; one that was refused is not."""
    caplog.set_level(logging.DEBUG)
    account = Account()
    service.speech.fault(fault)
    async with asyncio.timeout(WAIT_S):
        error = await refusal(speaking(service))
    assert error.code == code
    assert len(service.speech.requests) == 1
    assert [(usage.estimated, usage.given_up) for usage in account.usages] == [(True, False)] * charged
    assert "secret" not in error.message + caplog.text
    assert KEY not in error.message + caplog.text


async def test_a_service_that_wants_to_be_asked_later_says_when(service: OpenAiService, speaking: Speaking) -> None:
    service.speech.fault(rate_limited(5))
    error = await refusal(speaking(service))
    assert isinstance(error, ServiceError)
    assert error.refused
    assert error.retry_after_s == 5


async def test_a_wrong_key_is_named_as_what_is_wrong(service: OpenAiService, speaking: Speaking) -> None:
    error = await refusal(speaking(service, key="sk-wrong"))
    assert error.code == "key_refused"
    assert "OPENAI_API_KEY" in error.message


async def test_a_model_that_does_not_exist_is_named(service: OpenAiService, speaking: Speaking) -> None:
    error = await refusal(speaking(service, "gpt-9-tts"))
    assert error.code == "model_not_found"
    assert "gpt-9-tts" in error.message


async def test_a_certificate_that_nobody_trusts_is_a_matter_of_tls(speaking: Speaking) -> None:
    async with OpenAiService(tls=True) as service:
        error = await refusal(speaking(service))
        assert error.code == "service_unreachable"
        assert "TLS" in error.message
        assert not service.speech.requests


async def test_a_service_that_is_gone_cannot_be_reached_and_works_when_it_is_back(
    service: OpenAiService, speaking: Speaking
) -> None:
    voice = speaking(service)
    await text_to_speech("Hi.", voice)
    await service.kill()
    assert (await refusal(voice)).code == "service_unreachable"
    await service.revive()
    assert len(await text_to_speech("Hi.", voice))


async def test_what_came_before_a_cut_is_given_and_counted(service: OpenAiService, speaking: Speaking) -> None:
    account = Account()
    service.speech.fault(Cut(after=3, reset=False))
    pieces: list[np.ndarray] = []

    async def listen() -> None:
        async for piece in speaking(service).speak(TEXT):
            pieces.append(piece)

    with pytest.raises(ServiceError):
        await listen()
    assert np.array_equal(np.concatenate(pieces), SPOKEN[: 300 * MS])
    assert account.usages[0].audio_s == 0.3


# --- giving up


async def test_closing_reaches_the_service_at_once(service: OpenAiService, speaking: Speaking) -> None:
    account = Account()
    service.speech.fault(Stall(after=2))
    async with asyncio.timeout(WAIT_S):
        async with aclosing(speaking(service).speak(TEXT)) as speech:
            async for _ in speech:
                break
            await service.speech.next_stalled()
        gone = await service.speech.next_gone()
    assert gone.chunks == 2
    assert [(usage.estimated, usage.given_up) for usage in account.usages] == [(True, True)]
    assert account.usages[0].characters == len(TEXT)
    assert account.usages[0].audio_s > 0


@pytest.mark.parametrize("after", [None, 2])
async def test_cancelling_whoever_waits_reaches_the_service_at_once(
    service: OpenAiService, speaking: Speaking, after: int | None
) -> None:
    account = Account()
    service.speech.fault(Stall(after=after))
    task = asyncio.create_task(text_to_speech(TEXT, speaking(service)))
    async with asyncio.timeout(WAIT_S):
        await service.speech.next_stalled()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await service.speech.next_gone()
    assert task.cancelled()
    assert [usage.given_up for usage in account.usages] == [True]
    assert len(service.speech.requests) == 1


async def test_of_a_long_text_that_is_given_up_the_rest_is_never_asked_for(
    service: OpenAiService, speaking: Speaking
) -> None:
    service.speech.fault(Stall(after=1))
    async with asyncio.timeout(WAIT_S), aclosing(speaking(service).speak("The ship sailed on. " * 600)) as speech:
        await anext(speech)
    await service.speech.next_gone()
    assert len(service.speech.requests) == 1


# --- connections


async def test_connections_can_be_opened_before_there_is_anything_to_say(
    service: OpenAiService, speaking: Speaking
) -> None:
    speaking(service).open_ahead()
    async with asyncio.timeout(WAIT_S):
        await service.model_list.next_request()
        await service.model_list.next_request()
    assert service.connections == 2
    assert not service.speech.requests


async def test_closing_one_voice_leaves_the_connections_to_the_others(
    service: OpenAiService, speaking: Speaking
) -> None:
    voice = speaking(service)
    await voice.close()
    assert len(await text_to_speech("Hi.", voice))


# --- voices of other services


def saying(answer: object) -> Callable[[str], Awaitable[object]]:
    """A server that answers this when it is asked for its voices."""

    async def get_json(path: str) -> object:
        assert path == "/audio/voices"
        if isinstance(answer, Exception):
            raise answer
        return answer

    return get_json


KOKORO_OLD = {"voices": ["af_heart", "bm_george", "jf_alpha", "narrator"]}
KOKORO = {"voices": [{"id": name, "name": name} for name in KOKORO_OLD["voices"]]}
SPEACHES = {
    "object": "list",
    "voices": [
        {"name": "af_heart", "language": "en-us", "gender": "female", "id": "af_heart"},
        {"name": "thorsten", "language": "de", "id": "thorsten"},
    ],
}


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (KOKORO_OLD, [("af_heart", "en"), ("bm_george", "en"), ("jf_alpha", "ja"), ("narrator", "mul")]),
        (KOKORO, [("af_heart", "en"), ("bm_george", "en"), ("jf_alpha", "ja"), ("narrator", "mul")]),
        (SPEACHES, [("af_heart", "en"), ("thorsten", "de")]),
        (["one", "two", "one"], [("one", "mul"), ("two", "mul")]),
    ],
)
async def test_the_voices_that_a_server_lists_can_be_chosen(
    compatible: OpenAiService, speaking: Speaking, answer: object, expected: list[tuple[str, str]]
) -> None:
    voice = speaking(compatible, "kokoro")
    await voice.find_voices(saying(answer))
    assert [(known.id, known.language) for known in voice.voices] == expected
    await text_to_speech("Hi.", voice)
    await text_to_speech("Hi.", voice, voice=expected[1][0])
    assert [request.body["voice"] for request in compatible.speech.requests] == [expected[0][0], expected[1][0]]


@pytest.mark.parametrize(
    "answer",
    [
        ServiceError("There is no such page.", code="model_not_found"),
        {"detail": "Not Found"},
        {"voices": "alloy"},
        {"voices": [None, 3, {}, {"id": ""}, {"id": ["x"]}]},
        None,
        7,
    ],
)
async def test_a_server_that_does_not_list_its_voices_speaks_with_the_one_that_is_configured(
    compatible: OpenAiService, speaking: Speaking, answer: object
) -> None:
    configured, unknown = speaking(compatible, "kokoro", "af_sky"), speaking(compatible, "kokoro")
    for voice in (configured, unknown):
        await voice.find_voices(saying(answer))
        assert len(voice.voices) == 1
        await text_to_speech("Hi.", voice)
    assert [request.body["voice"] for request in compatible.speech.requests] == ["af_sky", "alloy"]


@pytest.mark.looptime
async def test_a_server_that_never_says_which_voices_it_has_is_not_waited_for() -> None:
    async def get_json(path: str) -> object:
        await asyncio.Event().wait()
        return None

    voice = SpeechService(ServiceClient("local", "http://127.0.0.1:1/v1"), "kokoro", "af_sky", official=False)
    await voice.find_voices(get_json)
    assert [known.id for known in voice.voices] == ["af_sky"]


async def test_the_voice_that_is_configured_comes_first_whether_it_is_listed_or_not(
    compatible: OpenAiService, speaking: Speaking
) -> None:
    for configured, expected in (("bm_george", 4), ("af_sky+af_bella", 5)):
        voice = speaking(compatible, "kokoro", configured)
        await voice.find_voices(saying(KOKORO))
        assert voice.voices[0].id == configured
        assert len(voice.voices) == expected


async def test_openai_is_not_asked_for_its_voices(service: OpenAiService, speaking: Speaking) -> None:
    voice = speaking(service)
    before = list(voice.voices)
    await voice.find_voices(saying({"voices": ["somebody"]}))
    assert list(voice.voices) == before


async def test_the_voice_follows_the_language(compatible: OpenAiService, speaking: Speaking) -> None:
    voice = speaking(compatible, "piper", "af_heart")
    await voice.find_voices(saying(SPEACHES))
    await text_to_speech("Hallo.", voice, language="de")
    await text_to_speech("Hallo.", voice, voice="af_heart", language="de")
    await text_to_speech("Hello.", voice, voice="thorsten", language="en")
    await text_to_speech("Hello.", voice)
    assert [request.body["voice"] for request in compatible.speech.requests] == [
        "thorsten",
        "thorsten",
        "af_heart",
        "af_heart",
    ]


async def test_a_language_that_no_voice_speaks_is_refused_before_anything_is_asked(
    compatible: OpenAiService, speaking: Speaking
) -> None:
    voice = speaking(compatible, "kokoro", "af_heart")
    error = await refusal(voice, "Hallo.", language="de")
    assert error.code == "language_not_spoken"
    assert "'de'" in error.message
    assert not compatible.connections

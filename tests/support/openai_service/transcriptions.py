"""POST /v1/audio/transcriptions: an uploaded recording becomes the text that the test has written."""

import math
import re
from collections import deque
from dataclasses import dataclass

import numpy as np
from aiohttp import web
from numpy.typing import NDArray
from openai.types.audio import (
    Transcription,
    TranscriptionSegment,
    TranscriptionTextDeltaEvent,
    TranscriptionTextDoneEvent,
    TranscriptionVerbose,
    TranscriptionWord,
)
from openai.types.audio.transcription import Logprob, Usage, UsageDuration, UsageTokens, UsageTokensInputTokenDetails
from openai.types.audio.transcription_text_delta_event import Logprob as DeltaLogprob
from openai.types.audio.transcription_text_done_event import Usage as DoneUsage
from openai.types.audio.transcription_verbose import Usage as VerboseUsage

from openai_service.endpoint import MAX_KEPT, Endpoint
from openai_service.exchange import Answer, Exchange, House, Piece, event
from openai_service.names import DURATION_MODELS
from openai_service.transcription_rules import check_transcription
from openai_service.uploads import Upload, read_upload

USUAL_TEXT = "What time is it?"
_TOKEN = re.compile(r"\s*\S+")


@dataclass(frozen=True, slots=True)
class Heard:
    """A recording that has been transcribed: what was asked, and int16 samples at `rate_hz`."""

    model: str
    language: str | None
    prompt: str | None
    samples: NDArray[np.int16]
    rate_hz: int
    filename: str


class Transcriptions(Endpoint):
    """Answers with the queued texts, then with `usual`."""

    def __init__(self, house: House) -> None:
        super().__init__(house)
        self.usual = USUAL_TEXT
        self.delay_s = 0.0
        """How long a transcription takes that does not say it itself."""
        self.logprob = -0.05
        """Of every token, for those who ask for it."""
        self.no_speech_prob = 0.01
        """Of every segment of verbose answers."""
        self.received: list[Heard] = []
        """The recordings, in order of arrival."""
        self._texts: deque[tuple[str, float | None]] = deque(maxlen=MAX_KEPT)

    def reply(self, text: str, *, delay_s: float | None = None) -> None:
        """The next recording that has no other text yet says this."""
        self._texts.append((text, delay_s))

    async def answer(self, request: web.Request, exchange: Exchange) -> Answer:
        """Checks the form, keeps the recording and takes the next text."""
        upload = await read_upload(request)
        exchange.body = fields = upload.fields
        check_transcription(fields, self.house.models, self.house.compatible)
        language = fields.get("language")
        heard = Heard(fields["model"], language, fields.get("prompt"), upload.samples, upload.rate_hz, upload.filename)
        self.received.append(heard)
        text, delay_s = self._texts.popleft() if self._texts else (self.usual, None)
        delay_s = self.delay_s if delay_s is None else delay_s
        if fields.get("stream") is True and fields["model"] != "whisper-1":
            events = [event(one) for one in self._events(text, upload)]
            pieces = [Piece(one, 0.0 if index else delay_s) for index, one in enumerate(events)]
            return Answer("text/event-stream; charset=utf-8", pieces)
        content_type, body = self._whole(text, upload)
        return Answer(content_type, [Piece(body.encode(), delay_s)], streamed=False)

    def _whole(self, text: str, upload: Upload) -> tuple[str, str]:
        stop = _clock(upload.seconds)
        match upload.fields.get("response_format", "json"):
            case "text":
                return "text/plain; charset=utf-8", text + "\n"
            case "srt":
                return "text/plain; charset=utf-8", f"1\n00:00:00,000 --> {stop.replace('.', ',')}\n{text}\n\n\n"
            case "vtt":
                return "text/vtt; charset=utf-8", f"WEBVTT\n\n00:00:00.000 --> {stop}\n{text}\n\n"
            case "verbose_json":
                return "application/json", self._verbose(text, upload).model_dump_json(exclude_unset=True)
        answer = Transcription(text=text, usage=_usage(text, upload))
        if "logprobs" in upload.fields.get("include", ()):
            answer.logprobs = [
                Logprob(token=token, logprob=self.logprob, bytes=list(token.encode())) for token in _TOKEN.findall(text)
            ]
        return "application/json", answer.model_dump_json(exclude_unset=True)

    def _verbose(self, text: str, upload: Upload) -> TranscriptionVerbose:
        answer = TranscriptionVerbose(
            duration=round(upload.seconds, 2),
            language="english",
            text=text,
            usage=VerboseUsage(type="duration", seconds=math.ceil(upload.seconds)),
        )
        wanted = upload.fields.get("timestamp_granularities", ["segment"])
        words = _TOKEN.findall(text)
        if "word" in wanted:
            each_s = upload.seconds / max(1, len(words))
            answer.words = [
                TranscriptionWord(word=word.strip(), start=round(at * each_s, 2), end=round((at + 1) * each_s, 2))
                for at, word in enumerate(words)
            ]
        if "segment" in wanted:
            answer.segments = [
                TranscriptionSegment(
                    id=0,
                    avg_logprob=self.logprob,
                    compression_ratio=1.0,
                    end=round(upload.seconds, 2),
                    no_speech_prob=self.no_speech_prob,
                    seek=0,
                    start=0.0,
                    temperature=upload.fields.get("temperature", 0.0),
                    text=text,
                    tokens=list(range(len(words))),
                )
            ]
        return answer

    def _events(self, text: str, upload: Upload) -> list[str]:
        logs = "logprobs" in upload.fields.get("include", ())
        found = []
        for token in _TOKEN.findall(text):
            delta = TranscriptionTextDeltaEvent(type="transcript.text.delta", delta=token)
            if logs:
                delta.logprobs = [DeltaLogprob(token=token, logprob=self.logprob, bytes=list(token.encode()))]
            found.append(delta.model_dump_json(exclude_unset=True))
        done = TranscriptionTextDoneEvent(type="transcript.text.done", text=text)
        usage = _usage(text, upload)
        if isinstance(usage, UsageTokens):
            done.usage = DoneUsage.model_validate(usage.model_dump())
        return [*found, done.model_dump_json(exclude_unset=True)]


def _usage(text: str, upload: Upload) -> Usage:
    """Seconds are rounded up; a second is ten tokens, a word one."""
    if upload.fields["model"] in DURATION_MODELS:
        return UsageDuration(type="duration", seconds=math.ceil(upload.seconds))
    heard, said = math.ceil(upload.seconds * 10), len(_TOKEN.findall(text))
    asked = len(_TOKEN.findall(upload.fields.get("prompt", "")))
    return UsageTokens(
        type="tokens",
        input_tokens=heard + asked,
        output_tokens=said,
        total_tokens=heard + asked + said,
        input_token_details=UsageTokensInputTokenDetails(audio_tokens=heard, text_tokens=asked),
    )


def _clock(seconds: float) -> str:
    whole = int(seconds)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}.{round(seconds % 1 * 1000) % 1000:03}"

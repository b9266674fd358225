"""The whole product: the real server with its models, a real browser, a recording of a voice as its microphone.

Times are positions in the sound that the page rendered, on the clock of its AudioContext, and not on the wall.
"""

import asyncio
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
import pytest
from app.audio.pcm import from_float
from app.audio.resample import resample
from app.audio.wav import read_audio, write_wav
from app.inference.store import ModelStore
from app.stt.embedded_whisper import WhisperRecognizer
from numpy.typing import NDArray
from page_stage import chromium, in_state, recording, visitor, wait_for
from playwright.sync_api import Page, expect
from real_server import RealServer

RATE_HZ = 48_000
PATIENCE_MS = 30_000
"""For what models do on a machine that is busy with other things."""

# What is read in two_cities.wav, and where, in seconds.
THE_TIMES = ("It was the best of times, it was the worst of times.", 1.0, 4.4)
BEFORE_US = ("We had everything before us, we had nothing before us.", 21.0, 24.0)

GREETING = (
    "Welcome aboard. The bay is calm this morning, and the sun is warm on the water. The crew has washed the deck, "
    "and the cook has made fresh bread for everyone. While we wait for the wind, let me tell you where we will sail "
    "today. First we pass the old lighthouse, then the long white beach, and at noon we rest beside a small island."
)
"""Long enough to be spoken over."""
SETTINGS = {
    "GREETING": GREETING,
    "SYSTEM_PROMPT": "You are a friendly person.",
    "REPLY_STYLE": "Answer in one short, plain sentence with easy words.",
    "REPLY_MAX_TOKENS": "40",
}

WATCH = """
  window.seen = { messages: [] }; // what came, each with the time of the audio clock
  const now = () => seen.context?.currentTime ?? 0;
  window.AudioContext = class extends AudioContext {
    constructor(options) {
      super(options);
      seen.context = this;
    }
  };
  window.AudioWorkletNode = class extends AudioWorkletNode {
    constructor(context, name, options) {
      super(context, name, options);
      if (name === "ahoy-playback") seen.begun = now();
    }
  };
  window.WebSocket = class extends WebSocket {
    constructor(url) {
      super(url);
      this.addEventListener("message", ({ data }) => {
        if (typeof data === "string") seen.messages.push({ at_s: now(), ...JSON.parse(data) });
      });
    }
  };
"""


@pytest.fixture(scope="module")
def server() -> Iterator[RealServer]:
    with RealServer(SETTINGS) as running:
        yield running


@pytest.fixture(scope="module")
def understand() -> Iterator[Callable[[NDArray[np.float64], int], str]]:
    """What the project's own recogniser hears in a recording."""
    recognizer = WhisperRecognizer(ModelStore().path("whisper-tiny.en"), None)
    with ThreadPoolExecutor(1) as thread:  # Playwright's event loop occupies this one

        def words(wave: NDArray[np.float64], rate_hz: int) -> str:
            audio = resample(from_float(wave.astype(np.float32)), rate_hz, 16_000)
            return thread.submit(asyncio.run, recognizer.transcribe(audio, language="en")).result().text

        yield words
        thread.submit(asyncio.run, recognizer.close()).result()


def speech(part: tuple[str, float, float]) -> NDArray[np.int16]:
    """The part of the recording in which these words are read."""
    _, begin_s, end_s = part
    read = read_audio(ModelStore().path("test-speech") / "two_cities.wav", RATE_HZ)
    return read[int(begin_s * RATE_HZ) : int(end_s * RATE_HZ)]


def silence(seconds: float) -> NDArray[np.int16]:
    return np.zeros(int(seconds * RATE_HZ), np.int16)


@contextmanager
def someone(folder: Path, *sounds: NDArray[np.int16]) -> Iterator[Page]:
    """A visitor whose microphone hears these sounds, one after the other, from the moment it is opened."""
    file = folder / "microphone.wav"
    write_wav(file, np.concatenate((*sounds, silence(5))), RATE_HZ)
    hears = ("--use-fake-ui-for-media-stream", f"--use-file-for-fake-audio-capture={file}%noloop")
    with chromium(*hears) as browser, visitor(browser, init=WATCH) as page:
        yield page


def begin(page: Page, server: RealServer) -> None:
    """Open the page, press the button, wait until the greeting is heard."""
    page.goto(f"{server.url}?record=1")
    page.get_by_role("button", name="Start talking").click()
    expect(page.locator("#status")).to_have_text("Speaking", timeout=PATIENCE_MS)


def write(page: Page, text: str) -> None:
    page.get_by_label("Type instead of talking").fill(text)
    page.keyboard.press("Enter")


def arrived(page: Page, kind: str, **fields: object) -> dict[str, Any]:
    """The first message of this type with these fields, once it has come; with `at_s` of the audio clock."""
    wanted = {"type": kind, **fields}
    find = "(wanted) => seen.messages.find((one) => Object.keys(wanted).every((key) => one[key] === wanted[key]))"
    wait_for(page, find, wanted, patience_s=PATIENCE_MS / 1000)
    message: dict[str, Any] = page.evaluate(find, wanted)
    return message


def heard(page: Page, begin_s: float, end_s: float) -> tuple[NDArray[np.float64], int]:
    """What the page rendered between two times of the audio clock, and its rate."""
    wait_for(page, "(end) => seen.context.currentTime > end + 0.5", end_s)  # it is handed over in blocks
    wave, rate_hz = recording(page)
    begun_s = page.evaluate("seen.begun")
    return wave[round((begin_s - begun_s) * rate_hz) : round((end_s - begun_s) * rate_hz)], rate_hz


def answer_heard(page: Page) -> tuple[str, NDArray[np.float64], int]:
    """Once a reply has been spoken to its end: its text, its sound, the sound's rate. Its number is not known before:
    replies that were thrown away unheard have numbers, too."""
    done = arrived(page, "reply.done", interrupted=False)
    in_state(page, "activity", "listening")
    wave, rate_hz = heard(page, arrived(page, "audio.start", reply=done["reply"])["at_s"], done["at_s"] + 0.2)
    return done["text"], wave, rate_hz


def letters(text: str) -> str:
    """What is compared where any words may come: "tale" and "tail" sound alike."""
    return " ".join(re.sub(r"[^\w ]", "", text.lower()).split())


def word_errors(meant: str, understood: str) -> int:
    """How many words were changed, left out or put in. Case, punctuation and apostrophes cannot be heard."""
    found = jiwer.process_words(letters(meant), letters(understood))
    return found.substitutions + found.deletions + found.insertions


def test_what_is_said_is_written_and_answered_aloud(
    server: RealServer, tmp_path: Path, understand: Callable[[NDArray[np.float64], int], str]
) -> None:
    with someone(tmp_path, silence(3.5), speech(THE_TIMES)) as page:
        begin(page, server)
        page.get_by_role("button", name="Stop the answer").click()
        expect(page.locator(".assistant.interrupted")).to_be_visible()
        expect(page.locator(".user:not(.partial)")).to_be_visible(timeout=PATIENCE_MS)
        text, wave, rate_hz = answer_heard(page)
        written = page.locator(".user .said").all_text_contents()
        assert word_errors(THE_TIMES[0], " ".join(written)) <= 1  # of twelve
        assert page.locator(".assistant .said").last.text_content() == text
        assert jiwer.cer(letters(text), letters(understand(wave, rate_hz))) <= 0.2
        assert page.evaluate("ahoy.counts.playback.dropped") == 0
        expect(page.locator("#latency .total")).to_have_text(re.compile(r"^\d"))


def test_speaking_over_an_answer_stops_it(
    server: RealServer, tmp_path: Path, understand: Callable[[NDArray[np.float64], int], str]
) -> None:
    with someone(tmp_path, silence(3.5), speech(BEFORE_US)) as page:
        begin(page, server)
        greeted_s = arrived(page, "audio.start", reply=1)["at_s"]
        cleared_s = arrived(page, "clear", reply=1)["at_s"]
        answered_s = arrived(page, "audio.start", turn=1)["at_s"]
        wave, rate_hz = heard(page, greeted_s, answered_s)
        cut = round((cleared_s - greeted_s) * rate_hz)
        assert np.abs(wave[:cut]).max() > 0.1  # it was audible
        assert len(wave) - cut > rate_hz  # a second at least, in which the visitor speaks
        assert not wave[cut + rate_hz // 10 :].any()  # silent within 100 ms of the order

        done = arrived(page, "reply.done", reply=1)
        assert done["interrupted"]
        assert GREETING.startswith(done["heard"])
        assert word_errors(done["heard"], understand(wave, rate_hz)) <= 2  # what is remembered is what was heard
        expect(page.locator(".assistant.interrupted .unheard")).to_contain_text("a small island.")
        written = page.locator(".user:not(.partial) .said").all_text_contents()
        assert word_errors(BEFORE_US[0], " ".join(written)) <= 1  # of ten: not even the first words are lost
        answer_heard(page)


def test_without_permission_it_says_so_and_answers_what_is_typed(server: RealServer) -> None:
    with chromium() as browser, visitor(browser, microphone=False, init=WATCH) as page:
        begin(page, server)
        alert = page.get_by_role("alert")
        expect(alert).to_contain_text("The microphone is not allowed")
        expect(alert).to_contain_text("Until then you can type.")
        write(page, "What do you like about the sea?")
        expect(page.locator(".user .said")).to_have_text("What do you like about the sea?", timeout=PATIENCE_MS)
        text, wave, _ = answer_heard(page)
        assert page.locator(".assistant .said").last.text_content() == text
        assert np.abs(wave).max() > 0.1


def test_a_server_that_is_killed_and_comes_back_is_found_again(server: RealServer, tmp_path: Path) -> None:
    with someone(tmp_path) as page:
        begin(page, server)
        server.kill()
        expect(page.locator("#status")).to_have_text(re.compile("^Reconnecting"))
        expect(page.locator("#hint")).to_have_text("The server does not answer. Trying again by itself.")
        server.start()
        wait_for(page, "ahoy.state.phase === 'live'", patience_s=PATIENCE_MS / 1000)
        page.evaluate("seen.messages = []")  # turns and replies are counted from one again
        write(page, "Are you back?")
        text, wave, _ = answer_heard(page)
        assert np.abs(wave).max() > 0.1
        assert page.locator(".assistant .said").last.text_content() == text
        expect(page.locator(".user .said").last).to_have_text("Are you back?")


def test_under_a_name_the_server_does_not_know_it_says_what_to_do(server: RealServer) -> None:
    with chromium("--host-resolver-rules=MAP elsewhere.test 127.0.0.1") as browser, visitor(browser) as page:
        page.goto(f"http://elsewhere.test:{server.port}/")
        page.get_by_role("button", name="Start talking").click()
        alert = page.get_by_role("alert")
        expect(alert).to_contain_text("The server does not know this address")
        expect(alert).to_contain_text(f"ALLOWED_ORIGINS=http://elsewhere.test:{server.port}")

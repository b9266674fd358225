"""The page's audio as pure code, run by the browser that runs it in life, checked against numpy.

The resampler and the playback queue are plain classes that the worklets only wrap; here they get exact samples.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from page_stage import PageServer, chromium, tone, visitor
from playwright.sync_api import Page

RESAMPLE = """([from, to, input, block]) => {
  const resampler = new Ahoy.StreamResampler(from, to);
  const output = new Float32Array(resampler.outputFor(block));
  const all = [];
  for (let at = 0; at < input.length; at += block) {
    const piece = Float32Array.from(input.slice(at, at + block));
    const written = resampler.push(piece, piece.length, output);
    all.push(...output.subarray(0, written));
  }
  return all;
}"""


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with PageServer() as server, chromium() as browser, visitor(browser) as opened:
        opened.goto(server.url)
        yield opened


def resampled(page: Page, from_hz: int, to_hz: int, hz: float, block: int = 128) -> NDArray[np.float64]:
    """A tone of full scale after the page's resampler, without its first and last 20 ms."""
    wave = np.sin(2 * np.pi * hz * np.arange(from_hz // 4) / from_hz)
    out = np.array(page.evaluate(RESAMPLE, [from_hz, to_hz, wave.tolist(), block]))
    return out[to_hz // 50 : -to_hz // 50]


def level_db(wave: NDArray[np.float64]) -> float:
    """Of a sine of full scale: 0 dB."""
    return float(20 * np.log10(np.sqrt(2 * np.mean(wave**2)) + 1e-12))


@pytest.mark.parametrize("rate_hz", [16_000, 22_050, 44_100, 48_000, 96_000, 192_000])
@pytest.mark.parametrize("hz", [100.0, 1000.0, 6000.0])
def test_a_voice_passes_unchanged_from_any_device_rate(page: Page, rate_hz: int, hz: float) -> None:
    out = resampled(page, rate_hz, 16_000, hz)
    assert level_db(out) == pytest.approx(0, abs=0.1)
    spectrum = np.abs(np.fft.rfft(out * np.hanning(len(out))))
    assert np.argmax(spectrum) * 16_000 / len(out) == pytest.approx(hz, abs=8)


@pytest.mark.parametrize(("rate_hz", "hz"), [(44_100, 8_400), (48_000, 9_000), (48_000, 15_000), (96_000, 40_000)])
def test_what_16_khz_cannot_hold_is_gone_and_not_folded_back(page: Page, rate_hz: int, hz: float) -> None:
    assert level_db(resampled(page, rate_hz, 16_000, hz)) < -75


@pytest.mark.parametrize("rate_hz", [44_100, 48_000, 96_000])
def test_upwards_no_image_of_the_tone_appears(page: Page, rate_hz: int) -> None:
    out = resampled(page, 16_000, rate_hz, 3000)
    assert level_db(out) == pytest.approx(0, abs=0.1)
    spectrum = np.abs(np.fft.rfft(out * np.blackman(len(out))))
    at_hz = np.fft.rfftfreq(len(out), 1 / rate_hz)
    image = spectrum[at_hz > 9000].max()
    assert 20 * np.log10(image / spectrum.max()) < -75


def test_blocks_of_any_size_give_the_same_samples(page: Page) -> None:
    whole = resampled(page, 44_100, 16_000, 700, block=8000)
    pieces = resampled(page, 44_100, 16_000, 700, block=37)
    assert np.allclose(whole, pieces, atol=1e-7)


@pytest.mark.parametrize("rate_hz", [16_000, 44_100, 48_000, 96_000])
def test_the_speaker_always_gets_the_frames_it_asks_for(page: Page, rate_hz: int) -> None:
    counts = page.evaluate(
        """(rate) => {
          const resampler = new Ahoy.StreamResampler(16000, rate);
          const output = new Float32Array(128);
          return Array.from({ length: 500 }, () => {
            const needed = resampler.inputFor(128);
            return resampler.push(new Float32Array(needed), needed, output);
          });
        }""",
        rate_hz,
    )
    assert set(counts) == {128}


QUEUE = """(steps) => {
  const queue = new Ahoy.PlaybackQueue();
  const heard = [];
  for (const [what, value, samples] of steps) {
    if (what === "add") queue.add(value, new Int16Array(samples)); // a number is that much silence
    else if (what === "end") queue.end(value);
    else if (what === "clear") queue.clear();
    else if (what === "hold") queue.held = value;
    else {
      const block = new Float32Array(80);
      for (let left = value; left > 0; left -= 80) {
        queue.read(block, 80);
        heard.push(...block);
      }
    }
  }
  return { heard, finished: queue.finished, underruns: queue.underruns, dropped: queue.dropped };
}"""


def queue(page: Page, *steps: tuple[Any, ...]) -> tuple[NDArray[np.float64], dict[str, Any]]:
    """Run the steps on a PlaybackQueue: what was heard, and the rest of what it knows."""
    listed = [[one.tolist() if isinstance(one, np.ndarray) else one for one in step] for step in steps]
    result = page.evaluate(QUEUE, listed)
    return np.array(result.pop("heard")), result


def biggest_step(wave: NDArray[np.float64]) -> float:
    return float(np.abs(np.diff(wave)).max())


SMOOTH = biggest_step(tone(0.1) / 32768) * 1.2


def test_pieces_join_without_a_gap(page: Page) -> None:
    sound = tone(0.4)
    heard, told = queue(
        page, *[("add", 1, sound[at : at + 320]) for at in range(0, 6400, 320)], ("end", 1), ("read", 6400)
    )
    assert np.allclose(heard[80:-80], sound[80:-80] / 32768, atol=1e-6)
    assert told["finished"] == [{"reply": 1, "played": 6400}]


def test_clear_is_silent_within_5_ms_and_counts_what_was_heard(page: Page) -> None:
    heard, told = queue(page, ("add", 1, tone(2)), ("read", 1600), ("clear",), ("read", 1600))
    assert not heard[1680:].any()
    assert biggest_step(heard) <= SMOOTH
    assert told["finished"] == [{"reply": 1, "played": 1680}]


def test_what_is_cleared_before_it_sounds_was_not_heard_at_all(page: Page) -> None:
    heard, told = queue(page, ("add", 1, tone(0.02)), ("clear",), ("read", 1600))
    assert not heard.any()
    assert told["finished"] == [{"reply": 1, "played": 0}]


def test_a_queue_that_runs_dry_fades_out_and_comes_back_without_a_click(page: Page) -> None:
    sound = tone(1)
    heard, told = queue(
        page, ("add", 1, sound[:1650]), ("read", 2400), ("add", 1, sound[1650:4850]), ("end", 1), ("read", 3200)
    )
    assert biggest_step(heard) <= SMOOTH
    assert not heard[1650:2400].any()
    assert told["underruns"] == 1
    assert told["finished"] == [{"reply": 1, "played": 4850}]


def test_held_it_plays_on_at_a_fifth_and_comes_back(page: Page) -> None:
    heard, _ = queue(
        page, ("add", 1, tone(2)), ("read", 3200), ("hold", True), ("read", 3200), ("hold", False), ("read", 3200)
    )
    loud, held, again = (np.abs(heard[at : at + 1600]).max() for at in (1600, 4800, 8000))
    assert held / loud == pytest.approx(0.2, abs=0.01)
    assert again == pytest.approx(loud, rel=0.01)
    assert biggest_step(heard) <= SMOOTH


def test_the_next_reply_after_a_clear_is_counted_from_its_own_beginning(page: Page) -> None:
    heard, told = queue(
        page,
        ("add", 1, tone(1)),
        ("read", 1600),
        ("clear",),
        ("add", 2, tone(0.2, hz=300)),
        ("end", 2),
        ("read", 8000),
    )
    assert told["finished"] == [{"reply": 1, "played": 1680}, {"reply": 2, "played": 3200}]
    assert biggest_step(heard) <= SMOOTH


def test_audio_beyond_the_queue_is_dropped_and_counted(page: Page) -> None:
    _, told = queue(page, ("add", 1, 15 * 16_000), ("add", 1, 15 * 16_000))
    assert told["dropped"] == 10 * 16_000


@pytest.mark.parametrize(
    ("written", "url"),
    [
        ("localhost:8000", "ws://localhost:8000/ws"),
        ("https://example.org", "wss://example.org/ws"),
        ("wss://example.org/voice/ws", "wss://example.org/voice/ws"),
        (" ws://127.0.0.1:8000/ws ", "ws://127.0.0.1:8000/ws"),
        ("ftp://example.org", None),
        ("http://", None),
    ],
)
def test_an_address_is_understood_as_people_write_it(page: Page, written: str, url: str | None) -> None:
    assert page.evaluate("(written) => Ahoy.address.socketUrl(written)", written) == url

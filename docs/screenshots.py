"""Makes the pictures of the README, docs/images/page-*.png, from a real conversation with the real page.

    .venv/bin/python docs/screenshots.py

The product's own voice asks the questions, through the browser's microphone. What is answered is up to the language
model, and a little different each time: look at the pictures before they are committed.
"""

import asyncio
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from app.audio.wav import write_wav
from app.tts.hibari import HibariVoice
from numpy.typing import NDArray
from playwright.sync_api import expect

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "tests" / "support"))

from page_stage import chromium, visitor  # noqa: E402 (they are found only now)
from real_server import RealServer  # noqa: E402

IMAGES = REPOSITORY / "docs" / "images"
MAX_BYTES = 300_000
DESKTOP = {"width": 1080, "height": 680}
PHONE = {"width": 390, "height": 844}
PATIENCE_MS = 30_000
SETTINGS = {"REPLY_STYLE": "Answer in one short, plain sentence with easy words."}  # so that it fits a picture
SAID = ((4.0, "Tell me about lighthouses."), (4.0, "What do you like about the sea?"))
"""Silence in seconds before each question, and the question. The second one is asked over the first answer."""


async def questions() -> tuple[NDArray[np.int16], int]:
    """All that is said, as int16 mono, and its rate in Hz."""
    voice = HibariVoice()
    sounds: list[NDArray[np.int16]] = []
    for pause_s, text in SAID:
        sounds.append(np.zeros(int(pause_s * voice.rate_hz), np.int16))
        sounds += [chunk async for chunk in voice.speak(text)]
    sounds.append(np.zeros(5 * voice.rate_hz, np.int16))
    await voice.close()
    return np.concatenate(sounds), voice.rate_hz


def take_pictures(folder: Path) -> None:
    """One conversation, and three looks at it while the second answer is spoken."""
    microphone = folder / "microphone.wav"
    with ThreadPoolExecutor(1) as thread:
        write_wav(microphone, *thread.submit(asyncio.run, questions()).result())
    hears = ("--use-fake-ui-for-media-stream", f"--use-file-for-fake-audio-capture={microphone}%noloop")
    IMAGES.mkdir(exist_ok=True)
    with RealServer(SETTINGS) as server, chromium(*hears) as browser, visitor(browser, viewport=DESKTOP) as page:
        page.goto(server.url)
        page.get_by_role("button", name="Start talking").click()
        said = page.locator(".user:not(.partial)")
        expect(said).to_have_count(len(SAID), timeout=PATIENCE_MS)
        expect(page.locator("#status")).to_have_text("Speaking", timeout=PATIENCE_MS)
        for name, size, scheme in (("light", DESKTOP, "light"), ("dark", DESKTOP, "dark"), ("phone", PHONE, "light")):
            page.set_viewport_size(size)
            page.emulate_media(color_scheme=scheme)
            page.wait_for_timeout(700)  # what moves comes to rest
            page.screenshot(path=IMAGES / f"page-{name}.png")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        take_pictures(Path(temporary))
    for image in sorted(IMAGES.glob("page-*.png")):
        size = image.stat().st_size
        print(f"{image.relative_to(REPOSITORY)}  {size // 1000} kB")
        if size > MAX_BYTES:
            sys.exit(f"{image.name} is larger than {MAX_BYTES // 1000} kB")

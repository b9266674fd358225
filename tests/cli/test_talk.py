"""`ahoy talk` as people start it: a process, its output, its exit code."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
import pytest
from app.audio.wav import read_audio, write_wav
from app.cli import main
from app.inference.store import ModelStore
from app.stt.embedded_whisper import WhisperRecognizer

AHOY = str(Path(sys.executable).with_name("ahoy"))
RATE_HZ = 16_000
SCRIPTED = {
    "STT_PROVIDER": "scripted",
    "LLM_PROVIDER": "scripted",
    "TTS_PROVIDER": "scripted",
    "SCRIPTED_FIRST_TOKEN_MS": "20",
    "SCRIPTED_TOKEN_MS": "1",
    "SCRIPTED_TOKENS": "9",
    "SCRIPTED_AUDIO_MS": "400",
    "GREETING": "Ahoy there!",
}
UNDERSTOOD = "Tell me more."
ANSWERED = "Well, the first words ever meant for a telephone"
PARTS = {
    "best.wav": ("two_cities", 0.8, 4.9, "It was the best of times, it was the worst of times."),
    "nothing.wav": ("two_cities", 21.0, 24.4, "We had everything before us, we had nothing before us."),
}
"""Pieces of the recordings: each is one turn."""


Command = Callable[..., tuple[int, str, str]]


def ahoy(*arguments: object, typed: str = "", folder: Path | None = None, **variables: str) -> tuple[int, str, str]:
    """Run the command to its end: exit code, standard output, standard error."""
    done = subprocess.run(  # noqa: S603 (our own command)
        [AHOY, *map(str, arguments)],
        input=typed,
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, **variables},
        timeout=100,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def words(text: str) -> str:
    return " ".join(re.sub(r"[^a-z0-9' ]", " ", text.lower().replace("-", " ")).split())


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the pieces as files, as somebody would have recorded them."""
    folder = tmp_path_factory.mktemp("questions")
    for name, (source, begin_s, end_s, _) in PARTS.items():
        whole = read_audio(ModelStore().path("test-speech") / f"{source}.wav", RATE_HZ)
        write_wav(folder / name, whole[round(begin_s * RATE_HZ) : round(end_s * RATE_HZ)], RATE_HZ)
    return folder


async def test_recordings_are_understood_answered_and_the_answers_written(questions: Path, tmp_path: Path) -> None:
    out = tmp_path / "answer.wav"
    code, printed, problems = ahoy("talk", *(questions / name for name in PARTS), "--fast", "--json", "--out", out)
    assert (code, problems) == (0, "")
    told: dict[str, Any] = json.loads(printed)
    assert told["audio"] == str(out)
    turns = told["turns"]
    assert [turn["number"] for turn in turns] == [1, 2]
    for turn, (*_, said) in zip(turns, PARTS.values(), strict=True):
        assert jiwer.wer(words(said), words(turn["said"])) <= 0.2
        assert turn["heard"] == turn["reply"] != ""
        assert not turn["interrupted"]
        assert turn["latency"]["voice_to_voice_ms"] > 0
    replies = " ".join(turn["reply"] for turn in turns)
    assert jiwer.wer(words(replies), words(await transcribed(out))) <= 0.3


async def transcribed(path: Path) -> str:
    """What the project's own recogniser hears in a file, piece by piece where it is silent or long."""
    recogniser = WhisperRecognizer(ModelStore().path("whisper-tiny.en"), None)
    try:
        audio = read_audio(path, RATE_HZ)
        texts = []
        for start in range(0, len(audio), 25 * RATE_HZ):
            texts.append((await recogniser.transcribe(audio[start : start + 25 * RATE_HZ], language="en")).text)
        return " ".join(texts)
    finally:
        await recogniser.close()


def test_plain_output_has_what_was_said_the_answer_and_where_the_time_went(questions: Path) -> None:
    code, printed, problems = ahoy("talk", questions / "best.wav", "--fast", **SCRIPTED)
    assert (code, problems) == (0, "")
    said, answer, latency = printed.splitlines()
    assert said == f"You:  {UNDERSTOOD}"
    assert answer == f"Ahoy: {ANSWERED}"
    assert re.fullmatch(
        r" +\(\d+ ms: endpointing \d+, recognition \d+, model \d+, speech \d+, engine \d+(, begun in the pause)?\)",
        latency,
    )


def test_a_greeting_is_spoken_if_it_is_asked_for(questions: Path, tmp_path: Path) -> None:
    code, printed, _ = ahoy("talk", questions / "best.wav", "--fast", "--greeting", "--json", **SCRIPTED)
    assert code == 0
    greeting, turn = json.loads(printed)["turns"]
    assert (greeting["number"], greeting["reply"], greeting["heard"]) == (0, "Ahoy there!", "Ahoy there!")
    assert turn["reply"] == ANSWERED


def test_typed_lines_are_answered_one_by_one(tmp_path: Path) -> None:
    out = tmp_path / "answer.wav"
    code, printed, problems = ahoy("talk", "--out", out, typed="Good morning.\n\n  \nAnd now?\n", **SCRIPTED)
    assert (code, problems) == (0, "")
    lines = [line for line in printed.splitlines() if not line.startswith("      (")]
    assert lines == [
        "Ahoy: Ahoy there!",
        "You:  Good morning.",
        f"Ahoy: {ANSWERED}",
        "You:  And now?",
        f"Ahoy: {ANSWERED}",
        f"The assistant's side is in {out}.",
    ]
    assert len(read_audio(out, RATE_HZ)) == 3 * RATE_HZ * 400 // 1000, "the greeting and two answers"


def test_on_a_terminal_it_asks_for_lines_until_ctrl_d() -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(  # noqa: S603 (our own command)
        [AHOY, "talk"], stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, **SCRIPTED}
    )
    os.write(ours, b"Good morning.\n\x04")
    printed, asked = process.communicate(timeout=60)
    os.close(ours)
    os.close(theirs)
    assert process.returncode == 0
    assert asked.decode().startswith("Type and press Enter; Ctrl-D ends the conversation.\nYou:  ")
    assert printed.decode().splitlines()[:2] == ["Ahoy: Ahoy there!", f"Ahoy: {ANSWERED}"]


def test_ctrl_c_ends_it_while_it_waits_for_a_line() -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(  # noqa: S603 (our own command)
        [AHOY, "talk"],
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **SCRIPTED},
        start_new_session=True,
    )
    assert process.stderr is not None
    asked = b""
    while not asked.endswith(b"You:  "):
        asked += process.stderr.read(1) or pytest.fail(f"it ended: {asked!r}")
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=30)
    os.close(ours)
    os.close(theirs)
    assert process.returncode == 130
    assert b"Traceback" not in told
    assert b"Fatal" not in told


def test_a_talk_that_is_broken_off_leaves_the_file_of_an_earlier_one(tmp_path: Path) -> None:
    (tmp_path / "said.wav").write_bytes(b"earlier")
    write_wav(tmp_path / "question.wav", np.zeros(60 * RATE_HZ, np.int16), RATE_HZ)
    process = subprocess.Popen(  # noqa: S603 (our own command)
        [AHOY, "talk", "question.wav", "--greeting", "--out", "said.wav"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        env={**os.environ, **SCRIPTED, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    assert process.stdout.readline().decode() == "Ahoy: Ahoy there!\n"
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130
    assert (tmp_path / "said.wav").read_bytes() == b"earlier"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["question.wav", "said.wav"]


def test_a_recording_without_speech_gives_no_turn(tmp_path: Path) -> None:
    write_wav(tmp_path / "silence.wav", np.zeros(2 * RATE_HZ, np.int16), RATE_HZ)
    code, printed, _ = ahoy("talk", "silence.wav", "--fast", "--json", folder=tmp_path, **SCRIPTED)
    assert (code, json.loads(printed)) == (0, {"turns": [], "audio": None})


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Command:
    """The command inside this process, which is quicker: what it says before it does anything is the same."""
    monkeypatch.chdir(tmp_path)
    for name, value in SCRIPTED.items():
        monkeypatch.setenv(name, value)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ahoy", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        assert isinstance(ended.value.code, int)
        return ended.value.code, *capfd.readouterr()

    return run


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("talk missing.wav", "missing.wav .*there is no such file"),
        ("talk letter.txt", "letter.txt cannot be read as sound"),
        ("talk empty.wav", "empty.wav "),
        ("talk .", r"\. cannot be read as sound"),
        ("talk good.wav missing.wav", "missing.wav .*there is no such file"),
        ("talk good.wav --voice nobody", "no voice 'nobody'; choose one of tone"),
        ("talk good.wav --language xx", "language 'xx' is not offered; choose one of .*en"),
        ("talk good.wav --out no/such/folder/a.wav", "no/such/folder/a.wav cannot be written"),
        ("talk good.wav --out .", r"\. cannot be written"),
        ("talk --out no/a.wav", "no/a.wav cannot be written"),
        ("serve --port 70000", "PORT: .*70000.*example: PORT=8000"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_exit_code_2(
    command: Command, arguments: str, told: str, tmp_path: Path
) -> None:
    (tmp_path / "letter.txt").write_text("Dear Sir or Madam")
    (tmp_path / "empty.wav").write_bytes(b"")
    write_wav(tmp_path / "good.wav", np.zeros(RATE_HZ, np.int16), RATE_HZ)
    code, printed, problem = command(*arguments.split())
    assert (code, printed) == (2, "")
    assert len(problem.splitlines()) == 1
    assert re.search(told, problem)


def test_a_mistake_ends_the_process_without_a_trace(tmp_path: Path) -> None:
    """And before anyone has talked, whose words would be lost."""
    code, printed, problem = ahoy("talk", "--out", tmp_path / "no" / "a.wav", typed="Hello?\n", **SCRIPTED)
    assert (code, printed) == (2, "")
    assert "Traceback" not in problem


def test_every_wrong_setting_is_one_line(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"PAUSE_MS": "soon", "PORT": "70000", "LOG_LEVEL": "loud"}.items():
        monkeypatch.setenv(name, value)
    code, printed, problems = command("talk")
    assert (code, printed) == (2, "")
    assert [line.split(":")[0] for line in problems.splitlines()] == ["LOG_LEVEL", "PAUSE_MS", "PORT"]


@pytest.mark.parametrize("arguments", ["--help", "talk --help", "serve --help", "models --help"])
def test_help_explains(command: Command, arguments: str) -> None:
    code, printed, problems = command(*arguments.split())
    assert (code, problems) == (0, "")
    assert "Usage: ahoy" in printed


def test_without_a_command_it_shows_the_help(command: Command) -> None:
    code, printed, problems = command()
    assert code == 2
    for name in ("serve", "talk", "models"):
        assert name in printed + problems


def test_in_real_time_it_takes_as_long_as_it_takes_and_gives_the_same(questions: Path, tmp_path: Path) -> None:
    out = tmp_path / "answer.wav"
    code, printed, _ = ahoy("talk", questions / "best.wav", "--json", "--out", out, **SCRIPTED)
    assert code == 0
    (turn,) = json.loads(printed)["turns"]
    assert (turn["said"], turn["reply"], turn["heard"]) == (UNDERSTOOD, ANSWERED, ANSWERED)
    assert np.abs(read_audio(out, RATE_HZ)).max() > 5000

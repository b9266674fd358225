"""A real process with wrong settings: it ends at once, says why in a line each, and shows no trace."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from app.core.config import REPOSITORY, Settings

BIN = Path(sys.executable).parent
WRONG = {
    "PORT": "0",
    "LOG_LEVEL": "loud",
    "WS_PATH": "/voice",
    "OPENAI_API_KEY": "sk-qxzjkvw private",
    "PUBLIC_BASE_URL": "voice.example.com",
}
EXPLAINED = [
    "LOG_LEVEL: 'loud' is not one of debug, info, warning, error; example: LOG_LEVEL=info",
    "OPENAI_API_KEY: the value has a space or another character in it that no key has; example: OPENAI_API_KEY=sk-...",
    "PORT: '0' is not a whole number from 1 to 65535; example: PORT=8000",
    "PUBLIC_BASE_URL: 'voice.example.com' does not begin with https:// or http://; "
    "example: PUBLIC_BASE_URL=https://voice.example.com",
    "WS_PATH: '/voice' is VOICE_WEBHOOK_PATH as well; example: WS_PATH=/ws",
]


def run(
    *command: str, directory: Path, from_file: tuple[str, ...] = (), **values: str
) -> subprocess.CompletedProcess[str]:
    """Run a command with these settings in its environment; those `from_file` are not in it, all others are empty,
    so that a developer's own file does not matter."""
    names = dict.fromkeys({name.upper() for name in Settings.model_fields} - {*from_file}, "")
    return subprocess.run(  # noqa: S603 (our own programs)
        [BIN / command[0], *command[1:]],
        cwd=directory,
        env=os.environ | names | values,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.mark.parametrize("command", [("serve",), ("talk",), ("models", "pull")])
def test_ahoy_ends_with_a_line_for_each_problem(command: tuple[str, ...], tmp_path: Path) -> None:
    ended = run("ahoy", *command, directory=tmp_path, **WRONG)
    assert ended.returncode in {1, 2}
    assert ended.stderr.splitlines() == EXPLAINED
    assert ended.stdout == ""


def test_uvicorn_ends_with_a_line_for_each_problem() -> None:
    ended = run("uvicorn", "app.main:app", directory=REPOSITORY / "backend", **WRONG)
    assert ended.returncode == 2
    assert ended.stderr.splitlines() == ["Ahoy cannot start.", *EXPLAINED]
    assert ended.stdout == ""


def test_the_file_in_the_directory_where_ahoy_is_started_is_read(tmp_path: Path) -> None:
    """Its misspelt names are pointed out before anything else happens."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        (tmp_path / ".env").write_text("GREETNG=Hello\nWS-PATH /talk\n")
        ended = run("ahoy", "serve", directory=tmp_path, PORT=str(port))
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[:2] == [
        ".env, line 1: GREETNG is not a setting; did you mean GREETING?",
        ".env, line 2: not of the form NAME=value, ignored",
    ]
    assert f"port {port}" in ended.stderr.splitlines()[2]


def test_a_wrong_value_in_the_file_and_on_the_command_line_is_explained_the_same_way(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("PAUSE_MS=ten\nPORT=8000\n")
    ended = run("ahoy", "serve", "--port", "99999", directory=tmp_path, from_file=("PAUSE_MS", "PORT"))
    assert ended.returncode == 2
    assert ended.stderr.splitlines() == [
        "PAUSE_MS: 'ten' is not a whole number from 32 to 1000; example: PAUSE_MS=32",
        "PORT: '99999' is not a whole number from 1 to 65535; example: PORT=8000",
    ]

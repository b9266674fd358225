"""What the log shows, and what it never shows."""

import json
import logging
from collections.abc import Iterator

import pytest
from app.core.config import load_settings
from app.core.logs import set_up_logging
from real_server import RealServer
from websockets.sync.client import connect

SCRIPTED = {
    "STT_PROVIDER": "scripted",
    "LLM_PROVIDER": "scripted",
    "TTS_PROVIDER": "scripted",
    "SCRIPTED_TOKENS": "3",
    "SCRIPTED_FIRST_TOKEN_MS": "0",
    "SCRIPTED_AUDIO_MS": "100",
    "GREETING": "",
}


@pytest.fixture(autouse=True)
def the_tests_own_logging() -> Iterator[None]:
    """Put back what `set_up_logging` changes for the whole process."""
    root = logging.getLogger()
    loggers = [root, *(logging.getLogger(name) for name in ("app", "uvicorn", "uvicorn.error", "httpx"))]
    before = [(logger, logger.level, logger.handlers[:]) for logger in loggers]
    yield
    for logger, level, handlers in before:
        logger.setLevel(level)
        logger.handlers[:] = handlers


@pytest.mark.parametrize(
    ("level", "shown"),
    [
        ("debug", ["app DEBUG", "app INFO", "app ERROR", "library INFO", "library ERROR"]),
        ("info", ["app INFO", "app ERROR", "library INFO", "library ERROR"]),
        ("warning", ["app ERROR", "library ERROR"]),
        ("error", ["app ERROR", "library ERROR"]),
    ],
)
def test_the_level_decides_what_is_shown_and_libraries_never_show_their_debug_lines(
    capsys: pytest.CaptureFixture[str], level: str, shown: list[str]
) -> None:
    set_up_logging(level)
    for name, logger in (("app", "app.core"), ("library", "uvicorn.error")):
        for severity in ("DEBUG", "INFO", "ERROR"):
            logging.getLogger(logger).log(logging.getLevelName(severity), "%s %s", name, severity)
    assert [line.partition(": ")[2] for line in capsys.readouterr().err.splitlines()] == shown


def test_a_line_says_when_how_grave_and_from_where(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging("info")
    logging.getLogger("app.engine").warning("The %s is low.", "battery")
    assert capsys.readouterr().err.endswith(" WARNING app.engine: The battery is low.\n")


def test_a_key_that_ends_up_in_a_log_line_is_not_readable(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging("debug")
    settings = load_settings(env_files=(), openai_api_key="sk-very-private")
    logging.getLogger("app").info("%s | %r | %s", settings, settings.model_dump(), settings.openai_api_key)
    assert "private" not in capsys.readouterr().err


def test_what_is_said_and_answered_is_not_in_the_servers_log_even_when_it_logs_most() -> None:
    with RealServer(SCRIPTED | {"LOG_LEVEL": "debug"}) as server:
        with connect(server.ws_url, proxy=None) as socket:
            socket.send(json.dumps({"type": "start"}))
            socket.send(json.dumps({"type": "text", "text": "my doctor is called Ramona"}))
            told = []
            while not told or told[-1]["type"] != "reply.done":
                message = socket.recv(timeout=20)
                if isinstance(message, str):
                    told.append(json.loads(message))
        log = server.log_text()
    assert told[-1]["text"] == "Well, the first"
    assert "Uvicorn running" in log
    assert "Ramona" not in log
    assert "the first" not in log

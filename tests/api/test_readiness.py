"""Before the models are loaded, and when they never will be."""

import asyncio
import threading
from pathlib import Path

import httpx
import pytest
from app.core.errors import ModelError
from app.engine import Engine
from app.inference.store import ModelStore
from app.vad.base import VoiceActivityDetector
from app_server import AppServer, scripted, wait_until
from wire_client import WireClient, answered_in_full


def get(server: AppServer, path: str) -> httpx.Response:
    return httpx.get(server.url + path, trust_env=False)


async def test_while_the_models_are_loaded_the_server_answers_and_conversations_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    go_on = threading.Event()
    load = Engine._load_vad

    def load_later(self: Engine) -> VoiceActivityDetector:
        go_on.wait(20)
        return load(self)

    monkeypatch.setattr(Engine, "_load_vad", load_later)
    with AppServer(load=False) as server:
        try:
            ready = await asyncio.to_thread(get, server, "/ready")
            assert (ready.status_code, ready.json()["ready"]) == (503, False)
            assert "being loaded" in ready.json()["reason"]
            health = await asyncio.to_thread(get, server, "/health")
            assert (health.status_code, health.json()["ready"]) == (200, False)
            page = await asyncio.to_thread(httpx.get, server.url, headers={"Accept": "text/html"}, trust_env=False)
            assert page.headers["content-type"].startswith("text/html")
            async with WireClient(server.ws_url) as early:
                await early.send({"type": "start", "greeting": False})
                go_on.set()
                await early.expect("started")
                await answered_in_full(early)
            assert (await asyncio.to_thread(get, server, "/ready")).status_code == 200
        finally:
            go_on.set()


def broken_model(setting: str, folder: Path) -> Path:
    """A model that looks right from outside, with something else inside."""
    if setting in {"vad_model", "turn_model"}:
        path = folder / "broken.onnx"
        path.write_bytes(b"this is no model")
    elif setting == "llm_model":
        path = folder / "broken.gguf"
        path.write_bytes(b"GGUF" + bytes(1000))
    else:
        path = folder / "broken"
        path.mkdir()
        for name in ("model.bin", "config.json", "tokenizer.json", "vocabulary.json"):
            (path / name).write_bytes(b"{}")
    return path


@pytest.mark.parametrize("setting", ["vad_model", "turn_model", "stt_model", "llm_model"])
async def test_a_model_that_cannot_be_loaded_is_named_and_the_server_still_answers(
    setting: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    provider = {"stt_model": {"stt_provider": "embedded"}, "llm_model": {"llm_provider": "embedded"}}.get(setting, {})
    path = broken_model(setting, tmp_path)
    with AppServer(scripted(**{setting: str(path)}, **provider), load=False) as server:
        await asyncio.to_thread(wait_until, lambda: server.engine.problem, "the problem")
        ready = await asyncio.to_thread(get, server, "/ready")
        assert (ready.status_code, ready.json()["ready"]) == (503, False)
        assert path.name in ready.json()["reason"]
        health = await asyncio.to_thread(get, server, "/health")
        assert (health.status_code, health.json()["status"], health.json()["ready"]) == (200, "ok", False)
        async with WireClient(server.ws_url) as client:
            error = await client.expect("error")
            assert (error["code"], error["fatal"]) == ("internal_error", True)
            assert str(tmp_path) not in error["message"], "where files lie is nobody's business out there"
            assert await client.closed() == 1011
    assert path.name in caplog.text
    assert "Traceback" not in caplog.text


def test_a_server_that_is_stopped_while_it_loads_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = threading.Event()
    go_on = threading.Event()
    load = Engine._load_turn

    def load_later(self: Engine) -> object:
        begun.set()
        go_on.wait(20)
        return load(self)

    monkeypatch.setattr(Engine, "_load_turn", load_later)
    with AppServer(load=False) as server:
        assert begun.wait(20)
        threading.Timer(0.2, go_on.set).start()
        server.stop()


def test_models_that_are_not_there_are_found_before_anything_starts(tmp_path: Path) -> None:
    assert ModelStore().present("silero-vad")
    with pytest.raises(ModelError, match=r"VAD_MODEL: .*does not exist"):
        Engine(scripted(vad_model=str(tmp_path / "missing.onnx")))

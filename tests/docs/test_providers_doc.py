"""docs/providers.md says what is so: each recipe can be used as it stands, each message is one that there is."""

import re
import ssl
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import app.providers
import pytest
from aiohttp.client_reqrep import ConnectionKey
from app.checkup import check
from app.core.config import OPENAI_URL, REPOSITORY, Settings, load_settings, unknown_variables
from app.core.errors import ServiceError
from app.engine import Engine
from app.remote import faults
from app_server import scripted
from openai_service import OpenAiService

DOCUMENT = (REPOSITORY / "docs" / "providers.md").read_text("utf-8")
CAPABILITIES = ("stt", "llm", "tts")


def recipes() -> Iterator[tuple[str, str]]:
    """The heading above each block of settings, and the block."""
    for section in re.split(r"(?m)^##+ ", DOCUMENT)[1:]:
        blocks = re.findall(r"(?ms)^```ini\n(.*?)^```", section)
        for number, block in enumerate(blocks):
            yield f"{section.splitlines()[0]} {number + 1}", block


RECIPES = dict(recipes())


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for field in Settings.model_fields:
        monkeypatch.delenv(field.upper(), raising=False)


@pytest.fixture(params=RECIPES, ids=list(RECIPES))
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / ".env"
    path.write_text(RECIPES[request.param], "utf-8")
    return path


def test_there_is_a_recipe_for_everybody_who_is_promised() -> None:
    named = " ".join(RECIPES)
    for who in ("OpenAI", "Azure", "Ollama", "vLLM", "graphics card", "Groq", "LM Studio", "llama.cpp", "Languages"):
        assert who in named


def test_a_recipe_can_be_put_into_env_as_it_stands(file: Path) -> None:
    settings = load_settings(env_files=(file,))
    assert unknown_variables((file,), {}) == []
    written = re.findall(r"(?m)^(\w+)=", file.read_text("utf-8"))
    assert all(getattr(settings, name.lower()) != Settings.model_fields[name.lower()].default for name in written)
    for capability in CAPABILITIES:
        assert settings.chain(capability)[-1].name == "embedded", "somebody takes over who needs no network"


def test_what_a_recipe_costs_is_known_or_said_to_be_unknown(file: Path) -> None:
    settings = load_settings(env_files=(file,))
    priced = {model for model, _, _ in settings.prices}
    for choice in (one for capability in CAPABILITIES for one in settings.chain(capability)):
        assert choice.name in {"embedded", "openai", "groq"} or choice.model in priced


async def test_a_recipe_works_with_a_strict_service_in_its_place(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_settings(env_files=(file,))
    async with AsyncExitStack() as stack:
        standing_in: dict[str, OpenAiService] = {}

        async def stand_in(name: str, key: Any, *, compatible: bool) -> str:
            good_key = key.get_secret_value() if key else None
            service = OpenAiService(key=good_key, compatible=compatible)
            standing_in[name] = await stack.enter_async_context(service)
            return service.base_url

        keys = dict(settings.service_keys)
        services = [(name, await stand_in(name, keys.get(name), compatible=True)) for name, _ in settings.services]
        changes: dict[str, Any] = {"services": tuple(services)}
        if settings.openai_api_key:
            address = await stand_in("openai", settings.openai_api_key, compatible=False)
            changes["openai_base_url"] = address
            monkeypatch.setattr(app.providers, "is_official", lambda url: url == address)
            assert is_openai_or_azure(settings.openai_base_url)
        if not standing_in:
            Engine(settings)  # the voice is there
            return
        for capability in CAPABILITIES:  # what is embedded is tested elsewhere, and takes its time
            chain = [
                one._replace(name="scripted") if one.name == "embedded" else one for one in settings.chain(capability)
            ]
            changes[f"{capability}_provider"] = tuple(chain)
        quick = {name: value for name, value in scripted() if name.startswith("scripted_") or name == "data_dir"}
        told = {name: getattr(settings, name) for name in settings.model_fields_set}
        engine = Engine(Settings(**{**told, **quick, **changes}))
        try:
            await engine.start()
            findings = await check(engine)
        finally:
            await engine.close()
        assert [one.words for one in findings if not one.works] == []
        asked = [one.provider for one in findings if one.provider != "scripted"]
        assert set(asked) == set(standing_in)
        for finding in findings:
            if service := standing_in.get(finding.provider):
                assert finding.model in models_asked_for(service)
                assert not service.refused


def is_openai_or_azure(url: str) -> bool:
    return url == OPENAI_URL or url.endswith(".openai.azure.com/openai/v1")


def models_asked_for(service: OpenAiService) -> set[str]:
    chat = {exchange.body["model"] for exchange in (*service.chat.requests, *service.speech.requests)}
    return chat | {heard.model for heard in service.transcriptions.received}


# --- what is said when something is wrong


def refusals() -> Iterator[ServiceError]:
    """One of each kind that an HTTP answer can be."""

    def refused(status: int, body: bytes = b"{}") -> ServiceError:
        return faults.refusal("SERVICE", status, {}, body, model="MODEL")

    yield from (refused(status) for status in (401, 403, 402, 429, 404, 308, 503, 418))
    yield refused(429, b'{"error": {"code": "insufficient_quota"}}')
    yield refused(400, b'{"error": {"code": "context_length_exceeded"}}')
    yield refused(400, b'{"error": {"code": "content_filter"}}')
    yield refused(400, b'{"error": {"code": "unsupported_value", "param": "temperature"}}')
    yield faults.nonsense("SERVICE", "'text/html' in place of a stream")
    yield faults.broken_off("SERVICE")
    yield faults.late("SERVICE", 20.0)


def unreachable() -> Iterator[ServiceError]:
    """One for each way in which a connection cannot be made."""
    key = ConnectionKey("host", 443, True, True, None, None, None)
    for error in (
        aiohttp.ClientConnectorError(key, OSError(111, "refused")),
        aiohttp.ClientConnectorDNSError(key, OSError(-2, "unknown")),
        aiohttp.ConnectionTimeoutError(),
        aiohttp.ClientConnectorSSLError(key, ssl.SSLError(1, "wrong version")),
        aiohttp.ClientConnectorCertificateError(key, ssl.CertificateError("self-signed")),
        aiohttp.ClientProxyConnectionError(key, OSError(111, "refused")),
    ):
        yield faults.unreachable("SERVICE", error)


@pytest.mark.parametrize("error", [*refusals(), *unreachable()], ids=lambda error: error.message[:60])
def test_every_message_about_a_service_is_explained(error: ServiceError) -> None:
    rows = [line for line in DOCUMENT.splitlines() if line.startswith(f"| {error.message.rstrip('.')}")]
    assert len(rows) == 1, error.message


def test_what_the_check_itself_says_is_explained() -> None:
    source = (REPOSITORY / "backend" / "app" / "checkup.py").read_text("utf-8")
    said = re.findall(r'_UselessError\("(.*?)"\)', source)
    assert len(said) >= 4
    explained = [words for words in said if f"| {words} |" in DOCUMENT]
    assert set(said) - set(explained) == {"It made no sound."}


def test_links_within_the_page_lead_somewhere() -> None:
    anchors = {
        re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in re.findall(r"(?m)^##+ (.*)", DOCUMENT)
    }
    assert set(re.findall(r"\]\(#([^)]*)\)", DOCUMENT)) <= anchors


def test_every_setting_that_is_named_exists() -> None:
    named = set(re.findall(r"`([A-Z][A-Z_]{2,})(?:=[^`]*)?`", DOCUMENT)) - {"NAME"}
    of_others = {
        "HTTPS_PROXY",
        "SSL_CERT_FILE",
        "NO_PROXY",
        "OLLAMA_KEEP_ALIVE",
        "OLLAMA_CONTEXT_LENGTH",
        "STT_MODEL_TTL",
    }
    assert named - of_others <= {field.upper() for field in Settings.model_fields}

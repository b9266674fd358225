"""What the server says over HTTP: the page, its files, how it is."""

import re
from collections.abc import Iterator

import httpx
import pytest
from app.api import page
from app_server import AppServer
from jsonschema import Draft202012Validator
from wire_schema import references

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"
HEALTH = {"name", "status", "version", "ready", "conversations", "uptime_s"}


@pytest.fixture(scope="module")
def server() -> Iterator[AppServer]:
    with AppServer() as running:
        yield running


@pytest.fixture
def client(server: AppServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, trust_env=False) as opened:
        yield opened


def test_a_browser_gets_the_page(client: httpx.Client) -> None:
    response = client.get("/", headers={"Accept": BROWSER})
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/html")
    assert response.content == (page.FRONTEND / "index.html").read_bytes()


@pytest.mark.parametrize("accept", ["*/*", "application/json", "", "text/plain"])
def test_everyone_else_gets_the_health_there(client: httpx.Client, accept: str) -> None:
    response = client.get("/", headers={"Accept": accept})
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert set(response.json()) == HEALTH


def test_no_cache_mixes_the_page_up_with_the_health(client: httpx.Client) -> None:
    for accept in (BROWSER, "application/json"):
        assert "accept" in client.get("/", headers={"Accept": accept}).headers["vary"].lower()


@pytest.mark.parametrize("path", ["/", "/health", "/ready", "/static/app.js"])
@pytest.mark.parametrize("accept", [BROWSER, "*/*"])
def test_head_gives_what_get_would_without_the_body(client: httpx.Client, path: str, accept: str) -> None:
    headers = {"Accept": accept, "Connection": "close"}
    head, get = client.head(path, headers=headers), client.get(path, headers=headers)
    assert head.status_code == get.status_code == 200
    assert head.content == b""
    for name in ("content-type", "cache-control"):
        assert head.headers[name] == get.headers[name]


def test_the_page_may_run_its_own_files_only_and_be_framed_by_nobody(client: httpx.Client) -> None:
    headers = client.get("/", headers={"Accept": BROWSER}).headers
    rules = dict(rule.strip().split(" ", 1) for rule in headers["content-security-policy"].split(";"))
    assert rules["default-src"] == "'self'"
    assert rules["frame-ancestors"] == "'none'"
    assert rules["base-uri"] == "'none'"
    assert "unsafe" not in headers["content-security-policy"]
    reachable = set(rules.pop("connect-src").split())
    assert reachable >= {"ws:", "wss:", "http:", "https:"}, "another server can be named in the settings"
    assert not any("http" in rule for rule in rules.values())
    assert "microphone=(self)" in headers["permissions-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"


def test_a_new_version_of_the_page_shows_at_once(client: httpx.Client) -> None:
    assert client.get("/", headers={"Accept": BROWSER}).headers["cache-control"] == "no-cache"
    first = client.get("/static/app.js")
    assert first.headers["cache-control"] == "no-cache"
    assert client.get("/static/app.js", headers={"If-None-Match": first.headers["etag"]}).status_code == 304


def test_the_state_is_never_taken_from_a_cache(client: httpx.Client) -> None:
    for path in ("/", "/health", "/ready"):
        assert client.get(path).headers["cache-control"] == "no-store"


def test_every_file_the_page_names_is_there_with_its_type(client: httpx.Client) -> None:
    html = client.get("/", headers={"Accept": BROWSER}).text
    named = re.findall(r'(?:src|href)="([^"#:]+)"', html)
    assert len(named) > 10
    types = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
    for path in named:
        response = client.get(f"/{path.lstrip('./')}")
        assert response.status_code == 200, path
        assert response.headers["content-type"].split(";")[0] == types[path[path.rindex(".") :]]
        assert response.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "path",
    [
        "/static/../../backend/pyproject.toml",
        "/static/%2e%2e/%2e%2e/backend/pyproject.toml",
        "/static/..%2f..%2fbackend%2fpyproject.toml",
        "/static/%2e%2e%5c%2e%2e%5cbackend%5cpyproject.toml",
        "/static/....//....//backend/pyproject.toml",
        "/static//etc/passwd",
        "/static/%2fetc%2fpasswd",
        "/static/app.js%00.html",
        "/static/",
        "/static/worklets",
        "/static/no-such-file.js",
        "/..%2f.env",
        "/.env",
        "/frontend/index.html",
    ],
)
def test_nothing_but_the_pages_files_can_be_read(server: AppServer, path: str) -> None:
    with httpx.Client(trust_env=False) as client:
        request = client.build_request("GET", server.url)
        request.url = httpx.URL(server.url).copy_with(raw_path=path.encode())  # as it is, not tidied up
        response = client.send(request)
    assert response.status_code in {400, 404, 405}
    assert "project" not in response.text
    assert "root:" not in response.text


def test_static_files_can_only_be_read(client: httpx.Client) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert client.request(method, "/static/app.js").status_code == 405
        assert client.request(method, "/").status_code == 405


def test_health_says_who_it_is_and_how_busy(client: httpx.Client) -> None:
    state = client.get("/health").json()
    assert set(state) == HEALTH
    assert (state["name"], state["status"], state["ready"], state["conversations"]) == ("ahoy", "ok", True, 0)
    assert state["uptime_s"] >= 0
    assert re.fullmatch(r"\d+\.\d+\.\d+.*|dev", state["version"])


def test_ready_is_200_once_the_models_are_loaded(client: httpx.Client) -> None:
    response = client.get("/ready")
    assert (response.status_code, response.json()) == (200, {"ready": True})


def test_the_openapi_document_is_sound(client: httpx.Client) -> None:
    described = client.get("/openapi.json").json()
    assert described["openapi"].startswith("3.1")
    assert {"title", "version"} <= set(described["info"])
    assert {"/health", "/ready", "/api/phone", "/api/call", "/api/call/{sid}"} <= set(described["paths"])
    assert not any("twilio" in path or path == "/voice" for path in described["paths"]), "those are for Twilio"
    names = []
    for methods in described["paths"].values():
        for method, operation in methods.items():
            assert method in {"get", "post", "put", "delete", "patch"}
            names.append(operation["operationId"])
            assert operation["summary"]
            assert all(response["description"] for response in operation["responses"].values())
            for response in operation["responses"].values():
                for content in response.get("content", {}).values():
                    Draft202012Validator.check_schema(content["schema"])
    assert len(set(names)) == len(names)
    for reference in references(described):
        part = described
        for key in reference.removeprefix("#/").split("/"):
            part = part[key]
    assert {"200", "503"} <= set(described["paths"]["/ready"]["get"]["responses"])

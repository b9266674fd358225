"""Which pages may open a conversation. A browser names the page's origin; everybody else names none."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from app.core.origins import origin_allowed
from app_server import AppServer, scripted
from websockets.exceptions import InvalidStatus
from wire_client import WireClient, answered_in_full

ACCEPTED, REFUSED = 101, 403


def handshake(server: AppServer, origin: str | None, host: str | None) -> int:
    """The HTTP status that a WebSocket request with these headers gets."""
    lines = [
        f"GET {server.settings.ws_path} HTTP/1.1",
        *([f"Host: {host}"] if host is not None else []),
        *([f"Origin: {origin}"] if origin is not None else []),
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
    ]
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as line:
        line.sendall("\r\n".join([*lines, "", ""]).encode())
        return int(line.recv(12)[9:12])


@contextmanager
def serving(**settings: object) -> Iterator[AppServer]:
    with AppServer(scripted(**settings), load=False) as server:  # an origin is judged before anything is loaded
        yield server


@pytest.fixture(scope="module")
def server() -> Iterator[AppServer]:
    with AppServer() as running:
        yield running


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        (None, "127.0.0.1:{port}"),  # no browser
        (None, "voice.example.com"),
        ("http://127.0.0.1:{port}", "127.0.0.1:{port}"),
        ("http://localhost:{port}", "localhost:{port}"),
        ("http://[::1]:{port}", "[::1]:{port}"),
        ("http://192.168.1.20:{port}", "192.168.1.20:{port}"),  # the page, by the machine's address
        ("https://127.0.0.1", "127.0.0.1"),  # behind a proxy that speaks TLS
    ],
)
async def test_the_servers_own_page_and_programs_are_accepted(server: AppServer, origin: str | None, host: str) -> None:
    origin = origin and origin.format(port=server.port)
    assert handshake(server, origin, host.format(port=server.port)) == ACCEPTED


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("https://evil.example", "127.0.0.1:{port}"),
        ("http://127.0.0.1:3000", "127.0.0.1:{port}"),  # another program on this machine
        ("http://127.0.0.1", "127.0.0.1:{port}"),
        ("http://localhost:{port}", "127.0.0.1:{port}"),
        ("http://[::1]:3000", "[::1]:{port}"),
        ("null", "127.0.0.1:{port}"),  # a page from disk, or in a sandbox
        ("", "127.0.0.1:{port}"),
        ("none", "none"),
        ("*", "*"),
        ("file://", "127.0.0.1:{port}"),
        ("chrome-extension://abcdefgh", "abcdefgh"),
        ("http://evil.example:{port}", "evil.example:{port}"),  # DNS rebinding: a name that leads to this machine
        ("http://localhost.evil.example:{port}", "localhost.evil.example:{port}"),
        ("http://127.0.0.1.evil.example:{port}", "127.0.0.1.evil.example:{port}"),
        ("http://127.0.0.1:{port}@evil.example", "127.0.0.1:{port}"),
        ("http://127.0.0.1:{port}.evil.example", "127.0.0.1:{port}"),
        ("http://[::1", "[::1"),
        ("javascript:alert(1)", "127.0.0.1:{port}"),
        ("http://127.0.0.1:{port}", None),
    ],
)
async def test_every_other_page_is_refused_before_the_websocket_opens(
    server: AppServer, origin: str, host: str | None
) -> None:
    host = host and host.format(port=server.port)
    assert handshake(server, origin.format(port=server.port), host) in ({REFUSED} if host else {REFUSED, 400})


def test_configured_origins_are_accepted_and_their_likes_are_not() -> None:
    with serving(allowed_origins="https://app.example.com,http://localhost:3000/") as server:
        host = f"127.0.0.1:{server.port}"
        for origin in ("https://app.example.com", "http://localhost:3000", f"http://{host}"):
            assert handshake(server, origin, host) == ACCEPTED
        for origin in ("http://app.example.com", "https://app.example.com:444", "https://b.app.example.com", "null"):
            assert handshake(server, origin, host) == REFUSED


def test_pages_from_disk_can_be_allowed() -> None:
    with serving(allowed_origins="null") as server:
        host = f"127.0.0.1:{server.port}"
        assert handshake(server, "null", host) == ACCEPTED
        assert handshake(server, "https://evil.example", host) == REFUSED


def test_everybody_can_be_allowed() -> None:
    with serving(allowed_origins="*") as server:
        assert handshake(server, "https://anyone.example", f"127.0.0.1:{server.port}") == ACCEPTED


@pytest.mark.parametrize("host", ["voice.example.com", "127.0.0.1:{port}", "backend.internal"])
def test_the_page_at_the_public_address_is_our_own_whatever_a_proxy_calls_us(host: str) -> None:
    with serving(public_base_url="https://voice.example.com/assistant") as server:
        assert handshake(server, "https://voice.example.com", host.format(port=server.port)) == ACCEPTED
        assert handshake(server, "http://voice.example.com", host.format(port=server.port)) in (
            {ACCEPTED} if host == "voice.example.com" else {REFUSED}
        )
        assert handshake(server, "https://evil.example", host.format(port=server.port)) == REFUSED


def test_without_a_public_address_its_default_is_not_trusted_from_elsewhere() -> None:
    settings = scripted(host="0.0.0.0", port=8000)  # noqa: S104 (not listened on)
    assert not origin_allowed("http://127.0.0.1:8000", "192.168.1.20:8000", settings)


async def test_a_refused_page_gets_403_and_an_accepted_one_talks(server: AppServer) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with WireClient(server.ws_url, origin="https://evil.example"):
            pass
    assert refused.value.response.status_code == REFUSED
    async with WireClient(server.ws_url, origin=server.url, start={}) as client:
        await answered_in_full(client)
    server.nothing_is_left()


def test_a_refusal_is_logged_with_what_to_do(caplog: pytest.LogCaptureFixture) -> None:
    with serving() as server:
        assert handshake(server, "https://app.example.com", f"127.0.0.1:{server.port}") == REFUSED
    assert "https://app.example.com" in caplog.text
    assert "ALLOWED_ORIGINS" in caplog.text

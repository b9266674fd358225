"""Calls cost money: they are placed by whoever has the key, or by somebody at this computer, and by nobody else."""

import pytest
from app.core.access import KEY_HOLDER, is_local, who_calls
from app.core.config import Settings
from app.core.errors import AccessError
from starlette.datastructures import Headers

KEY = "a-long-random-text"
HERE = {"host": "127.0.0.1:8000"}


def refused(client: str | None, headers: dict[str, str] | Headers, **settings: object) -> AccessError:
    with pytest.raises(AccessError) as error:
        who_calls(client, headers, Settings(**settings))
    return error.value


def twice(name: str, *values: str, **others: str) -> Headers:
    """Headers of which one was sent several times."""
    pairs = [(name, value) for value in values] + list(others.items())
    return Headers(raw=[(key.encode(), value.encode("latin-1")) for key, value in pairs])


# --- without a key


@pytest.mark.parametrize("client", ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1"])
@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost:8000", "LocalHost", "[::1]:8000", "127.0.0.1"])
def test_somebody_at_this_computer_may(client: str, host: str) -> None:
    assert who_calls(client, {"host": host}, Settings()) == client


@pytest.mark.parametrize("client", ["192.168.1.20", "203.0.113.5", "2001:db8::1", "::ffff:203.0.113.5", "", "x", None])
def test_nobody_from_elsewhere_may_and_it_says_what_to_set(client: str | None) -> None:
    error = refused(client, HERE)
    assert (error.code, error.http_status) == ("local_only", 403)
    assert "API_KEY" in error.message


@pytest.mark.parametrize(
    "header",
    [
        "X-Forwarded-For",
        "x-forwarded-for",
        "X-Forwarded-Host",
        "X-Forwarded-Proto",
        "X-Forwarded",
        "Forwarded",
        "Forwarded-For",
        "Via",
        "X-Real-IP",
        "X-Client-IP",
        "Client-IP",
        "True-Client-IP",
        "X-Cluster-Client-IP",
        "Fastly-Client-IP",
        "CF-Connecting-IP",
        "CF-Ray",
        "X-Original-Forwarded-For",
        "X-Envoy-External-Address",
        "X-ProxyUser-IP",
        "X-Azure-ClientIP",
        "Tailscale-User-Login",
    ],
)
@pytest.mark.parametrize("value", ["203.0.113.5", "127.0.0.1", "for=127.0.0.1", ""])
def test_what_comes_through_a_proxy_or_a_tunnel_is_from_elsewhere_whatever_it_says(header: str, value: str) -> None:
    assert refused("127.0.0.1", HERE | {header: value}).code == "local_only"


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8000",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "evil.example:127.0.0.1",
        "127.0.0.1@evil.example",
        "127.0.0.1:8000@evil.example",
        "localhost:8000/evil",
        "localhost:",
        "local\u212aost",
        "192.168.1.20:8000",
        "0.0.0.0:8000",
        "[::1",
        "[::1]evil.example",
        "127.0.0.1:800000",
        "127.0.0.1:\u0661",
        " localhost",
        "localhost\n",
        "",
        "2130706433",  # 127.0.0.1 as a number
        "0x7f.0.0.1",
    ],
)
def test_a_name_that_an_attacker_made_lead_here_is_not_this_computers(host: str) -> None:
    assert refused("127.0.0.1", {"host": host}).code == "local_only"


def test_a_request_without_a_host_or_with_two_is_refused() -> None:
    assert refused("127.0.0.1", {}).code == "local_only"
    assert refused("127.0.0.1", twice("host", "localhost", "evil.example")).code == "local_only"
    assert refused("127.0.0.1", twice("host", "localhost", "localhost")).code == "local_only"


def test_the_public_name_is_not_this_computers() -> None:
    settings = {"public_base_url": "https://voice.example.com"}
    assert refused("127.0.0.1", {"host": "voice.example.com"}, **settings).code == "local_only"


def test_a_key_does_not_help_where_none_is_set() -> None:
    assert refused("203.0.113.5", HERE | {"authorization": f"Bearer {KEY}"}).code == "local_only"
    assert refused("203.0.113.5", HERE | {"authorization": "Bearer "}).code == "local_only"


# --- with a key


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
@pytest.mark.parametrize("client", ["203.0.113.5", "127.0.0.1", None])
def test_whoever_has_the_key_may_from_anywhere(scheme: str, client: str | None) -> None:
    headers = {"host": "voice.example.com", "x-forwarded-for": "1.2.3.4", "authorization": f"{scheme} {KEY}"}
    assert who_calls(client, headers, Settings(api_key=KEY)) == KEY_HOLDER


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        KEY,
        f"Basic {KEY}",
        f"Token {KEY}",
        f"Bearer{KEY}",
        f"Bearer {KEY}x",
        f"Bearer {KEY[:-1]}",
        f"Bearer {KEY.upper()}",
        f"Bearer {KEY} {KEY}",
        f"Bearer {KEY}, Bearer {KEY}",
        f"Bearer\t{KEY}",
        "Bearer \u00e9\u00fc\u00ff",  # not ASCII, as a server reads bytes beyond it
        "Bearer \u0430-long-random-text",  # Cyrillic
        "Bearer \ud800\udcff",  # halves of surrogate pairs
        "Bearer \x00",
        "Bearer undefined",
        "Bearer " + "x" * 100_000,
    ],
)
def test_a_missing_or_wrong_key_is_unauthorized_even_at_this_computer(authorization: str | None) -> None:
    headers = HERE if authorization is None else HERE | {"authorization": authorization}
    error = refused("127.0.0.1", headers, api_key=KEY)
    assert (error.code, error.http_status) == ("unauthorized", 401)
    assert KEY not in error.message


def test_two_keys_are_refused_though_one_is_right() -> None:
    for keys in ([f"Bearer {KEY}", "Bearer wrong"], ["Bearer wrong", f"Bearer {KEY}"], [f"Bearer {KEY}"] * 2):
        assert refused("127.0.0.1", twice("authorization", *keys, host="localhost"), api_key=KEY).http_status == 401


# --- pages


@pytest.mark.parametrize("settings", [{}, {"api_key": KEY}])
@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "", "http://localhost:3000", "http://127.0.0.1:8000.evil.example"]
)
def test_a_foreign_page_may_not_even_with_the_key(settings: dict[str, object], origin: str) -> None:
    headers = HERE | {"origin": origin, "authorization": f"Bearer {KEY}"}
    error = refused("127.0.0.1", headers, **settings)
    assert (error.code, error.http_status) == ("origin_not_allowed", 403)


def test_two_origins_are_refused_though_one_is_our_own() -> None:
    headers = twice("origin", "http://127.0.0.1:8000", "https://evil.example", host="127.0.0.1:8000")
    assert refused("127.0.0.1", headers).code == "origin_not_allowed"


def test_our_own_page_and_those_that_are_allowed_may() -> None:
    own = HERE | {"origin": "http://127.0.0.1:8000"}
    assert who_calls("127.0.0.1", own, Settings()) == "127.0.0.1"
    listed = HERE | {"origin": "https://app.example.com"}
    assert who_calls("127.0.0.1", listed, Settings(allowed_origins="https://app.example.com")) == "127.0.0.1"


def test_an_allowed_page_in_a_browser_elsewhere_still_needs_the_key() -> None:
    settings = {"allowed_origins": "*"}
    assert refused("203.0.113.5", HERE | {"origin": "https://anyone.example"}, **settings).code == "local_only"


# --- this machine


def test_a_program_on_this_machine_is_told_from_a_tunnel_to_it() -> None:
    assert is_local("127.0.0.1", HERE)
    assert is_local("::1", {"Host": "[::1]:8000"})
    assert not is_local("127.0.0.1", HERE | {"x-forwarded-for": "127.0.0.1"})
    assert not is_local("127.0.0.1", {"host": "voice.example.com"})
    assert not is_local("192.168.1.20", HERE)
    assert not is_local(None, HERE)

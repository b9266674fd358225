"""The user's package index settings are followed as pip, uv and npm follow them."""

import base64
import os
import sys
from pathlib import Path

import pytest
from app.core.errors import ModelError
from app.inference.download import Downloader
from app.inference.index import Page, local_path, parse_page, places
from app.inference.manifest import MANIFEST
from app.inference.progress import Silence
from app.inference.registries import Registries, read_registries

QUIET = {"PIP_CONFIG_FILE": os.devnull, "UV_NO_CONFIG": "1", "NPM_CONFIG_USERCONFIG": os.devnull}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home directory, and no configuration of the machine."""
    for name in ("HOME", "XDG_CONFIG_HOME", "XDG_CONFIG_DIRS"):
        monkeypatch.setenv(name, str(tmp_path / ".config" if "CONFIG" in name else tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "venv"))
    (tmp_path / ".config" / "pip").mkdir(parents=True)
    (tmp_path / ".config" / "uv").mkdir()
    (tmp_path / "venv").mkdir()
    return tmp_path


def basic(login: str) -> str:
    return "Basic " + base64.b64encode(login.encode()).decode()


def test_without_settings_the_public_indexes_are_asked() -> None:
    registries = read_registries(QUIET)
    assert registries.indexes == ("https://pypi.org/simple",)
    assert registries.npm == "https://registry.npmjs.org"
    assert registries.find_links == ()


@pytest.mark.parametrize("variable", ["PIP_INDEX_URL", "UV_INDEX_URL", "UV_DEFAULT_INDEX"])
def test_another_index_takes_the_place_of_the_public_one(variable: str) -> None:
    assert read_registries(QUIET | {variable: "https://mirror.example/simple/"}).indexes == (
        "https://mirror.example/simple",
    )


def test_extra_indexes_come_after_the_main_one_and_once() -> None:
    registries = read_registries(
        QUIET
        | {
            "UV_INDEX": "corp=https://corp.example/simple",
            "PIP_EXTRA_INDEX_URL": "file:///a/simple https://corp.example/simple/",
            "PIP_FIND_LINKS": "/wheels",
        }
    )
    assert registries.indexes == ("https://pypi.org/simple", "https://corp.example/simple", "file:///a/simple")
    assert places(MANIFEST["smart-turn"].archives[0], registries) == (
        "/wheels",
        "https://pypi.org/simple/pipecat-ai/",
        "https://corp.example/simple/pipecat-ai/",
        "file:///a/simple/pipecat-ai/",
    )


def test_no_index_leaves_only_find_links() -> None:
    registries = read_registries(QUIET | {"PIP_NO_INDEX": "1", "UV_FIND_LINKS": "/a,/b"})
    assert registries.indexes == ()
    assert registries.find_links == ("/a", "/b")


def test_credentials_leave_the_address_and_are_never_shown(home: Path) -> None:
    registries = read_registries(QUIET | {"PIP_INDEX_URL": "https://me:p%40ss@mirror.example:8443/simple"})
    assert registries.indexes == ("https://mirror.example:8443/simple",)
    assert registries.authorization("https://mirror.example:8443/files/x.whl") == basic("me:p@ss")
    assert registries.authorization("https://mirror.example/files/x.whl") is None
    assert "ss" not in repr(registries).replace("class", "")


def test_netrc_is_asked_for_hosts_without_credentials(home: Path) -> None:
    (home / "netrc").write_text("machine mirror.example login me password secret\n")
    registries = read_registries(QUIET)
    assert registries.authorization("https://mirror.example/simple/") == basic("me:secret")
    assert registries.authorization("https://other.example/simple/") is None


def test_pip_files_are_read_and_the_environment_wins(home: Path) -> None:
    (home / ".config/pip/pip.conf").write_text(
        "[global]\nindex-url = https://user.example/simple\nextra-index-url =\n  file:///a\n  file:///b\n"
        "[install]\nfind-links = /from-install\n"
    )
    (home / "venv/pip.conf").write_text("[global]\nindex_url = https://site.example/simple\ncert = /ca.pem\n")
    env = {"UV_NO_CONFIG": "1"}
    registries = read_registries(env)
    assert registries.indexes == ("https://site.example/simple", "file:///a", "file:///b")
    assert registries.find_links == ("/from-install",)
    assert registries.ca_bundle == "/ca.pem"
    assert read_registries(env | {"PIP_INDEX_URL": "https://env.example/s"}).indexes[0] == "https://env.example/s"
    assert read_registries(env | {"PIP_CONFIG_FILE": os.devnull}).indexes == ("https://pypi.org/simple",)


def test_uv_files_are_read(home: Path) -> None:
    (home / ".config/uv/uv.toml").write_text(
        '[[index]]\nname = "a"\nurl = "https://extra.example/simple"\n'
        '[[index]]\nurl = "https://main.example/simple"\ndefault = true\n'
    )
    assert read_registries({"PIP_CONFIG_FILE": os.devnull}).indexes == (
        "https://main.example/simple",
        "https://extra.example/simple",
    )


def test_npm_registry_and_token_are_read(home: Path) -> None:
    (home / ".npmrc").write_text(
        "; a comment = x\nregistry=https://npm.example/api/\n//npm.example/api/:_authToken=${TOKEN}\n"
    )
    env = {key: QUIET[key] for key in ("PIP_CONFIG_FILE", "UV_NO_CONFIG")} | {"TOKEN": "t0k"}
    registries = read_registries(env)
    archive = MANIFEST["kokoro"].archives[-1]
    assert places(archive, registries) == ("https://npm.example/api/kokoro-js/-/kokoro-js-1.2.1.tgz",)
    assert registries.authorization("https://npm.example/api/kokoro-js/-/x.tgz") == "Bearer t0k"
    assert registries.authorization("https://npm.example/other") is None
    assert read_registries(env | {"NPM_CONFIG_REGISTRY": "https://b.example/"}).npm == "https://b.example"


def test_index_pages_of_both_kinds_give_the_same_links() -> None:
    page = "https://i.example/simple/x/"
    told = parse_page(
        Page(
            page,
            "application/vnd.pypi.simple.v1+json",
            '{"files": [{"filename": "x-1.0+cpu.whl", "url": "../../f/x-1.0%2Bcpu.whl", "hashes": {"sha256": "ab"}}]}',
        )
    )
    assert told == parse_page(
        Page(page, "text/html", '<base href="https://i.example/f/"><a href="x-1.0%2Bcpu.whl#sha256=ab">x</a>')
    )
    assert (told[0].filename, told[0].url) == ("x-1.0+cpu.whl", "https://i.example/f/x-1.0%2Bcpu.whl")
    assert parse_page(Page(page, "application/json", '{"files": [1]}')) == []
    assert parse_page(Page(page, "application/json", "[]")) == []


def test_local_places_are_told_from_remote_ones() -> None:
    assert local_path("https://a.example/b") is None
    assert local_path("file:///a%20b/c") == Path("/a b/c")
    assert local_path("/wheels") == Path("/wheels")


def test_certificates_and_proxies_that_cannot_be_used_are_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = Registries((), (), "https://npm.example", ca_bundle=str(tmp_path / "missing.pem"))
    with pytest.raises(ModelError, match=r"missing\.pem.*REQUESTS_CA_BUNDLE"):
        Downloader(missing, Silence())
    with pytest.raises(ModelError, match="the proxy settings cannot be used"):
        Downloader(Registries((), (), "https://npm.example", proxy="gopher://proxy.example"), Silence())

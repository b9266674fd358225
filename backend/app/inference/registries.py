"""Where this user's packages come from: the settings that pip, uv and npm already follow, read once.

Ahoy fetches model files from package indexes itself (it resumes downloads, and pip may not be installed), so it has to
honour the same index addresses, find-links, credentials, certificates and proxies. The order is pip's and uv's own:
environment variables win over files. With nothing set, the public indexes are asked.

Sources: pip's "Configuration" page, uv's "Environment variables" and "Package indexes", npm's "npmrc".
"""

import base64
import configparser
import netrc
import os
import re
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

import platformdirs

PUBLIC_PYPI = "https://pypi.org/simple"
PUBLIC_NPM = "https://registry.npmjs.org"

_FALSE = {"", "0", "false", "no", "off"}
_INDEX_NAME = re.compile(r"^[A-Za-z0-9_.-]+=(?=[a-z]+://)")


@dataclass(frozen=True, slots=True)
class Registries:
    """What to ask and how; addresses hold no credentials and no trailing slash."""

    indexes: tuple[str, ...]
    """Simple indexes (PEP 503/691), `http(s)://` or `file://`, in the order to ask them."""
    find_links: tuple[str, ...]
    """Directories or pages with links to packages, asked before the indexes when they are local."""
    npm: str
    credentials: tuple[tuple[str, str], ...] = ()
    """(address prefix, value of the Authorization header), longest prefix first. Never printed."""
    ca_bundle: str | None = None
    """File or directory of trusted certificates that the user named for pip, requests or curl."""
    proxy: str | None = None
    """Set for pip alone; the usual proxy variables are followed by the HTTP client."""

    def __repr__(self) -> str:
        return f"Registries(indexes={self.indexes!r}, find_links={self.find_links!r}, npm={self.npm!r})"

    def authorization(self, url: str) -> str | None:
        """The Authorization header for `url`: from the index settings, else from the user's netrc file."""
        for prefix, header in self.credentials:
            if url.startswith(prefix):
                return header
        try:
            login = netrc.netrc(os.environ.get("NETRC")).authenticators(urlsplit(url).hostname or "")
        except (OSError, netrc.NetrcParseError):
            return None
        return _basic(login[0], login[2] or "") if login else None


def read_registries(env: Mapping[str, str] = os.environ) -> Registries:
    """The registries this user's environment and configuration files name."""
    pip, uv = _pip_options(env), _uv_options(env)
    default = (
        env.get("UV_DEFAULT_INDEX") or env.get("UV_INDEX_URL") or env.get("PIP_INDEX_URL")
        or uv.get("default") or pip.get("index-url") or PUBLIC_PYPI
    )  # fmt: skip
    extra = [
        *env.get("UV_INDEX", "").split(),
        *env.get("UV_EXTRA_INDEX_URL", "").split(),
        *env.get("PIP_EXTRA_INDEX_URL", pip.get("extra-index-url", "")).split(),
        *uv.get("extra", "").split(),
    ]
    no_index = any(
        value.lower() not in _FALSE
        for value in (env.get("UV_NO_INDEX", ""), env.get("PIP_NO_INDEX", pip.get("no-index", "")))
    )
    links = [
        *env.get("PIP_FIND_LINKS", pip.get("find-links", "")).split(),
        *(link.strip() for link in env.get("UV_FIND_LINKS", "").split(",") if link.strip()),
    ]
    credentials: dict[str, str] = {}
    indexes = () if no_index else tuple(_without_login(url, credentials) for url in (default, *extra))
    find_links = tuple(_without_login(link, credentials) for link in links)
    npm = _npm_registry(env, credentials)
    return Registries(
        indexes=tuple(dict.fromkeys(indexes)),
        find_links=tuple(dict.fromkeys(find_links)),
        npm=npm,
        credentials=tuple(sorted(credentials.items(), key=lambda item: -len(item[0]))),
        ca_bundle=env.get("PIP_CERT")
        or pip.get("cert")
        or env.get("REQUESTS_CA_BUNDLE")
        or env.get("CURL_CA_BUNDLE")
        or None,
        proxy=env.get("PIP_PROXY") or pip.get("proxy") or None,
    )


def _without_login(url: str, credentials: dict[str, str]) -> str:
    """`url` without user name and password, which go to `credentials` for the whole host, as with pip."""
    url = _INDEX_NAME.sub("", url).rstrip("/")
    parts = urlsplit(url)
    if "@" not in parts.netloc:
        return url
    login, host = parts.netloc.rsplit("@", 1)
    user, _, password = login.partition(":")
    credentials.setdefault(f"{parts.scheme}://{host}/", _basic(unquote(user), unquote(password)))
    return urlunsplit(parts._replace(netloc=host))


def _basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode("ascii")


def _pip_options(env: Mapping[str, str]) -> dict[str, str]:
    """pip's options from its configuration files, the later file winning; `[install]` wins over `[global]`."""
    chosen = env.get("PIP_CONFIG_FILE")
    if chosen == os.devnull:
        return {}
    name = "pip.ini" if sys.platform == "win32" else "pip.conf"
    files = [
        *(
            Path(folder) / name
            for folder in reversed(platformdirs.site_config_dir("pip", False, multipath=True).split(os.pathsep))
        ),
        Path("/etc") / name,
        Path.home() / ".pip" / name,
        Path.home() / ".config" / "pip" / name,
        Path(platformdirs.user_config_dir("pip", False, roaming=True)) / name,
        Path(sys.prefix) / name,
        *([Path(chosen)] if chosen else []),
    ]
    options: dict[str, str] = {}
    for file in files:
        parser = configparser.RawConfigParser()
        try:
            parser.read(file, encoding="utf-8")
        except (configparser.Error, OSError, UnicodeDecodeError):
            continue
        for section in ("global", "install"):
            if parser.has_section(section):
                options.update({key.replace("_", "-"): value for key, value in parser.items(section)})
    return options


def _uv_options(env: Mapping[str, str]) -> dict[str, str]:
    """`default` and `extra` (separated by spaces) from uv's user or system configuration, or the file it is told."""
    if env.get("UV_NO_CONFIG", "").lower() not in _FALSE:
        return {}
    chosen = env.get("UV_CONFIG_FILE")
    files = [Path(chosen)] if chosen else [
        Path("/etc/uv/uv.toml"),
        Path.home() / ".config" / "uv" / "uv.toml",
        Path(platformdirs.user_config_dir("uv", False, roaming=True)) / "uv.toml",
    ]  # fmt: skip
    options: dict[str, str] = {}
    for file in files:
        try:
            table = tomllib.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        indexes: list[dict[str, Any]] = [entry for entry in table.get("index", []) if "url" in entry]
        default = next((entry["url"] for entry in indexes if entry.get("default")), table.get("index-url"))
        extra = [entry["url"] for entry in indexes if not entry.get("default")] + table.get("extra-index-url", [])
        options |= ({"default": default} if default else {}) | ({"extra": " ".join(extra)} if extra else {})
    return options


def _npm_registry(env: Mapping[str, str], credentials: dict[str, str]) -> str:
    """npm's registry; tokens of the user's npmrc go to `credentials`, each for the addresses it is meant for."""
    lower = {key.lower(): value for key, value in env.items() if key.lower().startswith("npm_config_")}
    options: dict[str, str] = {}
    try:
        lines = Path(lower.get("npm_config_userconfig") or Path.home() / ".npmrc").read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        lines = []
    for line in lines:
        key, equals, value = line.partition("=")
        if equals and not line.lstrip().startswith(("#", ";")):
            value = re.sub(r"\$\{(\w+)\}", lambda match: env.get(match[1], ""), value.strip().strip("\"'"))
            options[key.strip()] = value
    registry = lower.get("npm_config_registry") or options.get("registry") or PUBLIC_NPM
    registry = _without_login(registry, credentials)
    scheme = urlsplit(registry).scheme
    for key, value in options.items():
        prefix, _, kind = key.rpartition(":")
        if prefix.startswith("//") and kind in {"_authToken", "_auth"}:
            credentials[f"{scheme}:{prefix}"] = ("Bearer " if kind == "_authToken" else "Basic ") + value
    return registry

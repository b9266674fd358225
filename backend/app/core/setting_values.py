"""What the value of a setting may look like: the types of the fields in `config.py`, and their faults in plain words.

A fault is the end of a sentence that begins with the value: "is not an IP address", "has a space in it".
"""

import ipaddress
import re
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin
from urllib.parse import SplitResult, urlsplit

from phonenumbers import SUPPORTED_REGIONS
from pydantic import AfterValidator, BeforeValidator, SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import NoDecode

_QUOTES = ('"', "'")
_DEFAULT_PORTS = {"http": 80, "https": 443}
_LOOKS_SECRET = re.compile(r"@|\bsk-|\bgsk_|\b[0-9a-f]{32}\b", re.IGNORECASE)
"""Addresses that may hold a password, keys of OpenAI and Twilio: also in a variable where they do not belong."""
_NAME = r"[a-z][a-z0-9_-]{0,30}"
RESERVED_PROVIDERS = ("embedded", "scripted", "openai")
"""Names of providers that need no entry in SERVICES."""
PRICE_UNITS = ("input", "cached", "output", "minute", "characters")
"""US dollars for a million tokens of input, of cached input and of output, for a minute of audio, and for a million
characters."""
_SHOWN = 60
"""So many characters of a faulty value are shown."""
_MEANT_REGIONS = {"UK": "GB"}
"""What people call a country whose code is another."""


class ProviderChoice(NamedTuple):
    """One of those who may do the work. None: the service's default."""

    name: str
    model: str | None = None
    voice: str | None = None


def as_typed(value: Any) -> Any:
    """A value without what people put around it: spaces, and quotes that `docker --env-file` and others leave there."""
    if isinstance(value, str):
        value = value.strip()
        if len(value) > 1 and value[0] in _QUOTES and value[0] == value[-1]:
            value = value[1:-1].strip()
    return value


def fault_of(details: dict[str, Any], field: FieldInfo) -> str:
    """What is wrong with the value of `field`, from pydantic's `details` of the error."""
    if details["type"] == "value_error":
        fault = str(details["ctx"]["error"])
    elif field.annotation is bool:
        fault = "is not true or false"
    elif field.annotation is int:
        fault = f"is not a whole number{_range(field)}"
    elif field.annotation in {float, float | None}:
        fault = f"is not a number{_range(field)}"
    elif get_origin(field.annotation) is Literal:
        fault = f"is not one of {', '.join(get_args(field.annotation))}"
    else:
        fault = f"has the wrong type ({details['msg']})"
    if isinstance(details["input"], str) and re.search(r"\s#", details["input"]):
        fault += " (a comment belongs on a line of its own)"
    return fault


def shown(value: Any, field: FieldInfo) -> str:
    """The value for an error message: in one line and not too long; a secret is not shown."""
    text = str(value)
    return "the value" if not field.repr or _LOOKS_SECRET.search(text) else _quoted(text)


def _quoted(text: str) -> str:
    if not text.isprintable():
        text = text.encode("unicode_escape").decode()
    return f"'{text[:_SHOWN]}{'...' if len(text) > _SHOWN else ''}'"


def _range(field: FieldInfo) -> str:
    bounds = {
        name: f"{getattr(limit, name):.10g}"
        for limit in field.metadata
        for name in ("gt", "ge", "le")
        if hasattr(limit, name)
    }
    start = f"from {bounds['ge']}" if "ge" in bounds else f"above {bounds['gt']} and up"
    return f" {start} to {bounds['le']}"


# --- the checks


def _host(host: str) -> str:
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        ipaddress.ip_address(bare)
    except ValueError:
        pass
    else:
        return bare
    if "/" in host or re.fullmatch(r"([^:]*|\[.*\]):\d+", host):
        raise ValueError("is more than a host (the port has its own setting, PORT, and the address PUBLIC_BASE_URL)")
    if host == "*":
        raise ValueError("is not an address (0.0.0.0 listens on all)")
    if re.fullmatch(r"[\d.]+", host) or ":" in host:
        raise ValueError("is not an IP address")
    if not re.fullmatch(r"[a-zA-Z0-9_-]+(\.[a-zA-Z0-9_-]+)*\.?", host):
        raise ValueError("is neither a host name nor an IP address")
    return host


def _url_path(path: str) -> str:
    if not path.startswith("/"):
        raise ValueError("does not begin with /")
    if not re.fullmatch(r"[A-Za-z0-9/._~-]+", path):
        raise ValueError("has characters in it other than letters, digits, / - . _ and ~")
    return path


def _split(url: str, *schemes: str) -> SplitResult:
    """The parts of an address, with scheme and host in lower case."""
    if re.search(r"\s", url):
        raise ValueError("has a space in it")
    if not url.lower().startswith(schemes):
        raise ValueError(f"does not begin with {' or '.join(schemes)}")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError("has a host or port that cannot be") from None
    if not parts.hostname:
        raise ValueError("has no host name")
    if "@" in parts.netloc:
        raise ValueError("has a user name or password in it, which everyone would see")
    if parts.query or parts.fragment or url.endswith(("?", "#")):
        raise ValueError("has something behind a ? or #, which would be lost")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    standard = port is None or port == _DEFAULT_PORTS.get(parts.scheme)
    return parts._replace(netloc=host if standard else f"{host}:{port}")


def _base_url(url: str) -> str:
    return _split(url, "https://", "http://").geturl().rstrip("/")


def _socket_url(url: str) -> str:
    return _split(url, "wss://").geturl()


def _list(value: Any) -> Any:
    """A comma-separated list becomes a tuple."""
    if isinstance(value, str):
        return tuple(entry for part in value.split(",") if (entry := as_typed(part)))
    return value


def _origins(entries: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(_origin(entry, alone=len(entries) == 1) for entry in entries)


def _origin(entry: str, *, alone: bool) -> str:
    """As browsers write it: lower case, without the port that the scheme has anyway, without a slash at the end."""
    if entry in {"*", "null"}:
        return entry
    try:
        parts = _split(entry, "https://", "http://")
        if parts.path.strip("/"):
            raise ValueError("has a path behind the host")
    except ValueError as fault:
        if alone or _LOOKS_SECRET.search(entry):
            raise
        raise ValueError(f"has an entry, {_quoted(entry)}, that {fault}") from None
    return f"{parts.scheme}://{parts.netloc}"


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def _language(code: str) -> str:
    if re.fullmatch(r"[a-z]{2,3}[-_][a-z]{2,4}", code):
        raise ValueError(f"has a region ('{code[:2]}' is enough)")
    if not re.fullmatch(r"[a-z]{2,3}|auto", code):
        raise ValueError("is neither a language code of two or three letters nor auto")
    return code


def _account_sid(sid: str) -> str:
    if not re.fullmatch(r"AC[0-9a-fA-F]{32}", sid):
        raise ValueError("is not AC and 32 hexadecimal digits, as the Twilio console shows it")
    return sid


def _phone_number(number: str) -> str:
    bare = re.sub(r"[ ().-]", "", number)
    if not re.fullmatch(r"\+[1-9][0-9]{6,14}", bare):
        raise ValueError("is not + and 7 to 15 digits that begin with the country code (E.164)")
    return bare


def _number_prefixes(entries: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(_number_prefix(entry) for entry in entries)


def _number_prefix(entry: str) -> str:
    bare = re.sub(r"[ ().-]", "", entry)
    if not re.fullmatch(r"\+[1-9][0-9]{0,14}", bare):
        raise ValueError(f"has an entry, {_quoted(entry)}, that is not + and the first digits of a number (E.164)")
    return bare


def _region(code: str) -> str:
    if code in _MEANT_REGIONS:
        raise ValueError(f"is not a country code of ISO 3166 ({_MEANT_REGIONS[code]} is meant)")
    if code not in SUPPORTED_REGIONS:
        raise ValueError("is not a country code of two letters (ISO 3166)")
    return code


def _upper(value: Any) -> Any:
    return value.upper() if isinstance(value, str) else value


def _provider_choices(value: Any) -> Any:
    entries = _list(value)
    if not isinstance(entries, tuple):
        return entries
    return tuple(entry if isinstance(entry, ProviderChoice) else _provider_choice(entry) for entry in entries)


def _provider_choice(entry: str) -> ProviderChoice:
    head, at, voice = entry.rpartition("@")
    if head.endswith(":") and "/" in voice:  # part of the model's name, as in cf:@cf/meta/llama
        head, at, voice = entry, "", ""
    name, _, model = (head if at else entry).partition(":")
    voice = voice if at else ""
    if not re.fullmatch(_NAME, name.lower()):
        raise ValueError(f"has an entry, {_quoted(entry)}, that is not NAME, NAME:MODEL or NAME:MODEL@VOICE")
    return ProviderChoice(name.lower(), model or None, voice or None)


def _services(value: Any) -> Any:
    entries = _list(value)
    if not isinstance(entries, tuple):
        return entries
    return _each_once(tuple(entry if isinstance(entry, tuple) else _service(entry) for entry in entries))


def _each_once(pairs: tuple[tuple[str, Any], ...]) -> tuple[tuple[str, Any], ...]:
    """One of two entries for the same service would be ignored in silence."""
    names = [name for name, _ in pairs]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"has two entries for '{twice[0]}'")
    return pairs


def _service(entry: str) -> tuple[str, str]:
    name, equals, url = entry.partition("=")
    name = name.strip().lower()
    if not equals or not re.fullmatch(_NAME, name):
        raise ValueError("has an entry that is not NAME=ADDRESS")
    if name in RESERVED_PROVIDERS:
        raise ValueError(f"has an entry for '{name}', which has a meaning of its own")
    try:
        return name, _base_url(url.strip())
    except ValueError as fault:
        raise ValueError(f"has an address for '{name}' that {fault}") from None


def _service_keys(value: Any) -> Any:
    entries = _list(value)
    if not isinstance(entries, tuple):
        return entries
    return _each_once(tuple(entry if isinstance(entry, tuple) else _service_key(entry) for entry in entries))


def _service_key(entry: str) -> tuple[str, SecretStr]:
    name, equals, key = entry.partition("=")
    if not equals or not re.fullmatch(_NAME, name.strip().lower()):
        raise ValueError("has an entry that is not NAME=KEY")
    return name.strip().lower(), _key(SecretStr(key.strip()))


def _prices(value: Any) -> Any:
    entries = _list(value)
    if not isinstance(entries, tuple):
        return entries
    return tuple(entry if isinstance(entry, tuple) else _price(entry) for entry in entries)


def _price(entry: str) -> tuple[str, str, float]:
    what, _, amount = entry.rpartition("=")
    model, _, unit = what.rpartition(":")
    try:
        usd = float(amount)
    except ValueError:
        usd = -1.0
    if not model or unit not in PRICE_UNITS or not 0 <= usd < 1e6:
        raise ValueError(
            f"has an entry, {_quoted(entry)}, that is not MODEL:UNIT=USD with a unit of {', '.join(PRICE_UNITS)}"
        )
    return model.strip(), unit, usd


def _key(key: SecretStr) -> SecretStr:
    if not re.fullmatch(r"[!-~]+", key.get_secret_value()):
        raise ValueError("has a space or another character in it that no key has")
    return key


HostName = Annotated[str, AfterValidator(_host)]
"""A host name or an IP address, IPv6 with or without brackets; kept without."""
UrlPath = Annotated[str, AfterValidator(_url_path)]
"""The path of an address: / and letters, digits, - . _ ~."""
BaseUrl = Annotated[str, AfterValidator(_base_url)]
"""http:// or https://, a host, perhaps a port and a path; kept without a slash at the end."""
SocketUrl = Annotated[str, AfterValidator(_socket_url)]
"""wss:// and a host; Twilio connects to no other, and drops everything behind a ?."""
Origins = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_list), AfterValidator(_origins)]
"""Origins of web pages, separated by commas; * stands for all."""
LanguageCode = Annotated[str, BeforeValidator(_lower), AfterValidator(_language)]
"""ISO 639 code, or auto."""
AccountSid = Annotated[str, AfterValidator(_account_sid)]
PhoneNumber = Annotated[str, AfterValidator(_phone_number)]
"""E.164; spaces and punctuation are taken out."""
Key = Annotated[SecretStr, AfterValidator(_key)]
"""A key or token; never shown."""
LogLevel = Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lower)]
ProviderChoices = Annotated[tuple[ProviderChoice, ...], NoDecode, BeforeValidator(_provider_choices)]
"""Who does the work, separated by commas, the first one first: NAME, NAME:MODEL, NAME:MODEL@VOICE."""
Services = Annotated[tuple[tuple[str, str], ...], NoDecode, BeforeValidator(_services)]
"""NAME=ADDRESS, separated by commas: services that speak OpenAI's API."""
ServiceKeys = Annotated[tuple[tuple[str, SecretStr], ...], NoDecode, BeforeValidator(_service_keys)]
"""NAME=KEY, separated by commas."""
Prices = Annotated[tuple[tuple[str, str, float], ...], NoDecode, BeforeValidator(_prices)]
"""MODEL:UNIT=USD, separated by commas; the units are those of PRICE_UNITS."""
Streaming = Annotated[Literal["auto", "true", "false"], BeforeValidator(_lower)]
EndpointingMode = Annotated[Literal["adaptive", "silence", "window"], BeforeValidator(_lower)]
PhoneAfter = Annotated[Literal["hangup", "pause"], BeforeValidator(_lower)]
Voicemail = Annotated[Literal["hangup", "message", "talk"], BeforeValidator(_lower)]
Phrases = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_list)]
"""Words or phrases, separated by commas."""
NumberPrefixes = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_list), AfterValidator(_number_prefixes)]
"""The first digits of numbers, or whole numbers, in E.164, separated by commas."""
Region = Annotated[str, BeforeValidator(_upper), AfterValidator(_region)]
"""ISO 3166-1 code of a country that has telephone numbers."""

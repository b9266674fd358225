"""Fetching one archive from a package index: resumable, retried, and accepted only with the pinned hash.

Bytes go to a `.part` file that survives a cut connection and a killed process; the next attempt asks for the rest with
a Range request (RFC 9110, section 14). The hash of the whole file decides at the end.
"""

import random
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import httpx

from app.core.errors import ModelError
from app.inference.disk import disk_errors, human_size, sha256_of, size_of
from app.inference.index import ACCEPT, Link, Page, local_path, locate, places
from app.inference.manifest import Archive
from app.inference.progress import PullProgress
from app.inference.registries import Registries

RETRY_DELAYS_S = (0.5, 1.0, 2.0)
"""Waits before the second, third and fourth attempt, each stretched by up to a quarter at random."""

_TIMEOUT = httpx.Timeout(30.0, connect=10.0)
_WORTHWHILE_BYTES = 1024 * 1024
"""An attempt that got this far was no failure: the count of attempts starts again."""

_COPY_BYTES = 1024 * 1024
_TRANSIENT_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})

_ADVICE = {
    "model_offline": "check the network and the proxy settings or name another package index in PIP_INDEX_URL; a model "
    "setting can also hold the path of a local file or directory",
    "model_hash": "the file was not kept; try again, and if it stays so, the package index serves another file",
    "model_not_found": "check PIP_INDEX_URL and the like; a model setting can also hold the path of a local file or "
    "directory",
}


class _SourceError(ModelError):
    """This place cannot give the archive; another one may."""


class _TransientError(Exception):
    """The server asks to try again later."""


class Downloader:
    """Fetches archives from the user's registries; one HTTP client for all of them. Use it as a context manager."""

    def __init__(self, registries: Registries, progress: PullProgress) -> None:
        self._registries = registries
        self._progress = progress
        self._client = _http_client(registries)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def fetch(self, archive: Archive, part: Path) -> None:
        """Bring `archive` to the path `part`, going on where an earlier attempt stopped.

        Raises ModelError when no index has it, none can be reached, the hash differs (the file is then removed), or
        the disk refuses it.
        """
        self._progress.file_started(archive.filename, archive.size_bytes, min(size_of(part), archive.size_bytes))
        if not _is_whole(archive, part):
            self._fetch_from_anywhere(archive, part)
        self._progress.file_finished(archive.filename)

    def _fetch_from_anywhere(self, archive: Archive, part: Path) -> None:
        problems: list[_SourceError] = []
        for place in places(archive, self._registries):
            try:
                for link in locate(archive, place, self._get_page):
                    try:
                        self._fetch_link(archive, link, part)
                    except _SourceError as problem:
                        problems.append(problem)
                    else:
                        return
            except _SourceError as problem:
                problems.append(problem)
        raise self._no_luck(archive, problems)

    def _no_luck(self, archive: Archive, problems: list[_SourceError]) -> ModelError:
        if not problems:
            asked = ", ".join(dict.fromkeys(map(_where, places(archive, self._registries)))) or "none is allowed"
            return ModelError(
                f"no package index has {archive.filename} (asked: {asked}): {_ADVICE['model_not_found']}",
                code="model_not_found",
            )
        code = next(
            (code for code in ("model_hash", "model_offline") if any(problem.code == code for problem in problems)),
            "model_not_found",
        )
        told = "; ".join(dict.fromkeys(problem.message for problem in problems))
        return ModelError(f"{archive.filename} could not be fetched: {told}; {_ADVICE[code]}", code=code)

    def _fetch_link(self, archive: Archive, link: Link, part: Path) -> None:
        if link.sha256 not in {None, archive.sha256}:
            raise _wrong_hash(archive, f"{link.sha256} on offer", link.url)
        resumed = size_of(part) > 0
        self._fill(archive, link.url, part)
        if _is_whole(archive, part):
            return
        if resumed:  # what was left over may be what is wrong
            part.unlink()
            self._fill(archive, link.url, part)
            if _is_whole(archive, part):
                return
        found = sha256_of(part)
        part.unlink()
        raise _wrong_hash(archive, found, link.url)

    def _fill(self, archive: Archive, url: str, part: Path) -> None:
        """Append to `part` until it has the archive's size."""
        if (source := local_path(url)) is not None:
            self._copy(archive, source, part)
            return
        failures = 0
        while (before := size_of(part)) != archive.size_bytes:
            try:
                self._append(archive, url, part)
                if size_of(part) != archive.size_bytes:
                    raise _TransientError("the connection ended early")
            except (httpx.TransportError, _TransientError) as error:
                failures = 1 if size_of(part) - before >= _WORTHWHILE_BYTES else failures + 1
                _wait_or_give_up(failures, url, error)

    def _append(self, archive: Archive, url: str, part: Path) -> None:
        """One request for what `part` still lacks."""
        have = size_of(part)
        if have > archive.size_bytes:
            part.unlink()
            have = 0
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
        with self._get(url, headers) as response:
            if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
                part.unlink()
                raise _TransientError("the server does not give the rest of the file")
            _check_status(response, url)
            if response.status_code != httpx.codes.PARTIAL_CONTENT:
                have = 0
            elif not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
                part.unlink()
                raise _TransientError("the server sent another piece than the one asked for")
            length = response.headers.get("Content-Length", "")
            if length.isdecimal() and have + int(length) != archive.size_bytes:
                raise _wrong_hash(archive, f"a file of {human_size(have + int(length))}", url)
            with disk_errors(part), part.open("r+b" if have else "wb") as file:
                file.seek(have)
                for piece in response.iter_raw():
                    have += len(piece)
                    if have > archive.size_bytes:
                        raise _wrong_hash(archive, "a longer file", url)
                    file.write(piece)
                    self._progress.file_advanced(archive.filename, have)

    def _copy(self, archive: Archive, source: Path, part: Path) -> None:
        """Take the archive from a local index; `part` is made anew."""
        try:
            reader = source.open("rb")
        except OSError as error:
            raise _SourceError(f"{source} cannot be read ({error.strerror})", code="model_not_found") from error
        done = 0
        with reader, disk_errors(part), part.open("wb") as writer:
            while done <= archive.size_bytes and (piece := reader.read(_COPY_BYTES)):
                writer.write(piece)
                done += len(piece)
                self._progress.file_advanced(archive.filename, min(done, archive.size_bytes))

    def _get_page(self, url: str) -> Page | None:
        """An index page, None when the index does not know the project."""
        failures = 0
        while True:
            try:
                with self._get(url, {"Accept": ACCEPT}) as response:
                    if response.status_code in {httpx.codes.NOT_FOUND, httpx.codes.GONE}:
                        return None
                    _check_status(response, url)
                    response.read()
                    return Page(str(response.url), response.headers.get("Content-Type", ""), response.text)
            except (httpx.TransportError, httpx.DecodingError, _TransientError) as error:
                failures += 1
                _wait_or_give_up(failures, url, error)

    @contextmanager
    def _get(self, url: str, headers: dict[str, str]) -> Iterator[httpx.Response]:
        authorization = self._registries.authorization(url)
        if authorization:
            headers = headers | {"Authorization": authorization}
        try:
            with self._client.stream("GET", url, headers=headers) as response:
                yield response
        except (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.TooManyRedirects) as error:
            raise _SourceError(f"{_where(url)} cannot be asked ({error})", code="model_offline") from error


def _http_client(registries: Registries) -> httpx.Client:
    """A client that trusts what the user's settings trust and goes through the user's proxy."""
    bundle = registries.ca_bundle
    try:
        if bundle is None:
            context = httpx.create_ssl_context()
            context.load_default_certs()  # certificates the machine's owner added count too
        elif Path(bundle).is_dir():
            context = ssl.create_default_context(capath=bundle)
        else:
            context = ssl.create_default_context(cafile=bundle)
    except (OSError, ssl.SSLError) as error:
        raise ModelError(
            f"the trusted certificates cannot be read ({bundle or 'SSL_CERT_FILE or SSL_CERT_DIR'}: {error}): correct "
            "PIP_CERT, REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE, SSL_CERT_FILE or SSL_CERT_DIR"
        ) from error
    try:
        return httpx.Client(
            verify=context,
            timeout=_TIMEOUT,
            follow_redirects=True,
            proxy=registries.proxy,
            headers={"User-Agent": "ahoy-models"},
        )
    except (ImportError, ValueError, httpx.InvalidURL) as error:
        raise ModelError(
            "the proxy settings cannot be used: HTTPS_PROXY, HTTP_PROXY, ALL_PROXY or PIP_PROXY must hold an http:// "
            "or https:// address (socks:// is not supported)"
        ) from error


def _check_status(response: httpx.Response, url: str) -> None:
    status = response.status_code
    if status in _TRANSIENT_STATUS:
        raise _TransientError(f"status {status}")
    if status in {401, 403, 407}:
        raise _SourceError(f"{_where(url)} refuses access (status {status})", code="model_offline")
    if not response.is_success:
        raise _SourceError(f"{_where(url)} does not have it (status {status})", code="model_not_found")


def _wait_or_give_up(failures: int, url: str, error: Exception) -> None:
    """Sleep before the next attempt; raise when there have been enough."""
    if failures > len(RETRY_DELAYS_S):
        said = str(error) or type(error).__name__
        raise _SourceError(f"{_where(url)} cannot be reached ({said})", code="model_offline") from error
    time.sleep(RETRY_DELAYS_S[failures - 1] * random.uniform(1.0, 1.25))  # noqa: S311 (no secret depends on it)


def _wrong_hash(archive: Archive, found: str, url: str) -> _SourceError:
    return _SourceError(
        f"the hash of {archive.filename} from {_where(url)} differs (expected SHA-256 {archive.sha256} and "
        f"{human_size(archive.size_bytes)}, got {found})",
        code="model_hash",
    )


def _is_whole(archive: Archive, part: Path) -> bool:
    return size_of(part) == archive.size_bytes and sha256_of(part) == archive.sha256


def _where(url: str) -> str:
    """Who was asked, for a message: the host, or the local path."""
    parts = urlsplit(url)
    return parts.netloc.rsplit("@", 1)[-1] if parts.scheme in {"http", "https"} else url

"""Finding an archive on package indexes: the Simple API of Python indexes (PEP 503 HTML, PEP 691 JSON) and npm.

An archive is recognised by its file name and, when the index tells it, its SHA-256. Platform tags and Python versions
do not matter, for nothing is installed.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urldefrag, urljoin, urlsplit
from urllib.request import url2pathname

from packaging.utils import canonicalize_name

from app.inference.manifest import Archive
from app.inference.registries import Registries

ACCEPT = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.01"
"""Content negotiation of PEP 691: JSON when the index has it."""


@dataclass(frozen=True, slots=True)
class Page:
    """An index page: the address it came from after redirects, its media type and its text."""

    url: str
    content_type: str
    text: str


@dataclass(frozen=True, slots=True)
class Link:
    """A file an index offers; `sha256` is None when the index does not tell it."""

    filename: str
    url: str
    sha256: str | None

    def names(self, archive: Archive) -> bool:
        """Whether this means `archive`: by its hash, or by its file name (the hash may then still be another one)."""
        return self.sha256 == archive.sha256 or self.filename == archive.filename


def places(archive: Archive, registries: Registries) -> tuple[str, ...]:
    """The addresses to ask for `archive`: index pages, find-links, or npm's own address of the tarball."""
    if archive.index == "npm":
        base = archive.package.rsplit("/", 1)[-1]
        return (f"{registries.npm}/{archive.package}/-/{base}-{archive.version}.tgz",)
    project = canonicalize_name(archive.package)
    return (*registries.find_links, *(f"{index}/{project}/" for index in registries.indexes))


def locate(archive: Archive, place: str, get_page: Callable[[str], Page | None]) -> Iterator[Link]:
    """The links (`http(s)://` or `file://`) under which `place` offers `archive`; none when it does not.

    `get_page` fetches a page, None when the index has no such project; what it raises passes through.
    """
    if archive.index == "npm":
        yield Link(archive.filename, place, None)
    elif (directory := local_path(place)) is not None:
        yield from _locate_locally(archive, directory)
    elif (page := get_page(place)) is not None:
        yield from (link for link in parse_page(page) if link.names(archive))


def local_path(place: str) -> Path | None:
    """The local path that `place` names: a `file://` address or a plain path; None for a remote address."""
    parts = urlsplit(place)
    if parts.scheme == "file":
        return Path(url2pathname(parts.path))
    return None if parts.scheme in {"http", "https"} else Path(place).expanduser()


def parse_page(page: Page) -> list[Link]:
    """The files an index page offers. A page that is neither HTML nor well-formed JSON offers none."""
    if "json" in page.content_type:
        try:
            files: list[dict[str, Any]] = json.loads(page.text)["files"]
            return [
                Link(file["filename"], urljoin(page.url, file["url"]), file.get("hashes", {}).get("sha256"))
                for file in files
            ]
        except (ValueError, KeyError, TypeError, AttributeError):
            return []
    parser = _Links(page.url)
    parser.feed(page.text)
    return parser.links


def _locate_locally(archive: Archive, path: Path) -> Iterator[Link]:
    """`path` is a directory of packages, or a directory or file that holds an HTML page of links."""
    if (path / archive.filename).is_file():
        yield Link(archive.filename, (path / archive.filename).absolute().as_uri(), None)
        return
    page = path if path.suffix in {".html", ".htm"} else path / "index.html"
    try:
        text = page.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    links = parse_page(Page(page.absolute().as_uri(), "text/html", text))
    yield from (link for link in links if link.names(archive))


class _Links(HTMLParser):
    """Collects the anchors of an HTML page, minding `<base>` and the hash in each address' fragment."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._base = url
        self.links: list[Link] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        href = dict(attrs).get("href")
        if not href:
            return
        if tag == "base":
            self._base = urljoin(self._base, href)
        elif tag == "a":
            url, fragment = urldefrag(urljoin(self._base, href))
            name = unquote(urlsplit(url).path.rsplit("/", 1)[-1])
            self.links.append(Link(name, url, parse_qs(fragment).get("sha256", [None])[0]))

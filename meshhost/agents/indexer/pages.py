"""Reads the pages of one web site, within bounds and by its rules.

`crawl` begins at an address and follows links to pages of the same origin, nearest first. It fetches through `tools.fetch`,
which lets no address lead into our own network; asks robots.txt first and waits as that says; and reads a bounded number of
pages, of bounded size, within a bounded time. A page that cannot be read is counted and left out. Pages are HTML, Markdown or
plain text.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from urllib.robotparser import RobotFileParser

from yarl import URL

from meshhost.errors import MeshhostError, ToolError
from meshhost.tools.fetch import AddressCheck, Fetched, FetchStatusError, check_url, fetch, is_public

__all__ = ["Crawl", "Page", "text_of"]

USER_AGENT = "meshhost-indexer"
_SECONDS = 20.0
_ROBOTS_BYTES = 512 * 1024
_MOST_LINKS = 1000
# Between two pages, unless robots.txt asks for longer, and the longest that is waited.
_PAUSE, _LONGEST_PAUSE = 0.2, 10.0
_SILENT = frozenset({"script", "style", "noscript", "template", "svg", "nav", "footer", "head"})
_BLOCKS = frozenset(
    {"p", "div", "section", "article", "br", "li", "tr", "table", "ul", "ol", "pre", "blockquote", "main"}
    | {f"h{number}" for number in range(1, 7)}
)
# Answers that say that there is no robots.txt. Any other one but 200 may hide rules.
_NO_RULES = frozenset({400, 404, 405, 410})
_TEXTS = frozenset({"text/plain", "text/markdown"})


@dataclass(frozen=True, slots=True)
class Page:
    """A page that was read: its address, title and text."""

    url: str
    title: str
    text: str


@dataclass(slots=True)
class Crawl:
    """Reads the pages of the site of `url`. `failed` counts those that could not be read, `refused` those of robots.txt.

    `is_allowed` says which addresses may be connected to.
    """

    url: str
    max_pages: int = 100
    max_page_bytes: int = 2 * 1024 * 1024
    max_seconds: float = 600.0
    pause: float = _PAUSE
    is_allowed: AddressCheck = is_public
    failed: int = 0
    refused: int = 0
    _seen: set[str] = field(default_factory=set)

    async def pages(self) -> AsyncIterator[Page]:
        """Yield the pages. Raises InvalidRequestError for an address that may not be read, ToolError if the first one fails."""
        start = check_url(self.url, is_allowed=self.is_allowed).with_fragment(None)
        robots = await self._robots(start)
        pause = min(max(self.pause, float(robots.crawl_delay(USER_AGENT) or 0)), _LONGEST_PAUSE)
        waiting, read, end = [start], 0, time.monotonic() + self.max_seconds
        self._seen.add(str(start))
        while waiting and read < self.max_pages and time.monotonic() < end:
            url = waiting.pop(0)
            if not robots.can_fetch(USER_AGENT, str(url)):
                self.refused += 1
                continue
            if read or self.failed:
                await asyncio.sleep(pause)
            try:
                fetched = await self._fetch(url, self.max_page_bytes)
            except MeshhostError:
                if url == start:
                    raise
                self.failed += 1
                continue
            address = URL(fetched.url or str(url)).with_fragment(None)
            if address.origin() != start.origin():
                self.failed += 1
                if url == start:
                    raise ToolError(f"the address leads to another site: {address.origin()}")
                continue
            page, links = await asyncio.to_thread(_read, fetched, str(address))
            waiting += self._new(links, start, len(waiting))
            if page is not None:
                read += 1
                yield page
        if not read and self.refused:
            raise ToolError("the site's robots.txt does not permit to read it")

    def _new(self, links: list[str], start: URL, waiting: int) -> list[URL]:
        """The links that lead to other pages of the site, no more than can be read."""
        found: list[URL] = []
        for link in links:
            try:
                url = URL(link).with_fragment(None)
                is_own = url.is_absolute() and url.origin() == start.origin()
            except ValueError:
                continue
            if is_own and str(url) not in self._seen and waiting + len(found) < 10 * self.max_pages:
                self._seen.add(str(url))
                found.append(url)
        return found

    async def _robots(self, start: URL) -> RobotFileParser:
        """What robots.txt permits: all when there is none, nothing when the site fails to say."""
        robots, lines = RobotFileParser(), list[str]()
        try:
            fetched = await self._fetch(start.origin() / "robots.txt", _ROBOTS_BYTES)
            lines = fetched.data.decode(errors="replace").splitlines()
        except MeshhostError as error:
            if not (isinstance(error, FetchStatusError) and error.status in _NO_RULES):
                lines = ["User-agent: *", "Disallow: /"]
        robots.parse(lines)
        return robots

    async def _fetch(self, url: URL, limit: int) -> Fetched:
        return await fetch(str(url), limit=limit, timeout=_SECONDS, is_allowed=self.is_allowed, user_agent=USER_AGENT)


def text_of(html: str, base: str = "") -> tuple[str, str, list[str]]:
    """Return the title, the text and the links of a page."""
    reader = _Reader(base)
    reader.feed(html)
    reader.close()
    lines = (" ".join(line.split()) for line in "".join(reader.parts).split("\n"))
    return " ".join(reader.title.split()), "\n".join(line for line in lines if line), reader.links


def _read(fetched: Fetched, url: str) -> tuple[Page | None, list[str]]:
    try:
        text = fetched.data.decode(fetched.charset or "utf-8", errors="replace")
    except LookupError:
        text = fetched.data.decode(errors="replace")
    if fetched.mime_type in _TEXTS:
        return Page(url, url.rpartition("/")[2] or url, text), []
    if fetched.mime_type not in {"text/html", "application/xhtml+xml"}:
        return None, []
    title, body, links = text_of(text, url)
    return Page(url, title or url, body), links


class _Reader(HTMLParser):
    """Collects text outside of elements that show none, and links."""

    def __init__(self, base: str) -> None:
        super().__init__(convert_charrefs=True)
        self._base = base
        self._silent = 0
        self._in_title = False
        self.title = ""
        self.parts: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._in_title = tag == "title"
        if tag in _SILENT:
            self._silent += 1
        if tag in _BLOCKS:
            self.parts.append("\n")
        if tag == "a" and len(self.links) < _MOST_LINKS:
            self._link(dict(attrs))

    def handle_endtag(self, tag: str) -> None:
        self._in_title = False
        if tag in _SILENT and self._silent:
            self._silent -= 1
        if tag in _BLOCKS:
            self.parts.append("\n")

    def handle_data(self, data: str) -> None:
        if self._in_title:
            self.title += data
        elif not self._silent:
            self.parts.append(data)

    def _link(self, attributes: dict[str, str | None]) -> None:
        href = attributes.get("href")
        if not href or "nofollow" in (attributes.get("rel") or ""):
            return
        try:
            self.links.append(str(URL(self._base).join(URL(href.strip()))))
        except ValueError:
            return

"""HTML of mails: made harmless, as text, and written from Markdown.

Mail brings HTML of anybody. `sanitized` leaves what formats a text and nothing that runs, loads or tracks (nh3); `as_text`
shows a mail that has no plain part, with the addresses of its links; `from_markdown` writes the HTML part of an answer. Pure.
nh3 and markdown-it-py come with the extra `mail`; without nh3 no HTML is passed on, and without markdown-it-py answers are
plain.
"""

import html
import re
from html.parser import HTMLParser
from importlib.util import find_spec

__all__ = ["as_text", "from_markdown", "sanitized"]

_MOST_CHARS = 2_000_000
_BLOCKS = frozenset(
    {
        *(
            "address",
            "article",
            "aside",
            "blockquote",
            "center",
            "dd",
            "div",
            "dl",
            "dt",
            "fieldset",
            "figure",
            "footer",
        ),
        *("form", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr", "li", "main", "nav", "ol", "p", "pre", "section"),
        *("table", "tbody", "tfoot", "thead", "tr", "ul"),
    }
)
# Their text is none of the mail.
_HIDDEN = frozenset({"head", "script", "style", "template", "title"})
_BLANK_LINES = re.compile(r"\n{3,}")


def sanitized(markup: str) -> str | None:
    """Return HTML without scripts, forms, styles and remote images; None when nh3 is not installed."""
    if find_spec("nh3") is None:
        return None
    import nh3

    allowed = (nh3.ALLOWED_TAGS - {"img", "map", "area"}) | {"span", "div"}
    return nh3.clean(markup[:_MOST_CHARS], tags=allowed, url_schemes={"http", "https", "mailto", "tel"})


def as_text(markup: str) -> str:
    """Return what a person would read: lines and paragraphs, list items with dashes, links with their addresses."""
    reader = _TextReader()
    try:
        reader.feed(markup[:_MOST_CHARS])
        reader.close()
    except (ValueError, AssertionError, RecursionError):  # html.parser, of what only looks like HTML
        return html.unescape(re.sub(r"<[^>]*>", " ", markup[:_MOST_CHARS])).strip()
    return reader.text()


def from_markdown(text: str) -> str | None:
    """Return a text in Markdown as harmless HTML; None when a library for that is missing."""
    if find_spec("markdown_it") is None:
        return None
    from markdown_it import MarkdownIt

    # HTML inside the text is shown, not interpreted: it is what a model wrote.
    return sanitized(MarkdownIt("commonmark", {"html": False, "breaks": True}).enable("table").render(text))


class _TextReader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._parts: list[str] = []
        self._hidden: list[str] = []
        self._links: list[tuple[str, int]] = []
        self._verbatim = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _HIDDEN:
            self._hidden.append(tag)
        elif tag == "br":
            self._parts.append("\n")
        elif tag in _BLOCKS:
            self._break()
            if tag == "li":
                self._parts.append("- ")
            self._verbatim += tag == "pre"
        elif tag in ("td", "th"):
            self._parts.append(" ")
        elif tag == "img":
            self._parts.append(dict(attrs).get("alt") or "")
        elif tag == "a":
            self._links.append((dict(attrs).get("href") or "", len(self._parts)))
        elif tag == "body":
            self._hidden.clear()  # a head that was never closed

    def handle_endtag(self, tag: str) -> None:
        if self._hidden and tag == self._hidden[-1]:
            self._hidden.pop()
        elif tag in _BLOCKS:
            self._verbatim -= tag == "pre" and self._verbatim > 0
            self._break()
        elif tag == "a" and self._links:
            address, start = self._links.pop()
            shown = "".join(self._parts[start:]).strip()
            if address.startswith(("http:", "https:", "mailto:")) and address.removeprefix("mailto:") != shown:
                self._parts.append(f" ({address})")

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self._parts.append(data if self._verbatim else re.sub(r"\s+", " ", data))

    def text(self) -> str:
        lines = [
            line.strip() if not line.startswith("    ") else line.rstrip() for line in "".join(self._parts).split("\n")
        ]
        return _BLANK_LINES.sub("\n\n", "\n".join(lines)).strip()

    def _break(self) -> None:
        if self._parts and not self._parts[-1].endswith("\n"):
            self._parts.append("\n")

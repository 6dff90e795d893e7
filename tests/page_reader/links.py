"""The links of a page and the anchors that it offers, as GitHub and MkDocs make them."""

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from page_reader.blocks import ROOT

_FENCE = re.compile(r"^ *```.*?^ *```$", re.DOTALL | re.MULTILINE)
_CODE = re.compile(r"`[^`\n]*`")
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ +(.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Link:
    """A link from a page: `target` as it is written."""

    page: Path
    target: str

    @property
    def is_external(self) -> bool:
        """Whether it leaves the repository."""
        return bool(urlsplit(self.target).scheme)

    @property
    def file(self) -> Path:
        """The file that an internal link leads to."""
        path = urlsplit(self.target).path
        return (self.page.parent / path).resolve() if path else self.page

    @property
    def anchor(self) -> str:
        """The part of the file, "" for its beginning."""
        return urlsplit(self.target).fragment

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}: {self.target}"


def links_of(page: Path) -> list[Link]:
    """All links outside of code."""
    text = _CODE.sub("code", _FENCE.sub("", page.read_text()))
    return [Link(page, target) for target in _LINK.findall(text)]


def anchors_of(page: Path) -> set[str]:
    """The anchors of the page's headings."""
    return {_slug(heading) for heading in _HEADING.findall(_FENCE.sub("", page.read_text()))}


def _slug(heading: str) -> str:
    words = re.sub(r"[^\w\s-]", "", heading.replace("`", "")).strip().lower()
    return re.sub(r"\s+", "-", words)

"""Which texts an entry of a grant covers: one, or all that begin alike.

`grants.py` reads the entries of path and image grants as spans, and intersects scopes by them. Pure. The invariant: two spans
are nested or disjoint, so that what two lists of entries both permit is a list of entries again.
"""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["Span", "joined", "normal_path", "pattern_span", "prefix_span"]


class Span(NamedTuple):
    """The texts that an entry covers: `stem` itself, and all that begin with `below` (None: nothing more).

    Two spans are nested or disjoint, never overlapping; `ApiScope.intersection` rests on that.
    """

    stem: str
    below: str | None

    def contains(self, text: str) -> bool:
        """Return whether this text is covered."""
        return text == self.stem or (self.below is not None and text.startswith(self.below))

    def covers(self, other: Span) -> bool:
        """Return whether all that the other covers is covered."""
        if other.below is None:
            return self.contains(other.stem)
        return self.below is not None and self.contains(other.stem) and other.below.startswith(self.below)


def prefix_span(text: str) -> Span:
    """Return the span of all texts that begin with this one."""
    return Span(text, text)


def pattern_span(pattern: str) -> Span:
    """Return the span of a pattern: one text, or with a trailing `*` all that begin with what stands before it."""
    return prefix_span(pattern[:-1]) if pattern.endswith("*") else Span(pattern, None)


def joined(path: str) -> str:
    """Return the path with single slashes."""
    return re.sub("/+", "/", path)


def normal_path(path: str) -> str:
    """Return the path with single slashes, and none at its ends."""
    return joined(path).strip("/")

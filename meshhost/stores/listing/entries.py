"""What is in a folder of a room, in the order in which pages give it.

The order is that of keys: the name of a file, and the name of a folder with a slash behind it. Object stores list by key, so
this is the one order that all backends can begin anywhere in, without reading what comes before. The key of the last entry
that a reader got is its cursor. The law that follows: an entry that is there from the first page to the last is given exactly
once, whatever else is added, deleted or replaced meanwhile, because its key neither changes nor depends on other entries.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from typing import NamedTuple

__all__ = ["LAST", "Entry", "Found", "Page", "merged"]

LAST = "\U0010ffff"
"""The character after which none comes: `folder/` followed by it is behind all that the folder holds."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A file or folder; `path` is the whole path in the room."""

    path: str
    is_folder: bool
    size: int | None = None
    updated_at: datetime | None = None

    @property
    def name(self) -> str:
        """The last segment of the path."""
        return self.path.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class Page:
    """Some entries of a folder, by key.

    `next` is the cursor of the page after it, None at the end. A page with a `next` may have fewer entries than were asked for.
    """

    entries: Sequence[Entry]
    next: str | None


class Found(NamedTuple):
    """A key, and its entry where finding the key told it."""

    key: str
    entry: Entry | None = None

    @property
    def name(self) -> str:
        """The key without the slash of a folder."""
        return self.key.removesuffix("/")


def merged(sources: Iterable[Sequence[Found]], count: int) -> list[Found]:
    """Return the first `count` of several sources, by key. Of two with one key, that of the earlier source is taken."""
    by_key: dict[str, Found] = {}
    for found in chain.from_iterable(sources):
        by_key.setdefault(found.key, found)
    return sorted(by_key.values(), key=lambda found: found.key)[:count]

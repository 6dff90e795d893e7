"""What a row holds of a large body (or result) instead of its text: the name of its object, size, checksum and beginning.

The reference is stored in the column of the body, so rows, statements and messages of usual size stay as they are. It begins
with `@`, which no JSON text does: every body and result that comes from outside is a JSON text when it reaches a store, so
nobody can send a reference. The name is looked for in the area of the room of its queue only (`objects.py`), so not even an
archive that somebody made can name another room's object.

Stores find references by their first characters: `MARK`, then a name of NAME_LENGTH characters. Their indexes rely on this
(`large` in the migrations of the queues), so neither may change. This module is pure.
"""

import re
from dataclasses import dataclass
from typing import Final

from meshhost.errors import InvalidRequestError

__all__ = ["BEGINNING_CHARS", "MARK", "NAME_LENGTH", "BodyReference", "is_object_name", "is_reference", "name_in"]

MARK: Final = "@"
NAME_LENGTH: Final = 32
# What a look at a large body shows: enough to recognise it.
BEGINNING_CHARS: Final = 500

_NAME = re.compile(r"[0-9a-f]{32}")
_FORM = re.compile(r"@([0-9a-f]{32}) (\d{1,15}) ([0-9a-f]{64})\n(.{0,500})", re.DOTALL | re.ASCII)


@dataclass(frozen=True, slots=True)
class BodyReference:
    """A large body: its object's name, its size in bytes, its SHA-256 in hex, and its first characters (ASCII JSON)."""

    name: str
    size: int
    sha256: str
    beginning: str

    def to_text(self) -> str:
        """Return what a row holds."""
        return f"{MARK}{self.name} {self.size} {self.sha256}\n{self.beginning}"

    @staticmethod
    def parse(text: str) -> "BodyReference":
        """Return the reference in a row. Raises InvalidRequestError when it is none."""
        found = _FORM.fullmatch(text)
        if found is None:
            raise InvalidRequestError("body", "expected a reference to a large body")
        return BodyReference(found[1], int(found[2]), found[3], found[4])


def is_reference(text: str) -> bool:
    """Whether the text of a row is a reference, and not the body itself."""
    return text.startswith(MARK)


def is_object_name(name: str) -> bool:
    """Whether an object may have this name."""
    return _NAME.fullmatch(name) is not None


def name_in(text: str) -> str:
    """Return the name of the object in a reference, as stores find it."""
    return text[len(MARK) : len(MARK) + NAME_LENGTH]

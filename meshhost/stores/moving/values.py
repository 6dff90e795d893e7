"""The values of a row as PostgreSQL has them, and a checksum over rows that does not depend on their order.

`copy.py` is the user: it converts a row that SQLite gave, writes it, and compares the checksum of all that it read with that of
all that it finds in the target. This module is pure.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from meshhost.errors import InvalidRequestError

__all__ = ["Checksum", "Column", "converted"]


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table of PostgreSQL, with its type as `format_type` names it."""

    name: str
    type: str


def converted(table: str, columns: Sequence[Column], row: Sequence[object]) -> tuple[object, ...]:
    """Return a row of SQLite, or one that PostgreSQL gave, as it is written. Raises InvalidRequestError for what cannot be."""
    return tuple(_converted(table, column, value) for column, value in zip(columns, row, strict=True))


def _converted(table: str, column: Column, value: object) -> object:
    match column.type, value:
        case "text[]", _:
            # A history: JSON in SQLite, a list of JSON texts here. None of both is an empty one.
            return [json.dumps(entry) for entry in json.loads(value)] if isinstance(value, str) else value or []
        case _, None:
            return None
        case "bytea", str():
            return value.encode()
        case "boolean", _:
            return bool(value)
        case "double precision", int() | float():
            return float(value)
        case "jsonb", str():
            # PostgreSQL keeps neither the order of names nor how a number was written.
            return json.dumps(json.loads(value, parse_int=float), sort_keys=True)
        case "text", str() if "\0" in value:
            raise InvalidRequestError(
                f"{table}.{column.name}",
                "a row holds the character NUL, which PostgreSQL cannot store: delete or rename it",
            )
    return value


class Checksum:
    """Counts rows, and adds up a hash of each."""

    def __init__(self) -> None:
        self.rows = 0
        self._sum = 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Checksum) and str(self) == str(other) and self.rows == other.rows

    __hash__ = None  # type: ignore[assignment] # it changes

    def __str__(self) -> str:
        return f"{self._sum:032x}"

    def add(self, row: Sequence[object]) -> None:
        """Add a row that `converted` returned."""
        digest = hashlib.blake2b(digest_size=16)
        for value in row:
            content = value if isinstance(value, bytes) else repr(value).encode()
            digest.update(f"{type(value).__name__}{len(content)}:".encode())
            digest.update(content)
        self.rows += 1
        self._sum = (self._sum + int.from_bytes(digest.digest(), "big")) % 2**128

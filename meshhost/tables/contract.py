"""What a store of tables promises, and the values that it takes and gives.

The room server's database service and the export of rooms are written against `TableStore`; `store.py` has the one
implementation. Rows are JSON objects on both sides: bytes are `{"encoding": "base64", "data": …}`, dates and times are ISO
8601 texts, vectors are lists of numbers, and an object in a cell is kept as its JSON text. Invariants: a table belongs to one
room; a write is one version of its table, whole or not there at all, whatever is killed in the middle; readers see the
version that was the latest when they began. Pure: no I/O.
"""

import re
import unicodedata
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

from meshhost.errors import InvalidRequestError
from meshhost.identity.tenant import RoomKey, TenantId

__all__ = [
    "ColumnType",
    "CreateMode",
    "FoundRows",
    "IndexKind",
    "Rows",
    "Search",
    "TableIndex",
    "TablePart",
    "TableStore",
    "TableVersion",
    "TenantTables",
    "check_column",
    "check_table_name",
]

Rows: TypeAlias = bytes
"""Rows as the JSON of an array of objects, which is read where the table is: `encoding.encode_rows` makes it."""

CreateMode: TypeAlias = Literal["create", "overwrite", "create_if_not_exists"]
ColumnType: TypeAlias = Mapping[str, Any]
"""A type as it is on the wire: `{"type": "int"}`, or `{"type": "vector", "size": 3, "element_type": {"type": "float"}}`."""

# LanceDB's own rule, and a length that every file system takes.
_TABLE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_MAX_COLUMN_CHARS = 128
_SCALAR_INDEXES = frozenset({"BTree", "Bitmap", "LabelList"})
# Names that results have for what is computed.
_RESERVED = frozenset({"_rowid", "_rowaddr", "_distance", "_score", "_relevance_score"})


class IndexKind(StrEnum):
    """What an index is for."""

    VECTOR = "vector"
    SCALAR = "scalar"
    FULL_TEXT = "full_text"


@dataclass(frozen=True, slots=True)
class Search:
    """What is searched for in a table; without `text` and `vector` all rows are found.

    `where` is a filter in SQL, as `sql.prepare` returns it. `version` is the version that is read, None the latest one.
    """

    where: str | None = None
    text: str | None = None
    vector: Sequence[float] | None = None
    limit: int | None = None
    offset: int = 0
    select: Sequence[str] | None = None
    version: int | None = None


@dataclass(frozen=True, slots=True)
class FoundRows:
    """Rows as the JSON text of an array, encoded where the table is read, and how many they are."""

    text: str
    count: int


class TableVersion(NamedTuple):
    """A version of a table; `timestamp` is an ISO 8601 text."""

    version: int
    timestamp: str
    metadata: Mapping[str, Any]


class TableIndex(NamedTuple):
    """An index of a table; `type` is LanceDB's word for how it works."""

    name: str
    columns: Sequence[str]
    type: str

    @property
    def kind(self) -> IndexKind:
        """What it is for."""
        if self.type == "FTS":
            return IndexKind.FULL_TEXT
        return IndexKind.SCALAR if self.type in _SCALAR_INDEXES else IndexKind.VECTOR


class TenantTables(NamedTuple):
    """How many tables a tenant has in all its rooms, and the bytes of their files, former versions included."""

    tables: int
    stored_bytes: int


class TablePart(NamedTuple):
    """Some rows of a table as an Arrow stream, which has their schema too."""

    table: str
    data: bytes


class TableStore(Protocol):
    """The tables of all rooms. Names are checked (`check_table_name`, `check_column`), filters prepared (`sql.prepare`).

    Every method raises NotFoundError for a table, column or version that is not there, InvalidRequestError that names the
    field, LimitExceededError for a query that needs more memory, rows or bytes than are allowed and when the tenant has too
    many requests waiting, RequestTimeoutError for one that took too long or whose outcome is unknown, StorageFullError, and
    RoomError when the store fails. A tenant's requests never wait for another tenant's, but for a process to run in.
    """

    async def list(self, room: RoomKey) -> Sequence[str]:
        """The names of the room's tables, sorted."""
        ...

    async def create(
        self,
        room: RoomKey,
        table: str,
        *,
        rows: Rows | None,
        schema: Mapping[str, ColumnType] | None,
        mode: CreateMode,
    ) -> bool:
        """Create a table with this schema, or the one of its rows; return whether there was none of the name.

        Raises AlreadyExistsError in mode `create`.
        """
        ...

    async def drop(self, room: RoomKey, table: str, *, ignore_missing: bool = False) -> bool:
        """Delete a table with all its versions; return whether it was there."""
        ...

    async def add_columns(self, room: RoomKey, table: str, columns: Mapping[str, str | ColumnType]) -> None:
        """Add columns: each with an SQL expression for its values, or with a type and no values."""
        ...

    async def drop_columns(self, room: RoomKey, table: str, columns: Sequence[str]) -> None:
        """Remove columns."""
        ...

    async def insert(self, room: RoomKey, table: str, rows: Rows) -> None:
        """Add rows. Columns that a row does not have are null in it."""
        ...

    async def update(
        self, room: RoomKey, table: str, *, where: str | None, values: Mapping[str, Any], values_sql: Mapping[str, str]
    ) -> None:
        """Change the rows that the filter matches, None all: columns to values, or to what SQL expressions yield."""
        ...

    async def delete(self, room: RoomKey, table: str, where: str) -> None:
        """Remove the rows that the filter matches."""
        ...

    async def merge(self, room: RoomKey, table: str, *, on: str, rows: Rows) -> None:
        """Replace the rows that have the same value in the column `on`, and add the others. Of equal ones the last counts."""
        ...

    async def search(self, room: RoomKey, table: str, search: Search) -> FoundRows:
        """Find rows: nearest to the vector first, best match of the text first, or both ranks combined."""
        ...

    async def optimize(self, room: RoomKey, table: str) -> None:
        """Compact the table, bring its indexes up to date, and remove versions of more than a week ago."""
        ...

    async def versions(self, room: RoomKey, table: str) -> Sequence[TableVersion]:
        """The versions that can be read and restored, oldest first."""
        ...

    async def restore(self, room: RoomKey, table: str, version: int) -> None:
        """Make a former version the latest, as a new one."""
        ...

    async def create_index(
        self, room: RoomKey, table: str, *, column: str, kind: IndexKind, replace: bool = True
    ) -> None:
        """Create an index. Raises AlreadyExistsError when there is one and it is not to be replaced."""
        ...

    async def indexes(self, room: RoomKey, table: str) -> Sequence[TableIndex]:
        """The table's indexes, by name."""
        ...

    async def drop_index(self, room: RoomKey, table: str, name: str) -> None:
        """Remove an index."""
        ...

    async def rooms(self, tenant: TenantId) -> Sequence[str]:
        """The names of the tenant's rooms that have tables, sorted."""
        ...

    async def of_tenant(self, tenant: TenantId) -> TenantTables:
        """Count the tables of a tenant, for its quota."""
        ...

    async def delete_all(self, tenant: TenantId, room: str | None = None) -> None:
        """Delete all tables of a tenant, or of one of its rooms; idempotent."""
        ...

    def parts(self, room: RoomKey, table: str) -> AsyncIterator[TablePart]:
        """Yield the rows of a table at one version, some megabytes at a time; at least one part."""
        ...

    async def restore_part(self, room: RoomKey, part: TablePart, *, is_first: bool) -> None:
        """Create a table from the first part, or add a further one to it. What it holds was written by anybody."""
        ...


def check_table_name(name: str, field: str = "table") -> str:
    """Return `name` when it may name a table. Raises InvalidRequestError."""
    if _TABLE_NAME.fullmatch(name) is None:
        raise InvalidRequestError(
            field, "expected 1-128 letters, digits, '_', '-' and '.', beginning with a letter, digit or '_'"
        )
    return name


def check_column(name: str, field: str = "column") -> str:
    """Return `name` when it may name a column. Raises InvalidRequestError."""
    is_plain = not any(character in "`\"'.\\" or unicodedata.category(character)[0] == "C" for character in name)
    if not 0 < len(name) <= _MAX_COLUMN_CHARS or not is_plain or name in _RESERVED:
        raise InvalidRequestError(
            field,
            f"expected a name of 1-{_MAX_COLUMN_CHARS} characters without quotes, dots, backslashes and control characters, "
            f"and none of {', '.join(sorted(_RESERVED))}",
        )
    return name

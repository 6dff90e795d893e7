"""Tables of the room (room-protocol §14): rows with a schema, searched by filter, by text and by nearness to a vector.

The methods are those of MeshAgent's SDK. Rows are dictionaries: bytes are sent as base64, dates and times as ISO 8601 texts.
Where the server has the extension "table_rows", rows travel in the payload of a request, which may be as large as a message;
in its header, where other servers expect them, a megabyte is the usual bound. Rows that need more than one message are to be
inserted in several calls: each is one version of the table, whole or not there.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Literal, TypeAlias

from meshhost.errors import InvalidRequestError, RoomError
from meshhost.room.link import RoomLink
from meshhost.room.replies import reading
from meshhost.room.services.tables.data_types import DataType

__all__ = ["CreateMode", "DatabaseClient", "TableIndex", "TableVersion"]

CreateMode: TypeAlias = Literal["create", "overwrite", "create_if_not_exists"]
Row: TypeAlias = Mapping[str, Any]
Where: TypeAlias = str | Mapping[str, Any]

_PAYLOAD = "table_rows"
# Seconds that a request may take at the server, with some to spare: most, and those that rewrite a table.
_SECONDS, _REWRITE_SECONDS = 75.0, 660.0


@dataclass(frozen=True, slots=True)
class TableVersion:
    """A version of a table; each write makes one."""

    timestamp: datetime
    version: int
    metadata: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class TableIndex:
    """An index of a table."""

    name: str
    columns: Sequence[str]
    type: str


class DatabaseClient:
    """Make, fill, search and index tables. `where` is a filter in SQL, or a dictionary of columns and their values.

    Errors: AccessDeniedError, NotFoundError, AlreadyExistsError, InvalidRequestError for a bad name, filter or value,
    LimitExceededError for more rows than one answer holds, QuotaExceededError, RequestTimeoutError.
    """

    def __init__(self, *, room: RoomLink) -> None:
        self._room = room

    async def list_tables(self) -> list[str]:
        """The names of the room's tables, sorted."""
        answer = await self._ask("list_tables", {})
        with reading("database.list_tables"):
            return [str(name) for name in answer["tables"]]

    async def create_table_with_schema(
        self,
        *,
        name: str,
        schema: Mapping[str, DataType] | None = None,
        data: Sequence[Row] | None = None,
        mode: CreateMode | None = "create",
    ) -> None:
        """Create a table with these columns, and rows if any. `mode` says what to do when there is one of the name."""
        columns = None if schema is None else {column: kind.to_json() for column, kind in schema.items()}
        await self._send_rows("create_table", {"name": name, "schema": columns, "mode": mode}, "data", data)

    async def create_table_from_data(
        self, *, name: str, data: Sequence[Row] | None = None, mode: CreateMode | None = "create"
    ) -> None:
        """Create a table with these rows; the types of its columns are taken from them."""
        await self.create_table_with_schema(name=name, data=data, mode=mode)

    async def drop_table(self, *, name: str, ignore_missing: bool = False) -> None:
        """Delete a table with all its versions."""
        await self._ask("drop_table", {"name": name, "ignore_missing": ignore_missing})

    async def add_columns(self, *, table: str, new_columns: Mapping[str, str | DataType]) -> None:
        """Add columns: each with an SQL expression for its values, or with a type and no values."""
        columns = {name: kind.to_json() if isinstance(kind, DataType) else kind for name, kind in new_columns.items()}
        await self._rewrite("add_columns", {"table": table, "new_columns": columns})

    async def drop_columns(self, *, table: str, columns: Sequence[str]) -> None:
        """Remove columns."""
        await self._rewrite("drop_columns", {"table": table, "columns": list(columns)})

    async def insert(self, *, table: str, records: Sequence[Row] | Row) -> None:
        """Add rows. Columns that a row does not have are None in it."""
        await self._send_rows("insert", {"table": table}, "records", records)

    async def update(
        self,
        *,
        table: str,
        where: Where,
        values: Mapping[str, Any] | None = None,
        values_sql: Mapping[str, str] | None = None,
    ) -> None:
        """Change the rows that match: columns to `values`, or to what the SQL expressions of `values_sql` yield."""
        body = {
            "table": table,
            "where": _filter(where),
            "values": None if values is None else {name: _encoded(value) for name, value in values.items()},
            "values_sql": None if values_sql is None else dict(values_sql),
        }
        await self._ask("update", body)

    async def delete(self, *, table: str, where: Where) -> None:
        """Remove the rows that match."""
        await self._ask("delete", {"table": table, "where": _filter(where)})

    async def merge(self, *, table: str, on: str, records: Sequence[Row] | Row) -> None:
        """Replace the rows with the same value in the column `on`, and add the others.

        Columns that no record has keep their values; of several records with one value the last counts.
        """
        await self._send_rows("merge", {"table": table, "on": on}, "records", records)

    async def search(
        self,
        *,
        table: str,
        text: str | None = None,
        vector: Sequence[float] | None = None,
        where: Where | None = None,
        offset: int | None = None,
        limit: int | None = None,
        select: Sequence[str] | None = None,
    ) -> list[dict[str, Any]]:
        """Find rows: best match of the text first, nearest to the vector first, or both ranks combined; else in any order.

        Without a `limit` ten ranked rows are found, or all that match the filter, at most 10,000: with more it is an error.
        """
        body: dict[str, Any] = {
            "table": table,
            "where": None if where is None else _filter(where),
            "text": text,
            "limit": limit,
            "offset": offset,
            "select": None if select is None else list(select),
            "vector": None if vector is None else [float(number) for number in vector],
        }
        answer = await self._ask("search", {name: value for name, value in body.items() if value is not None})
        with reading("database.search"):
            return [{name: _decoded(value) for name, value in row.items()} for row in answer["results"]]

    async def optimize(self, *, table: str) -> None:
        """Compact the table, bring its indexes up to date, and remove versions of more than a week ago."""
        await self._rewrite("optimize", {"table": table})

    async def list_versions(self, *, table: str) -> list[TableVersion]:
        """The versions that can be checked out and restored, oldest first."""
        answer = await self._ask("list_versions", {"table": table})
        with reading("database.list_versions"):
            return [
                TableVersion(datetime.fromisoformat(each["timestamp"]), int(each["version"]), each["metadata"])
                for each in answer["versions"]
            ]

    async def checkout(self, *, table: str, version: int) -> None:
        """Read this version from now on: this participant only, which cannot write the table until it is back at the latest."""
        await self._ask("checkout", {"table": table, "version": version})

    async def restore(self, *, table: str, version: int) -> None:
        """Make a former version the latest, as a new one."""
        await self._ask("restore", {"table": table, "version": version})

    async def create_vector_index(self, *, table: str, column: str, replace: bool | None = None) -> None:
        """Create an index for searches by vector. `replace=False` makes it an error that there is one."""
        await self._create_index("create_vector_index", table, column, replace)

    async def create_scalar_index(self, *, table: str, column: str, replace: bool | None = None) -> None:
        """Create an index for filters. `replace=False` makes it an error that there is one."""
        await self._create_index("create_scalar_index", table, column, replace)

    async def create_full_text_search_index(self, *, table: str, column: str, replace: bool | None = None) -> None:
        """Create an index for searches by text. `replace=False` makes it an error that there is one."""
        await self._create_index("create_full_text_search_index", table, column, replace)

    async def list_indexes(self, *, table: str) -> list[TableIndex]:
        """The table's indexes, by name."""
        answer = await self._ask("list_indexes", {"table": table})
        with reading("database.list_indexes"):
            return [TableIndex(each["name"], tuple(each["columns"]), each["type"]) for each in answer["indexes"]]

    async def drop_index(self, *, table: str, name: str) -> None:
        """Remove an index."""
        await self._ask("drop_index", {"table": table, "name": name})

    async def _create_index(self, operation: str, table: str, column: str, replace: bool | None) -> None:
        await self._rewrite(operation, {"table": table, "column": column, "replace": replace})

    async def _send_rows(self, operation: str, body: dict[str, Any], field: str, rows: Any) -> None:
        if isinstance(rows, Mapping):
            rows = [rows]
        if rows is None:
            await self._ask(operation, body)
            return
        encoded = [{name: _encoded(value) for name, value in row.items()} for row in rows]
        if _PAYLOAD not in self._room.extensions.get("extensions", ()):
            await self._ask(operation, {**body, field: encoded})
            return
        try:
            data = json.dumps(encoded, allow_nan=False).encode()
        except (ValueError, TypeError) as error:
            raise InvalidRequestError(field, str(error)) from None
        await self._ask(operation, body, data)

    async def _rewrite(self, operation: str, body: dict[str, Any]) -> None:
        await self._room.send_request(f"database.{operation}", body, timeout=_REWRITE_SECONDS)

    async def _ask(self, operation: str, body: dict[str, Any], data: bytes | None = None) -> Any:
        timeout = max(self._room.request_timeout, _SECONDS)
        return await self._room.send_request(f"database.{operation}", body, data, timeout=timeout)


def _filter(where: Where) -> str:
    if isinstance(where, str):
        return where
    return " AND ".join(
        f"{name} IS NULL" if value is None else f"{name} = {json.dumps(value)}" for name, value in where.items()
    )


def _encoded(value: Any) -> Any:
    if isinstance(value, bytes | bytearray | memoryview):
        return {"encoding": "base64", "data": base64.b64encode(value).decode()}
    if isinstance(value, date):  # also a datetime
        return value.isoformat()
    return value


def _decoded(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if value.get("encoding") != "base64":
        raise RoomError("the room server's reply to database.search is not what it should be")
    return base64.b64decode(value["data"])

"""What a worker does with tables: one method for each request of the store (`tables.store`), by its name.

Each takes the header of the request and its bytes, and returns the header and the bytes of the answer. Writes of one table
run one after the other, under its lock. Errors of LanceDB are translated here; its texts are passed on without the places in
its source.
"""

import json
import re
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any, TypeAlias

import pyarrow as pa
from lancedb.index import FTS, Bitmap, BTree, IvfFlat, IvfPq, LabelList

from meshhost.errors import InvalidRequestError
from meshhost.tables.contract import TableIndex, check_column, check_table_name
from meshhost.tables.frames import RefusedError
from meshhost.tables.sql import text_literal
from meshhost.tables.worker.database import Databases
from meshhost.tables.worker.rows import to_arrow
from meshhost.tables.worker.searching import search
from meshhost.tables.worker.types import arrow_type, inferred_schema, schema_of

__all__ = ["Operations", "refusal_of"]

Answer: TypeAlias = tuple[dict[str, Any], bytes]
_NOTHING: Answer = ({}, b"")
# Versions that `optimize` keeps.
_KEPT = timedelta(days=7)
# What the training of an index needs.
_LEAST_VECTORS = 256
# Numbers of a vector that one code of a compressed one stands for: with 8, rows of close clusters were mixed up.
_NUMBERS_PER_CODE = 4
# What keeps the training of an index of a million rows below a minute or two of one processor; more made no search find more.
_PARTITION_ROWS, _ITERATIONS, _SAMPLES = 2048, 15, 128
_SOURCE_PLACE = re.compile(r",? ?(?:/\S+|\w[\w./-]*)\.rs:\d+(?::\d+)?")


class Operations:
    """The requests. `result_bytes` bounds what a search returns."""

    def __init__(self, databases: Databases, *, result_bytes: int) -> None:
        self._databases = databases
        self._result_bytes = result_bytes

    async def run(self, name: str, body: Mapping[str, Any], data: bytes) -> Answer:
        """Do a request. Raises RefusedError; other errors are LanceDB's, for `refusal_of`."""
        method = getattr(self, f"do_{name}")
        answer: Answer = await method(body, data)
        return answer

    async def do_list(self, body: Mapping[str, Any], _: bytes) -> Answer:
        return {"tables": await self._databases.tables(body["room"])}, b""

    async def do_create(self, body: Mapping[str, Any], data: bytes) -> Answer:
        room, table, mode = body["room"], body["table"], body["mode"]
        rows = _rows(data) if data else None
        async with self._databases.writing(room, table):
            database = await self._databases.room(room)
            is_there = table in await self._databases.tables(room)
            if is_there and mode != "overwrite":
                if mode == "create_if_not_exists":
                    return {"created": False}, b""
                raise RefusedError("exists", f"table {table!r} exists: overwrite it, or take another name")
            schema = schema_of(body["schema"]) if body["schema"] is not None else inferred_schema(rows or [])
            for name in schema.names:
                _checked(name, "data")
            content = None if rows is None else to_arrow(rows, schema, "data")
            # The only mode that takes no notice of a table of this name: there is none, or it is to be replaced.
            await database.create_table(table, data=content, schema=schema, mode="overwrite")
            self._databases.forget(room, table)
        return {"created": not is_there}, b""

    async def do_drop(self, body: Mapping[str, Any], _: bytes) -> Answer:
        room, table = body["room"], body["table"]
        async with self._databases.writing(room, table):
            database = await self._databases.room(room)
            if table not in await self._databases.tables(room):
                if body["ignore_missing"]:
                    return {"dropped": False}, b""
                raise RefusedError("not_found", f"no table {table!r} in this room")
            self._databases.forget(room, table)
            await database.drop_table(table)
        return {"dropped": True}, b""

    async def do_add_columns(self, body: Mapping[str, Any], _: bytes) -> Answer:
        async with self._databases.writing(body["room"], body["table"]):
            table = await self._table(body)
            columns: Mapping[str, Any] = body["columns"]
            known = (await table.schema()).names
            for name in columns:
                if name in known:
                    raise RefusedError("exists", f"column {name!r} exists")
            computed = {name: value for name, value in columns.items() if isinstance(value, str)}
            typed = [pa.field(name, arrow_type(value)) for name, value in columns.items() if not isinstance(value, str)]
            if computed:
                await table.add_columns(computed)
            if typed:
                await table.add_columns(pa.schema(typed))
        return _NOTHING

    async def do_drop_columns(self, body: Mapping[str, Any], _: bytes) -> Answer:
        async with self._databases.writing(body["room"], body["table"]):
            table = await self._table(body)
            _require(body["columns"], (await table.schema()).names, "columns")
            await table.drop_columns(body["columns"])
        return _NOTHING

    async def do_insert(self, body: Mapping[str, Any], data: bytes) -> Answer:
        async with self._databases.writing(body["room"], body["table"]):
            table = await self._table(body)
            await table.add(to_arrow(_rows(data), await table.schema(), "records"))
        return _NOTHING

    async def do_update(self, body: Mapping[str, Any], _: bytes) -> Answer:
        async with self._databases.writing(body["room"], body["table"]):
            table = await self._table(body)
            schema = await table.schema()
            _require([*body["values"], *body["values_sql"]], schema.names, "values")
            chosen = pa.schema([schema.field(name) for name in body["values"]])
            row = to_arrow([body["values"]], chosen, "values").to_pylist()[0] if body["values"] else {}
            changes = {name: _literal(value) for name, value in row.items()} | body["values_sql"]
            await table.update(where=body["where"], updates_sql={f"{name}": value for name, value in changes.items()})
        return _NOTHING

    async def do_delete(self, body: Mapping[str, Any], _: bytes) -> Answer:
        async with self._databases.writing(body["room"], body["table"]):
            table = await self._table(body)
            await table.delete(body["where"])
        return _NOTHING

    async def do_merge(self, body: Mapping[str, Any], data: bytes) -> Answer:
        async with self._databases.writing(body["room"], body["table"]):
            table, on = await self._table(body), body["on"]
            schema = await table.schema()
            _require([on], schema.names, "on")
            rows = _last_of_each(_rows(data), on)
            given = {name for row in rows for name in row}
            # Columns that no row has keep their values.
            some = pa.schema([field for field in schema if field.name in given or field.name == on])
            content = to_arrow(rows, some if given <= set(schema.names) else schema, "records")
            await table.merge_insert(on).when_matched_update_all().when_not_matched_insert_all().execute(content)
        return _NOTHING

    async def do_search(self, body: Mapping[str, Any], _: bytes) -> Answer:
        table = await self._table(body, body["version"])
        rows, count = await search(table, body, self._result_bytes)
        return {"count": count}, rows

    async def do_optimize(self, body: Mapping[str, Any], _: bytes) -> Answer:
        async with self._databases.writing(body["room"], body["table"]):
            await (await self._table(body)).optimize(cleanup_older_than=_KEPT)
        return _NOTHING

    async def do_versions(self, body: Mapping[str, Any], _: bytes) -> Answer:
        table = await self._table(body)
        versions = [
            {
                "version": each["version"],
                "timestamp": each["timestamp"].astimezone().isoformat(),
                "metadata": each.get("metadata") or {},
            }
            for each in await table.list_versions()
        ]
        return {"versions": versions}, b""

    async def do_restore(self, body: Mapping[str, Any], _: bytes) -> Answer:
        room, name, version = body["room"], body["table"], body["version"]
        async with self._databases.writing(room, name):
            table = await self._table(body)
            if version not in {each["version"] for each in await table.list_versions()}:
                raise RefusedError("not_found", f"table {name!r} has no version {version}")
            await table.restore(version)
            self._databases.forget(room, name)
        return _NOTHING

    async def do_create_index(self, body: Mapping[str, Any], _: bytes) -> Answer:
        async with self._databases.writing(body["room"], body["table"]):
            table, column, kind = await self._table(body), body["column"], body["kind"]
            schema = await table.schema()
            _require([column], schema.names, "column")
            config = await _index_config(table, schema.field(column).type, kind)
            if not body["replace"]:
                for each in await table.list_indices():
                    index = TableIndex(each.name, each.columns, str(each.index_type))
                    if list(index.columns) == [column] and index.kind == kind:
                        raise RefusedError("exists", f"column {column!r} has an index for this: {index.name!r}")
            name = f"{column}_{'fts' if kind == 'full_text' else 'idx'}"
            await table.create_index(column, config=config, name=name, replace=True)
        return _NOTHING

    async def do_indexes(self, body: Mapping[str, Any], _: bytes) -> Answer:
        found = await (await self._table(body)).list_indices()
        indexes = [{"name": each.name, "columns": list(each.columns), "type": str(each.index_type)} for each in found]
        return {"indexes": sorted(indexes, key=lambda index: str(index["name"]))}, b""

    async def do_drop_index(self, body: Mapping[str, Any], _: bytes) -> Answer:
        async with self._databases.writing(body["room"], body["table"]):
            table = await self._table(body)
            if body["name"] not in {each.name for each in await table.list_indices()}:
                raise RefusedError("not_found", f"table {body['table']!r} has no index {body['name']!r}")
            await table.drop_index(body["name"])
        return _NOTHING

    async def do_part(self, body: Mapping[str, Any], _: bytes) -> Answer:
        """Some rows at a version as an Arrow stream."""
        latest = await self._table(body)
        version = body["version"] or await latest.version()
        table = await self._table(body, version)
        rows = await table.query().offset(body["offset"]).limit(body["limit"]).to_arrow()
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, rows.schema) as writer:
            writer.write_table(rows)
        return {"version": version, "count": rows.num_rows}, sink.getvalue().to_pybytes()

    async def do_restore_part(self, body: Mapping[str, Any], data: bytes) -> Answer:
        """Rows from an archive, which anybody may have written."""
        room, table = body["room"], _checked_table(body["table"])
        content = _untrusted(data)
        async with self._databases.writing(room, table):
            if body["is_first"]:
                database = await self._databases.room(room)
                await database.create_table(table, data=content, schema=content.schema, mode="overwrite")
                self._databases.forget(room, table)
            else:
                await (await self._table(body)).add(content)
        return _NOTHING

    async def do_probe(self, body: Mapping[str, Any], _: bytes) -> Answer:
        """Read a row by the processors that searches are computed on."""
        if body["table"] is not None:
            await (await self._table(body)).query().where("true").limit(1).to_arrow()
        return _NOTHING

    async def do_forget(self, body: Mapping[str, Any], _: bytes) -> Answer:
        self._databases.forget(body["room"])
        return _NOTHING

    async def _table(self, body: Mapping[str, Any], version: int | None = None) -> Any:
        return await self._databases.table(body["room"], body["table"], version)


def refusal_of(error: Exception, body: Mapping[str, Any]) -> RefusedError:
    """Return what is answered for an error of LanceDB."""
    text = " ".join(_SOURCE_PLACE.sub("", str(error)).split())[:500]
    if "No space left" in text:
        return RefusedError("full", "no space left for the table")
    if isinstance(error, OSError):
        return RefusedError("failed", text)
    if "was not found" in text:
        return RefusedError("not_found", f"no table {body.get('table')!r} in this room")
    # Whatever else it refuses is what the client wrote: mostly a filter that names no column or compares unlike types.
    field = next((name for name in ("where", "values_sql", "columns", "column", "text") if body.get(name)), "")
    return RefusedError("invalid", text.removeprefix("lance error: "), field)


async def _index_config(table: Any, kind: Any, wanted: str) -> Any:
    match wanted:
        case "vector":
            return await _vector_index(table, kind)
        case "full_text":
            if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
                raise RefusedError("invalid", f"expected a column of texts, not {kind}", "column")
            return FTS()
        case _ if pa.types.is_boolean(kind):
            return Bitmap()
        case _ if pa.types.is_list(kind):
            return LabelList()
        case _ if pa.types.is_fixed_size_list(kind) or pa.types.is_binary(kind):
            raise RefusedError("invalid", f"expected a column of numbers, texts or times, not {kind}", "column")
        case _:
            return BTree()


async def _vector_index(table: Any, kind: Any) -> Any:
    if not pa.types.is_fixed_size_list(kind) or not pa.types.is_floating(kind.value_type):
        raise RefusedError("invalid", f"expected a column of vectors of floats, not {kind}", "column")
    rows = await table.count_rows()
    if rows < _LEAST_VECTORS:
        text = f"an index of vectors needs at least {_LEAST_VECTORS} rows, there are {rows}; searches do without until then"
        raise RefusedError("invalid", text, "column")
    training = {
        "num_partitions": max(1, rows // _PARTITION_ROWS),
        "max_iterations": _ITERATIONS,
        "sample_rate": _SAMPLES,
    }
    if kind.list_size % _NUMBERS_PER_CODE:
        return IvfFlat(**training)
    return IvfPq(num_sub_vectors=kind.list_size // _NUMBERS_PER_CODE, **training)


def _rows(data: bytes) -> list[dict[str, Any]]:
    """The rows, which a client may have encoded itself."""
    try:
        rows = json.loads(data)
    except (ValueError, RecursionError):
        raise RefusedError("invalid", "expected a JSON array of objects", "records") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise RefusedError("invalid", "expected a JSON array of objects", "records")
    return rows


def _last_of_each(rows: Sequence[Mapping[str, Any]], on: str) -> list[Mapping[str, Any]]:
    """The rows, of several with one value in the column the last one. A row without a value is one of its own."""
    found: dict[str, Mapping[str, Any]] = {}
    for number, row in enumerate(rows):
        value = row.get(on)
        found[f"row {number}" if value is None else json.dumps(value)] = row
    return list(found.values())


def _require(names: Sequence[str], known: Sequence[str], field: str) -> None:
    for name in names:
        if name not in known:
            raise RefusedError("not_found", f"{field}: no column {name!r}: expected {', '.join(known)}")


def _checked(name: str, field: str) -> str:
    try:
        return check_column(name, field)
    except InvalidRequestError as error:
        raise RefusedError("invalid", str(error).partition(": ")[2], field) from None


def _checked_table(name: str) -> str:
    try:
        return check_table_name(name)
    except InvalidRequestError as error:
        raise RefusedError("invalid", str(error).partition(": ")[2], "table") from None


def _untrusted(data: bytes) -> Any:
    try:
        content = pa.ipc.open_stream(data).read_all()
        content.validate(full=True)
    except pa.ArrowException as error:
        raise RefusedError("invalid", f"not rows of a table: {str(error)[:200]}", "archive") from None
    # Metadata may ask LanceDB for things.
    schema = pa.schema(
        [pa.field(_checked(field.name, "archive"), field.type, field.nullable) for field in content.schema]
    )
    return pa.Table.from_arrays(content.columns, schema=schema)


def _literal(value: Any) -> str:
    """Return a value as a literal of SQL."""
    match value:
        case None:
            return "NULL"
        case bool():
            return str(value).lower()
        case int() | float():
            return repr(value)
        case str():
            return text_literal(value)
        case bytes():
            return f"X'{value.hex()}'"
        case datetime():
            return f"timestamp '{value.isoformat(sep=' ')}'"
        case date():
            return f"date '{value.isoformat()}'"
        case _:
            return f"[{', '.join(map(_literal, value))}]"

"""Searches of a table: by filter, by nearness to a vector, by the words of a text, or by both.

The results are read batch by batch and encoded at once; what is over a bound of rows or bytes ends the search with an error
that says so, since rows that are missing without a word would be taken for rows that are not there.
"""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from meshhost.tables.frames import RefusedError
from meshhost.tables.limits import MAX_ROWS
from meshhost.tables.worker.rows import to_json_rows

__all__ = ["search"]

# Of ranked results, unless the client says otherwise.
_USUAL_LIMIT = 10
_BATCH_ROWS = 256
# The rows that an index of compressed vectors finds are ranked anew by the vectors themselves; of this many times the limit.
_REFINE = 20


async def search(table: Any, body: Mapping[str, Any], max_bytes: int) -> tuple[bytes, int]:
    """Return the rows as JSON, and how many they are. `body` has the fields of `contract.Search`."""
    schema = await table.schema()
    select = body["select"]
    for name in select or ():
        if name not in schema.names:
            raise RefusedError("invalid", f"no column {name!r}: expected {', '.join(schema.names)}", "select")
    query, is_combined = await _query(table, body, schema)
    is_ranked = body["text"] is not None or body["vector"] is not None
    limit, offset = body["limit"], body["offset"]
    if limit is None:
        limit = _USUAL_LIMIT if is_ranked else MAX_ROWS + 1
    limit = min(limit, MAX_ROWS + 1)
    if body["where"] is not None:
        query = query.where(body["where"])
    if select is not None:
        query = query.select(list(select))
    if is_combined:
        return await _combined(query, limit, offset, max_bytes)
    query = query.limit(limit)
    if offset:
        query = query.offset(offset)
    found = _Encoded(max_bytes)
    async for batch in await query.to_batches(max_batch_length=_BATCH_ROWS):
        found.add(batch)
    return found.done()


async def _query(table: Any, body: Mapping[str, Any], schema: Any) -> tuple[Any, bool]:
    """The query, and whether it combines two rankings."""
    text, vector, query = body["text"], body["vector"], table.query()
    if text is None and vector is None:
        return query, False
    indexes = await table.list_indices()
    has_text = any(index.index_type == "FTS" for index in indexes)
    if vector is None:
        if not has_text:
            raise RefusedError("invalid", "this table has no full-text index: create one for a column of texts", "text")
        return query.nearest_to_text(text), False
    column = _vector_column(schema, len(vector), {index.columns[0] for index in indexes})
    query = query.nearest_to(vector).column(column)
    if any(column in index.columns for index in indexes):
        query = query.refine_factor(_REFINE)
    # A text beside a vector only improves the order: without an index for it the vector alone decides.
    if text is not None and has_text:
        return query.nearest_to_text(text), True
    return query, False


def _vector_column(schema: Any, size: int, indexed: set[str]) -> str:
    """The column that a vector of this size is searched in: one with an index, else the first."""
    vectors = [field for field in schema if pa.types.is_fixed_size_list(field.type)]
    fitting = [field.name for field in vectors if field.type.list_size == size]
    if not fitting:
        sizes = ", ".join(f"{field.name} ({field.type.list_size})" for field in vectors)
        raise RefusedError("invalid", f"no column of vectors of {size} numbers; there is: {sizes or 'none'}", "vector")
    chosen: str = next((name for name in fitting if name in indexed), fitting[0])
    return chosen


async def _combined(query: Any, limit: int, offset: int, max_bytes: int) -> tuple[bytes, int]:
    """Both rankings are combined here from their first rows, so an offset is applied to the result."""
    result = await query.limit(min(limit + offset, MAX_ROWS)).to_arrow()
    found = _Encoded(max_bytes)
    for batch in result.slice(offset, limit).to_batches(max_chunksize=_BATCH_ROWS):
        found.add(batch)
    return found.done()


class _Encoded:
    """Rows as JSON, up to the bounds."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._rows: list[str] = []
        self._size = 2

    def add(self, batch: Any) -> None:
        """Add rows. Raises RefusedError when they are more than may be returned."""
        rows = to_json_rows(batch)
        self._rows += rows
        self._size += sum(map(len, rows)) + 2 * len(rows)
        if len(self._rows) > MAX_ROWS:
            raise _too_much(f"over {MAX_ROWS} rows")
        if self._size > self._max_bytes:
            raise _too_much(f"rows of over {self._max_bytes} bytes")

    def done(self) -> tuple[bytes, int]:
        """Return the JSON array, and the number of rows."""
        return f"[{', '.join(self._rows)}]".encode(), len(self._rows)


def _too_much(what: str) -> RefusedError:
    return RefusedError(
        "limit", f"{what} were found: ask for fewer with limit and offset, or for fewer columns with select"
    )

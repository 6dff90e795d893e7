"""Column types: from their form on the wire to Arrow's and back, and the schema of rows that came without one.

`schema_of` serves tables that are created with a schema, `inferred_schema` those that are created from data. The types on the
wire are checked by the server (`bodies`), so that what arrives here has a known form.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from meshhost.tables.frames import RefusedError

__all__ = ["arrow_type", "inferred_schema", "schema_of"]

_PLAIN = {
    "int": pa.int64(),
    "float": pa.float64(),
    "text": pa.string(),
    "bool": pa.bool_(),
    "binary": pa.binary(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us", tz="UTC"),
}
# Elements of vectors: what indexes take, in half the bytes.
_ELEMENTS = _PLAIN | {"float": pa.float32()}


def arrow_type(value: Mapping[str, Any]) -> Any:
    """Return the Arrow type of a type on the wire."""
    if value["type"] == "vector":
        return pa.list_(_ELEMENTS[value["element_type"]["type"]], value["size"])
    return _PLAIN[value["type"]]


def schema_of(columns: Mapping[str, Mapping[str, Any]]) -> Any:
    """Return the Arrow schema of types on the wire, by column."""
    return pa.schema([pa.field(name, arrow_type(value)) for name, value in columns.items()])


def inferred_schema(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Return the schema that fits all rows. Raises RefusedError for a column whose values have no common type."""
    names = dict.fromkeys(name for row in rows for name in row)
    return pa.schema([pa.field(name, _inferred(name, [row.get(name) for row in rows])) for name in names])


def _inferred(name: str, values: Sequence[Any]) -> Any:
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {bool} and kinds:
        return pa.bool_()
    if kinds == {int}:
        return pa.int64()
    if kinds and kinds <= {int, float}:
        return pa.float64()
    if kinds == {dict} and all(_is_bytes(value) for value in values if value is not None):
        return pa.binary()
    if kinds <= {str, dict}:  # also a column of nulls: a text can be anything later
        return pa.string()
    if kinds == {list}:
        return _inferred_list(name, [value for value in values if value is not None])
    raise RefusedError("invalid", f"column {name!r}: expected values of one type", "data")


def _inferred_list(name: str, lists: Sequence[list[Any]]) -> Any:
    kinds = {type(item) for items in lists for item in items}
    lengths = {len(items) for items in lists}
    if kinds <= {int, float} and float in kinds and len(lengths) == 1:
        return pa.list_(pa.float32(), lengths.pop())
    if kinds <= {int, float} and kinds:
        return pa.list_(pa.int64() if kinds == {int} else pa.float64())
    if kinds <= {str}:
        return pa.list_(pa.string())
    raise RefusedError("invalid", f"column {name!r}: expected lists of numbers or lists of texts", "data")


def _is_bytes(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {"encoding", "data"}

"""Rows: from JSON objects to Arrow tables of a schema, and from Arrow to JSON text.

`to_arrow` checks every value and names the column of a wrong one, since Arrow's own conversion would take some wrong values
and name nothing. `to_json` writes what the SDK's clients can read: bytes as base64, dates and times as ISO 8601, objects as
texts, numbers that JSON does not have as null.
"""

import base64
import binascii
import json
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa

from meshhost.tables.frames import RefusedError

__all__ = ["to_arrow", "to_json_rows"]


def to_arrow(rows: Sequence[Mapping[str, Any]], schema: Any, field: str) -> Any:
    """Return the rows as an Arrow table with all columns of the schema. Raises RefusedError that names `field`."""
    known = set(schema.names)
    for row in rows:
        if not row.keys() <= known:
            unknown = next(iter(row.keys() - known))
            raise RefusedError("invalid", f"no column {unknown!r}: expected {', '.join(schema.names)}", field)
    arrays = []
    for column in schema:
        values = [row.get(column.name) for row in rows]
        try:
            arrays.append(pa.array(_converted(values, column.type), column.type))
        except (ValueError, TypeError, OverflowError, pa.ArrowException) as error:
            text = str(error) if isinstance(error, _WrongValueError) else f"expected {_expected(column.type)}"
            raise RefusedError("invalid", f"column {column.name!r}: {text}", field) from None
    return pa.Table.from_arrays(arrays, schema=schema)


class _WrongValueError(ValueError):
    pass


def _converted(values: list[Any], kind: Any) -> list[Any]:
    convert = _converter(kind)
    return [None if value is None else convert(value) for value in values]


def _converter(kind: Any) -> Callable[[Any], Any]:
    if pa.types.is_fixed_size_list(kind):
        return _vector_of(kind)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        item = _converter(kind.value_type)
        return lambda value: [None if each is None else item(each) for each in _of(value, list, "a list")]
    for test, convert in _CONVERTERS:
        if test(kind):
            return convert
    return lambda value: value


def _vector_of(kind: Any) -> Callable[[Any], Any]:
    def convert(value: Any) -> Any:
        if not isinstance(value, list) or len(value) != kind.list_size:
            raise _WrongValueError(f"expected a list of {kind.list_size} numbers")
        if not {type(item) for item in value} <= {int, float}:
            raise _WrongValueError(f"expected a list of {kind.list_size} numbers")
        return value

    return convert


def _of(value: Any, kind: type, words: str) -> Any:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise _WrongValueError(f"expected {words}")
    return value


def _number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _WrongValueError("expected a number")
    return float(value)


def _integer(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return _of(value, int, "a whole number")


def _text(value: Any) -> Any:
    if isinstance(value, dict | list):
        return json.dumps(value)
    return _of(value, str, "a text")


def _bytes(value: Any) -> Any:
    if isinstance(value, dict) and value.get("encoding") == "base64" and isinstance(value.get("data"), str):
        try:
            return base64.b64decode(value["data"], validate=True)
        except (binascii.Error, ValueError):
            pass
    raise _WrongValueError('expected {"encoding": "base64", "data": "…"}')


def _date(value: Any) -> Any:
    text = _of(value, str, "a date such as 2026-01-31")
    try:
        return datetime.fromisoformat(text).date()
    except ValueError:
        raise _WrongValueError("expected a date such as 2026-01-31") from None


def _timestamp(value: Any) -> Any:
    text = _of(value, str, "a time such as 2026-01-31T12:00:00Z")
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise _WrongValueError("expected a time such as 2026-01-31T12:00:00Z") from None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


_CONVERTERS: Sequence[tuple[Callable[[Any], bool], Callable[[Any], Any]]] = (
    (pa.types.is_string, _text),
    (pa.types.is_large_string, _text),
    (pa.types.is_boolean, lambda value: _of(value, bool, "true or false")),
    (pa.types.is_integer, _integer),
    (pa.types.is_floating, _number),
    (pa.types.is_binary, _bytes),
    (pa.types.is_large_binary, _bytes),
    (pa.types.is_date, _date),
    (pa.types.is_timestamp, _timestamp),
)


def _expected(kind: Any) -> str:
    return f"values of the type {kind}"


def to_json_rows(batch: Any) -> list[str]:
    """Return each row of a record batch as the text of a JSON object."""
    nested = [field.name for field in batch.schema if pa.types.is_struct(field.type) or pa.types.is_map(field.type)]
    return [_to_json(row, nested) for row in batch.to_pylist()]


def _to_json(row: dict[str, Any], nested: Sequence[str]) -> str:
    for name in nested:
        if row[name] is not None:
            row[name] = json.dumps(row[name], default=_encoded)
    try:
        return json.dumps(row, default=_encoded, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(row), default=_encoded)


def _encoded(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"encoding": "base64", "data": base64.b64encode(value).decode()}
    if isinstance(value, date):  # also a datetime
        return value.isoformat()
    return str(value)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, list):
        return [_finite(item) for item in value]
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    return value

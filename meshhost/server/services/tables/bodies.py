"""What requests about tables look like (room-protocol §14).

Each body checks its names and its SQL when it is parsed, so that the service passes only checked values on. Rows are in
`records` (in `data` when a table is created), or, from clients that know the extension `table_rows`, as JSON in the payload:
they are then read where the table is, and not bounded by what a header may hold.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from meshhost.errors import InvalidRequestError
from meshhost.server.core.requests import Body
from meshhost.tables.contract import CreateMode, check_column, check_table_name
from meshhost.tables.sql import prepare

__all__ = [
    "AddColumns",
    "Create",
    "CreateIndex",
    "Delete",
    "Drop",
    "DropColumns",
    "DropIndex",
    "Merge",
    "Nothing",
    "RowsBody",
    "SearchBody",
    "TableBody",
    "Update",
    "Version",
]

MAX_COLUMNS = 1000
_MAX_VECTOR = 16_384
_MAX_TEXT = 16 * 1024
_PLAIN_TYPES = frozenset({"int", "float", "text", "bool", "binary", "date", "timestamp"})


def _table(name: str) -> str:
    return _words_of(lambda: check_table_name(name))


def _column(name: str) -> str:
    return _words_of(lambda: check_column(name))


def _sql(text: str) -> str:
    return _words_of(lambda: prepare(text, ""))


def _words_of(check: Any) -> str:
    """pydantic names the field itself."""
    try:
        return str(check())
    except InvalidRequestError as error:
        raise _wrong(str(error).removeprefix(f"{error.field}: ")) from None


def _wrong(expected: str) -> PydanticCustomError:
    # Not a ValueError, to which pydantic adds words of its own.
    return PydanticCustomError("wrong", "{expected}", {"expected": expected})


def _type(value: Mapping[str, Any]) -> Mapping[str, Any]:
    kind = value.get("type")
    if kind in _PLAIN_TYPES:
        return {"type": kind}
    size, element = value.get("size"), value.get("element_type")
    element_kind = element.get("type") if isinstance(element, dict) else None
    is_vector = kind == "vector" and type(size) is int and 0 < size <= _MAX_VECTOR
    if not is_vector or element_kind not in {"float", "int"}:
        raise _wrong(
            f"expected a type of {', '.join(sorted(_PLAIN_TYPES))}, or vector with a size of 1 to {_MAX_VECTOR} and an "
            "element_type float or int"
        )
    return {"type": "vector", "size": size, "element_type": {"type": element_kind}}


def _definition(value: Any) -> Any:
    if isinstance(value, str):
        return _sql(value)
    if isinstance(value, dict):
        return _type(value)
    raise _wrong("expected an expression in SQL, or a type such as {'type': 'int'}")


def _records(value: Any) -> Any:
    if value is None:
        return None
    rows = [value] if isinstance(value, dict) else value
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise _wrong("expected a list of objects")
    return rows


TableName = Annotated[str, AfterValidator(_table)]
ColumnName = Annotated[str, AfterValidator(_column)]
Sql = Annotated[str, AfterValidator(_sql)]
Type = Annotated[dict[str, Any], AfterValidator(_type)]
Definition = Annotated[Any, AfterValidator(_definition)]
Records = Annotated[Any, AfterValidator(_records)]
"""A list of objects. One object is a list of one."""


class Nothing(Body):
    """A request without arguments."""


class TableBody(Body):
    """A request about a table."""

    table: TableName


class Create(Body):
    """`database.create_table`."""

    model_config = ConfigDict(extra="ignore", frozen=True, populate_by_name=True)

    name: TableName
    data: Records = None
    columns: dict[ColumnName, Type] | None = Field(default=None, alias="schema", max_length=MAX_COLUMNS)
    mode: CreateMode | None = "create"

    @property
    def rows(self) -> Sequence[Mapping[str, Any]] | None:
        """The rows, if there are any in the header."""
        found: Sequence[Mapping[str, Any]] | None = self.data
        return found


class Drop(Body):
    """`database.drop_table`."""

    name: TableName
    ignore_missing: bool = False


class AddColumns(TableBody):
    """`database.add_columns`: for each column an expression, or a type."""

    new_columns: dict[ColumnName, Definition] = Field(min_length=1, max_length=MAX_COLUMNS)


class DropColumns(TableBody):
    """`database.drop_columns`."""

    columns: list[ColumnName] = Field(min_length=1, max_length=MAX_COLUMNS)


class RowsBody(TableBody):
    """`database.insert`."""

    records: Records = None

    @property
    def rows(self) -> Sequence[Mapping[str, Any]] | None:
        """The rows, if there are any in the header."""
        found: Sequence[Mapping[str, Any]] | None = self.records
        return found


class Merge(RowsBody):
    """`database.merge`."""

    on: ColumnName


class Update(TableBody):
    """`database.update`."""

    where: Sql
    values: dict[ColumnName, Any] | None = None
    values_sql: dict[ColumnName, Sql] | None = None


class Delete(TableBody):
    """`database.delete`."""

    where: Sql


class SearchBody(TableBody):
    """`database.search`."""

    where: Sql | None = None
    text: str | None = Field(default=None, min_length=1, max_length=_MAX_TEXT)
    vector: list[float] | None = Field(default=None, min_length=1, max_length=_MAX_VECTOR)
    limit: int | None = Field(default=None, ge=1, le=2**31)
    offset: int | None = Field(default=None, ge=0, le=2**31)
    select: list[str] | None = Field(default=None, min_length=1, max_length=MAX_COLUMNS)


class Version(TableBody):
    """`database.checkout` and `database.restore`."""

    version: int = Field(ge=1, le=2**53)


class CreateIndex(TableBody):
    """`database.create_…_index`. Without `replace` an index that is there is replaced."""

    column: ColumnName
    replace: bool | None = None


class DropIndex(TableBody):
    """`database.drop_index`."""

    name: str = Field(min_length=1, max_length=256)

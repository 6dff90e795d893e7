"""The types of the columns of a table, by the names of MeshAgent's SDK.

`DatabaseClient.create_table_with_schema` and `add_columns` take them. On the wire a type is a small JSON object
(room-protocol §14). Pure values: no I/O.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from meshhost.errors import InvalidRequestError

__all__ = [
    "BinaryDataType",
    "BoolDataType",
    "DataType",
    "DateDataType",
    "FloatDataType",
    "IntDataType",
    "TextDataType",
    "TimestampDataType",
    "VectorDataType",
]


class DataType(ABC):
    """The type of a column."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DataType) and self.to_json() == other.to_json()

    def __hash__(self) -> int:
        return hash(repr(self))

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """Return the form on the wire."""

    @staticmethod
    def from_json(data: dict[str, Any]) -> "DataType":
        """Return the type of this form. Raises InvalidRequestError for one that is not known."""
        make = _TYPES.get(data.get("type", ""))
        if make is None:
            raise InvalidRequestError("type", f"expected one of {', '.join(_TYPES)}")
        return make(data)


class IntDataType(DataType):
    """Whole numbers of 64 bits."""

    def to_json(self) -> dict[str, Any]:
        """See DataType."""
        return {"type": "int"}


class FloatDataType(DataType):
    """Numbers: of 64 bits, in vectors of 32."""

    def to_json(self) -> dict[str, Any]:
        """See DataType."""
        return {"type": "float"}


class BoolDataType(DataType):
    """True or false; not known to MeshAgent's SDK 0.6."""

    def to_json(self) -> dict[str, Any]:
        """See DataType."""
        return {"type": "bool"}


class TextDataType(DataType):
    """Texts. An object is kept as its JSON text."""

    def to_json(self) -> dict[str, Any]:
        """See DataType."""
        return {"type": "text"}


class BinaryDataType(DataType):
    """Bytes."""

    def to_json(self) -> dict[str, Any]:
        """See DataType."""
        return {"type": "binary"}


class DateDataType(DataType):
    """Days, as ISO 8601 texts such as 2026-01-31."""

    def to_json(self) -> dict[str, Any]:
        """See DataType."""
        return {"type": "date"}


class TimestampDataType(DataType):
    """Moments, as ISO 8601 texts such as 2026-01-31T12:00:00Z; without a zone they are in UTC."""

    def to_json(self) -> dict[str, Any]:
        """See DataType."""
        return {"type": "timestamp"}


class VectorDataType(DataType):
    """Lists of `size` numbers, which can be searched for the nearest."""

    def __init__(self, *, size: int, element_type: DataType) -> None:
        self.size = size
        self.element_type = element_type

    def __repr__(self) -> str:
        return f"VectorDataType(size={self.size}, element_type={self.element_type!r})"

    def to_json(self) -> dict[str, Any]:
        """See DataType."""
        return {"type": "vector", "size": self.size, "element_type": self.element_type.to_json()}


def _vector(data: dict[str, Any]) -> DataType:
    size, element = data.get("size"), data.get("element_type")
    if not isinstance(size, int) or not isinstance(element, dict):
        raise InvalidRequestError("type", "expected a vector with a size and an element_type")
    return VectorDataType(size=size, element_type=DataType.from_json(element))


_TYPES: dict[str, Callable[[dict[str, Any]], DataType]] = {
    "int": lambda _: IntDataType(),
    "float": lambda _: FloatDataType(),
    "bool": lambda _: BoolDataType(),
    "text": lambda _: TextDataType(),
    "binary": lambda _: BinaryDataType(),
    "date": lambda _: DateDataType(),
    "timestamp": lambda _: TimestampDataType(),
    "vector": _vector,
}

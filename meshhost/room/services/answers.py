"""The answer of an agent as a JSON value that MeshAgent programs can also read as a body: `answer["a"]` and `answer.json["a"]`.

Agents answer with a JSON value, and programs of ours get it as it is. MeshAgent's client returns a body around it, whose value
is `.json`. An object, a list and a text have that attribute here, too; they are equal to the plain value and serialised as it.
"""

from typing import Any

__all__ = ["answer_of"]


class _Object(dict[str, Any]):
    @property
    def json(self) -> dict[str, Any]:
        """The value, for programs that expect a body."""
        return self


class _List(list[Any]):
    @property
    def json(self) -> list[Any]:
        """The value, for programs that expect a body."""
        return self


class _Text(str):
    __slots__ = ()

    @property
    def json(self) -> str:
        """The value, for programs that expect a body."""
        return str(self)


def answer_of(value: Any) -> Any:
    """Return the value, with the attribute `json` if it is an object, a list or a text."""
    match value:
        case dict():
            return _Object(value)
        case list():
            return _List(value)
        case str():
            return _Text(value)
        case _:
            return value

"""Requirements: what an agent needs in its room before it can work (room-protocol §11.4).

An agent names them when it registers, and a caller may name the toolkits for one ask. `agents/agent.py` compares them with what
the room has when the agent starts and calls in what is missing, if the requirement permits it.
"""

from collections.abc import Sequence
from typing import Any

from meshhost.errors import InvalidRequestError

__all__ = ["RequiredSchema", "RequiredToolkit", "Requirement", "requirement_from_json"]


class Requirement:
    """Something that must be in the room, by name. `callable` says whether the room server may call it into the room."""

    def __init__(self, *, name: str, callable: bool | None = None) -> None:
        self.name = name
        self.callable = True if callable is None else callable

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    def to_json(self) -> dict[str, Any]:
        """The wire form."""
        raise NotImplementedError


class RequiredToolkit(Requirement):
    """A toolkit, or only the named tools of it (None: all)."""

    def __init__(self, *, name: str, tools: Sequence[str] | None = None, callable: bool | None = None) -> None:
        super().__init__(name=name, callable=callable)
        self.tools = None if tools is None else list(tools)

    def to_json(self) -> dict[str, Any]:
        """The wire form."""
        return {"toolkit": self.name, "tools": self.tools, "callable": self.callable}


class RequiredSchema(Requirement):
    """A document schema, stored under `.schemas/<name>.json`."""

    def to_json(self) -> dict[str, Any]:
        """The wire form."""
        return {"schema": self.name, "callable": self.callable}


def requirement_from_json(data: dict[str, Any]) -> Requirement:
    """Read the wire form. Raises InvalidRequestError."""
    if isinstance(data.get("toolkit"), str):
        return RequiredToolkit(name=data["toolkit"], tools=data.get("tools"), callable=data.get("callable"))
    if isinstance(data.get("schema"), str):
        return RequiredSchema(name=data["schema"], callable=data.get("callable"))
    raise InvalidRequestError("requires", "expected {toolkit, tools} or {schema}")

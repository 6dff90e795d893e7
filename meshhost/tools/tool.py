"""What a tool is, and the circumstances of a call."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from meshhost.errors import InvalidRequestError
from meshhost.tools.schema import Schema

if TYPE_CHECKING:
    from meshhost.room.client import RoomClient

__all__ = ["BaseTool", "Tool", "ToolContext"]


class ToolContext:
    """The circumstances of a call: the room, who calls, for whom, and what the caller says about the occasion."""

    def __init__(
        self,
        *,
        room: "RoomClient",
        caller: Any,
        on_behalf_of: Any = None,
        caller_context: dict[str, Any] | None = None,
    ) -> None:
        self._room = room
        self._caller = caller
        self._on_behalf_of = on_behalf_of
        self._caller_context = caller_context

    @property
    def room(self) -> "RoomClient":
        """The room the call is made in."""
        return self._room

    @property
    def caller(self) -> Any:
        """The participant that calls."""
        return self._caller

    @property
    def on_behalf_of(self) -> Any:
        """The participant the caller acts for, or None."""
        return self._on_behalf_of

    @property
    def caller_context(self) -> dict[str, Any] | None:
        """What the caller sent along, such as a chat; or None."""
        return self._caller_context


class BaseTool:
    """What every tool has: a name, texts for people and models, rules for the model that uses it."""

    def __init__(
        self,
        *,
        name: str,
        title: str | None = None,
        description: str | None = None,
        rules: list[str] | None = None,
        thumbnail_url: str | None = None,
        supports_context: bool | None = None,
    ) -> None:
        if not name:
            raise InvalidRequestError("name", "a tool needs a name")
        self.name = name
        self.title = name if title is None else title
        self.description = "" if description is None else description
        self.rules = list(rules or ())
        self.thumbnail_url = thumbnail_url
        self.supports_context = bool(supports_context)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"


class Tool(BaseTool, ABC):
    """A tool with arguments. `input_schema` is the JSON schema of an object; `defs` are its `$defs`."""

    def __init__(
        self,
        *,
        name: str,
        input_schema: Schema,
        title: str | None = None,
        description: str | None = None,
        rules: list[str] | None = None,
        thumbnail_url: str | None = None,
        defs: dict[str, Schema] | None = None,
        supports_context: bool | None = None,
    ) -> None:
        super().__init__(
            name=name,
            title=title,
            description=description,
            rules=rules,
            thumbnail_url=thumbnail_url,
            supports_context=supports_context,
        )
        self.input_schema = input_schema
        self.defs = defs

    # `*args` lets a subclass name its arguments and stay a valid override.
    @abstractmethod
    async def execute(self, *args: Any, **kwargs: Any) -> Any:
        """Called as `execute(context=context, **arguments)`; returns a response, a text, a dict or None."""

"""What a tool is (`BaseTool`, `Tool`), and the circumstances of one call (`ToolContext`).

A program subclasses `Tool`, describes the arguments by a JSON schema and implements `execute`. Tools are grouped in a
`Toolkit` (`toolkit.py`), which checks arguments before it calls a tool; models, `RemoteToolkit` and chat threads all call
through it. A BaseTool without arguments is one that the model's provider runs itself.
"""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from meshhost.errors import InvalidRequestError
from meshhost.tools.schema import CompiledSchema, Schema, with_defs

if TYPE_CHECKING:
    from meshhost.room.client import RoomClient

__all__ = ["BaseTool", "Tool", "ToolContext"]


class ToolContext:
    """The circumstances of a call: the room, the caller, the participant it acts for, and data that the caller added."""

    def __init__(
        self,
        *,
        room: "RoomClient",
        caller: Any,
        on_behalf_of: Any = None,
        caller_context: dict[str, Any] | None = None,
        on_progress: Callable[[float, float | None, str | None], Awaitable[None]] | None = None,
    ) -> None:
        self._on_progress = on_progress
        self._room = room
        self._caller = caller
        self._on_behalf_of = on_behalf_of
        self._caller_context = caller_context

    @property
    def room(self) -> "RoomClient":
        """The room of the call."""
        return self._room

    @property
    def caller(self) -> Any:
        """The participant that made the call."""
        return self._caller

    @property
    def on_behalf_of(self) -> Any:
        """The participant the caller acts for, or None."""
        return self._on_behalf_of

    @property
    def caller_context(self) -> dict[str, Any] | None:
        """Data that the caller added, such as a conversation, or None."""
        return self._caller_context

    async def report_progress(self, progress: float, total: float | None = None, message: str | None = None) -> None:
        """Report to the caller how far the call got: a number that grows, of `total` if that is known, and a short text.

        Callers that show no progress, and servers that do not pass it on, are told nothing.
        """
        if self._on_progress is not None:
            await self._on_progress(progress, total, message)


class BaseTool:
    """What every tool has: a name, texts for people and models, and rules for the model that uses it."""

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
    """A tool with arguments. `input_schema` is the JSON schema of an object; `defs` are added to its `$defs`.

    Assign a new schema to change it; one that is edited in place after the first call is not noticed.
    """

    # The compiled schema with what it was compiled from, which tells whether one of the two was replaced. On the class, so that
    # a subclass need not call our constructor.
    _compiled: tuple[Schema, dict[str, Schema] | None, CompiledSchema] | None = None

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

    def check_arguments(self, arguments: dict[str, Any]) -> None:
        """Check arguments. Raises InvalidRequestError that names the wrong field, ToolError when the schema is wrong."""
        schema, defs, compiled = self.input_schema, self.defs, self._compiled
        if compiled is None or compiled[0] is not schema or compiled[1] is not defs:
            compiled = self._compiled = (schema, defs, CompiledSchema(with_defs(schema, defs)))
        compiled[2].check(arguments)

    # `*args` lets a subclass name its arguments and still be a valid override.
    @abstractmethod
    async def execute(self, *args: Any, **kwargs: Any) -> Any:
        """Called as `execute(context=context, **arguments)`. Returns a Response, a text, a dict or None.

        A plain `def` runs in a thread.
        """

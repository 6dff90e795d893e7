"""`Toolkit`: tools under one name, called with checked arguments.

`execute` is the one way to call a tool, wherever the call comes from (a model, another participant, a test). It looks the
tool up, checks the arguments against its schema, and turns what the tool returned into a Response. Subclasses wrap it:
`RemoteToolkit` offers the tools in a room, a chat bot shows calls in the thread.
"""

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from meshhost.errors import InvalidRequestError, NotFoundError, RoomError, ToolError
from meshhost.guard import call, guarding
from meshhost.protocol.messages import Response, ensure_response
from meshhost.tools.tool import BaseTool, Tool, ToolContext

if TYPE_CHECKING:
    from meshhost.room.client import RoomClient

__all__ = ["Toolkit"]


class Toolkit:
    """Tools that belong together. `rules` are for the model that uses them, `room` for tools that ask the toolkit for it."""

    def __init__(
        self,
        *,
        name: str,
        tools: Sequence[BaseTool],
        rules: Sequence[str] = (),
        title: str | None = None,
        description: str | None = None,
        thumbnail_url: str | None = None,
        room: "RoomClient | None" = None,
    ) -> None:
        self._room = room
        self.name = name
        self.tools: list[BaseTool] = list(tools)
        self.rules = list(rules)
        self.title = name if title is None else title
        self.description = "" if description is None else description
        self.thumbnail_url = thumbnail_url

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} tools={[tool.name for tool in self.tools]}>"

    @property
    def room(self) -> "RoomClient":
        """The room that it was made with. Raises RoomError when it was made with none."""
        if self._room is None:
            raise RoomError(f"toolkit {self.name!r} was made without a room")
        return self._room

    def all_rules(self) -> list[str]:
        """Return the toolkit's rules and those of its tools."""
        return [*self.rules, *(rule for tool in self.tools for rule in tool.rules)]

    def get_tool(self, name: str) -> BaseTool:
        """Return the tool of that name. Raises NotFoundError."""
        for tool in self.tools:
            if tool.name == name:
                return tool
        raise NotFoundError(f"toolkit {self.name!r} has no tool {name!r}")

    async def execute(
        self, *, context: ToolContext, name: str, arguments: dict[str, Any], attachment: bytes | None = None
    ) -> Response:
        """Check the arguments, call the tool and return its answer as a response.

        Raises NotFoundError for an unknown tool, InvalidRequestError that names the wrong field, and what the tool raises;
        of that, what is no Exception becomes one. A tool gets the attachment as its argument `attachment`; one without that
        argument refuses it.
        """
        tool = self.get_tool(name)
        if not isinstance(tool, Tool):
            raise ToolError(f"tool {name!r} cannot be called with arguments")
        tool.check_arguments(arguments)
        if "context" in arguments:
            raise InvalidRequestError("context", "is a reserved name")
        extra = {} if attachment is None else _attachment_argument(tool, attachment)
        with guarding():
            return ensure_response(await call(tool.execute, context=context, **{**arguments, **extra}))


def _attachment_argument(tool: Tool, attachment: bytes) -> dict[str, bytes]:
    parameters = inspect.signature(tool.execute).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    if not takes_any and "attachment" not in parameters:
        raise InvalidRequestError("attachment", f"tool {tool.name!r} takes none")
    return {"attachment": attachment}

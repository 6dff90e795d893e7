"""Kinds of tools that MeshAgent programs subclass or combine: `FunctionTool`, `LocalRoomTool`, `MultiTool`, `MultiToolkit`.

Programs from 0.20 on subclass FunctionTool where older ones subclass Tool; a LocalRoomTool is made with the room that it works
in, because the context of a newer program's tool has none. Ours has, so both ways work. A MultiTool is several tools that a
model calls together, for those that must never be called alone, such as one that shows a person what is being done.
"""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from meshhost.errors import InvalidRequestError, RoomError
from meshhost.guard import call
from meshhost.protocol.messages import FileResponse, JsonResponse, Response, ensure_response
from meshhost.tools.schema import Schema
from meshhost.tools.tool import BaseTool, Tool, ToolContext
from meshhost.tools.toolkit import Toolkit

if TYPE_CHECKING:
    from meshhost.room.client import RoomClient

__all__ = ["FunctionTool", "LocalRoomTool", "MultiTool", "MultiToolkit"]


class FunctionTool(Tool):
    """A Tool. `strict` and what is said about the output are taken as hints: whether a schema is strict is seen from itself."""

    def __init__(
        self,
        *,
        name: str,
        input_schema: Schema,
        strict: bool = True,
        output_schema: Schema | None = None,
        title: str | None = None,
        description: str | None = None,
        rules: list[str] | None = None,
        defs: dict[str, Schema] | None = None,
        **more: Any,
    ) -> None:
        more.pop("output_spec", None)
        super().__init__(
            name=name,
            input_schema=input_schema,
            title=title,
            description=description,
            rules=rules,
            defs=defs,
            **more,
        )
        self.strict = strict
        self.output_schema = output_schema


class LocalRoomTool(FunctionTool):
    """A tool that works in one room, which it is made with."""

    def __init__(self, *, room: "RoomClient", **arguments: Any) -> None:
        super().__init__(**arguments)
        self._room = room

    @property
    def room(self) -> "RoomClient":
        """The room. Raises RoomError when it was made without one."""
        if self._room is None:
            raise RoomError(f"tool {self.name!r} was made without a room")
        return self._room


class MultiTool(Tool):
    """Calls `tools` side by side. Its texts are those of the first, unless they are given. Raises InvalidRequestError."""

    def __init__(
        self,
        *,
        tools: Sequence[BaseTool],
        name: str | None = None,
        title: str | None = None,
        description: str | None = None,
        rules: list[str] | None = None,
        thumbnail_url: str | None = None,
    ) -> None:
        self.tools = list(tools)
        parts = [tool for tool in tools if isinstance(tool, Tool)]
        if not parts:
            raise InvalidRequestError("tools", "expected at least one tool with arguments")
        first = parts[0]
        self._parts = {tool.name: tool for tool in parts}
        super().__init__(
            name=name or first.name,
            title=title or first.title,
            description=description or first.description,
            rules=[*(rules or ()), *(rule for tool in parts for rule in tool.rules)],
            thumbnail_url=thumbnail_url or first.thumbnail_url,
            input_schema=_joined(parts),
            defs=_defs(parts),
        )

    async def execute(self, *, context: ToolContext, **arguments: Any) -> Response:
        """Return what each tool answered, under its name; a file is returned by itself. Raises what a tool raises."""
        try:
            async with asyncio.TaskGroup() as tasks:
                running = {
                    name: tasks.create_task(call(self._parts[name].execute, context=context, **given))
                    for name, given in arguments.items()
                }
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None  # callers know the errors of one tool
        answers = {name: ensure_response(task.result()) for name, task in running.items()}
        for answer in answers.values():
            if isinstance(answer, FileResponse):
                return answer
        return JsonResponse(json={name: answer.to_json() for name, answer in answers.items()})


class MultiToolkit(Toolkit):
    """The tools of `base_toolkit`, each together with all of `required`."""

    def __init__(self, *, required: Sequence[Tool], base_toolkit: Toolkit) -> None:
        super().__init__(
            name=base_toolkit.name,
            tools=[MultiTool(tools=[tool, *required]) for tool in base_toolkit.tools],
            rules=base_toolkit.rules,
            title=base_toolkit.title,
            description=base_toolkit.description,
            thumbnail_url=base_toolkit.thumbnail_url,
        )


def _joined(parts: Sequence[Tool]) -> Schema:
    properties = {tool.name: {"description": tool.description, **tool.input_schema} for tool in parts}
    return {
        "type": "object",
        "additionalProperties": False,
        "required": list(properties),
        "properties": properties,
    }


def _defs(parts: Sequence[Tool]) -> dict[str, Schema] | None:
    defs: dict[str, Schema] = {}
    for tool in parts:
        for name, schema in (tool.defs or {}).items():
            if defs.setdefault(name, schema) != schema:
                raise InvalidRequestError("defs", f"two tools define {name!r} differently")
    return defs or None

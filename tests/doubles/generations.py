"""What tests with several generations of clients in one room share."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from doubles.talking import TalkingProgram
from meshhost.agents.context import AgentCallContext
from meshhost.agents.task_runner import TaskRunner
from meshhost.room.client import RoomClient
from meshhost.testing.server import RunningServer
from meshhost.tools.hosting import RemoteToolkit
from meshhost.tools.tool import Tool, ToolContext

__all__ = ["PAGE", "Clock", "Shout", "our_guest", "told"]

PAGE = {
    "$root_tag_ref": "#/$defs/page",
    "$defs": {
        "page": {
            "type": "object",
            "additionalProperties": False,
            "required": ["page"],
            "properties": {
                "page": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["notes"],
                    "properties": {"notes": {"type": "array", "items": {"anyOf": [{"$ref": "#/$defs/note"}]}}},
                }
            },
        },
        "note": {
            "type": "object",
            "additionalProperties": False,
            "required": ["note"],
            "properties": {
                "note": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["text"],
                    "properties": {"text": {"type": "string"}},
                }
            },
        },
    },
}


class Shout(Tool):
    """Answers in capitals."""

    def __init__(self) -> None:
        schema = {"type": "object", "required": ["text"], "properties": {"text": {"type": "string"}}}
        super().__init__(name="shout", input_schema=schema)

    async def execute(self, context: ToolContext, *, text: str) -> Any:
        return {"said": text.upper()}


class Clock(TaskRunner):
    """Tells the time, of a kind."""

    async def ask(self, *, context: AgentCallContext, arguments: Any) -> Any:
        return {"time": "late"}


@asynccontextmanager
async def our_guest(server: RunningServer) -> AsyncIterator[RoomClient]:
    """A participant of ours with a toolkit and an agent."""
    async with server.client(name="ours", role="agent") as room:
        toolkit, clock = RemoteToolkit(name="ours", tools=[Shout()], public=True), Clock(name="clock")
        await toolkit.start(room=room)
        await clock.start(room=room)
        await room.messaging.enable()
        yield room
        await clock.stop()
        await toolkit.stop()


async def told(program: TalkingProgram, **what: Any) -> dict[str, Any]:
    """What the program answers when it is told to do something."""
    program.tell(what)
    return await program.line()

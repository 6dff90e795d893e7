"""Serves a toolkit of `meshagent.tools` until it is told nothing any more."""

import asyncio
from typing import Any

from lines import given, heard, room_client, say
from meshagent.tools import FileResponse, RemoteToolkit, Tool, ToolContext


class Add(Tool):
    def __init__(self) -> None:
        super().__init__(
            name="add",
            title="Add",
            description="adds two numbers",
            input_schema={
                "type": "object",
                "required": ["a", "b"],
                "additionalProperties": False,
                "properties": {"a": {"type": "integer"}, "b": {"$ref": "#/$defs/number"}},
            },
            defs={"number": {"type": "integer"}},
        )

    async def execute(self, context: ToolContext, *, a: int, b: int) -> Any:
        return {"sum": a + b, "caller": context.caller.id, "context": context.caller_context}


class Fail(Tool):
    def __init__(self) -> None:
        super().__init__(name="fail", input_schema={"type": "object"})

    async def execute(self, context: ToolContext, **arguments: Any) -> Any:
        raise ValueError("it cannot be done")


class Picture(Tool):
    def __init__(self) -> None:
        super().__init__(name="picture", input_schema={"type": "object"})

    async def execute(self, context: ToolContext, **arguments: Any) -> Any:
        return FileResponse(data=bytes(range(256)) * 4096 * arguments["mib"], name="x.bin", mime_type="image/x")


class Never(Tool):
    def __init__(self) -> None:
        super().__init__(name="never", input_schema={"type": "object"})

    async def execute(self, context: ToolContext, **arguments: Any) -> Any:
        say(called="never")
        await asyncio.Event().wait()


async def main() -> None:
    async with room_client() as room:
        tools = [Add(), Fail(), Picture(), Never()]
        toolkit = RemoteToolkit(name="math", title="Math", tools=tools, public=given.get("public", True))
        await toolkit.start(room=room)
        say(id=room.local_participant.id)
        if "asks" in given:
            await room.messaging.enable()
            for participant in room.messaging.get_participants():
                if participant.id == given["asks"]:
                    await room.messaging.send_message(to=participant, type="chat", message={})
            say(asked=given["asks"])
        await heard()
        await toolkit.stop()


asyncio.run(main())

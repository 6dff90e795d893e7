"""Stays in the room as a guest: offers a toolkit and a task, messages, and does what the test tells."""

import asyncio
from typing import Any

from lines import error_of, given, heard, room_client, say
from meshagent.agents.task_runner import TaskRunner
from meshagent.api.messaging import JsonContent, TextContent
from meshagent.tools import FunctionTool, ToolContext, Toolkit
from meshagent.tools.hosting import start_hosted_toolkit


class Add(FunctionTool):
    """Adds."""

    def __init__(self) -> None:
        super().__init__(
            name="add",
            title="Add",
            description="adds two numbers",
            input_schema={
                "type": "object",
                "required": ["a", "b"],
                "additionalProperties": False,
                "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            },
        )

    async def execute(self, context: ToolContext, *, a: int, b: int) -> Any:
        return JsonContent(json={"sum": a + b})


class Fail(FunctionTool):
    """Fails."""

    def __init__(self) -> None:
        super().__init__(
            name="fail",
            input_schema={"type": "object", "properties": {}, "required": [], "additionalProperties": False},
        )

    async def execute(self, context: ToolContext, **arguments: Any) -> Any:
        raise ValueError("it cannot be done")


class Greeter(TaskRunner):
    """Greets who asks."""

    def __init__(self) -> None:
        schema = {
            "type": "object",
            "required": ["name"],
            "additionalProperties": False,
            "properties": {"name": {"type": "string"}},
        }
        super().__init__(name="greeter", input_schema=schema)

    async def ask(self, *, context: Any, arguments: dict[str, Any], attachment: bytes | None = None) -> Any:
        return {"hello": arguments["name"]}


async def main() -> None:
    async with room_client() as room:
        room.messaging.on("message", lambda message: say(message=[message.type, message.message]))
        room.storage.on("file.updated", lambda path, participant_id: say(updated=path))
        room.on("reconnected", lambda **_: say(event="reconnected"))
        await room.messaging.enable()
        hosted = await start_hosted_toolkit(
            room=room, toolkit=Toolkit(name="math56", tools=[Add(), Fail()], public=True)
        )
        greeter = Greeter()
        await greeter.start(room=room)
        say(ready=room.local_participant.id)
        while (told := await heard()) is not None:
            match told["do"]:
                case "toolkits":
                    found = await room.list_toolkits(participant_name=told.get("of"))
                    say(toolkits={kit.name: [tool.name for tool in kit.tools] for kit in found})
                case "invoke":
                    result = await error_of(invoke(room, told))
                    say(result=result)
                case "send":
                    [to] = [
                        each for each in room.messaging.get_participants() if each.get_attribute("name") == told["to"]
                    ]
                    await room.messaging.send_message(to=to, type="note", message=told["message"])
                    say(sent=True)
                case "people":
                    say(people=sorted(str(each.get_attribute("name")) for each in room.messaging.get_participants()))
                case "queue":
                    await room.queues.send(name=told["name"], message=told["message"])
                    say(queued=True)
                case "edit":
                    document = await room.sync.open(path=told["path"])
                    await document.synchronized
                    document.root.append_child("note", {"text": told["text"]})
                    await asyncio.sleep(0.2)
                    say(edited=document.root.to_json())
        await greeter.stop()
        await hosted.stop()


async def invoke(room: Any, told: dict[str, Any]) -> Any:
    answer = await room.invoke(
        toolkit=told["toolkit"], tool=told["tool"], input=told["input"], participant_id=told.get("participant_id")
    )
    if isinstance(answer, JsonContent):
        answer = answer.json
    if isinstance(answer, TextContent):
        answer = answer.text
    say(answer=answer)


asyncio.run(asyncio.wait_for(main(), given.get("seconds", 120)))

"""A guest of SDK 0.6: offers an agent, and calls tools, asks agents and edits documents as the test tells."""

import asyncio
from typing import Any

from lines import heard, room_client, say
from meshagent.agents import TaskRunner
from meshagent.agents.context import AgentCallContext

ANYTHING = {"type": "object", "additionalProperties": True, "properties": {}}


class Runner(TaskRunner):
    """Tells what it was asked."""

    def __init__(self) -> None:
        super().__init__(name="runner06", input_schema=ANYTHING)

    async def ask(self, *, context: AgentCallContext, arguments: dict[str, Any]) -> dict[str, Any]:
        return {"heard": arguments}


async def do(room: Any, told: dict[str, Any]) -> Any:
    match told["do"]:
        case "invoke":
            answer = await room.agents.invoke_tool(toolkit=told["toolkit"], tool=told["tool"], arguments=told["input"])
            return answer.json
        case "ask":
            return (await room.agents.ask(agent=told["agent"], arguments=told["input"])).json
        case "edit":
            document = await room.sync.open(path=told["path"])
            document.root.append_child("note", {"text": told["text"]})
            await asyncio.sleep(0.2)
            return True


async def main() -> None:
    async with room_client() as room:
        runner = Runner()
        await runner.start(room=room)
        say(ready=room.local_participant.id)
        while (told := await heard()) is not None:
            try:
                say(result=await do(room, told))
            except Exception as error:  # noqa: BLE001 - the test looks at it
                say(result=f"{type(error).__name__}: {error}")
        await runner.stop()


asyncio.run(asyncio.wait_for(main(), 120))

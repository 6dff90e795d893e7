"""Serves a TaskRunner until it is told nothing any more; another client of the SDK asks it, too."""

import asyncio
from typing import Any

from lines import error_of, heard, room_client, say
from meshagent.agents import TaskRunner
from meshagent.agents.context import AgentCallContext
from meshagent.api import RequiredToolkit

SCHEMA = {"type": "object", "properties": {"text": {"type": "string"}}}


class Shouter(TaskRunner):
    def __init__(self) -> None:
        super().__init__(
            name="shouter",
            title="Shouter",
            description="shouts",
            input_schema=SCHEMA,
            output_schema=SCHEMA,
            supports_tools=True,
            labels=["loud"],
        )

    async def ask(self, *, context: AgentCallContext, arguments: dict[str, Any]) -> dict[str, Any]:
        if "text" not in arguments:
            raise ValueError("nothing to shout")
        tools = [f"{toolkit.name}.{tool.name}" for toolkit in context.toolkits for tool in toolkit.tools]
        used = [await tool.execute(context, text="é") for toolkit in context.toolkits for tool in toolkit.tools]
        return {
            "text": arguments["text"].upper(),
            "caller": context.caller.id,
            "tools": tools,
            "used": [each.json for each in used],
        }


async def main() -> None:
    async with room_client("token") as room, room_client("other") as other:
        agent = Shouter()
        await agent.start(room=room)
        say(agents=[[each.name, each.title, each.labels] for each in await other.agents.list_agents()])
        say(answer=(await other.agents.ask(agent="shouter", arguments={"text": "hey"})).json["text"])
        say(error=await error_of(other.agents.ask(agent="shouter", arguments={})))
        requires = [RequiredToolkit(name="missing")]
        asking = other.agents.ask(agent="shouter", arguments={"text": "x"}, requires=requires)
        say(requires=await error_of(asking))
        say(ready=True)
        await heard()
        await agent.stop()


asyncio.run(main())

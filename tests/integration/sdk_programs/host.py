"""A ServiceHost with a Worker, whose LLM adapter is scripted, and a toolkit."""

import asyncio
from typing import Any

from lines import given, heard, say
from meshagent.agents import AgentChatContext, LLMAdapter
from meshagent.agents.worker import Worker
from meshagent.api.services import ServiceHost
from meshagent.tools import RemoteToolkit, Tool, ToolContext

service = ServiceHost(host="127.0.0.1", port=0, webhook_secret=given.get("secret"))


class Script(LLMAdapter):
    """Sends the rules and the last message of every context to a queue; told so, it hangs or fails instead."""

    def default_model(self) -> str:
        return "script"

    async def check_for_termination(self, *, context: AgentChatContext, room: Any) -> bool:
        return True

    async def next(self, *, context: AgentChatContext, room: Any, toolkits: Any, **options: Any) -> str:
        rules, *_, last = (message["content"] for message in context.messages)
        if '"hang"' in last:
            say(working=last)
            await asyncio.Event().wait()
        if '"fail"' in last:
            raise ValueError("it cannot be done")
        await room.queues.send(name="results", message={"seen": last, "rules": rules})
        return "done"


@service.path(path="/worker", identity="worker")
class Echo(Worker):
    def __init__(self) -> None:
        super().__init__(queue="jobs", name="echo", llm_adapter=Script(), rules=["be brief"])

    async def start(self, *, room: Any) -> None:
        await super().start(room=room)
        say(started="worker", name=room.local_participant.get_attribute("name"), room=room.room_name)

    async def stop(self) -> None:
        await super().stop()
        say(stopped="worker")


class Ping(Tool):
    def __init__(self) -> None:
        super().__init__(name="ping", input_schema={"type": "object", "additionalProperties": False})

    async def execute(self, context: ToolContext) -> Any:
        return {"pong": True}


@service.path(path="/toolkit", identity="toolkit")
class Pings(RemoteToolkit):
    def __init__(self) -> None:
        super().__init__(name="pings", tools=[Ping()])

    async def start(self, *, room: Any) -> None:
        await super().start(room=room)
        say(started="toolkit")


async def main() -> None:
    await service.start()
    say(port=service._runner.addresses[0][1])
    await heard()


asyncio.run(main())

"""A program for the MeshAgent SDK: a host with an agent that is asked, and a toolkit."""

import asyncio
from typing import Any

from meshagent.agents import TaskRunner
from meshagent.agents.context import AgentCallContext
from meshagent.api.services import ServiceHost
from meshagent.tools import RemoteToolkit, Tool, ToolContext

service = ServiceHost()
ANYTHING = {"type": "object"}


@service.path(path="/agent", identity="sdk-agent")
class Echo(TaskRunner):
    def __init__(self) -> None:
        super().__init__(name="sdk-agent", input_schema=ANYTHING, output_schema=ANYTHING)

    async def ask(self, *, context: AgentCallContext, arguments: dict[str, Any]) -> Any:
        return {"echo": arguments}


class Say(Tool):
    def __init__(self) -> None:
        super().__init__(name="say", input_schema=ANYTHING)

    async def execute(self, context: ToolContext, **arguments: Any) -> Any:
        return {"said": arguments}


@service.path(path="/toolkit", identity="sdk-toolkit")
class Says(RemoteToolkit):
    def __init__(self) -> None:
        super().__init__(name="sdk-toolkit", tools=[Say()])


asyncio.run(service.run())

"""A ServiceHost of SDK 0.56 with a worker of a queue, whose model is scripted, a task runner and a toolkit."""

import asyncio
from typing import Any

from lines import given, heard, say
from meshagent.agents.adapter import LLMAdapter
from meshagent.agents.task_runner import TaskRunner
from meshagent.agents.worker import Worker
from meshagent.api.messaging import JsonContent
from meshagent.api.services import ServiceHost
from meshagent.tools import FunctionTool, ToolContext, Toolkit
from meshagent.tools.hosting import _RemoteToolkitWrapper

service = ServiceHost(host="127.0.0.1", port=given["port"], webhook_secret=given.get("secret"))
ANYTHING = {"type": "object", "additionalProperties": True, "properties": {}, "required": []}


class Script(LLMAdapter):
    """No model."""

    def default_model(self) -> str:
        return "script"


@service.path(path="/worker", identity="worker")
class Jobs(Worker):
    def __init__(self) -> None:
        super().__init__(queue="jobs", llm_adapter=Script())

    async def start(self, *, room: Any) -> None:
        await super().start(room=room)
        say(started="worker", name=room.local_participant.get_attribute("name"))

    async def process_message(self, *, chat_context: Any = None, message: Any, toolkits: Any, **_: Any) -> Any:
        await self.room.queues.send(name="results", message={"done": message})

    async def stop(self) -> None:
        await super().stop()
        say(stopped="worker")


@service.path(path="/runner", identity="runner")
class Runner(TaskRunner):
    def __init__(self) -> None:
        super().__init__(name="runner", input_schema=ANYTHING)

    async def ask(self, *, context: Any, arguments: dict[str, Any], attachment: bytes | None = None) -> Any:
        return {"ran": arguments}


class Ping(FunctionTool):
    def __init__(self) -> None:
        super().__init__(name="ping", input_schema=ANYTHING)

    async def execute(self, context: ToolContext, **arguments: Any) -> Any:
        return JsonContent(json={"pong": True})


@service.path(path="/toolkit", identity="toolkit")
class Pings:
    async def start(self, *, room: Any) -> None:
        self._hosted = _RemoteToolkitWrapper(toolkit=Toolkit(name="pings", tools=[Ping()]), public=True)
        await self._hosted.start(room=room)

    async def stop(self) -> None:
        await self._hosted.stop()


async def main() -> None:
    await service.start()
    say(listening=True)
    await heard()


asyncio.run(main())

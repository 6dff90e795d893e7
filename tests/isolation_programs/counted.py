"""A program with a worker whose model reports tokens."""

import asyncio
from typing import Any

from meshhost.agents.worker import Worker
from meshhost.hosting.service_host import ServiceHost
from meshhost.testing.scripted_llm import ScriptedLLM
from meshhost.usage import report_tokens


class CountedWorker(Worker):
    """Fails on `fail`; on `tokens only` it tells of tokens of its own and works for ever."""

    def __init__(self) -> None:
        llm = ScriptedLLM(default="done", tokens=(70, 7))
        super().__init__(queue="jobs", name="worker", llm_adapter=llm)

    async def process_message(self, *, message: Any, **arguments: Any) -> Any:
        if message == "fail":
            raise ValueError("as told")
        if message == "tokens only":
            report_tokens("other", 1000, 1)
            await asyncio.Event().wait()
        return await super().process_message(message=message, **arguments)


if __name__ == "__main__":
    host = ServiceHost()
    host.add_path("/CountedWorker", cls=CountedWorker, identity="worker", isolation="process")
    asyncio.run(host.run())

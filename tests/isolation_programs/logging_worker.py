"""A program with a worker whose code logs by itself, in its task and in a thread."""

import asyncio
import logging
from typing import Any

from meshhost.agents.worker import Worker
from meshhost.hosting.service_host import ServiceHost
from meshhost.testing.scripted_llm import ScriptedLLM

logger = logging.getLogger("my_program")


class LoggingWorker(Worker):
    """Says what it does with each message; fails on `fail`."""

    def __init__(self) -> None:
        super().__init__(queue="jobs", name="worker", llm_adapter=ScriptedLLM(default="done"))

    async def process_message(self, *, message: Any, **_: Any) -> Any:
        logger.warning("begins with %s", message, extra={"city": "Oslo"})
        await asyncio.to_thread(logger.warning, "in a thread")
        await asyncio.create_task(self._further())
        if message == "fail":
            raise ValueError("as told")
        return "done"

    async def _further(self) -> None:
        logger.error("in a task")


if __name__ == "__main__":
    host = ServiceHost()
    host.add_path("/LoggingWorker", cls=LoggingWorker, identity="worker", isolation="process")
    asyncio.run(host.run())

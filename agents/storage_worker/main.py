"""A worker that does what queued instructions say, with the files of its room as its tools."""

import asyncio
import logging
import os

from meshhost.agents.worker import Worker
from meshhost.api.services import ServiceHost
from meshhost.openai.tools import OpenAIResponsesAdapter, OpenAIResponsesToolResponseAdapter
from meshhost.otel import otel_config
from meshhost.tools.storage import StorageToolkit

otel_config(service_name="storage-worker")
log = logging.getLogger("storage-worker")

host = ServiceHost()


@host.path("/worker", identity="storage-worker")
class StorageWorker(Worker):
    def __init__(self):
        super().__init__(
            queue=os.getenv("WORKER_QUEUE", "jobs"),
            name="storage-worker",
            title="Storage worker",
            description="Does what the messages of a queue say, and keeps the results in the room's storage",
            llm_adapter=OpenAIResponsesAdapter(),
            tool_adapter=OpenAIResponsesToolResponseAdapter(),
            toolkits=[StorageToolkit()],
            rules=[
                "Each message carries instructions. Carry them out with your tools.",
                "Nobody is there to answer questions: decide yourself.",
            ],
        )

    async def process_message(self, *, chat_context, room, message, toolkits):
        log.info("job begins")
        answer = await super().process_message(chat_context=chat_context, room=room, message=message, toolkits=toolkits)
        log.info("job done: %s", answer)


if __name__ == "__main__":
    asyncio.run(host.run())

"""A queue worker: it takes instructions from a durable queue and carries them out with a model and the room's files.

Shows: `Worker`, a toolkit that lets the model read and write the room's storage, and rules for the model. A message is deleted
from the queue only after `process_message` returned; if the process dies before that, the message is delivered again.

Run it:        meshhost setup                                                      (once, for an API key)
               meshhost service run agents/storage_worker/main.py --room my-room
Send a job:    meshhost queue send --room my-room --queue jobs --json '{"instructions": "save a poem about ai to poem.txt"}'
See the file:  meshhost storage cat --room my-room poem.txt

You see the agent join the room, then the log lines "job started" and "job done". `make demo` runs all of this in one go.
"""

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
            description="Carries out the instructions in a queue and saves the results in the room's storage",
            llm_adapter=OpenAIResponsesAdapter(),
            tool_adapter=OpenAIResponsesToolResponseAdapter(),
            toolkits=[StorageToolkit()],
            rules=[
                "Each message carries instructions. Carry them out with your tools.",
                "Nobody is there to answer questions: decide yourself.",
            ],
        )

    async def process_message(self, *, chat_context, room, message, toolkits):
        log.info("job started")
        answer = await super().process_message(chat_context=chat_context, room=room, message=message, toolkits=toolkits)
        log.info("job done: %s", answer)


if __name__ == "__main__":
    asyncio.run(host.run())

"""An agent that is asked and answers without a model: a schema for what goes in, one for what comes out."""

import asyncio

from meshagent.agents import TaskRunner
from meshagent.agents.context import AgentCallContext
from meshagent.api.services import ServiceHost
from meshagent.otel import otel_config

otel_config(service_name="word-counter")

service = ServiceHost()


@service.path(path="/word-counter", identity="word-counter")
class WordCounter(TaskRunner):
    def __init__(self):
        super().__init__(
            name="word-counter",
            title="Word counter",
            description="counts the words of a text",
            input_schema={
                "type": "object",
                "additionalProperties": False,
                "required": ["text"],
                "properties": {"text": {"type": "string"}},
            },
            output_schema={
                "type": "object",
                "additionalProperties": False,
                "required": ["words", "longest"],
                "properties": {"words": {"type": "integer"}, "longest": {"type": "string"}},
            },
        )

    async def ask(self, *, context: AgentCallContext, arguments: dict):
        words = arguments["text"].split()
        return {"words": len(words), "longest": max(words, key=len, default="")}


if __name__ == "__main__":
    asyncio.run(service.run())

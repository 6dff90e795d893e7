"""An agent that reads documents of the room by a toolkit that it requires, and keeps documents of a schema that it requires."""

import asyncio

from meshagent.agents.llmrunner import LLMTaskRunner
from meshagent.api import RequiredSchema, RequiredToolkit
from meshagent.api.services import ServiceHost
from meshagent.openai import OpenAIResponsesAdapter
from meshagent.openai.tools import OpenAIResponsesToolResponseAdapter

service = ServiceHost()


@service.path(path="/reader", identity="paper-reader")
class PaperReader(LLMTaskRunner):
    def __init__(self):
        super().__init__(
            name="paper-reader",
            title="Paper reader",
            description="says what a paper is about",
            llm_adapter=OpenAIResponsesAdapter(),
            tool_adapter=OpenAIResponsesToolResponseAdapter(),
            requires=[
                RequiredSchema(name="document"),
                RequiredToolkit(name="meshagent.markitdown", tools=["markitdown_from_file"]),
            ],
            output_schema={
                "type": "object",
                "additionalProperties": False,
                "required": ["about"],
                "properties": {"about": {"type": "string"}},
            },
        )


if __name__ == "__main__":
    asyncio.run(service.run())

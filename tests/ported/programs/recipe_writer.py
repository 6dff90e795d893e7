"""An agent that is asked, and lets a model answer in a fixed shape."""

import asyncio

from meshagent.agents.llmrunner import LLMTaskRunner
from meshagent.api.services import ServiceHost
from meshagent.openai import OpenAIResponsesAdapter
from meshagent.otel import otel_config

otel_config(service_name="recipe-writer")

service = ServiceHost()


@service.path(path="/recipes", identity="recipe-writer")
class RecipeWriter(LLMTaskRunner):
    def __init__(self):
        super().__init__(
            name="recipe-writer",
            title="Recipe writer",
            description="thinks up a recipe for what is in the kitchen",
            llm_adapter=OpenAIResponsesAdapter(),
            output_schema={
                "type": "object",
                "additionalProperties": False,
                "required": ["title", "minutes"],
                "properties": {"title": {"type": "string"}, "minutes": {"type": "integer"}},
            },
            rules=["Use only what the prompt names."],
        )


if __name__ == "__main__":
    asyncio.run(service.run())

"""An agent that plans: it answers with a story, after the steps that it took for it."""

import asyncio

from meshagent.agents.planning import PlanningResponder
from meshagent.api.services import ServiceHost
from meshagent.openai import OpenAIResponsesAdapter

service = ServiceHost()


@service.path(path="/story", identity="story-planner")
class StoryPlanner(PlanningResponder):
    def __init__(self):
        super().__init__(
            name="story-planner",
            title="Story planner",
            llm_adapter=OpenAIResponsesAdapter(),
            rules=["Stories end well."],
            output_schema={
                "type": "object",
                "additionalProperties": False,
                "required": ["story"],
                "properties": {"story": {"type": "string"}},
            },
        )


if __name__ == "__main__":
    asyncio.run(service.run())

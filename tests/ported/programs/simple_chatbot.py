"""A chat bot, as small as it gets."""

import asyncio

from meshagent.agents.chat import ChatBot
from meshagent.api.services import ServiceHost
from meshagent.openai import OpenAIResponsesAdapter
from meshagent.otel import otel_config

otel_config(service_name="simple-chatbot")

service = ServiceHost()


@service.path(path="/chat", identity="simple-chatbot")
class SimpleChatbot(ChatBot):
    def __init__(self):
        super().__init__(
            name="simple-chatbot",
            title="Simple chat bot",
            description="answers who writes to it",
            llm_adapter=OpenAIResponsesAdapter(),
            rules=["Answer in one sentence."],
        )


if __name__ == "__main__":
    asyncio.run(service.run())

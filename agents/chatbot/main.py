"""A chat bot: people talk with it in threads, by `meshhost chat --room ROOM --agent chatbot` or from a MeshAgent client."""

import asyncio

from meshhost.agents.chat import ChatBot
from meshhost.api.services import ServiceHost
from meshhost.openai.tools import OpenAIResponsesAdapter, OpenAIResponsesToolResponseAdapter
from meshhost.otel import otel_config

otel_config(service_name="chatbot")

host = ServiceHost()


@host.path("/chat", identity="chatbot")
class Chat(ChatBot):
    def __init__(self):
        super().__init__(
            name="chatbot",
            title="Chat bot",
            description="Answers whoever writes to it",
            llm_adapter=OpenAIResponsesAdapter(),
            tool_adapter=OpenAIResponsesToolResponseAdapter(),
            rules=["Be helpful and brief."],
            empty_state_title="What would you like to know?",
        )


if __name__ == "__main__":
    asyncio.run(host.run())

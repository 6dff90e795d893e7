"""A chat bot: people talk with it in threads, and each thread is a document in the room that outlives the bot.

Shows: `ChatBot` with a model and rules.

Run it:        meshhost setup                                                (once, for an API key)
               meshhost service run agents/chatbot/main.py --room my-room
Talk with it:  meshhost chat --room my-room --agent chatbot                  (in another terminal, or from a MeshAgent client)

You see the bot join the room; in the second terminal its answers appear while the model writes them.
"""

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
            description="Answers the people who write to it",
            llm_adapter=OpenAIResponsesAdapter(),
            tool_adapter=OpenAIResponsesToolResponseAdapter(),
            rules=["Be helpful and brief."],
            empty_state_title="What would you like to know?",
        )


if __name__ == "__main__":
    asyncio.run(host.run())

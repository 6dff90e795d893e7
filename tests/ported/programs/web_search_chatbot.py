"""A chat bot whose model searches the web: the provider of the model runs the search."""

import asyncio

from meshagent.agents.chat import ChatBot
from meshagent.api.services import ServiceHost
from meshagent.openai import OpenAIResponsesAdapter
from meshagent.openai.tools.responses_adapter import WebSearchConfig, WebSearchTool
from meshagent.tools import Toolkit

service = ServiceHost()


@service.path(path="/news", identity="news-chatbot")
class NewsChatbot(ChatBot):
    def __init__(self):
        super().__init__(name="news-chatbot", title="News", llm_adapter=OpenAIResponsesAdapter())

    async def get_thread_toolkits(self, *, thread_context, participant):
        found = await super().get_thread_toolkits(thread_context=thread_context, participant=participant)
        search = WebSearchTool(config=WebSearchConfig(name="web_search"))
        return [*found, Toolkit(name="web", tools=[search])]


if __name__ == "__main__":
    asyncio.run(service.run())

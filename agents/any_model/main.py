"""One agent program on every API of models: its tool is a plain function, and only one line names the adapter.

Shows: `@tool`, and the adapters for the Responses API, for chat completions and for Anthropic's Messages API. The room's
gateway translates, so each of them works with any provider, a local one included; the program holds no key.

Run it:    meshhost setup                                                   (once, for an API key)
           MODEL_API=chat meshhost service run agents/any_model/main.py --room my-room
Send work: meshhost queue send --room=my-room --queue=orders --json '{"prompt": "a book for 12 and a pen for 3"}' --wait

MODEL_API is responses (the default), chat or messages. You see the agent join the room, and what the model made of the order as
the result of the message. Without a provider's key the small local model answers, and often gets it wrong.
"""

import asyncio
import os

from meshhost.agents.worker import Worker
from meshhost.anthropic import AnthropicMessagesAdapter
from meshhost.api.services import ServiceHost
from meshhost.openai import OpenAICompletionsAdapter, OpenAIResponsesAdapter
from meshhost.otel import otel_config
from meshhost.tools import Toolkit, tool

otel_config(service_name="orders")

ADAPTERS = {
    "responses": OpenAIResponsesAdapter,
    "chat": OpenAICompletionsAdapter,
    "messages": AnthropicMessagesAdapter,
}

host = ServiceHost()


@tool
def total(prices: list[float], discount: float) -> dict[str, float]:
    """Adds the prices of an order up.

    Args:
        prices: the price of each thing, in francs
        discount: what is taken off the sum, in percent; 0 for nothing
    """
    return {"total": round(sum(prices) * (1 - discount / 100), 2)}


@host.path("/orders", identity="orders")
class Orders(Worker):
    def __init__(self):
        super().__init__(
            queue="orders",
            name="orders",
            llm_adapter=ADAPTERS[os.environ.get("MODEL_API", "responses")](),
            toolkits=[Toolkit(name="orders", tools=[total])],
            rules=["the prompt is an order: say what it costs, as the tool total works it out"],
        )


if __name__ == "__main__":
    asyncio.run(host.run())

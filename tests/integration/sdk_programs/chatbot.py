"""A ServiceHost of the SDK with the SDK's own ChatBot, whose LLM adapter is scripted."""

import asyncio
from types import SimpleNamespace
from typing import Any

from lines import heard, say
from meshagent.agents import AgentChatContext, LLMAdapter
from meshagent.agents.chat import ChatBot
from meshagent.api.services import ServiceHost

service = ServiceHost(host="127.0.0.1", port=0)


class Script(LLMAdapter):
    """Answers in two pieces with what it heard last."""

    def default_model(self) -> str:
        return "script"

    def create_chat_context(self) -> AgentChatContext:
        return AgentChatContext()

    async def check_for_termination(self, *, context: AgentChatContext, room: Any) -> bool:
        return True

    async def next(self, *, context: AgentChatContext, room: Any, event_handler: Any = None, **options: Any) -> str:
        last = context.messages[-1]["content"]
        for kind, more in (
            ("response.content_part.added", {}),
            ("response.output_text.delta", {"delta": "you said "}),
            ("response.output_text.delta", {"delta": last}),
            ("response.output_text.done", {"text": f"you said {last}"}),
        ):
            event_handler(SimpleNamespace(type=kind, **more))
        return last


@service.path(path="/chat", identity="bot")
class Bot(ChatBot):
    def __init__(self) -> None:
        super().__init__(name="bot", llm_adapter=Script())

    async def start(self, *, room: Any) -> None:
        await super().start(room=room)
        say(started="bot")


async def main() -> None:
    await service.start()
    say(port=service._runner.addresses[0][1])
    await heard()


asyncio.run(main())

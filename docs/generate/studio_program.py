"""The program whose agents stand on the pictures of Studio: a worker, a task runner, a tool and a chat bot, all without a
model.

`docs/generate/studio.py` runs it with `meshhost service run`. What they say is fixed, so that pictures differ only where Studio
does.
"""

import asyncio
from collections import Counter
from typing import Any

from meshhost.agents.adapter import LLMAdapter
from meshhost.agents.chat import ChatBot
from meshhost.agents.task_runner import TaskRunner
from meshhost.agents.worker import Worker
from meshhost.api.services import ServiceHost
from meshhost.tools import Tool, ToolContext
from meshhost.tools.hosting import RemoteToolkit
from meshhost.tools.toolkit import Toolkit

host = ServiceHost()

POEM = (
    "Silicon dreams in rows of light,\nweights that hum through half the night,\n"
    "asked for words, it found a few:\nmost were borrowed, some were new.\n"
)
ANSWER = """Three orders wait for **payment**, the oldest since Monday:

| Order | Customer | Amount |
| --- | --- | ---: |
| 1041 | Ada | 120.00 |
| 1044 | Grace | 80.50 |
| 1052 | Alan | 17.90 |

I can write to each of them. Shall I?"""


@host.path("/worker", identity="storage-worker")
class StorageWorker(Worker):
    """Writes what it is told, and fails where it is told to."""

    def __init__(self) -> None:
        super().__init__(queue="jobs", name="storage-worker", llm_adapter=None)

    async def process_message(self, *, chat_context: Any, message: Any, toolkits: Any, room: Any = None) -> Any:
        """Write the poem of a message, or fail for want of a template."""
        if message.get("template"):
            raise FileNotFoundError(f"no template {message['template']!r}: it was renamed to letter-2026.md")
        await asyncio.sleep(message.get("seconds", 0.05))
        path = f"poems/{message['name']}.txt"
        handle = await room.storage.open(path=path, overwrite=True)
        await room.storage.write(handle=handle, data=POEM.encode())
        await room.storage.close(handle=handle)
        return {"path": path, "lines": 4}


@host.path("/sorter", identity="sorter")
class Sorter(TaskRunner):
    """Says what a customer's message is about."""

    def __init__(self) -> None:
        super().__init__(
            name="sorter",
            title="Sorter",
            description="Says what a customer's message is about, and whether it is urgent",
            input_schema={
                "type": "object",
                "required": ["message"],
                "additionalProperties": False,
                "properties": {
                    "message": {"type": "string", "description": "What the customer wrote."},
                    "channel": {"enum": ["mail", "chat", "phone"]},
                    "strict": {"type": "boolean", "description": "Refuse when in doubt."},
                },
            },
            output_schema={"type": "object"},
        )

    async def ask(self, *, context: Any, arguments: Any) -> Any:
        """The same answer each time."""
        return {"topic": "billing", "urgent": True}


class CountWords(Tool):
    """Counts words."""

    def __init__(self) -> None:
        super().__init__(
            name="count_words",
            title="Count words",
            description="Counts the words of a text and lists the most frequent ones",
            input_schema={
                "type": "object",
                "required": ["text", "top"],
                "additionalProperties": False,
                "properties": {"text": {"type": "string"}, "top": {"type": "integer", "minimum": 0, "default": 3}},
            },
        )

    async def execute(self, context: ToolContext, *, text: str, top: int) -> Any:
        """Count them."""
        words = text.lower().split()
        return {"words": len(words), "top": [list(pair) for pair in Counter(words).most_common(top)]}


@host.path("/text", identity="text-toolkit")
class TextToolkit:
    """Offers the tool in the room."""

    def __init__(self) -> None:
        self.toolkit = RemoteToolkit(
            name="text", title="Text", description="Tools for texts", tools=[CountWords()], public=True
        )

    async def start(self, *, room: Any) -> None:
        """Register it."""
        await self.toolkit.start(room=room)

    async def stop(self) -> None:
        """Take it back."""
        await self.toolkit.stop()


class _FixedAnswer(LLMAdapter[Any]):
    """Calls a tool, then says the same each time."""

    def default_model(self) -> str:
        return "fixed"

    async def next(
        self, *, context: Any, room: Any, toolkits: Any, tool_adapter: Any = None, event_handler: Any = None, **_: Any
    ) -> Any:
        for toolkit in toolkits:
            if any(tool.name == "count_words" for tool in toolkit.tools):
                call = ToolContext(room=room, caller=room.local_participant)
                arguments = {"text": "unpaid unpaid unpaid", "top": 1}
                await toolkit.execute(context=call, name="count_words", arguments=arguments)
        if event_handler is not None:
            event_handler({"type": "response.output_text.done", "item_id": "1", "content_index": 0, "text": ANSWER})
        context.append_assistant_message(ANSWER)
        return ANSWER


@host.path("/chat", identity="assistant")
class Assistant(ChatBot):
    """Answers about orders."""

    def __init__(self) -> None:
        super().__init__(
            name="assistant",
            title="Assistant",
            llm_adapter=_FixedAnswer(),
            toolkits=[Toolkit(name="text", tools=[CountWords()])],
            empty_state_title="What would you like to know about your orders?",
        )


if __name__ == "__main__":
    asyncio.run(host.run())

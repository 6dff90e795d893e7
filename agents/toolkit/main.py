"""A toolkit: tools that every agent and program in the room can call.

Shows: a `Tool` with a JSON schema for its arguments, and a `RemoteToolkit` that offers it in the room. No model is needed.

Run it:         meshhost setup                                                (once, for an API key)
                meshhost service run agents/toolkit/main.py --room my-room
Call the tool:  python agents/call_tool/call.py my-room tool "to be or not to be"
                (in another terminal, with MESHHOST_API_KEY set)

You see the toolkit join the room; the second command prints {"words": 6, "top": [["to", 2], ["be", 2], ["or", 1]]}.
"""

import asyncio
from collections import Counter

from meshhost.api.services import ServiceHost
from meshhost.otel import otel_config
from meshhost.tools import Tool, ToolContext
from meshhost.tools.hosting import RemoteToolkit

otel_config(service_name="text-toolkit")

host = ServiceHost()


class CountWords(Tool):
    def __init__(self):
        super().__init__(
            name="count_words",
            title="Count words",
            description="Counts the words of a text and lists the most frequent ones",
            input_schema={
                "type": "object",
                "required": ["text", "top"],
                "additionalProperties": False,
                "properties": {
                    "text": {"type": "string"},
                    "top": {"type": "integer", "minimum": 0, "description": "how many of the most frequent words"},
                },
            },
        )

    async def execute(self, context: ToolContext, *, text: str, top: int):
        words = [word.strip(".,;:!?\"'()").lower() for word in text.split()]
        return {"words": len(words), "top": [list(pair) for pair in Counter(words).most_common(top)]}


@host.path("/text", identity="text-toolkit")
class TextToolkit:
    """A class that a host serves needs only `start`, called with the open room, and `stop`."""

    def __init__(self):
        self.toolkit = RemoteToolkit(
            name="text", title="Text", description="Tools for texts", tools=[CountWords()], public=True
        )

    async def start(self, *, room):
        await self.toolkit.start(room=room)

    async def stop(self):
        await self.toolkit.stop()


if __name__ == "__main__":
    asyncio.run(host.run())

"""`ChatBotThreadOpenAIImageGenerationTool`: the provider draws, and the picture is a file in the room that the thread shows.

MeshAgent programs import it from `meshagent.agents.chat`, whose `__getattr__` finds it here, above the adapters.
"""

import uuid
from typing import Any

from meshhost.agents.chat.context import ChatThreadContext
from meshhost.agents.chat.log import NOTICE, ThreadLog
from meshhost.openai.tools.hosted_tools import ImageGenerationConfig, ImageGenerationTool
from meshhost.tools.builders import ToolkitBuilder
from meshhost.tools.tool import ToolContext
from meshhost.tools.toolkit import Toolkit

__all__ = ["ChatBotThreadOpenAIImageGenerationTool", "ChatBotThreadOpenAIImageGenerationToolkitBuilder"]


class ChatBotThreadOpenAIImageGenerationTool(ImageGenerationTool):
    """Saves each picture in the room's storage and adds it to the thread as an attachment."""

    def __init__(self, *, thread_context: ChatThreadContext, config: ImageGenerationConfig | None = None) -> None:
        super().__init__(config=config)
        self.thread_context = thread_context

    async def on_image_generated(self, context: ToolContext, *, data: bytes, output_format: str, **extra: Any) -> None:
        """Save the picture and show it. Raises RoomError when it cannot be saved."""
        path = f"{uuid.uuid4()}.{output_format or 'png'}"
        await context.room.storage.upload(path=path, data=data)
        author = str(context.room.local_participant.get_attribute("name") or "")
        ThreadLog(self.thread_context.thread).add("", author=author, ref=NOTICE, attachments=[path])


class ChatBotThreadOpenAIImageGenerationToolkitBuilder(ToolkitBuilder):
    """Lets a message ask for pictures: `{"name": "image_generation"}`, with what it wants of them."""

    def __init__(self, *, thread_context: ChatThreadContext) -> None:
        super().__init__(name="image_generation", type=ImageGenerationConfig)
        self.thread_context = thread_context

    def make(self, *, model: str, config: ImageGenerationConfig) -> Toolkit:
        """Return a toolkit with the tool."""
        tool = ChatBotThreadOpenAIImageGenerationTool(config=config, thread_context=self.thread_context)
        return Toolkit(name="image_generation", tools=[tool])

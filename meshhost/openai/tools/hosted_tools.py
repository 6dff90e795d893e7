"""Tools that the model's provider runs itself: web search, code interpreter, image generation.

Each is a `BaseTool` in a toolkit like any other, but has no arguments: the provider calls it within its answer. The definition
goes into the request as it is. A provider without such a tool refuses the request; the gateway says so where it translates.
What the provider did is an item of its answer; a tool may have a handler for its kinds of items (`exchange.py` calls them). The
builders make the tools for messages that ask for them.
"""

import base64
import binascii
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal, TypeAlias

from meshhost.errors import ToolError
from meshhost.tools.builders import ToolkitBuilder, ToolkitConfig
from meshhost.tools.tool import BaseTool, ToolContext
from meshhost.tools.toolkit import Toolkit

__all__ = [
    "CodeInterpreterTool",
    "FileSearchTool",
    "HostedTool",
    "ImageGenerationConfig",
    "ImageGenerationTool",
    "ImageGenerationToolkitBuilder",
    "OpenAIResponsesTool",
    "OutputHandler",
    "WebSearchConfig",
    "WebSearchTool",
    "WebSearchToolkitBuilder",
]

# Called with the context and the members of an item; what it returns is the answer to the provider, which then goes on.
OutputHandler: TypeAlias = Callable[..., Awaitable[dict[str, Any] | None]]


class HostedTool(BaseTool):
    """A tool that the provider runs. Subclass it for one that is not here, and return its definitions."""

    def get_open_ai_tool_definitions(self) -> list[dict[str, Any]]:
        """Return the definitions, in the form of the Responses API."""
        return []

    def get_open_ai_output_handlers(self) -> dict[str, OutputHandler]:
        """Return what is called with items of the model's answer, by their type; nothing by default.

        A handler is called as `handler(context, **item)` when the answer is complete. It may return an item, which is sent to
        the provider, as an approval is.
        """
        return {}


OpenAIResponsesTool = HostedTool
"""MeshAgent's name of HostedTool."""


class WebSearchConfig(ToolkitConfig):
    """What MeshAgent programs make a WebSearchTool with, and a message asks for one with."""

    name: str = "web_search"


class WebSearchTool(HostedTool):
    """Searches the web. `allowed_domains` bounds where; `user_location` is an object such as `{"country": "CH"}`.

    Override `on_web_search` to see that it was used.
    """

    def __init__(
        self,
        *,
        config: WebSearchConfig | None = None,
        allowed_domains: Sequence[str] = (),
        user_location: dict[str, str] | None = None,
    ) -> None:
        super().__init__(name=(config or WebSearchConfig()).name, description="Searches the web")
        self._allowed_domains = list(allowed_domains)
        self._user_location = user_location

    def get_open_ai_tool_definitions(self) -> list[dict[str, Any]]:
        """See HostedTool."""
        definition: dict[str, Any] = {"type": "web_search"}
        if self._allowed_domains:
            definition["filters"] = {"allowed_domains": self._allowed_domains}
        if self._user_location is not None:
            definition["user_location"] = {"type": "approximate", **self._user_location}
        return [definition]

    def get_open_ai_output_handlers(self) -> dict[str, OutputHandler]:
        """See HostedTool."""
        return {"web_search_call": self.handle_web_search_call}

    async def on_web_search(self, context: ToolContext, *, status: str, **extra: Any) -> None:
        """The provider searched; does nothing by default."""

    async def handle_web_search_call(self, context: ToolContext, **item: Any) -> None:
        """Read an item of the answer, and call `on_web_search`."""
        await self.on_web_search(context, status=str(item.get("status")))


class WebSearchToolkitBuilder(ToolkitBuilder):
    """Lets a message ask for a search of the web: `{"name": "web_search"}`."""

    def __init__(self) -> None:
        super().__init__(name="web_search", type=WebSearchConfig)

    def make(self, *, model: str, config: WebSearchConfig) -> Toolkit:
        """Return a toolkit with a WebSearchTool."""
        return Toolkit(name="web_search", tools=[WebSearchTool(config=config)])


class FileSearchTool(HostedTool):
    """Searches files in vector stores of a program's own account with the provider."""

    def __init__(
        self,
        *,
        vector_store_ids: Sequence[str],
        filters: dict[str, Any] | None = None,
        max_num_results: int | None = None,
        ranking_options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(name="file_search", description="Searches files")
        options = {"filters": filters, "max_num_results": max_num_results, "ranking_options": ranking_options}
        given = {name: value for name, value in options.items() if value is not None}
        self._definition = {"type": "file_search", "vector_store_ids": list(vector_store_ids), **given}

    def get_open_ai_tool_definitions(self) -> list[dict[str, Any]]:
        """See HostedTool."""
        return [self._definition]


class CodeInterpreterTool(HostedTool):
    """Runs Python in a container of the provider. `container_id` and `file_ids` name those of a program's own account."""

    def __init__(self, *, container_id: str | None = None, file_ids: Sequence[str] | None = None) -> None:
        super().__init__(name="code_interpreter", description="Runs Python code")
        self._container_id = container_id
        self._file_ids = list(file_ids or ())

    def get_open_ai_tool_definitions(self) -> list[dict[str, Any]]:
        """See HostedTool."""
        files = {"file_ids": self._file_ids} if self._file_ids else {}
        return [{"type": "code_interpreter", "container": self._container_id or {"type": "auto", **files}}]


class ImageGenerationConfig(ToolkitConfig):
    """What an ImageGenerationTool asks for; unset members are the provider's choice."""

    name: str = "image_generation"
    background: Literal["transparent", "opaque", "auto"] | None = None
    input_image_mask_url: str | None = None
    model: str | None = None
    moderation: str | None = None
    output_compression: int | None = None
    output_format: Literal["png", "webp", "jpeg"] | None = None
    partial_images: int | None = None
    quality: Literal["auto", "low", "medium", "high"] | None = None
    size: str | None = None


class ImageGenerationTool(HostedTool):
    """Draws images. They are items of the answer of type `image_generation_call`; `on_image_generated` takes them."""

    def __init__(self, *, config: ImageGenerationConfig | None = None) -> None:
        self._config = config or ImageGenerationConfig()
        super().__init__(name=self._config.name, description="Draws images")

    def get_open_ai_tool_definitions(self) -> list[dict[str, Any]]:
        """See HostedTool."""
        return [{"type": "image_generation", **self._config.model_dump(exclude_none=True, exclude={"name"})}]

    def get_open_ai_output_handlers(self) -> dict[str, OutputHandler]:
        """See HostedTool."""
        return {"image_generation_call": self.handle_image_generated}

    async def on_image_generated(
        self,
        context: ToolContext,
        *,
        item_id: str,
        data: bytes,
        status: str,
        size: str,
        quality: str,
        background: str,
        output_format: str,
        **extra: Any,
    ) -> None:
        """An image was drawn; does nothing by default."""

    async def handle_image_generated(self, context: ToolContext, **item: Any) -> None:
        """Read an item of the answer, and call `on_image_generated`. Raises ToolError when the image is no base64."""
        if not item.get("result"):
            return
        try:
            data = base64.b64decode(str(item["result"]), validate=True)
        except (binascii.Error, ValueError):
            raise ToolError("the provider's image cannot be read") from None
        names = ("status", "size", "quality", "background", "output_format")
        await self.on_image_generated(
            context, item_id=str(item.get("id")), data=data, **{name: str(item.get(name) or "") for name in names}
        )


class ImageGenerationToolkitBuilder(ToolkitBuilder):
    """Lets a message ask for images: `{"name": "image_generation"}`, with what it wants of them."""

    def __init__(self) -> None:
        super().__init__(name="image_generation", type=ImageGenerationConfig)

    def make(self, *, model: str, config: ImageGenerationConfig) -> Toolkit:
        """Return a toolkit with an ImageGenerationTool."""
        return Toolkit(name="image_generation", tools=[ImageGenerationTool(config=config)])

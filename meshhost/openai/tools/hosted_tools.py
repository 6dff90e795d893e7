"""Tools that the model's provider runs itself: web search, code interpreter, image generation.

Each is a `BaseTool` in a toolkit like any other, but has no arguments: the provider calls it within its answer. The definition
goes into the request as it is. A provider without such a tool refuses the request; the gateway says so where it translates.
"""

from collections.abc import Sequence
from typing import Any

from meshhost.tools.tool import BaseTool

__all__ = [
    "CodeInterpreterTool",
    "HostedTool",
    "ImageGenerationConfig",
    "ImageGenerationTool",
    "OpenAIResponsesTool",
    "WebSearchConfig",
    "WebSearchTool",
]


class HostedTool(BaseTool):
    """A tool that the provider runs. Subclass it for one that is not here, and return its definitions."""

    def get_open_ai_tool_definitions(self) -> list[dict[str, Any]]:
        """Return the definitions, in the form of the Responses API."""
        return []


OpenAIResponsesTool = HostedTool
"""MeshAgent's name of HostedTool."""


class WebSearchConfig:
    """What MeshAgent programs make a WebSearchTool with."""

    def __init__(self, *, name: str = "web_search") -> None:
        self.name = name


class WebSearchTool(HostedTool):
    """Searches the web. `allowed_domains` bounds where; `user_location` is an object such as `{"country": "CH"}`."""

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


class ImageGenerationConfig:
    """What an ImageGenerationTool asks for; unset members are the provider's choice."""

    def __init__(
        self,
        *,
        name: str = "image_generation",
        background: str | None = None,
        model: str | None = None,
        output_format: str | None = None,
        quality: str | None = None,
        size: str | None = None,
    ) -> None:
        self.name = name
        self.options = {
            key: value
            for key, value in {
                "background": background,
                "model": model,
                "output_format": output_format,
                "quality": quality,
                "size": size,
            }.items()
            if value is not None
        }


class ImageGenerationTool(HostedTool):
    """Draws images. They are in the answer's items of type `image_generation_call`, as base64."""

    def __init__(self, *, config: ImageGenerationConfig | None = None) -> None:
        self._config = config or ImageGenerationConfig()
        super().__init__(name=self._config.name, description="Draws images")

    def get_open_ai_tool_definitions(self) -> list[dict[str, Any]]:
        """See HostedTool."""
        return [{"type": "image_generation", **self._config.options}]

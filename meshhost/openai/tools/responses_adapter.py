"""`OpenAIResponsesAdapter`: a model behind OpenAI's Responses API as an LLMAdapter.

The request and the events are OpenAI's own: what this API can do, an agent can use, by `response_options`. `ModelAdapter` has
all that the adapters of other APIs need as well. MeshAgent programs import the hosted tools from here, too.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from openai import AsyncOpenAI

from meshhost.elsewhere import names_elsewhere
from meshhost.openai.proxy import get_client
from meshhost.openai.tools.hosted_tools import (
    CodeInterpreterTool,
    FileSearchTool,
    ImageGenerationConfig,
    ImageGenerationTool,
    ImageGenerationToolkitBuilder,
    OpenAIResponsesTool,
    WebSearchConfig,
    WebSearchTool,
    WebSearchToolkitBuilder,
)
from meshhost.openai.tools.mcp_tool import MCPConfig, MCPServer, MCPTool, MCPToolDefinition, MCPToolkitBuilder
from meshhost.openai.tools.model_adapter import ModelAdapter, merged
from meshhost.openai.tools.retry import RetryPolicy
from meshhost.openai.tools.stream import ANSWER_TIMEOUT
from meshhost.openai.tools.tool_bundle import ToolBundle
from meshhost.openai.tools.tool_response import OpenAIResponsesToolResponseAdapter
from meshhost.settings import read_settings
from meshhost.tools.schema import Schema

if TYPE_CHECKING:
    from meshhost.room.client import RoomClient

__all__ = [
    "DEFAULT_MODEL",
    "CodeInterpreterTool",
    "FileSearchTool",
    "ImageGenerationConfig",
    "ImageGenerationTool",
    "ImageGenerationToolkitBuilder",
    "MCPConfig",
    "MCPServer",
    "MCPTool",
    "MCPToolDefinition",
    "MCPToolkitBuilder",
    "OpenAIResponsesAdapter",
    "OpenAIResponsesTool",
    "OpenAIResponsesToolResponseAdapter",
    "WebSearchConfig",
    "WebSearchTool",
    "WebSearchToolkitBuilder",
]

DEFAULT_MODEL = "gpt-5.1"


class OpenAIResponsesAdapter(ModelAdapter):
    """Continues conversations with a model, through the room's gateway unless a `client` is given.

    `model` defaults to OPENAI_MODEL, then to DEFAULT_MODEL. `response_options` are further parameters of the request and
    override ours. The model may call tools in at most `max_tool_rounds` rounds before it answers. `answer_timeout` bounds
    one answer, in seconds. `provider` names the provider in logs and spans.
    """

    def __init__(
        self,
        model: str | None = None,
        parallel_tool_calls: bool | None = None,
        client: AsyncOpenAI | None = None,
        response_options: dict[str, Any] | None = None,
        reasoning_effort: str | None = None,
        provider: str = "openai",
        max_tool_rounds: int = 50,
        retry: RetryPolicy | None = None,
        answer_timeout: float = ANSWER_TIMEOUT,
    ) -> None:
        super().__init__(
            model=model or read_settings().openai_model or DEFAULT_MODEL,
            provider=provider,
            parallel_tool_calls=parallel_tool_calls,
            reasoning_effort=reasoning_effort,
            max_tool_rounds=max_tool_rounds,
            retry=retry,
            answer_timeout=answer_timeout,
            client=client,
        )
        self._response_options = dict(response_options or {})

    @asynccontextmanager
    async def _client_for(self, room: "RoomClient") -> AsyncIterator[AsyncOpenAI]:
        if self._client is not None:
            yield self._client
            return
        async with get_client(room=room) as client:
            yield client

    def _options(self, model: str, bundle: ToolBundle, output_schema: Schema | None) -> dict[str, Any]:
        return merged(super()._options(model, bundle, output_schema), self._response_options)


_NO_SHELL = "meshhost runs no shells for models: give the agent a tool that calls your own service"
__getattr__ = names_elsewhere(
    __name__,
    {},
    {
        "ApplyPatchTool": "use StorageToolkit, whose tools read and write files of the room",
        "LocalShellConfig": _NO_SHELL,
        "LocalShellTool": _NO_SHELL,
        "LocalShellToolkitBuilder": _NO_SHELL,
        "ShellTool": _NO_SHELL,
        "ShellToolkitBuilder": _NO_SHELL,
    },
)

"""`MCPTool`: servers of MCP that the model's provider calls itself, in the form of the Responses API.

Nothing of it runs here: the provider connects to the server, so the server must be reachable from the internet, and what the
program gives as `authorization` or `headers` is sent to the provider. For servers that only this program reaches, and for every
model, there is `meshhost.mcp`, whose tools run here.
"""

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel

from meshhost.errors import InvalidRequestError
from meshhost.openai.tools.hosted_tools import HostedTool, OutputHandler
from meshhost.tools.builders import ToolkitBuilder, ToolkitConfig
from meshhost.tools.tool import ToolContext
from meshhost.tools.toolkit import Toolkit

__all__ = ["MCPConfig", "MCPServer", "MCPTool", "MCPToolDefinition", "MCPToolkitBuilder"]


class MCPServer(BaseModel):
    """A server: its address or a connector of the provider, what it is called with, and which calls need an approval."""

    server_label: str
    server_url: str | None = None
    allowed_tools: list[str] | None = None
    authorization: str | None = None
    headers: dict[str, Any] | None = None
    require_approval: Literal["always", "never"] | None = None
    always_require_approval: list[str] | None = None
    never_require_approval: list[str] | None = None
    openai_connector_id: str | None = None

    def definition(self) -> dict[str, Any]:
        """Return the server as a tool of the Responses API."""
        members = {
            "server_url": self.server_url,
            "connector_id": self.openai_connector_id,
            "allowed_tools": self.allowed_tools,
            "authorization": self.authorization,
            "headers": self.headers,
            "require_approval": self.require_approval or self._approvals(),
        }
        given = {name: value for name, value in members.items() if value is not None}
        return {"type": "mcp", "server_label": self.server_label, **given}

    def _approvals(self) -> dict[str, Any] | None:
        named = {"always": self.always_require_approval, "never": self.never_require_approval}
        return {when: {"tool_names": names} for when, names in named.items() if names is not None} or None


class MCPConfig(ToolkitConfig):
    """The servers that an MCPTool is made with."""

    name: Literal["mcp"] = "mcp"
    servers: list[MCPServer]


class MCPToolDefinition:
    """A tool that a server has, as the provider reports it."""

    def __init__(
        self,
        *,
        input_schema: dict[str, Any],
        name: str,
        annotations: dict[str, Any] | None = None,
        description: str | None = None,
    ) -> None:
        self.input_schema = input_schema
        self.name = name
        self.annotations = annotations
        self.description = description


class MCPTool(HostedTool):
    """Lets the provider call `servers`, given as such or in a `config`.

    Override `on_mcp_approval_request` to decide about the calls that need an approval, `on_mcp_list_tools` and `on_mcp_call` to
    see what the provider did. Raises InvalidRequestError without servers.
    """

    def __init__(
        self, *, config: MCPConfig | None = None, servers: Sequence[MCPServer] | None = None, name: str = "mcp"
    ) -> None:
        super().__init__(name=name, description="Calls servers of MCP")
        self.servers = list(servers or (config.servers if config is not None else ()))
        if not self.servers:
            raise InvalidRequestError("servers", "expected at least one MCPServer")

    def get_open_ai_tool_definitions(self) -> list[dict[str, Any]]:
        """See HostedTool."""
        return [server.definition() for server in self.servers]

    def get_open_ai_output_handlers(self) -> dict[str, OutputHandler]:
        """See HostedTool."""
        return {
            "mcp_list_tools": self.handle_mcp_list_tools,
            "mcp_call": self.handle_mcp_call,
            "mcp_approval_request": self.handle_mcp_approval_request,
        }

    async def on_mcp_list_tools(
        self,
        context: ToolContext,
        *,
        server_label: str,
        tools: list[MCPToolDefinition],
        error: str | None,
        **extra: Any,
    ) -> None:
        """The provider asked a server for its tools; does nothing by default."""

    async def on_mcp_call(
        self,
        context: ToolContext,
        *,
        name: str,
        arguments: str,
        server_label: str,
        error: str | None,
        output: str | None,
        **extra: Any,
    ) -> None:
        """The provider called a tool; does nothing by default."""

    async def on_mcp_approval_request(
        self, context: ToolContext, *, name: str, arguments: str, server_label: str, **extra: Any
    ) -> bool:
        """Return whether the provider may make this call: yes by default, as in MeshAgent."""
        return True

    async def handle_mcp_list_tools(self, context: ToolContext, **item: Any) -> None:
        """Read an item of the answer, and call `on_mcp_list_tools`."""
        tools = [
            MCPToolDefinition(
                input_schema=tool.get("input_schema") or {},
                name=str(tool.get("name")),
                annotations=tool.get("annotations"),
                description=tool.get("description"),
            )
            for tool in item.get("tools") or ()
        ]
        await self.on_mcp_list_tools(
            context, server_label=str(item.get("server_label")), tools=tools, error=_text(item.get("error"))
        )

    async def handle_mcp_call(self, context: ToolContext, **item: Any) -> None:
        """Read an item of the answer, and call `on_mcp_call`."""
        await self.on_mcp_call(
            context,
            name=str(item.get("name")),
            arguments=str(item.get("arguments") or "{}"),
            server_label=str(item.get("server_label")),
            error=_text(item.get("error")),
            output=_text(item.get("output")),
        )

    async def handle_mcp_approval_request(self, context: ToolContext, **item: Any) -> dict[str, Any]:
        """Ask `on_mcp_approval_request`, and return the answer for the provider."""
        may = await self.on_mcp_approval_request(
            context,
            name=str(item.get("name")),
            arguments=str(item.get("arguments") or "{}"),
            server_label=str(item.get("server_label")),
        )
        return {"type": "mcp_approval_response", "approve": may, "approval_request_id": item.get("id")}


class MCPToolkitBuilder(ToolkitBuilder):
    """Lets a message name its own servers: `{"name": "mcp", "servers": […]}`."""

    def __init__(self) -> None:
        super().__init__(name="mcp", type=MCPConfig)

    def make(self, *, model: str, config: MCPConfig) -> Toolkit:
        """Return a toolkit with an MCPTool."""
        return Toolkit(name="mcp", tools=[MCPTool(config=config)])


def _text(value: Any) -> str | None:
    return None if value is None else str(value)

"""One MCP request, as the routes pass it on: read, checked, and with who asks."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from meshhost.server.core.participants import Participant
from meshhost.server.mcp.callers import McpCaller
from meshhost.server.mcp.sessions import McpSession
from meshhost.server.mcp.wire import Message

__all__ = ["Asked"]


@dataclass(frozen=True, slots=True)
class Asked:
    """One request that was read and checked. `version` is that of the protocol it is answered in."""

    http: web.Request
    caller: McpCaller
    participant: Participant
    message: Message
    version: str
    is_stateless: bool
    session: McpSession | None
    toolkit: str | None
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def params(self) -> Mapping[str, Any]:
        """The parameters of the message."""
        return self.message.params

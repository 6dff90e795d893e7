"""`MCPServerToolkit`: an MCP server as a toolkit for an agent, connected from `start` to `stop`.

    files = MCPServerToolkit(name="files", server=StdioServer("mcp-server-filesystem", ["/data"]))

An agent passes it among its `toolkits`, starts it in its own `start` and stops it in its `stop`. Its `tools` are what the
server lists now: a model that is called after a change sees the new ones.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any, Self

from meshhost.errors import InvalidRequestError
from meshhost.mcp.connection import Connection
from meshhost.mcp.servers import HttpServer, StdioServer
from meshhost.mcp.tools import MAX_RESULT_BYTES, TIMEOUT, tools_of
from meshhost.tools.toolkit import Toolkit

__all__ = ["MCPServerToolkit"]


class MCPServerToolkit(Toolkit):
    """The tools of one MCP server. `allowed_tools` names those that are offered, as the server calls them (None: all).

    A call may take `timeout` seconds and its result have `max_result_bytes`. A server that crashes or is lost is started or
    dialled again with backoff; the calls in progress then fail with a ToolError, and later ones wait for it for some seconds.
    `options` are those of `Connection`: `connect_seconds`, `backoff`.
    """

    def __init__(
        self,
        *,
        name: str,
        server: StdioServer | HttpServer,
        allowed_tools: Collection[str] | None = None,
        timeout: float = TIMEOUT,
        max_result_bytes: int = MAX_RESULT_BYTES,
        title: str | None = None,
        description: str | None = None,
        rules: Sequence[str] = (),
        **options: Any,
    ) -> None:
        if isinstance(allowed_tools, str):
            raise InvalidRequestError("allowed_tools", "expected a list of names")
        if not timeout > 0:
            raise InvalidRequestError("timeout", f"expected seconds above 0, got {timeout}")
        if not max_result_bytes > 0:
            raise InvalidRequestError("max_result_bytes", f"expected bytes above 0, got {max_result_bytes}")
        super().__init__(name=name, tools=[], title=title, description=description, rules=rules)
        self.connection = Connection(name, server, on_tools=self._take, **options)
        self.on_change: list[Callable[[], None]] = []
        """Called when the server's tools have changed."""
        self._allowed = None if allowed_tools is None else frozenset(allowed_tools)
        self._calls = {"timeout": timeout, "max_result_bytes": max_result_bytes}
        self._listed: list[Any] = []

    async def start(self) -> None:
        """Connect and list the tools. Raises ToolError when that fails, or when a tool of `allowed_tools` is not there."""
        await self.connection.start()
        missing = (self._allowed or frozenset()) - {tool.name for tool in self._listed}
        if missing:
            await self.stop()
            raise InvalidRequestError("allowed_tools", f"the MCP server {self.name!r} has no tool {min(missing)!r}")

    async def stop(self) -> None:
        """Disconnect; a server that was started has ended afterwards. Idempotent."""
        await self.connection.stop()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.stop()

    def _take(self, listed: Sequence[Any]) -> None:
        """The server lists these tools now."""
        before, self._listed = self._listed, list(listed)
        if before == self._listed:
            return
        offered = [tool for tool in listed if self._allowed is None or tool.name in self._allowed]
        self.tools[:] = tools_of(self.connection, offered, **self._calls)
        for report in self.on_change:
            report()

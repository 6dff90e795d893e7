"""`MCPAgent`: offers the tools of an MCP server in a room, so that every agent and program there may use them.

One connection then serves the whole room, and the server's secrets stay with the host. The agent registers the toolkit again
when the server's tools change. It runs as long as it is not stopped, also while the server is away: calls fail meanwhile with
the reason.
"""

import asyncio
from typing import TYPE_CHECKING, Any

from meshhost.agents.base import SingleRoomAgent
from meshhost.mcp.server_toolkit import MCPServerToolkit
from meshhost.tasks import TaskOwner
from meshhost.tools.remote import RemoteToolkit
from meshhost.tools.tool import Tool

if TYPE_CHECKING:
    from meshhost.room.client import RoomClient

__all__ = ["MCPAgent"]


class MCPAgent(SingleRoomAgent):
    """Offers a toolkit under its own name, for everybody in the room unless `public` is false."""

    def __init__(self, *, name: str, toolkit: MCPServerToolkit, public: bool = True, **options: Any) -> None:
        super().__init__(name=name, **options)
        self.toolkit = toolkit
        self._public = public
        self._offered: RemoteToolkit | None = None
        self._changed = asyncio.Event()
        self._tasks = TaskOwner(f"agent {name}")

    async def start(self, *, room: "RoomClient") -> None:
        """Connect to the server and offer its tools. Raises ToolError when the server cannot be used."""
        await super().start(room=room)
        self.toolkit.on_change.append(self._changed.set)
        try:
            await self.toolkit.start()
            self._changed.clear()
            await self._offer(room)
        except BaseException:
            await self.stop()
            raise
        self._tasks.spawn(self._renew(room), name="tools")

    async def stop(self) -> None:
        """Withdraw the tools and disconnect from the server. Idempotent."""
        await self._tasks.stop(timeout=self.stop_seconds)
        if self._changed.set in self.toolkit.on_change:
            self.toolkit.on_change.remove(self._changed.set)
        offered, self._offered = self._offered, None
        try:
            if offered is not None:
                await offered.stop()
        finally:
            await self.toolkit.stop()
            await super().stop()

    async def wait_ended(self) -> None:
        """Wait until the agent ends by itself; raise the error that ended it."""
        await self._tasks.wait()

    async def _renew(self, room: "RoomClient") -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            if self._offered is not None:
                await self._offered.stop()
            await self._offer(room)

    async def _offer(self, room: "RoomClient") -> None:
        toolkit = self.toolkit
        self._offered = RemoteToolkit(
            name=toolkit.name,
            title=toolkit.title,
            description=toolkit.description,
            rules=toolkit.rules,
            tools=[tool for tool in toolkit.tools if isinstance(tool, Tool)],
            public=self._public,
        )
        await self._offered.start(room=room)

"""The developer log of the room: structured notes for whoever watches (room-protocol §12)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from meshhost.protocol.connection import MessageReceived
from meshhost.room.events import EventEmitter

if TYPE_CHECKING:
    from meshhost.room.client import RoomClient

__all__ = ["DeveloperClient"]


class DeveloperClient:
    """Write to and watch the log. Event: `log`, with `type` and `data`."""

    def __init__(self, *, room: RoomClient) -> None:
        self._room = room
        self._events = EventEmitter(room.spawn)
        self._watching = False
        room.register_handler("developer.log", self._on_log)
        room.add_restorer(self._restore)

    def on(self, event_name: str, func: Callable[..., Any]) -> None:
        """Call `func` at every such event."""
        self._events.on(event_name, func)

    def off(self, event_name: str, func: Callable[..., Any]) -> None:
        """Undo `on`."""
        self._events.off(event_name, func)

    async def log(self, *, type: str, data: dict[str, Any]) -> None:
        """Write an entry."""
        await self._room.send_request("developer.log", {"type": type, "data": data})

    def log_nowait(self, *, type: str, data: dict[str, Any]) -> None:
        """Write an entry in the background; a failure is logged."""
        self._room.spawn(self.log(type=type, data=data), f"log {type}")

    async def enable(self) -> None:
        """Watch."""
        await self._room.send_request("developer.watch", {})
        self._watching = True

    async def disable(self) -> None:
        """Watch no more."""
        await self._room.send_request("developer.unwatch", {})
        self._watching = False

    async def _restore(self) -> None:
        if self._watching:
            await self.enable()

    def _on_log(self, message: MessageReceived) -> None:
        self._events.emit("log", type=message.header["type"], data=message.header["data"])

"""The developer log of the room (room-protocol §12): structured entries that any participant may write and watch.

Entries are not stored: they reach the participants that watch at that moment. The server forgets who watches when a
connection is lost, so the client asks again after each reconnect.
"""

from collections.abc import Callable
from typing import Any

from meshhost.protocol.connection import MessageReceived
from meshhost.room.events import EventEmitter
from meshhost.room.link import RoomLink

__all__ = ["DeveloperClient"]


class DeveloperClient:
    """Write to the log and watch it. Event: `log`, with `type` (str) and `data` (a JSON object)."""

    def __init__(self, *, room: RoomLink) -> None:
        self._room = room
        self._events = EventEmitter(room.spawn)
        self._watching = False
        room.register_handler("developer.log", self._on_log)
        room.add_restorer(self._restore)

    def on(self, event_name: str, func: Callable[..., Any]) -> None:
        """Call `func` at each event of this name."""
        self._events.on(event_name, func)

    def off(self, event_name: str, func: Callable[..., Any]) -> None:
        """Undo `on`."""
        self._events.off(event_name, func)

    async def log(self, *, type: str, data: dict[str, Any]) -> None:
        """Write an entry; returns when the server has passed it on."""
        await self._room.send_request("developer.log", {"type": type, "data": data})

    def log_nowait(self, *, type: str, data: dict[str, Any]) -> None:
        """Write an entry in the background; a failure is logged."""
        self._room.spawn(self.log(type=type, data=data), f"log {type}")

    async def enable(self) -> None:
        """Begin to receive the `log` event."""
        await self._room.send_request("developer.watch", {})
        self._watching = True

    async def disable(self) -> None:
        """Stop receiving the `log` event."""
        await self._room.send_request("developer.unwatch", {})
        self._watching = False

    async def _restore(self) -> None:
        if self._watching:
            await self.enable()

    def _on_log(self, message: MessageReceived) -> None:
        self._events.emit("log", type=message.header["type"], data=message.header["data"])

"""`stay`: one agent or toolkit in one room, until somebody ends it. For programs that nobody calls and no host serves.

The room client reconnects by itself, so what ends this is a signal, or the end of the room for good.
"""

from typing import TYPE_CHECKING, Any, Protocol

from meshhost.errors import RoomError
from meshhost.room.client import RoomClient
from meshhost.signals import stop_signals
from meshhost.tasks import first_of

if TYPE_CHECKING:
    from meshhost.transport.websocket_client import WebSocketClientProtocol

__all__ = ["stay"]


class _TakesPart(Protocol):
    async def start(self, *, room: RoomClient) -> Any: ...
    async def stop(self) -> Any: ...


async def stay(protocol: "WebSocketClientProtocol", agent: _TakesPart) -> None:
    """Join, start the agent, and stop it at SIGTERM or SIGINT. Raises RoomError when the room ends for good before."""
    async with stop_signals() as signals, RoomClient(protocol=protocol) as room:
        await agent.start(room=room)
        try:
            await first_of(signals.wait(), room.wait_closed())
            if room.is_closed and room.close_reason.error is not None:
                raise RoomError(f"the room is closed: {room.close_reason}")
        finally:
            await agent.stop()

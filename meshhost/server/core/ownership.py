"""Which server may open a room.

All participants of a room must meet in the same process. With one room server that is given; with several, each room has one
owner at a time, and a participant that reaches another server must be sent on. `RoomDirectory` asks a `RoomOwnership` before
it opens a room and tells it when the room has ended. The handshake answers a refusal before the upgrade (`http/errors.py`).
"""

from typing import Protocol

from meshhost.errors import RoomError
from meshhost.identity.tenant import RoomKey

__all__ = ["OwnedElsewhereError", "RoomOwnership", "SingleServer"]


class OwnedElsewhereError(RoomError):
    """Another room server has this room open. `server_url` is that server's REST address."""

    def __init__(self, server_url: str) -> None:
        super().__init__(f"this room is served by {server_url}")
        self.server_url = server_url


class RoomOwnership(Protocol):
    """Decides which server a room is open on. `claim` and `release` of one room never overlap within one server."""

    async def claim(self, key: RoomKey) -> None:
        """Make this server the owner of the room. Idempotent. Raises OwnedElsewhereError while another server owns it.

        The caller must set a timeout if the implementation may wait.
        """
        ...

    async def release(self, key: RoomKey) -> None:
        """Give the room up: it has ended here. Must not raise; a server that dies without it loses its rooms by a timeout."""
        ...


class SingleServer:
    """The ownership of a server that is alone: every room is its own."""

    async def claim(self, key: RoomKey) -> None:
        """Always succeeds."""

    async def release(self, key: RoomKey) -> None:
        """Nothing to do."""

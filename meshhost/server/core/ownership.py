"""Which server may open a room.

All participants of a room must meet in the same process. With one room server that is given; with several, each room has one
owner at a time, and a participant that reaches another server must be sent on. `RoomDirectory` asks a `RoomOwnership` before
it opens a room and tells it when the room has ended. The handshake answers a refusal before the upgrade (`http/errors.py`).
"""

from typing import Protocol

from meshhost.errors import RoomError
from meshhost.identity.tenant import RoomKey
from meshhost.quotas.counts import TenantCounts
from meshhost.quotas.quota import Resource

__all__ = ["CountedOwnership", "OwnedElsewhereError", "RoomOwnership", "SingleServer"]


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


class CountedOwnership:
    """Another ownership, with the open rooms counted for the quota of their tenant: `claim` raises QuotaExceededError too."""

    def __init__(self, ownership: RoomOwnership, counts: TenantCounts) -> None:
        self._ownership = ownership
        self._counts = counts
        # A room that is opened again before its end is over is claimed twice and released once.
        self._claimed: set[RoomKey] = set()

    async def claim(self, key: RoomKey) -> None:
        """See RoomOwnership."""
        if key not in self._claimed:
            await self._counts.take(key.tenant, Resource.ROOMS)
            self._claimed.add(key)
        try:
            await self._ownership.claim(key)
        except BaseException:
            self._give_back(key)
            raise

    async def release(self, key: RoomKey) -> None:
        """See RoomOwnership."""
        self._give_back(key)
        await self._ownership.release(key)

    def _give_back(self, key: RoomKey) -> None:
        if key in self._claimed:
            self._claimed.discard(key)
            self._counts.give_back(key.tenant, Resource.ROOMS)


class SingleServer:
    """The ownership of a server that is alone: every room is its own."""

    async def claim(self, key: RoomKey) -> None:
        """Always succeeds."""

    async def release(self, key: RoomKey) -> None:
        """Nothing to do."""

"""The rooms of all tenants that were deleted, in memory: what was signed for one before it was deleted is worth nothing.

The name of a room may be used again, and tokens and file addresses name a room by its name. So a deletion leaves a record, and
what was signed must say (`iat`) that it was signed since. `IdentityService` keeps the records as current as the keys and calls
`begin` and `end` under its lock; every connection and request asks `check`, which waits for nothing.
"""

from collections.abc import Mapping, Sequence

from meshhost.clock import Clock
from meshhost.errors import InvalidTokenError
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.stores.identity import IdentityStore, RoomDeletion

__all__ = ["DeletedRooms"]


class DeletedRooms:
    """What is known of deletions; `begin` and `end` also write it to the store."""

    def __init__(self, store: IdentityStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._known: Mapping[tuple[str, str], RoomDeletion] = {}

    @property
    def unfinished(self) -> Sequence[RoomKey]:
        """The rooms whose deletion has begun and not ended."""
        return [RoomKey(TenantId(place[0]), place[1]) for place, found in self._known.items() if not found.ended]

    def check(self, room: RoomKey, signed_at: float | None) -> None:
        """Raise InvalidTokenError for a room that is being deleted, or that was deleted since this was signed.

        `signed_at` is in seconds since the epoch; None: unknown, which counts as before.
        """
        deletion = self._known.get((room.tenant, room.name))
        if deletion is None:
            return
        if not deletion.ended:
            raise InvalidTokenError("the room is being deleted")
        if signed_at is None or signed_at <= deletion.at:
            raise InvalidTokenError("the room was deleted, and the token does not say (`iat`) that it was signed since")

    def take(self, known: Mapping[tuple[str, str], RoomDeletion]) -> None:
        """Know these records from now on: those that were read from the store."""
        self._known = known

    async def begin(self, room: RoomKey) -> None:
        """Refuse everything that was signed for the room until now. Raises OSError."""
        deletion = RoomDeletion(self._clock.time(), ended=False)
        await self._store.begin_room_deletion(room.tenant, room.name, deletion.at)
        self._known = {**self._known, (room.tenant, room.name): deletion}

    async def end(self, room: RoomKey) -> None:
        """Nothing of the room is left: it may be made again. Raises OSError."""
        await self._store.end_room_deletion(room.tenant, room.name)
        found = self._known.get((room.tenant, room.name))
        if found is not None:
            self._known = {**self._known, (room.tenant, room.name): RoomDeletion(found.at, ended=True)}

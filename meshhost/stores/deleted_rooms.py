"""The rooms of all tenants that were deleted, in memory: what was signed for one before it was deleted is worth nothing.

The name of a room may be used again, and tokens and file addresses name a room by its name. So a deletion leaves a record, and
what was signed must say (`iat`) that it was signed since. A room into which an archive is imported is not there either until
that ends, and is in the same records: the importing server moves `importing_until` on, and when it does so no more, the room is
one whose deletion has begun. `IdentityService` keeps the records as current as the keys and calls
what changes them under its lock; every connection and request asks `check`, which waits for nothing.
"""

from collections.abc import Mapping, Sequence

from meshhost.clock import Clock
from meshhost.errors import InvalidTokenError, RoomError
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
        """The rooms whose deletion has begun and not ended, and those whose import was interrupted."""
        return [room for room in self._open() if not self.is_importing(room)]

    @property
    def importing(self) -> Sequence[RoomKey]:
        """The rooms into which an archive is being imported."""
        return [room for room in self._open() if self.is_importing(room)]

    def is_importing(self, room: RoomKey) -> bool:
        """Whether an archive is being imported into the room, here or on another server."""
        found = self._known.get((room.tenant, room.name))
        return found is not None and found.importing_until is not None and found.importing_until > self._clock.time()

    def is_known(self, room: RoomKey) -> bool:
        """Whether the room is being deleted or imported."""
        found = self._known.get((room.tenant, room.name))
        return found is not None and not found.ended

    def deleted_at(self, room: RoomKey) -> float:
        """When a room of this name was last deleted, in seconds since the epoch; 0: never."""
        found = self._known.get((room.tenant, room.name))
        return 0.0 if found is None else found.at

    def check(self, room: RoomKey, signed_at: float | None) -> None:
        """Raise InvalidTokenError for a room that is being deleted, or that was deleted since this was signed.

        `signed_at` is in seconds since the epoch; None: unknown, which counts as before.
        """
        deletion = self._known.get((room.tenant, room.name))
        if deletion is None or (deletion.ended and not deletion.at):
            return
        if not deletion.ended and deletion.importing_until is not None:
            raise InvalidTokenError("the room is being imported")
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

    async def import_until(self, room: RoomKey, until: float) -> None:
        """Begin to import into a room that is not there, or go on. Raises OSError."""
        await self._record(room, RoomDeletion(self.deleted_at(room), ended=False, importing_until=until))

    async def end_import(self, room: RoomKey) -> None:
        """The import is complete: the room may be opened. Raises OSError, RoomError when it was given up meanwhile."""
        if not self.is_importing(room):
            raise RoomError("the import was given up: it could not be recorded in time that it goes on")
        await self._record(room, RoomDeletion(self.deleted_at(room), ended=True))

    async def give_up_import(self, room: RoomKey) -> None:
        """Have everything deleted that was imported. Raises OSError."""
        await self._record(room, RoomDeletion(self.deleted_at(room), ended=False))

    async def _record(self, room: RoomKey, state: RoomDeletion) -> None:
        await self._store.record_import(room.tenant, room.name, state)
        self._known = {**self._known, (room.tenant, room.name): state}

    def _open(self) -> Sequence[RoomKey]:
        return [RoomKey(TenantId(place[0]), place[1]) for place, found in self._known.items() if not found.ended]

"""Deletes all that a tenant or a room keeps, and goes on after a crash where that was interrupted.

A deletion begins with a record in the identity store. From then on tokens, keys and file addresses are refused, here at once
and within two seconds by other servers over the same store, and open rooms end with the reason. Then schedules, hooks,
services, secrets, queues, documents, files, tables, traces and usage are deleted, in steps that hold up nobody, and last the
record says so; what counts for the quota of the tenant is counted anew. A server that was killed meanwhile finds the record at
its next start. The record of a tenant is kept for ever: every server over the identity store deletes what it keeps of it in
stores of its own, and no tenant gets the id again.

What an interrupted import left is deleted in the same way (`imports.py`).

One task, `run`, does all deletions one after another; the caller owns it. `delete_tenant` and `delete_room` begin one and wait
for it: cancelled, they leave it to `run`. What a connection that was still open wrote meanwhile is found by a second pass.
"""

import asyncio
import contextlib
import logging
from collections.abc import Iterator, Mapping

from meshhost.errors import AlreadyExistsError, MeshhostError, NotFoundError
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.server.core.directory import RoomDirectory
from meshhost.server.core.peer import CloseReason
from meshhost.server.core.room import Room
from meshhost.server.data.kept import Kept
from meshhost.stores.identity_service import REFRESH_SECONDS

__all__ = ["Deletions"]

logger = logging.getLogger(__name__)

# Seconds for the connections of a room that ended to be over.
_LEAVE_SECONDS = 10.0
_ROOMS = 250


class Deletions:
    """Deletes tenants and rooms from the stores of this server."""

    def __init__(self, kept: Kept, directory: RoomDirectory) -> None:
        self._kept = kept
        self._directory = directory
        self._deleted: set[str] = set()  # tenants of which this process knows that nothing is left
        self._ended: set[Room] = set()  # rooms whose connections may not be over yet
        self._wanted = asyncio.Event()
        self._waiting: dict[str | RoomKey, asyncio.Event] = {}

    def end_rooms(self, closed: Mapping[str, str]) -> None:
        """End the rooms of these tenants, by id and reason, and those that are being deleted. Idempotent."""
        records = self._kept.identity.deleted_rooms
        deleted = dict.fromkeys(records.unfinished, "the room was deleted")
        deleted |= dict.fromkeys(records.importing, "the room is being imported")
        for room in self._directory.rooms:
            reason = closed.get(room.key.tenant) or deleted.get(room.key)
            if reason is None:
                continue
            self._ended.add(room)
            for participant in room.connected():
                if participant.peer is not None:
                    participant.peer.close(CloseReason.ACCESS_REVOKED, reason)
            self._directory.end(room)

    async def delete_tenant(self, tenant: TenantId, *, wait_seconds: float) -> bool:
        """Begin to delete a tenant, or join the deletion in progress; return whether nothing is left in time.

        Raises NotFoundError, OSError.
        """
        done = self._done(tenant)
        try:
            await self._kept.identity.close_project(tenant)
        except BaseException:
            self._waiting.pop(tenant, None)
            raise
        self._deleted.discard(tenant)
        return await self._wait(done, wait_seconds)

    async def delete_room(self, room: RoomKey, *, wait_seconds: float) -> bool:
        """Begin to delete a room, or join the deletion in progress; return whether nothing is left in time.

        Raises AlreadyExistsError while an archive is imported into the room, OSError.
        """
        if self._kept.identity.deleted_rooms.is_importing(room):
            raise AlreadyExistsError(f"room {room.name!r} is being imported: wait for the end, then delete it")
        done = self._done(room)
        if room not in self._kept.identity.deleted_rooms.unfinished:
            await self._kept.identity.begin_room_deletion(room)
        self.end_rooms({})
        return await self._wait(done, wait_seconds)

    async def run(self) -> None:
        """Delete what is to be deleted, until cancelled: what a former process left, and what is begun from now on."""
        while True:
            self._wanted.clear()
            for tenant in sorted(self._kept.identity.deleted_projects - self._deleted):
                with _logged({"tenant": tenant}):
                    await self._delete_tenant(TenantId(tenant))
            for room in self._kept.identity.deleted_rooms.unfinished:
                with _logged({"tenant": room.tenant, "room": room.name}):
                    await (self._delete_room(room) if room.name else self._delete_import(room))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REFRESH_SECONDS):
                    await self._wanted.wait()

    async def _delete_tenant(self, tenant: TenantId) -> None:
        await self._delete_content(tenant, None)
        await self._kept.meter.forget(tenant)
        self._kept.counts.forget(tenant)
        with contextlib.suppress(NotFoundError):  # it was deleted before, perhaps by another server
            await self._kept.identity.delete_project(tenant)
            logger.info("tenant deleted", extra={"tenant": tenant})
        self._deleted.add(tenant)
        self._report(tenant)

    async def _delete_room(self, room: RoomKey) -> None:
        self.end_rooms({})
        await self._delete_content(room.tenant, room.name)
        record = await self._kept.identity.find_room(room.tenant, room.name)
        if record is not None:  # an import that was interrupted brought it; a deletion begins with it
            with contextlib.suppress(NotFoundError):
                await self._kept.identity.delete_room(room.tenant, record.id)
        await self._kept.identity.end_room_deletion(room)
        logger.info("room deleted", extra={"tenant": room.tenant, "room": room.name})
        self._report(room)

    async def _delete_import(self, marker: RoomKey) -> None:
        """Delete what the interrupted import of a tenant left, unless the tenant is there: then all is there."""
        tenant = marker.tenant
        if tenant not in {project.id for project in await self._kept.identity.projects()}:
            await self._delete_content(tenant, None)
            await self._kept.meter.forget(tenant)
            while rooms := await self._kept.identity.rooms(tenant, limit=_ROOMS, offset=0):
                for room in rooms:
                    await self._kept.identity.delete_room(tenant, room.id)
            logger.info("interrupted import deleted", extra={"tenant": tenant})
        await self._kept.identity.end_room_deletion(marker)

    async def _delete_content(self, tenant: TenantId, room: str | None) -> None:
        for is_last in (False, True):
            await self._kept.triggers.delete_all(tenant, room)  # first: they send
            await self._kept.configuration.delete_all(tenant, room)  # then: they bring agents
            await self._kept.queues.delete_all(tenant, room)
            await self._kept.documents.delete_all(tenant, room)
            await self._kept.files.delete_all(tenant, room)
            if self._kept.tables is not None:
                await self._kept.tables.delete_all(tenant, room)
            await self._kept.traces.delete_all(tenant, room)
            self._kept.count_again(tenant)
            if not is_last:
                await self._connections_over(tenant, room)

    async def _connections_over(self, tenant: TenantId, name: str | None) -> None:
        self.end_rooms({})  # one that was opened by a participant whose token was checked before
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LEAVE_SECONDS):
                for room in [room for room in self._ended if room.key.is_of(tenant, name)]:
                    await room.wait_until(lambda room=room: not room.connected())  # type: ignore[misc]
                    self._ended.discard(room)
        self._ended = {room for room in self._ended if room.connected()}

    def _done(self, what: str | RoomKey) -> asyncio.Event:
        return self._waiting.setdefault(what, asyncio.Event())

    async def _wait(self, done: asyncio.Event, seconds: float) -> bool:
        self._wanted.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await done.wait()
        return done.is_set()

    def _report(self, what: str | RoomKey) -> None:
        if (done := self._waiting.pop(what, None)) is not None:
            done.set()


@contextlib.contextmanager
def _logged(fields: Mapping[str, str]) -> Iterator[None]:
    # Tried again a second later: whatever is wrong with a store, a deletion that was promised is not given up.
    try:
        yield
    except (OSError, MeshhostError) as error:
        logger.warning("deletion interrupted", extra={**fields, "reason": str(error)})

"""Imports an archive as a new tenant, or as a room that is not there yet.

The archive is a file on this machine, complete. First all of it is read and checked, in a thread, and nothing is changed: the
checksum, and every line of every entry. Then it is read again and stored. Meanwhile the room is recorded as one that is being
imported (`DeletedRooms`): nobody can open it. The record says until when; a task here moves that on, so that a server that is
killed leaves a record that runs out, and `Deletions`, here or on any server over the identity store, deletes what was imported.
The last step of a room is one change of that record, with which everything appears at once.

For a tenant the record is of its id and no room. Nobody knows the id until the tenant itself is added, which is the last step
but one: `Deletions` keeps what it finds under a record that ran out when the tenant is there.

Messages get new ids in their old order, documents new times. One caller, the request, runs an import from begin to end.
"""

import asyncio
import contextlib
import hashlib
import logging
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import IO

from meshhost.archives.tar import Entry, open_entry, read_entries
from meshhost.clock import Clock, SystemClock
from meshhost.errors import AlreadyExistsError, InvalidRequestError, LimitExceededError, NotFoundError, RoomError
from meshhost.identity.tenant import RoomKey, TenantId, check_tenant_name
from meshhost.quotas.quota import Resource
from meshhost.server.core.directory import RoomDirectory
from meshhost.server.data.checking import Summary, check_archive, metadata_of
from meshhost.server.data.content import (
    Part,
    bytes_of,
    indexes_of,
    lines_of,
    message_of,
    object_of,
    part_of,
    some_lines,
    text_in,
    trigger_of,
    usage_of,
)
from meshhost.server.data.exports import Exports
from meshhost.server.data.kept import Kept
from meshhost.stores.bodies.reference import NAME_LENGTH, BodyReference, is_reference
from meshhost.stores.documents import DocumentKey
from meshhost.stores.identity import Project
from meshhost.stores.queues import QueueKey, StoredMessage
from meshhost.stores.triggers.contract import TriggerLimits
from meshhost.tables.contract import IndexKind, TablePart, TableStore
from meshhost.tasks import TaskOwner, uninterrupted

__all__ = ["Imports"]

logger = logging.getLogger(__name__)

# A server that was killed leaves an import for this long before it is deleted; the record is written this often.
_LEASE_SECONDS = 60.0
_RENEW_SECONDS = 15.0
_ANY_NUMBER = TriggerLimits(in_room=2**31, in_tenant=2**31)


class Imports:
    """Imports archives into the stores of this server."""

    def __init__(self, kept: Kept, directory: RoomDirectory, exports: Exports, *, clock: Clock | None = None) -> None:
        self._kept = kept
        self._directory = directory
        self._exports = exports
        self._clock = clock or SystemClock()

    async def room(self, room: RoomKey, file: IO[bytes]) -> Summary:
        """Import the archive of a room under this name; return what was imported.

        Raises AlreadyExistsError, InvalidRequestError for the archive, QuotaExceededError; RoomError, OSError when a store
        fails. Nothing is left then.
        """
        await self.require_new_room(room)
        summary = await asyncio.to_thread(check_archive, file, "room")
        await self.require_new_room(room)
        async with self._taken(room.tenant, summary), self._importing(room):
            metadata = await self._store(room.tenant, file, marker=room)
            if metadata is not None:  # last, as records are listed
                await self._kept.identity.create_room(room.tenant, room.name, metadata=metadata, if_not_exists=True)
        return summary

    async def tenant(self, name: str, file: IO[bytes]) -> tuple[Project, Summary]:
        """Import the archive of a tenant as a new one of this name; return it, and what was imported. Raises as `room`."""
        await self.require_new_tenant(name)
        summary = await asyncio.to_thread(check_archive, file, "tenant")
        project = Project(str(uuid.uuid4()), name)
        marker = RoomKey(TenantId(project.id), "")
        async with self._importing(marker):
            await self._store(marker.tenant, file, marker=marker)
            await self._kept.identity.add_project(project)
        return project, summary

    async def require_new_tenant(self, name: str) -> None:
        """Raise AlreadyExistsError when there is a tenant of the name, InvalidRequestError for the name."""
        check_tenant_name(name)
        with contextlib.suppress(NotFoundError):
            await self._kept.identity.find_project(name)
            raise AlreadyExistsError(f"there is a tenant {name!r}: import it under another name")

    async def require_new_room(self, room: RoomKey) -> None:
        """Raise AlreadyExistsError when anything of the room is there, or it is being deleted or imported."""
        is_there = self._directory.find(room) is not None or self._kept.identity.deleted_rooms.is_known(room)
        if is_there or await self._exports.exists(room):
            raise AlreadyExistsError(f"room {room.name!r} is there: delete it, or import under another name")

    @contextlib.asynccontextmanager
    async def _taken(self, tenant: TenantId, summary: Summary) -> AsyncIterator[None]:
        """Take of the tenant's quota what is imported; it is kept when the block ends in order. Raises QuotaExceededError."""
        counts, taken = self._kept.counts, dict[Resource, int]()
        is_kept = False
        try:
            for resource, amount in summary.counted().items():
                await counts.take(tenant, resource, amount)
                taken[resource] = amount
            since = counts.mark()
            yield
            is_kept = True
        finally:
            for resource, amount in taken.items():
                if is_kept:
                    counts.keep(tenant, resource, amount, since=since)
                else:
                    counts.give_back(tenant, resource, amount)

    @contextlib.asynccontextmanager
    async def _importing(self, marker: RoomKey) -> AsyncIterator[None]:
        """Keep a record of the import until the block ends, with what is imported complete or to be deleted."""
        await self._kept.identity.import_until(marker, self._clock.time() + _LEASE_SECONDS)
        renewal = TaskOwner("import")
        renewal.spawn(self._renew(marker), name="record")
        try:
            try:
                yield
            finally:
                await renewal.stop()
                self._kept.count_again(marker.tenant)  # nothing was counted on the way
            await self._kept.identity.end_import(marker, is_complete=True)
        except BaseException as error:
            # When this fails too, or the process ends, the record runs out.
            with contextlib.suppress(OSError, RoomError):
                await uninterrupted(self._kept.identity.end_import(marker, is_complete=False))
            if isinstance(error, LimitExceededError):
                raise InvalidRequestError("archive", f"nothing was imported: {error}") from None
            raise

    async def _renew(self, marker: RoomKey) -> None:
        while True:
            await self._clock.sleep(_RENEW_SECONDS)
            if not self._kept.identity.deleted_rooms.is_importing(marker):
                return  # it ran out, and may be deleted already: the import ends with its next entry
            with contextlib.suppress(OSError):  # tried again; without success the record runs out, which is noticed
                await self._kept.identity.import_until(marker, self._clock.time() + _LEASE_SECONDS)

    def _check_going_on(self, marker: RoomKey) -> None:
        if marker.tenant in self._kept.identity.deleted_projects:
            raise NotFoundError("the tenant was deleted")
        if not self._kept.identity.deleted_rooms.is_importing(marker):
            raise RoomError("the import was given up: its record could not be written in time")

    async def _store(self, tenant: TenantId, file: IO[bytes], *, marker: RoomKey) -> str | None:
        """Store all but the record of the room that the marker names; return its metadata, if it has a record."""
        metadata: str | None = None
        queues: dict[str, QueueKey] = {}  # of the present room, by number
        # A whole tenant, which the operator imports, has what another server accepted.
        limits = TriggerLimits() if marker.name else _ANY_NUMBER
        entries = read_entries(file, is_checked=True)
        await asyncio.to_thread(next, entries)  # the manifest
        while (entry := await asyncio.to_thread(next, entries, None)) is not None:
            self._check_going_on(marker)
            part = part_of(entry.name)
            room = RoomKey(tenant, marker.name or part.room)
            if part.kind != "room":
                await self._store_part(room, part, file, entry, queues, limits)
                continue
            queues.clear()
            metadata = metadata_of(object_of(open_entry(file, entry).read()))
            if metadata is not None and not marker.name:
                await self._kept.identity.create_room(tenant, room.name, metadata=metadata, if_not_exists=True)
        self._check_going_on(marker)
        return metadata

    async def _store_part(
        self,
        room: RoomKey,
        part: Part,
        file: IO[bytes],
        entry: Entry,
        queues: dict[str, QueueKey],
        limits: TriggerLimits,
    ) -> None:
        content = open_entry(file, entry)
        match part.kind:
            case "queue":
                queue = queues[part.place] = QueueKey(room, text_in(object_of(content.read()), "name"))
                await self._kept.queues.create(queue)
            case "messages":
                await self._store_messages(queues[part.place], content)
            case "body":
                reference = BodyReference(_new_name(room, part.place), entry.size, "", "")
                await self._kept.queues.bodies.objects.restore(room, reference, content)
            case "triggers":
                await self._store_triggers(room, content, limits)
            case "document":
                await self._store_document(room, content)
            case "file":
                await self._kept.files.restore(room, part.place, content)
            case "table":
                await self._store_rows(room, part.place, await asyncio.to_thread(content.read))
            case "table_indexes":
                await self._index(room, part.place, indexes_of(object_of(content.read())))
            case _:
                lines = lines_of(content)
                while some := await asyncio.to_thread(some_lines, lines):
                    await self._kept.meter.restore([usage_of(line, room.tenant) for line in some])

    async def _store_messages(self, queue: QueueKey, content: IO[bytes]) -> None:
        lines = lines_of(content)
        while some := await asyncio.to_thread(some_lines, lines):
            messages = [_in_room(queue.room, message_of(line)) for line in some]
            await self._kept.queues.store.restore(queue, messages)

    async def _store_triggers(self, room: RoomKey, content: IO[bytes], limits: TriggerLimits) -> None:
        lines = lines_of(content)
        while some := await asyncio.to_thread(some_lines, lines):
            for line in some:
                trigger = trigger_of(line, room, self._clock.time())
                try:
                    await self._kept.triggers.add(trigger, limits)
                except AlreadyExistsError:
                    # The address of a mailbox belongs to one room of the installation. All other ids are new.
                    fields = {"tenant": room.tenant, "room": room.name, "trigger": trigger.id}
                    logger.warning("a mailbox is not imported, since its address is taken", extra=fields)

    async def _store_rows(self, room: RoomKey, place: str, data: bytes) -> None:
        table, _, number = place.partition("/")
        await self._tables().restore_part(room, TablePart(table, data), is_first=int(number) == 1)

    async def _index(self, room: RoomKey, table: str, indexes: Sequence[tuple[str, IndexKind]]) -> None:
        for column, kind in indexes:
            try:
                await self._tables().create_index(room, table, column=column, kind=kind)
            except (InvalidRequestError, NotFoundError) as error:
                # Its rows are all there. Most likely some were deleted after it was made, and now there are too few.
                fields = {"tenant": room.tenant, "room": room.name, "table": table, "reason": str(error)}
                logger.warning("an index is not imported", extra=fields)

    def _tables(self) -> TableStore:
        if self._kept.tables is None:
            raise InvalidRequestError("archive", "it has tables, which this room server does not keep")
        return self._kept.tables

    async def _store_document(self, room: RoomKey, content: IO[bytes]) -> None:
        lines = lines_of(content)
        key = DocumentKey(room, text_in(await asyncio.to_thread(next, lines), "path"))
        await self._kept.documents.create(key, bytes_of(await asyncio.to_thread(next, lines), "snapshot"))
        while (line := await asyncio.to_thread(next, lines, None)) is not None:
            await self._kept.documents.append(key, bytes_of(line, "update"))


def _in_room(room: RoomKey, message: StoredMessage) -> StoredMessage:
    """The message as it is in its new room, where its large body has a name of its own."""
    if not is_reference(message.body):
        return message
    reference = BodyReference.parse(message.body)
    return replace(message, body=replace(reference, name=_new_name(room, reference.name)).to_text())


def _new_name(room: RoomKey, name: str) -> str:
    """The name of a large body in a room; that of the archive may be the name of one in the room that it is from."""
    return hashlib.sha256(f"{room.tenant}/{room.name}/{name}".encode()).hexdigest()[:NAME_LENGTH]

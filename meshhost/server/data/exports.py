"""Writes everything that a tenant or a room keeps as one archive, while it is in use.

`Exports.room` and `Exports.tenant` are async generators of bytes: the caller sends each chunk before the next is made. So an
archive of any size takes the memory of one page (a few hundred messages, a document, a chunk of a file), and a reader that is
slow slows the export down and nobody else. Stores are read page by page, beside those that write.

An archive is no snapshot of one moment. Each queue is read by id once, then schedules and hooks, the documents, the files and
the tables (each at one version), room by room: what a message refers to was there before the message, and is therefore in the
archive unless it was deleted since. Leased messages are written as ready. API keys are left out: a hash could verify no
token, and a secret belongs into no archive.
"""

import contextlib
from collections.abc import AsyncIterator, Sequence

from meshhost.archives.manifest import MANIFEST, Manifest
from meshhost.archives.tar import TarEncoder
from meshhost.clock import Clock, SystemClock
from meshhost.errors import NotFoundError, RoomError
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.server.data.content import (
    line_of_bytes,
    line_of_indexes,
    line_of_message,
    line_of_trigger,
    line_of_usage,
    to_line,
)
from meshhost.server.data.kept import Kept
from meshhost.stores.bodies.reference import BodyReference, is_reference
from meshhost.stores.documents import DocumentKey
from meshhost.stores.identity import Project
from meshhost.stores.queues import QueueKey, StoredMessage
from meshhost.stores.triggers.contract import TriggerKind

__all__ = ["Exports"]

_PAGE = 250
_PAGE_BYTES = 1024 * 1024
_ROOMS = 500


class Exports:
    """Reads the stores of this server."""

    def __init__(self, kept: Kept, *, clock: Clock | None = None) -> None:
        self._kept = kept
        self._clock = clock or SystemClock()

    async def exists(self, room: RoomKey) -> bool:
        """Whether anything is kept of the room."""
        if await self._kept.identity.find_room(room.tenant, room.name) is not None:
            return True
        if await self._kept.queues.stats(room) or await self._kept.documents.list(room, ""):
            return True
        if any([await self._kept.triggers.list(*room, kind=kind, limit=1) for kind in TriggerKind]):
            return True
        if self._kept.tables is not None and room.name in await self._kept.tables.rooms(room.tenant):
            return True
        return bool(await self._kept.files.list(room, ""))

    async def room(self, room: RoomKey) -> AsyncIterator[bytes]:
        """Yield an archive of a room. Raises RoomError, OSError when a store fails: what was yielded is worth nothing then."""
        tar = TarEncoder()
        yield self._manifest(tar, Manifest("room", room.name, self._clock.time()))
        async for chunk in self._room(tar, room):
            yield chunk
        yield tar.finish()

    async def tenant(self, project: Project) -> AsyncIterator[bytes]:
        """Yield an archive of a tenant. Raises as `room` does."""
        tar, tenant = TarEncoder(), TenantId(project.id)
        yield self._manifest(tar, Manifest("tenant", project.name, self._clock.time()))
        for name in await self._rooms(tenant):
            room = RoomKey(tenant, name)
            if not self._kept.identity.deleted_rooms.is_known(room):
                async for chunk in self._room(tar, room):
                    yield chunk
        offset = 0
        while rows := await self._kept.meter.read(tenant, limit=_PAGE, offset=offset):
            yield tar.entry(f"usage/{offset // _PAGE + 1:08}.jsonl", b"".join(map(line_of_usage, rows)))
            offset += len(rows)
        yield tar.finish()

    async def _rooms(self, tenant: TenantId) -> Sequence[str]:
        found = {*await self._kept.queues.rooms_of(tenant), *await self._kept.documents.rooms(tenant)}
        found |= set(await self._kept.files.rooms(tenant)) | set(await self._kept.triggers.rooms(tenant))
        if self._kept.tables is not None:
            found |= set(await self._kept.tables.rooms(tenant))
        offset = 0
        while page := await self._kept.identity.rooms(tenant, limit=_ROOMS, offset=offset):
            found |= {room.name for room in page}
            offset += len(page)
        return sorted(found)

    async def _room(self, tar: TarEncoder, room: RoomKey) -> AsyncIterator[bytes]:
        record = await self._kept.identity.find_room(room.tenant, room.name)
        folder = f"rooms/{room.name}"
        yield tar.entry(f"{folder}/room.json", to_line({"metadata": None if record is None else record.metadata}))
        for number, stats in enumerate(await self._kept.queues.stats(room), 1):
            async for chunk in self._queue(tar, QueueKey(room, stats.name), f"{folder}/queues/{number:08}"):
                yield chunk
        async for chunk in self._triggers(tar, room, folder):
            yield chunk
        for number, entry in enumerate(await self._kept.documents.list(room, ""), 1):
            found = await self._kept.documents.load(DocumentKey(room, entry.path))
            if found is not None:
                lines = [to_line({"path": entry.path}), line_of_bytes("snapshot", found.snapshot)]
                lines += [line_of_bytes("update", update) for update in found.updates]
                yield tar.entry(f"{folder}/documents/{number:08}.jsonl", b"".join(lines))
        async for path in self._kept.files.all_paths(room):
            with contextlib.suppress(NotFoundError):  # deleted since
                async for chunk in self._file(tar, room, path, folder):
                    yield chunk
        async for chunk in self._tables(tar, room, folder):
            yield chunk

    async def _queue(self, tar: TarEncoder, queue: QueueKey, folder: str) -> AsyncIterator[bytes]:
        yield tar.entry(f"{folder}/queue.json", to_line({"name": queue.name}))
        after, part = 0, 0
        with contextlib.suppress(NotFoundError):  # deleted since
            while page := await self._kept.queues.store.stored(queue, after=after, limit=_PAGE, max_bytes=_PAGE_BYTES):
                after, part, kept = page[-1].id, part + 1, list(page)
                for message in page:
                    if is_reference(message.body):
                        try:
                            async for chunk in self._body(tar, queue.room, message, folder):
                                yield chunk
                        except NotFoundError:  # settled since
                            kept.remove(message)
                yield tar.entry(f"{folder}/{part:08}.jsonl", b"".join(map(line_of_message, kept)))

    async def _body(self, tar: TarEncoder, room: RoomKey, message: StoredMessage, folder: str) -> AsyncIterator[bytes]:
        reference, begun = BodyReference.parse(message.body), False
        async for chunk in self._kept.queues.bodies.stream(room, reference):
            if not begun:
                begun = True
                yield tar.begin(f"{folder}/bodies/{reference.name}", reference.size)
            yield tar.data(chunk)
        yield tar.end(reference.size)

    async def _triggers(self, tar: TarEncoder, room: RoomKey, folder: str) -> AsyncIterator[bytes]:
        part = 0
        for kind in TriggerKind:
            after = ""
            while page := await self._kept.triggers.list(room.tenant, room.name, kind=kind, after=after, limit=_PAGE):
                after, part = page[-1].id, part + 1
                yield tar.entry(f"{folder}/triggers/{part:08}.jsonl", b"".join(map(line_of_trigger, page)))

    async def _tables(self, tar: TarEncoder, room: RoomKey, folder: str) -> AsyncIterator[bytes]:
        tables = self._kept.tables
        if tables is None or room.name not in await tables.rooms(room.tenant):  # asked first: it needs no process
            return
        for name in await tables.list(room):
            with contextlib.suppress(NotFoundError):  # dropped since
                indexes, number = await tables.indexes(room, name), 0
                async for part in tables.parts(room, name):
                    number += 1
                    yield tar.entry(f"{folder}/tables/{name}/{number:08}.arrow", part.data)
                yield tar.entry(f"{folder}/tables/{name}/indexes.json", line_of_indexes(indexes))

    async def _file(self, tar: TarEncoder, room: RoomKey, path: str, folder: str) -> AsyncIterator[bytes]:
        size, chunks = await self._kept.files.open(room, path)
        yield tar.begin(f"{folder}/files/{path}", size)
        left = size
        async for chunk in chunks:
            left -= len(chunk)
            yield tar.data(bytes(chunk))
        if left:
            raise RoomError(f"the file {path!r} was changed while it was read: try again")
        yield tar.end(size)

    def _manifest(self, tar: TarEncoder, manifest: Manifest) -> bytes:
        return tar.entry(MANIFEST, manifest.to_json())

"""Files that are being written: `storage.open`, `write`, `close` and `abort`.

`open` answers with a handle, `write` adds the payload of each message, `close` stores the file, `abort` drops it. Until then an
upload has no name, so a client that disappears leaves no half file.

An upload lives as long as its participant, so it outlives a lost connection by the resume time. A client that comes back does
not know whether its last pieces arrived: it sends each piece with its `offset` in the file, and sends again what was not
confirmed. The server adds what it does not have yet, so the file is whole and nothing is in it twice. In the same way a `close`
may be sent again. Invariant: what was taken from the counts of the tenant is in the file, also when a request is cancelled.
"""

import asyncio
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

from pydantic import Field

from meshhost.errors import (
    AccessDeniedError,
    AlreadyExistsError,
    InvalidRequestError,
    LimitExceededError,
    NotFoundError,
    QuotaExceededError,
    TooLargeError,
)
from meshhost.identity.tenant import RoomKey
from meshhost.protocol.messages import EmptyResponse, JsonResponse
from meshhost.quotas.counts import TenantCounts
from meshhost.quotas.quota import Resource
from meshhost.server.core.participants import Participant
from meshhost.server.core.requests import Answer, Body, Request
from meshhost.server.core.room import Room
from meshhost.server.core.slots import Slot
from meshhost.stores.disk.upload import Upload
from meshhost.stores.files import RoomFiles, clean_path
from meshhost.tasks import uninterrupted

__all__ = ["HandleBody", "OpenBody", "PathBody", "Uploads", "WriteBody", "Writing"]

MAX_UPLOADS = 64
# A disk that takes longer for one piece has failed.
_ADD_SECONDS = 60.0


class PathBody(Body):
    """The body of what is about one path."""

    path: str = Field(max_length=4096)


class OpenBody(PathBody):
    """The body of `storage.open`."""

    overwrite: bool = False


class HandleBody(Body):
    """The body of what is about one upload."""

    handle: str


class WriteBody(HandleBody):
    """The body of `storage.write`. `offset` is where in the file the payload belongs; None: at its end."""

    offset: int | None = Field(None, ge=0)


@dataclass(slots=True, eq=False)
class Writing:
    """A file that is being written. `taken` are the bytes of it that are in the counts of its tenant."""

    participant: Participant
    path: str
    overwrite: bool
    file: Upload
    taken: int = 0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Uploads:
    """The uploads of all rooms, and the operations on them. `stored` is called with the path of each file that is complete."""

    def __init__(
        self, files: RoomFiles, *, max_bytes: int, counts: TenantCounts, stored: Callable[[Request, str], None]
    ) -> None:
        self._files = files
        self._max_bytes = max_bytes
        self._counts = counts
        self._tell_stored = stored
        self._writings: Slot[dict[str, Writing]] = Slot(dict)
        # The last uploads of a participant that were stored, by handle: it may ask again for what it heard no answer to.
        self._stored: Slot[dict[str, None]] = Slot(dict)

    def of(self, room: Room) -> dict[str, Writing]:
        """The uploads in progress in a room, by handle."""
        return self._writings.of(room)

    def drop_all(self, room: Room, participant: Participant) -> None:
        """Drop the unfinished uploads of a participant."""
        uploads = self._writings.get(room)
        if not uploads:
            return
        for handle in [handle for handle, upload in uploads.items() if upload.participant is participant]:
            self._drop(room, handle)

    async def open(self, request: Request, body: OpenBody) -> Answer:
        """`storage.open`: begin a file; the answer has its handle."""
        path = clean_path(body.path)
        if path == "":
            raise InvalidRequestError("path", "expected the path of a file")
        uploads = self._writings.of(request.room)
        if sum(upload.participant is request.participant for upload in uploads.values()) >= MAX_UPLOADS:
            raise LimitExceededError(f"over {MAX_UPLOADS} files are open for writing: close some")
        entry = await self._files.stat(request.room.key, path)
        if entry is not None and entry.is_folder:
            raise InvalidRequestError("path", f"{path!r} is a folder")
        if entry is not None and not body.overwrite:
            raise AlreadyExistsError(f"{path!r} exists: overwrite it, or take another path")
        tenant = request.room.key.tenant
        # So that a full tenant is refused before it sends anything, and that a write never waits for the first count.
        await self._counts.take(tenant, Resource.STORED_BYTES, 0)
        await self._counts.take(tenant, Resource.UPLOADS)
        handle = str(uuid.uuid4())
        uploads[handle] = Writing(request.participant, path, body.overwrite, self._files.new_upload())
        return JsonResponse(json={"handle": handle})

    async def write(self, request: Request, body: WriteBody) -> Answer:
        """`storage.write`: add the payload, or what of it is not there yet."""
        upload = self._upload(request, body)
        async with upload.lock:  # one write after the other, in the order of the requests
            data = request.message.payload
            if body.offset is not None:
                data = _missing_part(data, body.offset, upload.file.size)
            if upload.file.size + len(data) > self._max_bytes:
                self._drop(request.room, body.handle)
                raise TooLargeError(f"file of over {self._max_bytes} bytes")
            await self._take_bytes(request, body.handle, upload, len(data))
            try:
                # A thread that writes cannot be stopped: what is counted must be in the file before anything else is added.
                await uninterrupted(upload.file.add(data), timeout=_ADD_SECONDS)
            except OSError:  # above all, no room
                self._drop(request.room, body.handle)
                raise
        return EmptyResponse()

    async def _take_bytes(self, request: Request, handle: str, upload: Writing, count: int) -> None:
        """Count what is received as stored. Raises QuotaExceededError, and drops the upload then."""
        tenant = request.room.key.tenant
        try:
            await self._counts.take(tenant, Resource.STORED_BYTES, count)
        except QuotaExceededError:
            self._drop(request.room, handle)
            raise
        if self._writings.of(request.room).get(handle) is not upload:  # dropped while we waited
            self._counts.give_back(tenant, Resource.STORED_BYTES, count)
            raise _no_handle()
        upload.taken += count

    def _drop(self, room: Room, handle: str) -> None:
        """End an upload without storing it. An unknown one is ignored."""
        upload = self._writings.of(room).pop(handle, None)
        if upload is not None:
            self._end(room, upload)

    def _end(self, room: Room, upload: Writing) -> None:
        upload.file.close()
        self._counts.give_back(room.key.tenant, Resource.UPLOADS)
        self._counts.give_back(room.key.tenant, Resource.STORED_BYTES, upload.taken)

    async def close(self, request: Request, body: HandleBody) -> Answer:
        """`storage.close`: store the file. Idempotent for the last files of the participant."""
        if body.handle in self._stored.of(request.participant):
            return EmptyResponse()
        upload = self._upload(request, body)
        async with upload.lock:
            if self._writings.of(request.room).pop(body.handle, None) is None:
                raise _no_handle()
            try:
                await self._store(request.room.key, upload)
            finally:
                self._end(request.room, upload)
        self._remember(request.participant, body.handle)
        self._tell_stored(request, upload.path)
        return EmptyResponse()

    def _remember(self, participant: Participant, handle: str) -> None:
        stored = self._stored.of(participant)
        stored[handle] = None
        if len(stored) > MAX_UPLOADS:
            del stored[next(iter(stored))]

    async def abort(self, request: Request, body: HandleBody) -> Answer:
        """`storage.abort`: drop the file. Idempotent: of a handle that is not known nothing is left."""
        upload = self._writings.of(request.room).get(body.handle)
        if upload is not None and upload.participant is request.participant:
            self._drop(request.room, body.handle)
        return EmptyResponse()

    async def _store(self, room: RoomKey, upload: Writing) -> None:
        """Store the file, and count it: one more, or the bytes of the one that it replaces less."""
        counts, tenant, is_stored = self._counts, room.tenant, False
        replaced = await self._files.stat(room, upload.path) if upload.overwrite else None
        files = 1 if replaced is None else 0
        await counts.take(tenant, Resource.FILES, files)
        since = counts.mark()
        try:
            await self._files.write(room, upload.path, upload.file, overwrite=upload.overwrite)
            is_stored = True
        except asyncio.CancelledError:
            is_stored = True  # perhaps
            counts.doubt(tenant, Resource.FILES)
            raise
        finally:
            if is_stored:
                counts.keep(tenant, Resource.FILES, files, since=since)
                counts.keep(tenant, Resource.STORED_BYTES, upload.taken, since=since)
                upload.taken = 0
            else:
                counts.give_back(tenant, Resource.FILES, files)
        if replaced is not None:
            counts.free(tenant, Resource.STORED_BYTES, replaced.size or 0, since=since)

    def _upload(self, request: Request, body: HandleBody) -> Writing:
        upload = self._writings.of(request.room).get(body.handle)
        if upload is None or upload.participant is not request.participant:
            raise _no_handle()
        storage = request.participant.scope.storage
        if storage is None or not storage.can_write(upload.path):  # it came back with a token of fewer rights
            raise AccessDeniedError(request.message.type, upload.path)
        return upload


def _no_handle() -> NotFoundError:
    return NotFoundError("no such file handle: it was closed, or its participant was away for too long: begin again")


def _missing_part(data: bytes, offset: int, size: int) -> bytes:
    """What a piece at `offset` adds to a file of `size` bytes. Raises InvalidRequestError for one that leaves a gap."""
    if offset > size:
        raise InvalidRequestError("offset", f"expected at most {size}: that is how much of the file was received")
    return data[size - offset :] if offset < size else data

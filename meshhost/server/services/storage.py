"""The files of a room (room-protocol §10).

Reading is one request. Writing takes several: `storage.open` answers with a handle, `storage.write` adds the payload of each
message, `storage.close` stores the file, `storage.abort` drops it. Until then an upload has no name, so a client that
disappears leaves no half file. Participants that may read a path are told when its file changes. Documents are listed among the
files; to delete one needs the grant to write it as a document, too.

An upload lives as long as its participant, so it outlives a lost connection by the resume time. A client that comes back does
not know whether its last pieces arrived: it sends each piece with its `offset` in the file, and sends again what was not
confirmed. The server adds what it does not have yet, so the file is whole and nothing is in it twice. In the same way a `close`
may be sent again. Invariant: what was taken from the counts of the tenant is in the file, also when a request is cancelled.
"""

import asyncio
import contextlib
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

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
from meshhost.identity.grants import ApiScope
from meshhost.identity.tenant import RoomKey
from meshhost.protocol.json_values import dump_json
from meshhost.protocol.messages import EmptyResponse, EncodedJson, FileResponse, JsonResponse
from meshhost.quotas.counts import UNCOUNTED, TenantCounts
from meshhost.quotas.quota import Resource
from meshhost.server.core.participants import Participant
from meshhost.server.core.peer import CloseReason, Event, Peer
from meshhost.server.core.requests import Answer, Body, Operation, Operations, Request
from meshhost.server.core.room import Room
from meshhost.server.core.service import RoomService
from meshhost.server.core.slots import Slot
from meshhost.stores.disk.upload import Upload
from meshhost.stores.files import Entry, RoomFiles, clean_path, mime_type_of
from meshhost.tasks import uninterrupted

__all__ = ["StorageService"]

MAX_UPLOADS = 64
MAX_PAGE = 1000
"""Entries of a page at most; so many are given when the client does not say."""
# A disk that takes longer for one piece has failed.
_ADD_SECONDS = 60.0
# After these nobody comes back.
_FINAL = frozenset({CloseReason.ACCESS_REVOKED, CloseReason.ROOM_ENDED, CloseReason.SERVER_STOPPING})
# Entries of a list that are prepared and encoded before others get their turn in the event loop.
_PAGE = 250


class _Path(Body):
    path: str = Field(max_length=4096)


class _List(_Path):
    """Without `limit`, `after` and `prefix` the whole folder is asked for, as clients did before there were pages."""

    limit: int | None = Field(default=None, ge=1, le=MAX_PAGE)
    after: str | None = Field(default=None, max_length=4096)
    prefix: str | None = Field(default=None, max_length=4096)

    @property
    def asks_for_page(self) -> bool:
        return (self.limit, self.after, self.prefix) != (None, None, None)


class _Open(_Path):
    overwrite: bool = False


class _Handle(Body):
    handle: str


class _Write(_Handle):
    offset: int | None = Field(None, ge=0)


@dataclass(slots=True, eq=False)
class _Writing:
    """A file that is being written. `taken` are the bytes of it that are in the counts of its tenant."""

    participant: Participant
    path: str
    overwrite: bool
    file: Upload
    taken: int = 0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class StorageService(RoomService):
    """The storage service. `sign_url` makes a URL under which a participant can fetch a file for a while."""

    def __init__(
        self,
        files: RoomFiles,
        *,
        sign_url: Callable[[RoomKey, str, Participant], str],
        max_upload_bytes: int,
        max_download_bytes: int,
        counts: TenantCounts = UNCOUNTED,
    ) -> None:
        self._files = files
        self._sign_url = sign_url
        self._max_upload_bytes = max_upload_bytes
        self._max_download_bytes = max_download_bytes
        self._counts = counts
        self._uploads: Slot[dict[str, _Writing]] = Slot(dict)
        # The last uploads of a participant that were stored, by handle: it may ask again for what it heard no answer to.
        self._stored: Slot[dict[str, None]] = Slot(dict)

    def operations(self) -> Operations:
        """See RoomService."""
        return {
            "storage.exists": Operation(_Path, self._exists, _may_read, _subject),
            "storage.stat": Operation(_Path, self._stat, _may_read, _subject),
            "storage.list": Operation(_List, self._list, _has_storage, _subject),
            "storage.open": Operation(_Open, self._open, _may_write, _subject),
            "storage.write": Operation(_Write, self._write, _has_storage),
            "storage.close": Operation(_Handle, self._close, _has_storage),
            "storage.abort": Operation(_Handle, self._abort, _has_storage, frees=True),
            "storage.download": Operation(_Path, self._download, _may_read, _subject),
            "storage.download_url": Operation(_Path, self._download_url, _may_read, _subject),
            "storage.delete": Operation(_Path, self._delete, _may_write, _subject),
        }

    def disconnected(self, room: Room, participant: Participant, peer: Peer) -> None:
        """See RoomService: uploads wait for their participant, unless the server ended the connection for good."""
        if peer.closing in _FINAL:
            self._drop_all(room, participant)

    async def left(self, room: Room, participant: Participant) -> None:
        """See RoomService: the participant's unfinished uploads are dropped."""
        self._drop_all(room, participant)

    def _drop_all(self, room: Room, participant: Participant) -> None:
        uploads = self._uploads.get(room)
        if not uploads:
            return
        for handle in [handle for handle, upload in uploads.items() if upload.participant is participant]:
            self._drop(room, handle)

    def uploads(self, room: Room) -> dict[str, _Writing]:
        """The uploads in progress in a room, by handle."""
        return self._uploads.of(room)

    async def _exists(self, request: Request, body: _Path) -> Answer:
        entry = await self._files.stat(request.room.key, clean_path(body.path, may_be_folder=True))
        return JsonResponse(json={"exists": entry is not None})

    async def _stat(self, request: Request, body: _Path) -> Answer:
        entry = await self._files.stat(request.room.key, clean_path(body.path, may_be_folder=True))
        return JsonResponse(json={"exists": False} if entry is None else {"exists": True, **_entry(entry)})

    async def _list(self, request: Request, body: _List) -> Answer:
        if body.asks_for_page:
            return await self._page(request, body)
        # An agent lists `.schemas` when it starts and gives up at an error: paths that may not be read are left out instead.
        entries = await self._files.list(request.room.key, clean_path(body.path, may_be_folder=True))
        texts: list[str] = []
        for start in range(0, len(entries), _PAGE):
            if start > 0:  # a folder may hold many thousands
                await asyncio.sleep(0)
            page = [_entry(entry) for entry in entries[start : start + _PAGE] if _can_read(request, entry.path)]
            if page:
                texts.append(dump_json(page)[1:-1])
        return EncodedJson(text=f'{{"files": [{", ".join(texts)}]}}')

    async def _page(self, request: Request, body: _List) -> Answer:
        page = await self._files.page(
            request.room.key,
            clean_path(body.path, may_be_folder=True),
            limit=body.limit or MAX_PAGE,
            after=_cursor(body.after or ""),
            prefix=_name_prefix(body.prefix or ""),
            # Before the page is cut, so that a cursor names nothing that may not be read.
            wanted=lambda path: _can_read(request, path),
        )
        return JsonResponse(json={"files": [_entry(entry) for entry in page.entries], "next": page.next})

    async def _open(self, request: Request, body: _Open) -> Answer:
        path = clean_path(body.path)
        if path == "":
            raise InvalidRequestError("path", "expected the path of a file")
        uploads = self._uploads.of(request.room)
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
        uploads[handle] = _Writing(request.participant, path, body.overwrite, self._files.new_upload())
        return JsonResponse(json={"handle": handle})

    async def _write(self, request: Request, body: _Write) -> Answer:
        upload = self._upload(request, body)
        async with upload.lock:  # one write after the other, in the order of the requests
            data = request.message.payload
            if body.offset is not None:
                data = _missing_part(data, body.offset, upload.file.size)
            if upload.file.size + len(data) > self._max_upload_bytes:
                self._drop(request.room, body.handle)
                raise TooLargeError(f"file of over {self._max_upload_bytes} bytes")
            await self._take_bytes(request, body.handle, upload, len(data))
            try:
                # A thread that writes cannot be stopped: what is counted must be in the file before anything else is added.
                await uninterrupted(upload.file.add(data), timeout=_ADD_SECONDS)
            except OSError:  # above all, no room
                self._drop(request.room, body.handle)
                raise
        return EmptyResponse()

    async def _take_bytes(self, request: Request, handle: str, upload: _Writing, count: int) -> None:
        """Count what is received as stored. Raises QuotaExceededError, and drops the upload then."""
        tenant = request.room.key.tenant
        try:
            await self._counts.take(tenant, Resource.STORED_BYTES, count)
        except QuotaExceededError:
            self._drop(request.room, handle)
            raise
        if self._uploads.of(request.room).get(handle) is not upload:  # dropped while we waited
            self._counts.give_back(tenant, Resource.STORED_BYTES, count)
            raise _no_handle()
        upload.taken += count

    def _drop(self, room: Room, handle: str) -> None:
        """End an upload without storing it. An unknown one is ignored."""
        upload = self._uploads.of(room).pop(handle, None)
        if upload is not None:
            self._end(room, upload)

    def _end(self, room: Room, upload: _Writing) -> None:
        upload.file.close()
        self._counts.give_back(room.key.tenant, Resource.UPLOADS)
        self._counts.give_back(room.key.tenant, Resource.STORED_BYTES, upload.taken)

    async def _close(self, request: Request, body: _Handle) -> Answer:
        if body.handle in self._stored.of(request.participant):
            return EmptyResponse()
        upload = self._upload(request, body)
        async with upload.lock:
            if self._uploads.of(request.room).pop(body.handle, None) is None:
                raise _no_handle()
            try:
                await self._store(request.room.key, upload)
            finally:
                self._end(request.room, upload)
        self._remember(request.participant, body.handle)
        _tell_changed(request, "storage.file.updated", upload.path)
        return EmptyResponse()

    def _remember(self, participant: Participant, handle: str) -> None:
        stored = self._stored.of(participant)
        stored[handle] = None
        if len(stored) > MAX_UPLOADS:
            del stored[next(iter(stored))]

    async def _abort(self, request: Request, body: _Handle) -> Answer:
        """Idempotent: of a handle that is not known nothing is left."""
        upload = self._uploads.of(request.room).get(body.handle)
        if upload is not None and upload.participant is request.participant:
            self._drop(request.room, body.handle)
        return EmptyResponse()

    async def _store(self, room: RoomKey, upload: _Writing) -> None:
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

    async def _download(self, request: Request, body: _Path) -> Answer:
        path, peer = clean_path(body.path), request.peer
        size = await self._files.size(request.room.key, path, max_bytes=self._max_download_bytes)
        await peer.reserve(size)  # before it is read: a client may ask for many files and take none of them
        try:
            data = await self._files.load(request.room.key, path, max_bytes=size)
        except BaseException:
            peer.give_back(size)
            raise
        answer = FileResponse(data=data, name=path.rpartition("/")[2], mime_type=mime_type_of(path))
        del data
        await request.reply(answer, reserved=size)
        return None

    async def _download_url(self, request: Request, body: _Path) -> Answer:
        path = clean_path(body.path)
        entry = await self._files.stat(request.room.key, path)
        if entry is None or entry.is_folder:
            raise NotFoundError(f"no file {path!r} in this room")
        return JsonResponse(json={"url": self._sign_url(request.room.key, path, request.participant)})

    async def _delete(self, request: Request, body: _Path) -> Answer:
        path = clean_path(body.path)
        tenant = request.room.key.tenant
        entry = await self._files.stat(request.room.key, path)
        if entry is not None and _is_document(entry) and not _may_write_document(request, path):
            raise AccessDeniedError(
                request.message.type, f"{path} (a document: the token does not grant sync.write of it)"
            )
        since = self._counts.mark()
        await self._files.delete(request.room.key, path)
        if entry is not None and entry.size is not None:
            self._counts.free(tenant, Resource.FILES, since=since)
            self._counts.free(tenant, Resource.STORED_BYTES, entry.size, since=since)
        else:
            self._counts.free(tenant, Resource.DOCUMENTS, since=since)
        _tell_changed(request, "storage.file.deleted", path)
        return EmptyResponse()

    def _upload(self, request: Request, body: _Handle) -> _Writing:
        upload = self._uploads.of(request.room).get(body.handle)
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


def _cursor(after: str) -> str:
    if after and not _is_name(after.removesuffix("/")):
        raise InvalidRequestError("after", "expected the `next` of a page of this folder")
    return after


def _name_prefix(prefix: str) -> str:
    if prefix not in {"", ".", ".."} and not _is_name(prefix):
        raise InvalidRequestError(
            "prefix", "expected the beginning of a name: no slash, control character or backslash"
        )
    return prefix


def _is_name(name: str) -> bool:
    with contextlib.suppress(InvalidRequestError):
        return "/" not in name and clean_path(name, may_be_folder=True) == name != ""
    return False


def _has_storage(scope: ApiScope, _: Body) -> bool:
    return scope.storage is not None


def _may_read(scope: ApiScope, body: _Path) -> bool:
    return scope.storage is not None and scope.storage.can_read(clean_path(body.path, may_be_folder=True))


def _may_write(scope: ApiScope, body: _Path) -> bool:
    return scope.storage is not None and scope.storage.can_write(clean_path(body.path))


def _can_read(request: Request, path: str) -> bool:
    storage = request.participant.scope.storage
    return storage is not None and storage.can_read(path)


def _subject(body: _Path) -> str:
    return body.path


def _is_document(entry: Entry) -> bool:
    # Only a document has no size.
    return not entry.is_folder and entry.size is None


def _may_write_document(request: Request, path: str) -> bool:
    sync = request.participant.scope.sync
    return sync is not None and sync.can_write(path)


def _tell_changed(request: Request, event: str, path: str) -> None:
    readers = [
        member
        for member in request.room.connected()
        if member.scope.storage is not None and member.scope.storage.can_read(path)
    ]
    request.room.tell(readers, Event(event, {"path": path, "participant_id": request.participant.id}))


def _entry(entry: Entry) -> dict[str, Any]:
    updated = entry.updated_at.isoformat() if entry.updated_at else None
    return {"name": entry.name, "is_folder": entry.is_folder, "updated_at": updated, "size": entry.size}

"""The files of a room (room-protocol §10).

Reading is one request. Writing takes several: `storage.open` answers with a handle, `storage.write` adds the payload of each
message, `storage.close` stores the file. Until then an upload is spooled in memory, above SPOOL_BYTES on the disk, so a client
that disappears leaves no half file: its uploads are dropped with its connection. Participants that may read a path are told
when its file changes.
"""

import asyncio
import tempfile
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pydantic import Field

from meshhost.errors import AlreadyExistsError, InvalidRequestError, LimitExceededError, NotFoundError
from meshhost.identity.grants import ApiScope
from meshhost.identity.tenant import RoomKey
from meshhost.protocol.messages import EmptyResponse, FileResponse, JsonResponse
from meshhost.server.core.participants import Participant
from meshhost.server.core.peer import Event, Peer
from meshhost.server.core.requests import Answer, Body, Operation, Operations, Request
from meshhost.server.core.room import Room
from meshhost.server.core.service import RoomService
from meshhost.server.core.slots import Slot
from meshhost.stores.files import Entry, RoomFiles, clean_path, mime_type_of

__all__ = ["StorageService"]

MAX_UPLOADS = 64
# Uploads up to this size are spooled in memory.
SPOOL_BYTES = 4 * 1024 * 1024
# Entries of a list that are prepared before others get their turn in the event loop.
_PAGE = 250


class _Path(Body):
    path: str = Field(max_length=4096)


class _Open(_Path):
    overwrite: bool = False


class _Handle(Body):
    handle: str


@dataclass(slots=True, eq=False)
class Upload:
    """A file that is being written. `file` is a spooled temporary file; `size` counts what was received so far."""

    participant: Participant
    path: str
    overwrite: bool
    file: Any
    size: int = 0
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
    ) -> None:
        self._files = files
        self._sign_url = sign_url
        self._max_upload_bytes = max_upload_bytes
        self._max_download_bytes = max_download_bytes
        self._uploads: Slot[dict[str, Upload]] = Slot(dict)

    def operations(self) -> Operations:
        """See RoomService."""
        return {
            "storage.exists": Operation(_Path, self._exists, _may_read, _subject),
            "storage.stat": Operation(_Path, self._stat, _may_read, _subject),
            "storage.list": Operation(_Path, self._list, _has_storage, _subject),
            "storage.open": Operation(_Open, self._open, _may_write, _subject),
            "storage.write": Operation(_Handle, self._write, _has_storage),
            "storage.close": Operation(_Handle, self._close, _has_storage),
            "storage.download": Operation(_Path, self._download, _may_read, _subject),
            "storage.download_url": Operation(_Path, self._download_url, _may_read, _subject),
            "storage.delete": Operation(_Path, self._delete, _may_write, _subject),
        }

    def disconnected(self, room: Room, participant: Participant, peer: Peer) -> None:
        """See RoomService: the participant's unfinished uploads are dropped."""
        uploads = self._uploads.get(room)
        if not uploads:
            return
        for handle in [handle for handle, upload in uploads.items() if upload.participant is participant]:
            uploads.pop(handle).file.close()

    def uploads(self, room: Room) -> dict[str, Upload]:
        """The uploads in progress in a room, by handle."""
        return self._uploads.of(room)

    async def _exists(self, request: Request, body: _Path) -> Answer:
        entry = await self._files.stat(request.room.key, clean_path(body.path, may_be_folder=True))
        return JsonResponse(json={"exists": entry is not None})

    async def _stat(self, request: Request, body: _Path) -> Answer:
        entry = await self._files.stat(request.room.key, clean_path(body.path, may_be_folder=True))
        return JsonResponse(json={"exists": False} if entry is None else {"exists": True, **_entry(entry)})

    async def _list(self, request: Request, body: _Path) -> Answer:
        # An agent lists `.schemas` when it starts and gives up at an error: paths that may not be read are left out instead.
        entries = await self._files.list(request.room.key, clean_path(body.path, may_be_folder=True))
        shown: list[dict[str, Any]] = []
        for number, entry in enumerate(entries, 1):
            if _can_read(request, entry.path):
                shown.append(_entry(entry))
            if number % _PAGE == 0:  # a folder may hold many thousands
                await asyncio.sleep(0)
        return JsonResponse(json={"files": shown})

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
        handle = str(uuid.uuid4())
        file = tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES)  # noqa: SIM115 - closed with the upload
        uploads[handle] = Upload(request.participant, path, body.overwrite, file)
        return JsonResponse(json={"handle": handle})

    async def _write(self, request: Request, body: _Handle) -> Answer:
        upload = self._upload(request, body)
        data = request.message.payload
        upload.size += len(data)
        if upload.size > self._max_upload_bytes:
            self._uploads.of(request.room).pop(body.handle).file.close()
            raise LimitExceededError(f"file of over {self._max_upload_bytes} bytes")
        if upload.size <= SPOOL_BYTES:
            upload.file.write(data)
        else:
            async with (
                upload.lock
            ):  # writes to the disk run in a thread, one after the other in the order of the requests
                await asyncio.to_thread(upload.file.write, data)
        return EmptyResponse()

    async def _close(self, request: Request, body: _Handle) -> Answer:
        upload = self._upload(request, body)
        async with upload.lock:
            self._uploads.of(request.room).pop(body.handle, None)
            try:
                await self._files.write(request.room.key, upload.path, upload.file, overwrite=upload.overwrite)
            finally:
                upload.file.close()
        _tell_changed(request, "storage.file.updated", upload.path)
        return EmptyResponse()

    async def _download(self, request: Request, body: _Path) -> Answer:
        path = clean_path(body.path)
        data = await self._files.read(request.room.key, path, max_bytes=self._max_download_bytes)
        return FileResponse(data=data, name=path.rpartition("/")[2], mime_type=mime_type_of(path))

    async def _download_url(self, request: Request, body: _Path) -> Answer:
        path = clean_path(body.path)
        entry = await self._files.stat(request.room.key, path)
        if entry is None or entry.is_folder:
            raise NotFoundError(f"no file {path!r} in this room")
        return JsonResponse(json={"url": self._sign_url(request.room.key, path, request.participant)})

    async def _delete(self, request: Request, body: _Path) -> Answer:
        path = clean_path(body.path)
        await self._files.delete(request.room.key, path)
        _tell_changed(request, "storage.file.deleted", path)
        return EmptyResponse()

    def _upload(self, request: Request, body: _Handle) -> Upload:
        upload = self._uploads.of(request.room).get(body.handle)
        if upload is None or upload.participant is not request.participant:
            raise NotFoundError("no such file handle: it was closed, or its connection was lost")
        return upload


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

"""The files of a room (room-protocol §10).

Reading is one request; writing takes several and is in `uploads.py`. Participants that may read a path are told when its file
changes. Documents are listed among the files; to delete one needs the grant to write it as a document, too.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from pydantic import Field

from meshhost.errors import (
    AccessDeniedError,
    InvalidRequestError,
    LimitExceededError,
    NotFoundError,
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
from meshhost.server.services.storage.moves import Moves
from meshhost.server.services.storage.uploads import HandleBody, OpenBody, PathBody, Uploads, WriteBody, Writing
from meshhost.stores.files import Entry, RoomFiles, clean_path, mime_type_of

__all__ = ["StorageService"]

# Bytes of a file that one read returns.
MAX_PIECE = 1024 * 1024
MAX_PAGE = 1000
"""Entries of a page at most; so many are given when the client does not say."""
# After these nobody comes back.
_FINAL = frozenset({CloseReason.ACCESS_REVOKED, CloseReason.ROOM_ENDED, CloseReason.SERVER_STOPPING})
# Entries of a list that are prepared and encoded before others get their turn in the event loop.
_PAGE = 250
# Files and folders that one request deletes.
_MOST_DELETED = 10_000


class _Read(PathBody):
    start: int = Field(default=0, ge=0)
    length: int = Field(ge=0, le=MAX_PIECE)


class _Delete(PathBody):
    """`recursive`: also a folder, with all that it holds. Clients send null for no."""

    recursive: bool | None = None


class _List(PathBody):
    """Without `limit`, `after` and `prefix` the whole folder is asked for, as clients did before there were pages."""

    limit: int | None = Field(default=None, ge=1, le=MAX_PAGE)
    after: str | None = Field(default=None, max_length=4096)
    prefix: str | None = Field(default=None, max_length=4096)

    @property
    def asks_for_page(self) -> bool:
        return (self.limit, self.after, self.prefix) != (None, None, None)


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
        self._max_download_bytes = max_download_bytes
        self._counts = counts
        self._moves = Moves(files, counts)
        self._uploads = Uploads(files, max_bytes=max_upload_bytes, counts=counts, stored=_tell_written)

    def operations(self) -> Operations:
        """See RoomService."""
        return {
            "storage.exists": Operation(PathBody, self._exists, _may_read, _subject),
            "storage.stat": Operation(PathBody, self._stat, _may_read, _subject),
            "storage.list": Operation(_List, self._list, _has_storage, _subject),
            "storage.open": Operation(OpenBody, self._uploads.open, _may_write, _subject),
            "storage.write": Operation(WriteBody, self._uploads.write, _has_storage),
            "storage.close": Operation(HandleBody, self._uploads.close, _has_storage),
            "storage.abort": Operation(HandleBody, self._uploads.abort, _has_storage, frees=True),
            "storage.download": Operation(PathBody, self._download, _may_read, _subject),
            "storage.read": Operation(_Read, self._read, _may_read, _subject),
            "storage.download_url": Operation(PathBody, self._download_url, _may_read, _subject),
            "storage.delete": Operation(_Delete, self._delete, _may_write, _subject),
            "storage.move": self._moves.operation(),
        }

    def disconnected(self, room: Room, participant: Participant, peer: Peer) -> None:
        """See RoomService: uploads wait for their participant, unless the server ended the connection for good."""
        if peer.closing in _FINAL:
            self._uploads.drop_all(room, participant)

    async def left(self, room: Room, participant: Participant) -> None:
        """See RoomService: the participant's unfinished uploads are dropped."""
        self._uploads.drop_all(room, participant)

    def uploads(self, room: Room) -> dict[str, Writing]:
        """The uploads in progress in a room, by handle."""
        return self._uploads.of(room)

    async def _exists(self, request: Request, body: PathBody) -> Answer:
        entry = await self._files.stat(request.room.key, clean_path(body.path, may_be_folder=True))
        return JsonResponse(json={"exists": entry is not None})

    async def _stat(self, request: Request, body: PathBody) -> Answer:
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

    async def _download(self, request: Request, body: PathBody) -> Answer:
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

    async def _read(self, request: Request, body: _Read) -> Answer:
        path = clean_path(body.path)
        piece = await self._files.piece(request.room.key, path, start=body.start, length=body.length)
        answer = FileResponse(data=piece.data, name=path.rpartition("/")[2], mime_type=mime_type_of(path))
        return answer, {"size": piece.size, "version": piece.version}

    async def _download_url(self, request: Request, body: PathBody) -> Answer:
        path = clean_path(body.path)
        entry = await self._files.stat(request.room.key, path)
        if entry is None or entry.is_folder:
            raise NotFoundError(f"no file {path!r} in this room")
        return JsonResponse(json={"url": self._sign_url(request.room.key, path, request.participant)})

    async def _delete(self, request: Request, body: _Delete) -> Answer:
        path = clean_path(body.path)
        entry = await self._files.stat(request.room.key, path)
        entries = [entry]
        if body.recursive and entry is not None and entry.is_folder:
            entries = [*await self._below(request, path)]
        for each in entries:  # all or nothing, as far as rights go
            _check_delete(request, each)
        for each in entries:
            await self._delete_one(request, path if each is None else each.path, each)
        if entries != [entry]:
            await self._files.tidy(request.room.key, path)
        return EmptyResponse()

    async def _below(self, request: Request, folder: str) -> list[Entry]:
        """All files and documents in a folder and its folders. Raises LimitExceededError."""
        found: list[Entry] = []
        folders = [folder]
        while folders:
            for entry in await self._files.list(request.room.key, folders.pop()):
                if entry.is_folder:
                    folders.append(entry.path)
                else:
                    found.append(entry)
            if len(found) + len(folders) > _MOST_DELETED:
                raise LimitExceededError(f"over {_MOST_DELETED} files and folders in {folder!r}: delete parts of it")
        return found

    async def _delete_one(self, request: Request, path: str, entry: Entry | None) -> None:
        tenant = request.room.key.tenant
        since = self._counts.mark()
        await self._files.delete(request.room.key, path)
        if entry is not None and entry.size is not None:
            self._counts.free(tenant, Resource.FILES, since=since)
            self._counts.free(tenant, Resource.STORED_BYTES, entry.size, since=since)
        else:
            self._counts.free(tenant, Resource.DOCUMENTS, since=since)
        _tell_changed(request, "storage.file.deleted", path)


def _check_delete(request: Request, entry: Entry | None) -> None:
    """Raise AccessDeniedError when the participant may not delete this."""
    if entry is None:
        return
    storage, path = request.participant.scope.storage, entry.path
    if storage is None or not storage.can_write(path):
        raise AccessDeniedError(request.message.type, path)
    if _is_document(entry) and not _may_write_document(request, path):
        raise AccessDeniedError(request.message.type, f"{path} (a document: the token does not grant sync.write of it)")


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


def _may_read(scope: ApiScope, body: PathBody) -> bool:
    return scope.storage is not None and scope.storage.can_read(clean_path(body.path, may_be_folder=True))


def _may_write(scope: ApiScope, body: PathBody) -> bool:
    return scope.storage is not None and scope.storage.can_write(clean_path(body.path))


def _can_read(request: Request, path: str) -> bool:
    storage = request.participant.scope.storage
    return storage is not None and storage.can_read(path)


def _subject(body: PathBody) -> str:
    return body.path


def _is_document(entry: Entry) -> bool:
    # Only a document has no size.
    return not entry.is_folder and entry.size is None


def _may_write_document(request: Request, path: str) -> bool:
    sync = request.participant.scope.sync
    return sync is not None and sync.can_write(path)


def _tell_written(request: Request, path: str) -> None:
    _tell_changed(request, "storage.file.updated", path)


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

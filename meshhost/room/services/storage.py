"""Files of the room (room-protocol §10).

A file is written through a handle in any number of requests and becomes visible only when the handle is closed, so readers
never see half a file. Changes by any participant arrive as events.

At a server with the extension "resume_uploads" a handle outlives a lost connection by the resume time. Each write says where in
the file it belongs, so one whose answer was lost is sent again over the next connection, and the file is whole all the same.
An upload that fails here is aborted, so that it holds no place at the server until we leave.
"""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from meshhost.errors import RoomError
from meshhost.protocol.connection import MessageReceived
from meshhost.protocol.messages import FileResponse
from meshhost.room.events import EventEmitter
from meshhost.room.link import RoomLink
from meshhost.room.replies import reading

__all__ = ["FileHandle", "StorageClient", "StorageEntry", "StoragePage"]

# Bytes per write request: small enough that a large upload does not delay the other requests of this connection for long.
UPLOAD_CHUNK = 1024 * 1024

_RESUME = "resume_uploads"


@dataclass(frozen=True, slots=True)
class FileHandle:
    """A file being written; it becomes visible when the handle is closed."""

    id: str


@dataclass(frozen=True, slots=True)
class StorageEntry:
    """A file or folder; `name` is the last segment of its path."""

    name: str
    is_folder: bool
    created_at: datetime | None = None
    updated_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class StoragePage:
    """Some entries of a folder; `next` is the cursor of the page after it, None at the end."""

    entries: Sequence[StorageEntry]
    next: str | None


class StorageClient:
    """Read and write the room's files. Paths are slash-separated and relative to the room; "" is the root.

    Errors: AccessDeniedError, NotFoundError, AlreadyExistsError, InvalidRequestError for a bad path. Events: `file.updated`
    and `file.deleted`, each with `path` and `participant_id`.
    """

    def __init__(self, *, room: RoomLink) -> None:
        self._room = room
        # How many bytes were given to `write` for each open handle.
        self._sent: dict[str, int] = {}
        self._events = EventEmitter(room.spawn)
        room.register_handler("storage.file.updated", self._on_changed)
        room.register_handler("storage.file.deleted", self._on_changed)

    def on(self, event_name: str, func: Callable[..., Any]) -> None:
        """Call `func` at each event of this name."""
        self._events.on(event_name, func)

    def off(self, event_name: str, func: Callable[..., Any]) -> None:
        """Undo `on`."""
        self._events.off(event_name, func)

    async def exists(self, *, path: str) -> bool:
        """Whether there is a file or folder at this path."""
        answer = await self._room.send_request("storage.exists", {"path": path})
        with reading("storage.exists"):
            return bool(answer["exists"])

    async def stat(self, *, path: str) -> StorageEntry | None:
        """The file or folder at this path, or None."""
        answer = await self._room.send_request("storage.stat", {"path": path})
        with reading("storage.stat"):
            return _entry(answer) if answer["exists"] else None

    async def list(self, *, path: str) -> list[StorageEntry]:
        """The files and folders in a folder; empty when there is no such folder."""
        answer = await self._room.send_request("storage.list", {"path": path})
        with reading("storage.list"):
            return [_entry(entry) for entry in answer["files"]]

    async def list_page(
        self, *, path: str, limit: int = 1000, after: str | None = None, prefix: str = ""
    ) -> StoragePage:
        """At most `limit` (1 to 1000) files and folders of a folder whose names begin with `prefix`.

        `after` is the `next` of the page before; None is the first page. Each entry that stays is given exactly once, in the
        order of names, where that of a folder has a slash at its end. A page with a `next` may have fewer entries than asked
        for. A server from before there were pages gives all at once. Raises InvalidRequestError for a limit, cursor or prefix.
        """
        request = {"path": path, "limit": limit, "prefix": prefix} | ({} if after is None else {"after": after})
        answer = await self._room.send_request("storage.list", request)
        with reading("storage.list"):
            entries = [_entry(entry) for entry in answer["files"]]
            if "next" not in answer:
                return StoragePage([entry for entry in entries if entry.name.startswith(prefix)], None)
            return StoragePage(entries, answer["next"])

    async def pages(self, *, path: str, limit: int = 1000, prefix: str = "") -> AsyncIterator[Sequence[StorageEntry]]:
        """The files and folders of a folder, page by page; see `list_page`. For folders that may hold many."""
        after: str | None = None
        while True:
            page = await self.list_page(path=path, limit=limit, after=after, prefix=prefix)
            yield page.entries
            after = page.next
            if after is None:
                return

    async def open(self, *, path: str, overwrite: bool = False) -> FileHandle:
        """Begin to write a file. Raises AlreadyExistsError when it exists and `overwrite` is false."""
        answer = await self._room.send_request("storage.open", {"path": path, "overwrite": overwrite})
        with reading("storage.open"):
            handle = FileHandle(answer["handle"])
        if self._offers_resuming():
            self._sent[handle.id] = 0
        return handle

    async def write(self, *, handle: FileHandle, data: bytes) -> None:
        """Append bytes to a file being written. Raises NotFoundError for a handle that was closed, or lost with its server."""
        header: dict[str, Any] = {"handle": handle.id}
        offset = self._sent.get(handle.id)
        if offset is None:
            await self._room.send_request("storage.write", header, data)
            return
        self._sent[handle.id] = offset + len(data)
        await self._room.request("storage.write", {**header, "offset": offset}, data, resume=_RESUME)

    async def close(self, *, handle: FileHandle) -> None:
        """Finish writing: the file becomes visible as a whole."""
        await self._room.request("storage.close", {"handle": handle.id}, resume=_RESUME)
        self._sent.pop(handle.id, None)

    async def abort(self, *, handle: FileHandle) -> None:
        """Give up a file being written: nothing of it is kept. Idempotent.

        A server that does not offer this is not asked: there an upload ends with its connection.
        """
        self._sent.pop(handle.id, None)
        if self._offers_resuming():
            await self._room.request("storage.abort", {"handle": handle.id}, resume=_RESUME)

    @asynccontextmanager
    async def writing(self, *, path: str, overwrite: bool = False) -> AsyncIterator[Callable[[bytes], Awaitable[None]]]:
        """Write a file in a block, which gets a function that appends bytes to it.

        The file is stored at the end of the block. When the block fails or is cancelled, nothing of it is kept.
        """
        handle = await self.open(path=path, overwrite=overwrite)
        try:
            yield lambda data: self.write(handle=handle, data=data)
            await self.close(handle=handle)
        except BaseException:
            # In the background: who was cancelled does not wait for a server. Leaving the room ends the upload, too.
            self._room.spawn(self._abort_quietly(handle), "abort of an upload")
            raise

    async def upload(self, *, path: str, data: bytes, overwrite: bool = False) -> None:
        """Write a whole file."""
        async with self.writing(path=path, overwrite=overwrite) as write:
            for start in range(0, len(data), UPLOAD_CHUNK):
                await write(data[start : start + UPLOAD_CHUNK])

    async def download(self, *, path: str) -> FileResponse:
        """A whole file; its bytes are in `.data`."""
        answer = await self._room.send_request("storage.download", {"path": path})
        if not isinstance(answer, FileResponse):
            raise RoomError("the room server did not answer with a file")
        return answer

    async def download_url(self, *, path: str) -> str:
        """A URL from which the file can be fetched for a limited time, without further credentials."""
        answer = await self._room.send_request("storage.download_url", {"path": path})
        with reading("storage.download_url"):
            return str(answer["url"])

    async def delete(self, path: str, recursive: bool | None = None) -> None:
        """Delete a file; with `recursive` also a folder, with all that it holds. Raises NotFoundError, AccessDeniedError."""
        await self._room.send_request("storage.delete", {"path": path} | ({"recursive": True} if recursive else {}))

    async def move(self, *, source_path: str, destination_path: str, overwrite: bool = False) -> None:
        """Give a file another path. Documents and folders are not moved.

        Raises NotFoundError, AlreadyExistsError unless `overwrite`, InvalidRequestError, AccessDeniedError.
        """
        moved = {"source_path": source_path, "destination_path": destination_path, "overwrite": overwrite}
        await self._room.send_request("storage.move", moved)

    async def _abort_quietly(self, handle: FileHandle) -> None:
        with contextlib.suppress(RoomError):  # the connection is lost, and the upload ends with our stay
            await self.abort(handle=handle)

    def _offers_resuming(self) -> bool:
        with contextlib.suppress(RoomError):  # not connected yet
            return _RESUME in self._room.extensions.get("extensions", ())
        return False

    def _on_changed(self, message: MessageReceived) -> None:
        fields = {"path": message.header["path"], "participant_id": message.header["participant_id"]}
        self._events.emit(message.type.removeprefix("storage."), **fields)


def _entry(entry: Mapping[str, Any]) -> StorageEntry:
    created, updated = entry.get("created_at"), entry.get("updated_at")
    return StorageEntry(
        name=entry["name"],
        is_folder=entry["is_folder"],
        created_at=datetime.fromisoformat(created) if created else None,
        updated_at=datetime.fromisoformat(updated) if updated else None,
    )

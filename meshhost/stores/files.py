"""Files of rooms in an object store: a local directory by default, or any store that `obstore` knows by URL (S3 and others).

Files are blobs, so they are not part of the engine: every room server that serves a room opens the same object store. A
room is a folder `<tenant>/<room>`; `clean_path` is the gate that keeps a path inside it, and every path here has passed it.
Errors of the library are translated where it is called (`disk.failures`).

Longer than 400 lines because it is the one place that knows how rooms, paths and the two kinds of store fit together.
"""

import asyncio
import contextlib
import heapq
import mimetypes
import os
import shutil
import tempfile
import unicodedata
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import obstore
from obstore.exceptions import AlreadyExistsError as ObjectExistsError
from obstore.exceptions import BaseError
from obstore.store import LocalStore, ObjectStore, from_url

from meshhost.errors import InvalidRequestError, RoomError
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.stores.disk.failures import errors_of, exists, failure_of, in_the_way, is_below_a_file, missing
from meshhost.stores.disk.folder import STAGED, FolderEntry, LocalFolder
from meshhost.stores.disk.space import require_room
from meshhost.stores.disk.upload import Upload
from meshhost.stores.listing.entries import Entry, Found, Page, merged
from meshhost.stores.listing.names import FolderNames
from meshhost.stores.listing.objects import keys_after, ordered

__all__ = [
    "Entry",
    "Page",
    "Piece",
    "RoomFiles",
    "TenantFiles",
    "clean_path",
    "failure_of",
    "mime_type_of",
    "open_object_store",
]

_MAX_PATH_BYTES = 900
_MAX_SEGMENT_BYTES = 240
# Entries that are handled before others get their turn in the event loop.
_PAGE = 250
# Bytes of a file that are in memory at once; object stores take no smaller parts than 5 MiB.
# The same of one that is sent, to a reader that may be slow; obstore's own choice is 10 MiB.
_STREAM_CHUNK = 256 * 1024
_RESTORE_CHUNK = 8 * 1024 * 1024


def open_object_store(location: Path | str) -> ObjectStore:
    """Return a store in a local directory (created if missing, for its owner only), or at a URL such as `s3://…`."""
    if isinstance(location, Path):
        location.mkdir(parents=True, exist_ok=True, mode=0o700)
        return LocalStore(prefix=location.absolute())
    store: ObjectStore = from_url(location)
    return store


class Piece(NamedTuple):
    """Bytes of a file, with the size of all of it; `version` is another one when the file was replaced."""

    data: bytes
    size: int
    version: str


class TenantFiles(NamedTuple):
    """How many files a tenant has in all its rooms, and their bytes together."""

    files: int
    stored_bytes: int


def clean_path(path: str, *, may_be_folder: bool = False) -> str:
    """Return the path without slashes at its ends. Raises InvalidRequestError for one that could leave the room's folder.

    The name of a file may not look like one that the store uses for uploads in progress; that of a folder may.
    """
    cleaned = path.strip("/")
    if not cleaned:
        return ""
    segments = cleaned.split("/")
    if any(segment in {"", ".", ".."} for segment in segments):
        raise InvalidRequestError("path", "expected segments that are not empty, '.' or '..'")
    if any(unicodedata.category(character) in {"Cc", "Cs"} for character in cleaned) or "\\" in cleaned:
        raise InvalidRequestError("path", "expected no control characters and no backslash")
    if not may_be_folder and STAGED.search(cleaned):
        raise InvalidRequestError("path", "expected a name that does not end with '#' and digits")
    if len(cleaned.encode()) > _MAX_PATH_BYTES or any(len(part.encode()) > _MAX_SEGMENT_BYTES for part in segments):
        raise InvalidRequestError("path", f"expected at most {_MAX_PATH_BYTES} bytes, {_MAX_SEGMENT_BYTES} a segment")
    return cleaned


class RoomFiles:
    """The files of all rooms, each room in its own folder. Paths are clean (`clean_path`).

    Raises NotFoundError, AlreadyExistsError, InvalidRequestError for paths, and RoomError when the store fails.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._folder: LocalFolder | None = None
        if isinstance(store, LocalStore) and store.prefix is not None:
            self._folder = LocalFolder(Path(store.prefix))
            self._names = FolderNames(self._folder)
        # Keys of files that are being created in parts, which a remote store does not do in one step.
        self._creating: set[str] = set()

    def new_upload(self) -> Upload:
        """Return what will be a file: add its bytes, `write` it, and close it in any case."""
        return Upload(Path(tempfile.gettempdir()) if self._folder is None else self._folder.root)

    async def stat(self, room: RoomKey, path: str) -> Entry | None:
        """Return the file or folder at the path, or None."""
        if path == "":
            return Entry(path="", is_folder=True)
        if STAGED.search(path):  # no file has such a name, and the store fails when it is asked for one
            return await self._folder_at(room, path)
        try:
            found = await obstore.head_async(self._store, _key(room, path))
        except FileNotFoundError:
            return await self._folder_at(room, path)
        except BaseError as error:
            if is_below_a_file(error):
                return None
            raise failure_of(error) from None
        return Entry(path=path, is_folder=False, size=found["size"], updated_at=found["last_modified"])

    async def list(self, room: RoomKey, path: str) -> Sequence[Entry]:
        """Return what is in the folder, by name; nothing when there is no such folder."""
        if self._folder is not None:
            return await self._list_locally(self._folder, room, path)
        prefix = _key(room, path)
        try:
            found = await obstore.list_with_delimiter_async(self._store, prefix)
        except FileNotFoundError:
            return []
        except BaseError as error:
            if is_below_a_file(error):
                return []
            raise failure_of(error) from None
        cut = len(_key(room, "")) + 1
        files: list[Entry] = []
        for meta in found["objects"]:
            files.append(
                Entry(meta["path"][cut:], is_folder=False, size=meta["size"], updated_at=meta["last_modified"])
            )
            if len(files) % _PAGE == 0:  # a folder may hold many thousands
                await asyncio.sleep(0)
        folders = [Entry(path=folder.rstrip("/")[cut:], is_folder=True) for folder in found["common_prefixes"]]
        return sorted(files + folders, key=lambda entry: entry.path)

    async def page(
        self,
        room: RoomKey,
        path: str,
        *,
        limit: int,
        after: str = "",
        prefix: str = "",
        wanted: Callable[[str], bool] = lambda _: True,
    ) -> Page:
        """Return at most `limit` entries of the folder behind the cursor `after` ("" is the beginning), by key.

        Only entries whose name begins with `prefix` and whose path is `wanted`. Nothing when there is no such folder. What is
        added or deleted from one page to the next makes none fail; all that stays is given once.
        """
        start = f"{path}/" if path else ""
        found: list[Found] = []
        position, is_last = after, False
        while not is_last and len(found) <= limit:
            some = await self._keys_after(room, path, position, prefix, limit + 1)
            is_last = len(some) <= limit
            position = some[-1].key if some else position
            found += [each for each in some if wanted(start + each.name)]
            await asyncio.sleep(0)
        entries = await self._entries(room, path, found[:limit])
        return Page(entries, found[limit - 1].key if len(found) > limit else None)

    async def _keys_after(self, room: RoomKey, path: str, after: str, prefix: str, count: int) -> Sequence[Found]:
        """Return the next `count` keys; fewer are the last ones."""
        if self._folder is not None:
            with errors_of(path):
                return [Found(key) for key in await self._names.after(_key(room, path), after, prefix, count)]
        if not ordered(self._store):
            entries = await RoomFiles.list(self, room, path)
            keys = [Found(f"{entry.name}/" if entry.is_folder else entry.name, entry) for entry in entries]
            return merged([[each for each in keys if each.key > after and each.key.startswith(prefix)]], count)
        try:
            return await keys_after(self._store, _key(room, path), len(_key(room, "")) + 1, after, prefix, count)
        except FileNotFoundError:
            return []
        except BaseError as error:
            raise failure_of(error) from None

    async def _entries(self, room: RoomKey, path: str, found: Sequence[Found]) -> Sequence[Entry]:
        """Return the entries of these keys, without what is gone."""
        known = [each.entry for each in found if each.entry is not None]
        if self._folder is None or len(known) == len(found):
            return known
        start = f"{path}/" if path else ""
        names = [each.key for each in found if each.entry is None]
        looks = self._folder.looks(_key(room, path), names, _PAGE)
        with errors_of(path):
            while (page := await asyncio.to_thread(next, looks, None)) is not None:
                known += [Entry(start + name, size is None, size, updated_at) for name, size, updated_at in page]
        return sorted(known, key=lambda entry: f"{entry.path}/" if entry.is_folder else entry.path)

    async def _folder_at(self, room: RoomKey, path: str) -> Entry | None:
        if self._folder is None:
            is_there = bool(await RoomFiles._keys_after(self, room, path, "", "", 1))
        else:
            with errors_of(path):
                is_there = bool(await asyncio.to_thread(next, self._folder.pages(_key(room, path), 1), []))
        return Entry(path=path, is_folder=True) if is_there else None

    async def _list_locally(self, folder: LocalFolder, room: RoomKey, path: str) -> Sequence[Entry]:
        start = f"{path}/" if path else ""
        pages = folder.pages(_key(room, path), _PAGE)
        parts: list[list[Entry]] = []
        is_last = False
        while not is_last:  # a folder may hold many thousands
            with errors_of(path):
                page: list[FolderEntry] = await asyncio.to_thread(next, pages, [])
            is_last = len(page) < _PAGE
            part = [Entry(start + name, size is None, size, updated_at) for name, size, updated_at in page]
            parts.append(sorted(part, key=_path_of))
        # Merged and not sorted at once: a sort is one step of the interpreter, which no other thread can interrupt.
        return await asyncio.to_thread(lambda: [*heapq.merge(*parts, key=_path_of)]) if len(parts) > 1 else parts[0]

    async def rooms(self, tenant: TenantId) -> Sequence[str]:
        """Return the names of the tenant's rooms that have files, sorted."""
        try:
            found = await obstore.list_with_delimiter_async(self._store, tenant)
        except FileNotFoundError:
            return []
        except BaseError as error:
            raise failure_of(error) from None
        return sorted(folder.rstrip("/").rpartition("/")[2] for folder in found["common_prefixes"])

    async def all_paths(self, room: RoomKey) -> AsyncIterator[str]:
        """Yield the paths of all files of a room, in no order, a page at a time."""
        cut = len(_key(room, "")) + 1
        try:
            async for page in obstore.list(self._store, _key(room, ""), chunk_size=_PAGE):
                for meta in page:
                    yield meta["path"][cut:]
        except FileNotFoundError:
            return
        except BaseError as error:
            raise failure_of(error) from None

    async def open(self, room: RoomKey, path: str) -> tuple[int, Any]:
        """Return the size of the file, and its bytes as an async iterable of chunks: both of the same moment."""
        with errors_of(path):
            result = await obstore.get_async(self._store, _key(room, path))
        return int(result.meta["size"]), result.stream()

    async def size(self, room: RoomKey, path: str, *, max_bytes: int) -> int:
        """Return the size of the file. Raises RoomError when it is more than `max_bytes`."""
        size = (await self._file(room, path)).size or 0
        if size > max_bytes:
            raise RoomError(f"{path!r} has {size} bytes, a download at most {max_bytes}: use its download URL")
        return size

    async def read(self, room: RoomKey, path: str, *, max_bytes: int) -> bytes:
        """Return the bytes of the file. Raises RoomError when there are more than `max_bytes`."""
        await self.size(room, path, max_bytes=max_bytes)
        return await self.load(room, path, max_bytes=max_bytes)

    async def load(self, room: RoomKey, path: str, *, max_bytes: int) -> bytes:
        """Do as `read`, for a path whose `size` was asked just now: it is a file."""
        with errors_of(path):
            result = await obstore.get_async(self._store, _key(room, path))
            if result.meta["size"] > max_bytes:  # replaced meanwhile
                raise RoomError(f"{path!r} was replaced by a larger file: ask for it again")
            return bytes(await result.bytes_async())

    async def piece(self, room: RoomKey, path: str, *, start: int, length: int) -> "Piece":
        """Return up to `length` bytes of the file from `start` on; none beyond its end. Raises NotFoundError, RoomError."""
        size = (await self._file(room, path)).size or 0
        end = min(start + length, size)
        with errors_of(path):
            if end <= start:  # no store takes an empty range
                meta = await obstore.head_async(self._store, _key(room, path))
                return Piece(b"", int(meta["size"]), str(meta["e_tag"]))
            result = await obstore.get_async(self._store, _key(room, path), options={"range": (start, end)})
            return Piece(bytes(await result.bytes_async()), int(result.meta["size"]), str(result.meta["e_tag"]))

    async def stream(self, room: RoomKey, path: str) -> Any:
        """Return the bytes of the file as an async iterable of chunks."""
        await self._file(room, path)
        with errors_of(path):
            result = await obstore.get_async(self._store, _key(room, path))
        return result.stream(min_chunk_size=_STREAM_CHUNK)

    async def write(self, room: RoomKey, path: str, file: Upload | IO[bytes], *, overwrite: bool) -> None:
        """Store the bytes of a complete upload, or of a small file from its start, in one step.

        An upload may be larger than the memory. Raises StorageFullError.
        """
        try:
            if not isinstance(file, Upload):
                await self._put(room, path, file, overwrite=overwrite)
            elif self._folder is not None:
                await asyncio.to_thread(self._folder.place, file, _key(room, path), overwrite=overwrite)
            else:
                with await asyncio.to_thread(file.open) as content:
                    put = self._put if file.size <= _RESTORE_CHUNK else self._put_in_parts
                    await put(room, path, content, overwrite=overwrite)
        except (ObjectExistsError, FileExistsError):
            raise exists(path) from None
        except (NotADirectoryError, IsADirectoryError):
            raise in_the_way() from None
        except BaseError as error:
            raise failure_of(error) from None

    async def _put(self, room: RoomKey, path: str, file: IO[bytes], *, overwrite: bool) -> None:
        file.seek(0)
        mode = "overwrite" if overwrite else "create"
        await obstore.put_async(self._store, _key(room, path), file, mode=mode, use_multipart=False)  # type: ignore[arg-type]

    async def _put_in_parts(self, room: RoomKey, path: str, file: IO[bytes], *, overwrite: bool) -> None:
        """Store a large file. Of two that create the same one here the second fails; a room has one server."""
        key = _key(room, path)
        if not overwrite and key in self._creating:
            raise exists(path)
        self._creating.add(key)
        try:
            if not overwrite and await RoomFiles.stat(self, room, path) is not None:
                raise exists(path)
            await obstore.put_async(self._store, key, file, chunk_size=_RESTORE_CHUNK, max_concurrency=2)
        finally:
            self._creating.discard(key)

    async def restore(self, room: RoomKey, path: str, file: IO[bytes]) -> None:
        """Store a file of an archive in a room that nobody uses yet, a part at a time: it may be larger than the memory.

        Raises StorageFullError.
        """
        if self._folder is not None:
            await asyncio.to_thread(require_room, self._folder.root, _RESTORE_CHUNK)
        try:
            await obstore.put_async(
                self._store,
                _key(room, path),
                file,
                chunk_size=_RESTORE_CHUNK,
                max_concurrency=2,
            )
        except BaseError as error:
            raise failure_of(error) from None

    async def delete(self, room: RoomKey, path: str) -> None:
        """Delete the file."""
        await self._file(room, path)
        with errors_of(path):
            await obstore.delete_async(self._store, _key(room, path))

    async def tidy(self, room: RoomKey, path: str) -> None:
        """Remove a folder whose files were deleted, with its folders. One that holds something stays."""
        if isinstance(self._store, LocalStore) and self._store.prefix is not None:
            await asyncio.to_thread(_remove_empty, Path(self._store.prefix) / _key(room, path))

    async def move(self, room: RoomKey, source: str, destination: str, *, overwrite: bool) -> None:
        """Give a file another path. Of two that move to one path, or create it, here the second fails.

        Raises NotFoundError, AlreadyExistsError, InvalidRequestError when the path leads through a file.
        """
        await self._file(room, source)
        key = _key(room, destination)
        if not overwrite and key in self._creating:
            raise exists(destination)
        self._creating.add(key)
        try:
            if not overwrite and await RoomFiles.stat(self, room, destination) is not None:
                raise exists(destination)
            with errors_of(source):
                await obstore.rename_async(self._store, _key(room, source), key, overwrite=True)
        finally:
            self._creating.discard(key)

    async def of_tenant(self, tenant: TenantId) -> TenantFiles:
        """Count the files of a tenant, for its quota. Looks at each of them, without holding the event loop."""
        files = stored_bytes = 0
        try:
            async for page in obstore.list(self._store, tenant):
                files += len(page)
                stored_bytes += sum(meta["size"] for meta in page)
        except FileNotFoundError:
            pass
        except BaseError as error:
            raise failure_of(error) from None
        return TenantFiles(files, stored_bytes)

    async def delete_all(self, tenant: TenantId, room: str | None = None) -> None:
        """Delete all files of a tenant, or of one of its rooms; idempotent, a page at a time. A crash may leave some."""
        folder = _key(RoomKey(tenant, room), "") if room is not None else tenant
        # It removes whole folders: a name that leads elsewhere must not come this far.
        if len(folder.split("/")) > 1 + (room is not None) or {"", ".", ".."} & set(folder.split("/")):
            raise InvalidRequestError("tenant", "expected the id of a tenant and the name of a room")
        try:
            async for page in obstore.list(self._store, folder, chunk_size=_PAGE):
                # As the names have slashes around them, `room` is not `room-2`.
                await obstore.delete_async(self._store, [meta["path"] for meta in page])
        except FileNotFoundError:
            pass
        except BaseError as error:
            raise failure_of(error) from None
        if isinstance(self._store, LocalStore) and self._store.prefix is not None:
            # Its empty folders, and what was being written: no other store has such.
            await asyncio.to_thread(shutil.rmtree, Path(self._store.prefix) / folder, ignore_errors=True)

    async def _file(self, room: RoomKey, path: str) -> Entry:
        entry = await self.stat(room, path)
        if entry is None:
            raise missing(path)
        if entry.is_folder:
            raise InvalidRequestError("path", f"{path!r} is a folder")
        return entry


def mime_type_of(path: str) -> str:
    """Return the MIME type that the path's ending stands for."""
    return mimetypes.guess_type(path)[0] or "application/octet-stream"


def _remove_empty(folder: Path) -> None:
    for root, _, _ in os.walk(folder, topdown=False):
        with contextlib.suppress(OSError):  # it is not empty, or gone
            Path(root).rmdir()


def _key(room: RoomKey, path: str) -> str:
    key = f"{room.tenant}/{room.name}"
    return f"{key}/{path}" if path else key


def _path_of(entry: Entry) -> str:
    return entry.path

"""The objects that hold large bodies, in the object store of the rooms' files but in an area of their own.

The key of an object is `.queues/TENANT/ROOM/NAME`. Files of rooms are below `TENANT/ROOM/`, and no path or URL of a client
leads out of there (`clean_path`), so that no client can list, read or write an object here. Objects are written once, in one
step, and never changed. What the object store's library raises is translated here.
"""

import contextlib
import os
import shutil
import tempfile
import uuid
from asyncio import to_thread
from collections.abc import AsyncIterator, Collection, Iterator
from pathlib import Path
from typing import IO, NamedTuple

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, MemoryStore, ObjectStore

from meshhost.errors import NotFoundError, RoomError
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.stores.bodies.checking import check_body
from meshhost.stores.bodies.reference import BodyReference, is_object_name
from meshhost.stores.disk.folder import LocalFolder
from meshhost.stores.disk.upload import Upload
from meshhost.stores.files import failure_of

__all__ = ["BodyObject", "BodyObjects", "reference_to"]

AREA = ".queues"
_PAGE = 250
# Object stores take no smaller parts than 5 MiB.
_PART = 8 * 1024 * 1024
_CHUNK = 256 * 1024


class BodyObject(NamedTuple):
    """An object: the room it belongs to, its name, its bytes, and when it was written (wall clock)."""

    room: RoomKey
    name: str
    size: int
    written_at: float


class BodyObjects:
    """The objects of all rooms, in this object store, or in memory when there is none.

    Raises RoomError when the store fails, StorageFullError when it has no room, NotFoundError for an object that is not there.
    """

    def __init__(self, store: ObjectStore | None = None) -> None:
        self._store: ObjectStore = store or MemoryStore()
        self._folder: LocalFolder | None = None
        if isinstance(store, LocalStore) and store.prefix is not None:
            self._folder = LocalFolder(Path(store.prefix))

    def new_upload(self) -> Upload:
        """Return what will be a body: add its bytes, get a `reference_to` it, `write` it, and close it in any case."""
        return Upload(Path(tempfile.gettempdir()) if self._folder is None else self._folder.root)

    async def write(self, room: RoomKey, reference: BodyReference, upload: Upload) -> None:
        """Store a complete upload under its reference, in one step; return when it is on the disk."""
        key = _key(room, reference.name)
        with _errors():
            if self._folder is not None:
                await to_thread(_place, self._folder, upload, key)
                return
            with await to_thread(upload.open) as content:
                await obstore.put_async(self._store, key, content, chunk_size=_PART, max_concurrency=2)

    async def restore(self, room: RoomKey, reference: BodyReference, content: IO[bytes]) -> None:
        """Store a body of an archive in a room that nobody uses yet, a part at a time."""
        upload = self.new_upload()
        try:
            while piece := await to_thread(content.read, _CHUNK):
                await upload.add(piece)
            await self.write(room, reference, upload)
        finally:
            upload.close()

    async def read(self, room: RoomKey, reference: BodyReference, offset: int, length: int) -> bytes:
        """Return up to `length` bytes of a body from `offset` on."""
        end = min(offset + length, reference.size)
        if offset >= end:
            return b""
        with _errors():
            return bytes(await obstore.get_range_async(self._store, _key(room, reference.name), start=offset, end=end))

    async def stream(self, room: RoomKey, reference: BodyReference) -> AsyncIterator[bytes]:
        """Yield the bytes of a body in chunks. Raises RoomError when they are not as many as they should be."""
        with _errors():
            result = await obstore.get_async(self._store, _key(room, reference.name))
            if result.meta["size"] != reference.size:
                raise RoomError(f"the body of a message has {result.meta['size']} bytes instead of {reference.size}")
            async for chunk in result.stream(min_chunk_size=_CHUNK):
                yield bytes(chunk)

    async def all(self, tenant: TenantId | None = None, room: str | None = None) -> AsyncIterator[list[BodyObject]]:
        """Yield the objects of all tenants, of one, or of one of its rooms, in pages."""
        prefix = "/".join([AREA, *(part for part in (tenant, room) if part is not None)])
        try:
            async for page in obstore.list(self._store, prefix, chunk_size=_PAGE):
                yield [found for meta in page if (found := _object(meta)) is not None]
        except FileNotFoundError:
            return
        except BaseError as error:
            raise failure_of(error) from None

    async def delete(self, room: RoomKey, names: Collection[str]) -> None:
        """Delete objects; those that are not there are ignored."""
        for name in names:
            try:
                await obstore.delete_async(self._store, _key(room, name))
            except FileNotFoundError:
                continue
            except BaseError as error:
                raise failure_of(error) from None

    async def delete_all(self, tenant: TenantId, room: str | None = None) -> None:
        """Delete the objects of a tenant, or of one of its rooms. Idempotent."""
        async for page in self.all(tenant, room):
            for found in page:
                await self.delete(found.room, [found.name])
        if self._folder is not None:  # the empty folders
            folder = self._folder.root / AREA / tenant
            await to_thread(shutil.rmtree, folder if room is None else folder / room, ignore_errors=True)

    async def bytes_of(self, tenant: TenantId) -> int:
        """Return how many bytes a tenant has here, for its quota."""
        total = 0
        async for page in self.all(tenant):
            total += sum(found.size for found in page)
        return total


async def reference_to(upload: Upload, what: str) -> BodyReference:
    """Return a new reference to what was uploaded. Raises InvalidRequestError, which names `what`, unless it is JSON."""

    def read() -> BodyReference:
        with upload.open() as content:
            checked = check_body(content, upload.size, what)
        return BodyReference(uuid.uuid4().hex, checked.size, checked.sha256, checked.beginning)

    return await to_thread(read)


def _place(folder: LocalFolder, upload: Upload, key: str) -> None:
    """Give the upload its name. A row will refer to it, so it has to survive a power cut as the row does."""
    upload.use(os.fsync)
    folder.place(upload, key, overwrite=False)
    path = folder.root / key
    for each in (path, *list(path.parents)[:4]):  # the file, if it was copied, and the folders that may be new
        descriptor = os.open(each, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _key(room: RoomKey, name: str) -> str:
    return f"{AREA}/{room.tenant}/{room.name}/{name}"


def _object(meta: "obstore.ObjectMeta") -> BodyObject | None:
    match meta["path"].split("/"):
        case [_, tenant, room, name] if is_object_name(name):
            return BodyObject(RoomKey(TenantId(tenant), room), name, meta["size"], meta["last_modified"].timestamp())
        case _:
            return None  # not ours


@contextlib.contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise NotFoundError("the body of the message is not in the object store any more") from None
    except (BaseError, OSError) as error:
        raise failure_of(error) from None

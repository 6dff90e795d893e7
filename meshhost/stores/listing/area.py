"""An area of the object store that belongs to something else than files: counted, listed and deleted here, by tenant and room.

The keys of an area `.NAME` are `.NAME/TENANT/ROOM/…`. Files of rooms are below `TENANT/ROOM/`, and no path of a client leads
out of there (`clean_path`), so no client can list, read or write an object of an area. What is in it is written by its owner:
LanceDB writes tables below `.tables`, and this module only needs to know how much that is and when it goes.
"""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import NamedTuple

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, ObjectStore

from meshhost.errors import InvalidRequestError
from meshhost.identity.tenant import TenantId
from meshhost.stores.disk.failures import failure_of

__all__ = ["AreaUse", "ObjectArea"]

_PAGE = 250


class AreaUse(NamedTuple):
    """How many bytes a tenant has in an area, and what is below its rooms there: pairs of room and name."""

    stored_bytes: int
    names: frozenset[tuple[str, str]]


class ObjectArea:
    """The area `.NAME` of an object store. Raises RoomError when the store fails."""

    def __init__(self, store: ObjectStore, name: str) -> None:
        self._store = store
        self.name = f".{name}"
        """The folder of the area."""

    async def use(self, tenant: TenantId) -> AreaUse:
        """Return what a tenant has, without holding the event loop."""
        stored_bytes, names = 0, set[tuple[str, str]]()
        with _errors():
            async for page in self._pages(_checked(tenant)):
                for meta in page:
                    stored_bytes += meta["size"]
                    _, _, *below = meta["path"].split("/")
                    if len(below) > 1:
                        names.add((below[0], below[1]))
        return AreaUse(stored_bytes, frozenset(names))

    async def rooms(self, tenant: TenantId) -> list[str]:
        """Return the names of the tenant's rooms that have something here, sorted."""
        folders: list[str] = []
        with _errors():
            found = await obstore.list_with_delimiter_async(self._store, f"{self.name}/{_checked(tenant)}")
            folders += found["common_prefixes"]
        return sorted(folder.rstrip("/").rpartition("/")[2] for folder in folders)

    async def delete_all(self, tenant: TenantId, room: str | None = None) -> None:
        """Delete what a tenant or one of its rooms has here. Idempotent."""
        below = _checked(tenant) if room is None else f"{_checked(tenant)}/{_checked(room)}"
        with _errors():
            async for page in self._pages(below):
                await obstore.delete_async(self._store, [meta["path"] for meta in page])
        if isinstance(self._store, LocalStore) and self._store.prefix is not None:  # the empty folders
            folder = Path(self._store.prefix) / self.name / below
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    async def _pages(self, below: str) -> AsyncIterator[list["obstore.ObjectMeta"]]:
        # With slashes around the names `room` is not `room-2`.
        async for page in obstore.list(self._store, f"{self.name}/{below}", chunk_size=_PAGE):
            yield list(page)


def _checked(name: str) -> str:
    """Whole folders are removed: a name that leads elsewhere must not come this far."""
    if name in {"", ".", ".."} or "/" in name or "\\" in name:
        raise InvalidRequestError("tenant", "expected the id of a tenant and the name of a room")
    return name


@contextlib.contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        return  # nothing is there
    except (BaseError, OSError) as error:
        raise failure_of(error) from None

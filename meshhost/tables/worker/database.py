"""Opens databases and tables of one tenant's rooms, and keeps some of them open.

A room's tables are a LanceDB database at `BASE/ROOM`. What is open shares one cache of bounded size. A table is always read
at the version that was asked for, or at the latest one of the disk: another server may have written it. Former versions are
opened beside the latest one, so that nobody's reading changes what others see.
"""

import asyncio
from collections import OrderedDict
from datetime import timedelta
from typing import Any, TypeVar

import lancedb

from meshhost.tables.frames import RefusedError

__all__ = ["Databases"]

_OPEN = 64
# Caches of indexes and metadata may take this part of the process's memory each.
_CACHE_SHARE = 0.2

K = TypeVar("K")


class Databases:
    """The databases below `base`, a directory or the URL of an object store."""

    def __init__(self, base: str, *, memory_bytes: int) -> None:
        self._base = base.rstrip("/")
        cache = int(memory_bytes * _CACHE_SHARE)
        self._session = lancedb.Session(index_cache_size_bytes=cache, metadata_cache_size_bytes=cache // 2)
        self._rooms: OrderedDict[str, Any] = OrderedDict()
        self._tables: OrderedDict[tuple[str, str, int | None], Any] = OrderedDict()
        self._locks: dict[tuple[str, str], asyncio.Lock] = {}

    def writing(self, room: str, table: str) -> asyncio.Lock:
        """Held by what writes a table: two writers would only make each other begin anew."""
        return self._locks.setdefault((room, table), asyncio.Lock())

    async def room(self, room: str) -> Any:
        """The connection to a room's database."""
        found = self._rooms.get(room)
        if found is None:
            # Looks at each reading whether there is a newer version.
            found = await lancedb.connect_async(
                f"{self._base}/{room}", read_consistency_interval=timedelta(0), session=self._session
            )
            _keep(self._rooms, room, found)
        self._rooms.move_to_end(room)
        return found

    async def tables(self, room: str) -> list[str]:
        """The names of a room's tables, sorted."""
        database, names, page = await self.room(room), list[str](), None
        while True:
            found = await database.list_tables(page_token=page)
            names += found.tables
            page = found.page_token
            if not page:
                return sorted(names)

    async def table(self, room: str, table: str, version: int | None = None) -> Any:
        """A table at a version, None for the latest one. Raises RefusedError when it is not there."""
        key = (room, table, version)
        found = self._tables.get(key)
        if found is None:
            found = await self._opened(room, table, version)
            _keep(self._tables, key, found)
        self._tables.move_to_end(key)
        return found

    def forget(self, room: str, table: str | None = None) -> None:
        """Close what is open of a table, or of a room."""
        for key in [key for key in self._tables if key[0] == room and table in (None, key[1])]:
            del self._tables[key]
        if table is None:
            self._rooms.pop(room, None)

    async def _opened(self, room: str, table: str, version: int | None) -> Any:
        database = await self.room(room)
        try:
            found = await database.open_table(table)
        except (ValueError, FileNotFoundError) as error:
            if "not found" in str(error):
                raise RefusedError("not_found", f"no table {table!r} in this room") from None
            raise
        if version is not None:
            known = {each["version"] for each in await found.list_versions()}
            if version not in known:
                raise RefusedError("not_found", f"table {table!r} has no version {version}")
            await found.checkout(version)
        return found


def _keep(kept: "OrderedDict[K, Any]", key: K, value: Any) -> None:
    kept[key] = value
    if len(kept) > _OPEN:
        kept.popitem(last=False)

"""The store of tables: keeps the contract of `TableStore` by worker processes that run LanceDB.

A tenant's tables are at `LOCATION/.tables/TENANT`, in the object store of the rooms' files: its directory, or its bucket.
Each method is one request to the tenant's process. Rows are passed on as JSON in both directions, which only the process
reads and writes. What is counted, listed by room and deleted is looked at in the object store itself, which needs no process.
"""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

from meshhost.errors import AlreadyExistsError, InvalidRequestError, LimitExceededError, NotFoundError, RoomError
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.stores.disk.space import require_room, storage_full
from meshhost.stores.listing.area import ObjectArea
from meshhost.tables.contract import (
    ColumnType,
    CreateMode,
    FoundRows,
    IndexKind,
    Rows,
    Search,
    TableIndex,
    TablePart,
    TableVersion,
    TenantTables,
)
from meshhost.tables.frames import RefusedError
from meshhost.tables.limits import TableLimits
from meshhost.tables.pool import WorkerPool
from meshhost.tables.process import WorkerProcess
from meshhost.tasks import TaskOwner

__all__ = ["LanceTables"]

# Rows of the first part of an export, and bytes of each part, about.
_FIRST_ROWS, _PART_BYTES, _MOST_ROWS = 50, 4 * 1024 * 1024, 50_000


class LanceTables:
    """Tables in LanceDB. Use it as a context manager. See `TableStore` for all methods.

    `area` is in the object store of the rooms' files, `location` what that was opened from: a directory or a URL, which LanceDB
    opens itself. `environment` is what processes get of ours: the variables with which the object store is reached.
    """

    def __init__(
        self,
        area: ObjectArea,
        location: Path | str,
        *,
        limits: TableLimits | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._limits = limits or TableLimits()
        self._area = area
        self._base = f"{str(location.absolute() if isinstance(location, Path) else location).rstrip('/')}/{area.name}"
        self._folder = location if isinstance(location, Path) else None
        self._environment = _own_environment() | dict(environment or {}) | _threads(self._limits.threads)
        self._pool = WorkerPool(self._start, self._limits)
        self._is_installed = find_spec("lancedb") is not None

    async def __aenter__(self) -> Self:
        await self._pool.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._pool.__aexit__()

    @property
    def processes(self) -> Mapping[TenantId, int | None]:
        """The id of the process of each tenant that has one."""
        return self._pool.processes

    async def list(self, room: RoomKey) -> Sequence[str]:
        """See TableStore."""
        header, _ = await self._read(room, "list")
        tables: list[str] = header["tables"]
        return tables

    async def create(
        self,
        room: RoomKey,
        table: str,
        *,
        rows: Rows | None,
        schema: Mapping[str, ColumnType] | None,
        mode: CreateMode,
    ) -> bool:
        """See TableStore."""
        header = await self._write(room, "create", rows or b"", table=table, schema=schema, mode=mode)
        return bool(header["created"])

    async def drop(self, room: RoomKey, table: str, *, ignore_missing: bool = False) -> bool:
        """See TableStore."""
        header = await self._write(room, "drop", table=table, ignore_missing=ignore_missing)
        return bool(header["dropped"])

    async def add_columns(self, room: RoomKey, table: str, columns: Mapping[str, str | ColumnType]) -> None:
        """See TableStore."""
        await self._rewrite(room, "add_columns", table=table, columns=columns)

    async def drop_columns(self, room: RoomKey, table: str, columns: Sequence[str]) -> None:
        """See TableStore."""
        await self._rewrite(room, "drop_columns", table=table, columns=list(columns))

    async def insert(self, room: RoomKey, table: str, rows: Rows) -> None:
        """See TableStore."""
        await self._write(room, "insert", rows, table=table)

    async def update(
        self, room: RoomKey, table: str, *, where: str | None, values: Mapping[str, Any], values_sql: Mapping[str, str]
    ) -> None:
        """See TableStore."""
        await self._write(room, "update", table=table, where=where, values=values, values_sql=values_sql)

    async def delete(self, room: RoomKey, table: str, where: str) -> None:
        """See TableStore."""
        await self._write(room, "delete", table=table, where=where)

    async def merge(self, room: RoomKey, table: str, *, on: str, rows: Rows) -> None:
        """See TableStore."""
        await self._write(room, "merge", rows, table=table, on=on)

    async def search(self, room: RoomKey, table: str, search: Search) -> FoundRows:
        """See TableStore."""
        header, data = await self._read(
            room,
            "search",
            table=table,
            where=search.where,
            text=search.text,
            vector=search.vector,
            limit=search.limit,
            offset=search.offset,
            select=search.select,
            version=search.version,
        )
        return FoundRows(data.decode(), header["count"])

    async def optimize(self, room: RoomKey, table: str) -> None:
        """See TableStore."""
        await self._rewrite(room, "optimize", table=table)

    async def versions(self, room: RoomKey, table: str) -> Sequence[TableVersion]:
        """See TableStore."""
        header, _ = await self._read(room, "versions", table=table)
        return [TableVersion(**version) for version in header["versions"]]

    async def restore(self, room: RoomKey, table: str, version: int) -> None:
        """See TableStore."""
        await self._write(room, "restore", table=table, version=version)

    async def create_index(
        self, room: RoomKey, table: str, *, column: str, kind: IndexKind, replace: bool = True
    ) -> None:
        """See TableStore."""
        await self._rewrite(room, "create_index", table=table, column=column, kind=kind, replace=replace)

    async def indexes(self, room: RoomKey, table: str) -> Sequence[TableIndex]:
        """See TableStore."""
        header, _ = await self._read(room, "indexes", table=table)
        return [TableIndex(**index) for index in header["indexes"]]

    async def drop_index(self, room: RoomKey, table: str, name: str) -> None:
        """See TableStore."""
        await self._write(room, "drop_index", table=table, name=name)

    async def rooms(self, tenant: TenantId) -> Sequence[str]:
        """See TableStore."""
        return await self._area.rooms(tenant)

    async def of_tenant(self, tenant: TenantId) -> TenantTables:
        """See TableStore."""
        use = await self._area.use(tenant)
        return TenantTables(len(use.names), use.stored_bytes)

    async def delete_all(self, tenant: TenantId, room: str | None = None) -> None:
        """See TableStore. What a process of the tenant has open is closed."""
        if room is None:
            self._pool.end_process(tenant)
        elif tenant in self._pool.processes:
            with contextlib.suppress(RoomError):  # it ended by itself, or is busy; what is open there only takes memory
                await self._write(RoomKey(tenant, room), "forget")
        await self._area.delete_all(tenant, room)

    async def parts(self, room: RoomKey, table: str) -> AsyncIterator[TablePart]:
        """See TableStore."""
        version, offset, limit = None, 0, _FIRST_ROWS
        while True:
            header, data = await self._read(room, "part", table=table, version=version, offset=offset, limit=limit)
            version, count = header["version"], header["count"]
            if count or not offset:
                yield TablePart(table, data)
            if count < limit:
                return
            offset += count
            limit = min(max(1, limit * _PART_BYTES // max(1, len(data))), _MOST_ROWS)

    async def restore_part(self, room: RoomKey, part: TablePart, *, is_first: bool) -> None:
        """See TableStore."""
        await self._write(room, "restore_part", part.data, table=part.table, is_first=is_first)

    async def _read(self, room: RoomKey, op: str, **body: Any) -> tuple[dict[str, Any], bytes]:
        return await self._ask(room, op, body, b"", seconds=self._limits.query_seconds, is_read=True)

    async def _write(self, room: RoomKey, op: str, data: bytes = b"", **body: Any) -> dict[str, Any]:
        header, _ = await self._ask(room, op, body, data, seconds=self._limits.query_seconds, is_read=False)
        return header

    async def _rewrite(self, room: RoomKey, op: str, **body: Any) -> None:
        await self._ask(room, op, body, b"", seconds=self._limits.index_seconds, is_read=False)

    async def _ask(
        self, room: RoomKey, op: str, body: dict[str, Any], data: bytes, *, seconds: float, is_read: bool
    ) -> tuple[dict[str, Any], bytes]:
        if not self._is_installed:
            raise RoomError("tables need a library more on the room server: pip install 'meshhost[database]'")
        if data and self._folder is not None:
            await asyncio.to_thread(require_room, self._folder, len(data))
        request = {"room": room.name, **body}
        try:
            return await self._pool.run(room.tenant, op, request, data, seconds=seconds, is_read=is_read)
        except RefusedError as refused:
            raise _error_of(refused) from None

    def _start(self, tenant: TenantId, tasks: TaskOwner) -> WorkerProcess:
        options = {
            "base": f"{self._base}/{tenant}",
            "memory_mb": self._limits.memory_mb,
            "result_bytes": self._limits.result_bytes,
        }
        return WorkerProcess(options, self._environment, tasks)


def _own_environment() -> dict[str, str]:
    """Not the whole environment: the process needs none of the server's secrets."""
    path = os.pathsep.join(path for path in sys.path if path)
    return {"PATH": os.defpath, "PYTHONPATH": path, "LANCE_LOG": "error", "RUST_LOG": "error"}


def _threads(threads: int | None) -> dict[str, str]:
    """The variables that bound the threads of a process that compute; by default they leave half of the processors."""
    threads = threads or max(1, (os.cpu_count() or 1) // 2)
    return {"LANCE_CPU_THREADS": str(threads), "TOKIO_WORKER_THREADS": str(threads)}


_ERRORS = {"not_found": NotFoundError, "exists": AlreadyExistsError, "limit": LimitExceededError}


def _error_of(refused: RefusedError) -> RoomError:
    if refused.kind == "invalid":
        return InvalidRequestError(refused.field, refused.text)
    if refused.kind == "full":
        return storage_full()
    return _ERRORS.get(refused.kind, RoomError)(refused.text)

"""What tenants configured, in a SQLite file. See `meshhost.stores.configuration.contract` for the contract.

Each operation is one transaction on the thread of the file. Items are few and rarely change, so nothing is kept in memory, and
several processes may have the file open.
"""

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from meshhost.errors import AlreadyExistsError, LimitExceededError, NotFoundError
from meshhost.identity.tenant import TenantId
from meshhost.stores.configuration.contract import ConfigurationItem, ConfigurationSnapshot, ItemKind
from meshhost.stores.shared.configuration import item_of, values_of
from meshhost.stores.sqlite.database import SqliteDatabase, Statements
from meshhost.stores.triggers.contract import LOG_ENTRIES, LogEntry

__all__ = ["SqliteConfigurationStore"]

_execute = Statements("configuration.sql").execute


class SqliteConfigurationStore:
    """Keeps the contract of ConfigurationStore in the file `path`."""

    def __init__(self, path: Path) -> None:
        self._database = SqliteDatabase(path, migrations="configuration", what="configuration store", shared=True)

    def __repr__(self) -> str:
        return f"<SqliteConfigurationStore {str(self._database.path)!r} open={self._database.is_open}>"

    async def open(self) -> None:
        """See ConfigurationStore."""
        await self._database.open()

    async def close(self) -> None:
        """See ConfigurationStore."""
        await self._database.close()

    async def add(self, item: ConfigurationItem, *, most: int) -> None:
        """See ConfigurationStore."""

        def operation(db: sqlite3.Connection) -> None:
            (count,) = _execute(db, "count", tenant=item.tenant, kind=item.kind).fetchone()
            if count >= most:
                raise LimitExceededError(f"the tenant has {most} {item.kind}s already, which is the limit")
            if _execute(db, "add", **values_of(item)).rowcount == 0:
                raise AlreadyExistsError(f"there is a {item.kind} {item.name!r} already")

        await self._database.run(operation)

    async def find(self, tenant: TenantId, item_id: str) -> ConfigurationItem | None:
        """See ConfigurationStore."""
        row = await self._database.run(lambda db: _execute(db, "find", tenant=tenant, id=item_id).fetchone())
        return None if row is None else item_of(row)

    async def list(self, tenant: TenantId, kind: ItemKind) -> Sequence[ConfigurationItem]:
        """See ConfigurationStore."""
        rows = await self._database.run(lambda db: _execute(db, "list", tenant=tenant, kind=kind).fetchall())
        return [item_of(row) for row in rows]

    async def replace(self, item: ConfigurationItem) -> bool:
        """See ConfigurationStore."""
        values = values_of(item)

        def operation(db: sqlite3.Connection) -> bool:
            if _execute(db, "other_of_name", **values).fetchone() is not None:
                raise AlreadyExistsError(f"there is a {item.kind} {item.name!r} already")
            return _execute(db, "replace", **values).rowcount > 0

        return await self._database.run(operation)

    async def delete(self, tenant: TenantId, item_id: str) -> None:
        """See ConfigurationStore."""
        if not await self._database.run(lambda db: _execute(db, "delete", tenant=tenant, id=item_id).rowcount):
            raise NotFoundError("no such item")

    async def delete_all(self, tenant: TenantId, room: str | None = None) -> None:
        """See ConfigurationStore."""
        await self._database.run(lambda db: _execute(db, "delete_all", tenant=tenant, room=room).rowcount)

    async def read(self, kind: ItemKind, known: int | None = None) -> ConfigurationSnapshot | None:
        """See ConfigurationStore."""

        def operation(db: sqlite3.Connection) -> ConfigurationSnapshot | None:
            (version,) = _execute(db, "version").fetchone()
            if version == known:
                return None
            return ConfigurationSnapshot(version, [item_of(row) for row in _execute(db, "all", kind=kind)])

        return await self._database.run(operation)

    async def add_entry(self, item_id: str, entry: LogEntry) -> None:
        """See ConfigurationStore."""

        def operation(db: sqlite3.Connection) -> None:
            _execute(db, "add_entry", id=item_id, at=entry.at, content=entry.content)
            _execute(db, "trim", id=item_id, keep=LOG_ENTRIES)

        await self._database.run(operation)

    async def entries(self, item_id: str) -> Sequence[LogEntry]:
        """See ConfigurationStore."""
        rows = await self._database.run(lambda db: _execute(db, "entries", id=item_id).fetchall())
        return [LogEntry(*row) for row in rows]

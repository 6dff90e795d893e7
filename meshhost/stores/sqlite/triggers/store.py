"""Schedules and hooks in a SQLite file. See `meshhost.stores.triggers.contract` for the contract.

Each operation is one transaction on the thread of the file (`database.py`). Triggers are few and rarely change, so nothing is
kept in memory.
"""

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from meshhost.errors import AlreadyExistsError, LimitExceededError, NotFoundError
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.stores.sqlite.database import SqliteDatabase, Statements
from meshhost.stores.triggers.contract import LOG_ENTRIES, LogEntry, Trigger, TriggerKind, TriggerLimits

__all__ = ["SqliteTriggerStore"]

_SQL = Statements("triggers.sql")
_execute = _SQL.execute


class SqliteTriggerStore:
    """Keeps the contract of TriggerStore in the file `path`, which one process at a time can have open."""

    def __init__(self, path: Path) -> None:
        self._database = SqliteDatabase(path, migrations="triggers", what="trigger store")

    def __repr__(self) -> str:
        return f"<SqliteTriggerStore {str(self._database.path)!r} open={self._database.is_open}>"

    async def open(self) -> None:
        """See TriggerStore."""
        await self._database.open()

    async def close(self) -> None:
        """See TriggerStore."""
        await self._database.close()

    async def add(self, trigger: Trigger, limits: TriggerLimits = TriggerLimits()) -> None:  # noqa: B008 - immutable
        """See TriggerStore."""
        values = {**_values(trigger), "kind": trigger.kind}

        def operation(db: sqlite3.Connection) -> None:
            of_tenant, of_room = _execute(db, "counts", **values).fetchone()
            if of_tenant >= limits.in_tenant:
                raise LimitExceededError(
                    f"the tenant has {limits.in_tenant} {trigger.kind}s already, which is the limit"
                )
            if of_room >= limits.in_room:
                raise LimitExceededError(f"the room has {limits.in_room} {trigger.kind}s already, which is the limit")
            if _execute(db, "add", **values).rowcount == 0:
                raise AlreadyExistsError("there is a trigger of this id")

        await self._database.run(operation)

    async def find(self, trigger_id: str) -> Trigger | None:
        """See TriggerStore."""
        row = await self._database.run(lambda db: _execute(db, "find", id=trigger_id).fetchone())
        return None if row is None else _trigger(row)

    async def list(
        self, tenant: TenantId, room: str | None = None, *, kind: TriggerKind, after: str = "", limit: int = 1000
    ) -> Sequence[Trigger]:
        """See TriggerStore."""
        values = {"tenant": tenant, "room": room, "kind": kind, "after": after, "limit": limit}
        rows = await self._database.run(lambda db: _execute(db, "list", **values).fetchall())
        return [_trigger(row) for row in rows]

    async def rooms(self, tenant: TenantId) -> Sequence[str]:
        """See TriggerStore."""
        rows = await self._database.run(lambda db: _execute(db, "rooms", tenant=tenant).fetchall())
        return [name for (name,) in rows]

    async def replace(self, trigger: Trigger, entry: LogEntry | None = None) -> bool:
        """See TriggerStore."""

        def operation(db: sqlite3.Connection) -> bool:
            if _execute(db, "replace", **_values(trigger)).rowcount == 0:
                return False
            if entry is not None:
                _add_entry(db, trigger.id, entry)
            return True

        return await self._database.run(operation)

    async def add_entry(self, trigger_id: str, entry: LogEntry) -> None:
        """See TriggerStore."""
        await self._database.run(lambda db: _add_entry(db, trigger_id, entry))

    async def entries(self, trigger_id: str) -> Sequence[LogEntry]:
        """See TriggerStore."""
        rows = await self._database.run(lambda db: _execute(db, "entries", id=trigger_id).fetchall())
        return [LogEntry(*row) for row in rows]

    async def delete(self, tenant: TenantId, trigger_id: str) -> None:
        """See TriggerStore."""
        if not await self._database.run(lambda db: _execute(db, "delete", tenant=tenant, id=trigger_id).rowcount):
            raise NotFoundError("no such trigger")

    async def delete_all(self, tenant: TenantId, room: str | None = None) -> None:
        """See TriggerStore."""
        while await self._database.run(lambda db: _execute(db, "delete_some", tenant=tenant, room=room).rowcount):
            pass

    async def due(self, kind: TriggerKind, *, until: float, limit: int) -> Sequence[Trigger]:
        """See TriggerStore."""
        values = {"kind": kind, "until": until, "limit": limit}
        rows = await self._database.run(lambda db: _execute(db, "due", **values).fetchall())
        return [_trigger(row) for row in rows]

    async def next_due(self, kind: TriggerKind) -> float | None:
        """See TriggerStore."""
        (found,) = await self._database.run(lambda db: _execute(db, "next_due", kind=kind).fetchone())
        return None if found is None else float(found)

    async def is_due(self, room: RoomKey, kind: TriggerKind, *, until: float) -> bool:
        """See TriggerStore."""
        values = {"tenant": room.tenant, "room": room.name, "kind": kind, "until": until}
        (found,) = await self._database.run(lambda db: _execute(db, "is_due", **values).fetchone())
        return bool(found)


def _add_entry(db: sqlite3.Connection, trigger_id: str, entry: LogEntry) -> None:
    _execute(db, "add_entry", id=trigger_id, at=entry.at, content=entry.content)
    _execute(db, "trim", id=trigger_id, keep=LOG_ENTRIES)


def _values(trigger: Trigger) -> dict[str, object]:
    return {
        "id": trigger.id,
        "tenant": trigger.room.tenant,
        "room": trigger.room.name,
        "content": trigger.content,
        "due_at": trigger.due_at,
        "version": trigger.version,
    }


def _trigger(row: tuple[str, str, str, str, str, float | None, int]) -> Trigger:
    trigger_id, kind, tenant, room, content, due_at, version = row
    return Trigger(trigger_id, TriggerKind(kind), RoomKey(TenantId(tenant), room), content, due_at, version)

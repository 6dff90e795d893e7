"""Schedules and hooks in PostgreSQL. See `meshhost.stores.triggers.contract` for the contract.

The servers that find the same trigger due all come with the version that they read; PostgreSQL locks its row, so one `UPDATE`
takes effect and the others find no row of that version any more.
"""

from collections.abc import Sequence

from meshhost.errors import AlreadyExistsError, LimitExceededError, NotFoundError
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.stores.postgres.database import Connection, Lifetime, PostgresDatabase, Row
from meshhost.stores.shared.statements import read_statements
from meshhost.stores.triggers.contract import LOG_ENTRIES, LogEntry, Trigger, TriggerKind, TriggerLimits

__all__ = ["PostgresTriggerStore"]

_SQL = read_statements("meshhost.stores.postgres", "triggers.sql")


class PostgresTriggerStore(Lifetime):
    """Keeps the contract of TriggerStore in `database`."""

    def __init__(self, database: PostgresDatabase) -> None:
        super().__init__(database, migrations="triggers", what="trigger store")

    async def add(self, trigger: Trigger, limits: TriggerLimits = TriggerLimits()) -> None:  # noqa: B008 - immutable
        """See TriggerStore."""
        values = {**_values(trigger), "kind": trigger.kind.value}

        async def operation(connection: Connection) -> None:
            of_tenant, of_room = await (await connection.execute(_SQL["counts"], values)).fetchone() or (0, 0)
            if of_tenant >= limits.in_tenant:
                raise LimitExceededError(
                    f"the tenant has {limits.in_tenant} {trigger.kind}s already, which is the limit"
                )
            if of_room >= limits.in_room:
                raise LimitExceededError(f"the room has {limits.in_room} {trigger.kind}s already, which is the limit")
            if (await connection.execute(_SQL["add"], values)).rowcount == 0:
                raise AlreadyExistsError("there is a trigger of this id")

        await self.database.transaction(operation)

    async def find(self, trigger_id: str) -> Trigger | None:
        """See TriggerStore."""
        row = await self.database.row(_SQL["find"], {"id": trigger_id})
        return None if row is None else _trigger(row)

    async def list(
        self, tenant: TenantId, room: str | None = None, *, kind: TriggerKind, after: str = "", limit: int = 1000
    ) -> Sequence[Trigger]:
        """See TriggerStore."""
        values = {"tenant": tenant, "room": room, "kind": kind.value, "after": after, "limit": limit}
        return [_trigger(row) for row in await self.database.rows(_SQL["list"], values)]

    async def rooms(self, tenant: TenantId) -> Sequence[str]:
        """See TriggerStore."""
        return [name for (name,) in await self.database.rows(_SQL["rooms"], {"tenant": tenant})]

    async def replace(self, trigger: Trigger, entry: LogEntry | None = None) -> bool:
        """See TriggerStore."""

        async def operation(connection: Connection) -> bool:
            if (await connection.execute(_SQL["replace"], _values(trigger))).rowcount == 0:
                return False
            if entry is not None:
                await _add_entry(connection, trigger.id, entry)
            return True

        return await self.database.transaction(operation)

    async def add_entry(self, trigger_id: str, entry: LogEntry) -> None:
        """See TriggerStore."""
        await self.database.transaction(lambda connection: _add_entry(connection, trigger_id, entry))

    async def entries(self, trigger_id: str) -> Sequence[LogEntry]:
        """See TriggerStore."""
        rows = await self.database.rows(_SQL["entries"], {"id": trigger_id, "keep": LOG_ENTRIES})
        return [LogEntry(*row) for row in rows]

    async def delete(self, tenant: TenantId, trigger_id: str) -> None:
        """See TriggerStore."""
        if not await self.database.count(_SQL["delete"], {"tenant": tenant, "id": trigger_id}):
            raise NotFoundError("no such trigger")

    async def delete_all(self, tenant: TenantId, room: str | None = None) -> None:
        """See TriggerStore."""
        while await self.database.count(_SQL["delete_some"], {"tenant": tenant, "room": room}):
            pass

    async def due(self, kind: TriggerKind, *, until: float, limit: int) -> Sequence[Trigger]:
        """See TriggerStore."""
        values = {"kind": kind.value, "until": until, "limit": limit}
        return [_trigger(row) for row in await self.database.rows(_SQL["due"], values)]

    async def next_due(self, kind: TriggerKind) -> float | None:
        """See TriggerStore."""
        row = await self.database.row(_SQL["next_due"], {"kind": kind.value})
        return None if row is None or row[0] is None else float(row[0])

    async def is_due(self, room: RoomKey, kind: TriggerKind, *, until: float) -> bool:
        """See TriggerStore."""
        values = {"tenant": room.tenant, "room": room.name, "kind": kind.value, "until": until}
        return bool((await self.database.row(_SQL["is_due"], values) or (False,))[0])


async def _add_entry(connection: Connection, trigger_id: str, entry: LogEntry) -> None:
    await connection.execute(_SQL["add_entry"], {"id": trigger_id, "at": entry.at, "content": entry.content})
    await connection.execute(_SQL["trim"], {"id": trigger_id, "keep": LOG_ENTRIES})


def _values(trigger: Trigger) -> dict[str, object]:
    return {
        "id": trigger.id,
        "tenant": trigger.room.tenant,
        "room": trigger.room.name,
        "content": trigger.content,
        "due_at": trigger.due_at,
        "version": trigger.version,
    }


def _trigger(row: Row) -> Trigger:
    trigger_id, kind, tenant, room, content, due_at, version = row
    return Trigger(trigger_id, TriggerKind(kind), RoomKey(TenantId(tenant), room), content, due_at, version)

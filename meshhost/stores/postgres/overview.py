"""Reads what queues in PostgreSQL hold: of one room, of a tenant's rooms, and of all.

The part of the queue store that changes nothing. `PostgresQueueStore` builds on it; its statements are in `queues.sql`, and the
contract is that of `meshhost.stores.queues.QueueStore`. Messages that are being deleted (`dropped_lanes`) are never counted.
"""

from collections.abc import Sequence
from typing import LiteralString

from meshhost.clock import Clock, SteadyTime
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.stores.postgres.database import Lifetime, PostgresDatabase
from meshhost.stores.queues import QueueStats, TenantQueues
from meshhost.stores.shared.statements import read_statements

__all__ = ["QueueOverview"]

_SQL = read_statements("meshhost.stores.postgres", "queues.sql")
# One statement with `tenant IS NULL OR …` for all three would not use the index on tenant, room and name.
_OF_ROOM = _SQL["stats"] + " WHERE tenant = %(tenant)s AND room = %(room)s ORDER BY name"
_OF_TENANT = _SQL["stats"] + " WHERE tenant = %(tenant)s ORDER BY room, name"
_OF_ALL = _SQL["stats"] + " ORDER BY tenant, room, name"


class QueueOverview(Lifetime):
    """The counts of the queues in `database`."""

    def __init__(self, database: PostgresDatabase, *, clock: Clock) -> None:
        super().__init__(database, migrations="queues", what="queue store")
        self._clock = clock
        # For leases, delays and ids. A clock that is set does not move stored times: other processes keep theirs.
        self._steady = SteadyTime(clock)

    async def stats(self, room: RoomKey) -> Sequence[QueueStats]:
        """See QueueStore."""
        return [stats for _, stats in await self._read(_OF_ROOM, tenant=room.tenant, room=room.name)]

    async def overview(self, tenant: TenantId | None = None) -> Sequence[tuple[RoomKey, QueueStats]]:
        """See QueueStore."""
        return await self._read(_OF_ALL) if tenant is None else await self._read(_OF_TENANT, tenant=tenant)

    async def of_tenant(self, tenant: TenantId) -> TenantQueues:
        """See QueueStore."""
        ((queues, messages),) = await self.database.rows(_SQL["of_tenant"], {"tenant": tenant})
        return TenantQueues(queues, messages)

    async def rooms_with_work(self, *, within: float, room: RoomKey | None = None) -> Sequence[RoomKey]:
        """See QueueStore."""
        one = {"tenant": None, "room": None} if room is None else {"tenant": room.tenant, "room": room.name}
        soon = self._steady.time() + within
        rows = await self.database.rows(_SQL["rooms_with_work"], {**one, "soon": soon})
        return [RoomKey(TenantId(tenant), name) for tenant, name in rows]

    async def rooms_of(self, tenant: TenantId) -> Sequence[str]:
        """See QueueStore."""
        return [name for (name,) in await self.database.rows(_SQL["rooms_of"], {"tenant": tenant})]

    async def totals(self) -> QueueStats:
        """See QueueStore."""
        now = self._clock.time()
        [row] = await self.database.rows(_SQL["totals"], {"now": self._steady.time()})
        return _stats(now, "", *row)

    async def _read(self, statement: LiteralString, **which: str) -> list[tuple[RoomKey, QueueStats]]:
        now = self._clock.time()
        rows = await self.database.rows(statement, {**which, "now": self._steady.time()})
        return [(RoomKey(TenantId(tenant), room), _stats(now, *row)) for tenant, room, *row in rows]


def _stats(
    now: float,
    name: str,
    ready: int,
    leased: int,
    delayed: int,
    dead: int,
    oldest: float | None,
    blocked: int,
    is_paused: bool,
) -> QueueStats:
    age = None if oldest is None else max(now - oldest, 0.0)
    return QueueStats(name, ready, leased, delayed, dead, age, blocked, is_paused)

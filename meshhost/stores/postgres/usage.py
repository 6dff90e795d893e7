"""Usage in PostgreSQL. See `meshhost.stores.usage` for the contract.

The primary key begins with tenant and hour, so a read touches only the rows of its tenant and its span of time. An `add` is
one statement, whatever the number of its sums; several servers may add to the same rows.
"""

from collections.abc import Mapping, Sequence

from meshhost.identity.tenant import TenantId
from meshhost.stores.postgres.database import Lifetime, PostgresDatabase
from meshhost.stores.shared.statements import read_statements
from meshhost.stores.usage import HOUR, UsageCounts, UsageKey, UsageRow, hour_of

__all__ = ["PostgresUsageStore"]

_SQL = read_statements("meshhost.stores.postgres", "usage.sql")
_MAX_TIME = 2**62


class PostgresUsageStore(Lifetime):
    """Keeps the contract of UsageStore in `database`."""

    def __init__(self, database: PostgresDatabase) -> None:
        super().__init__(database, migrations="usage", what="usage store")

    async def add(self, sums: Mapping[UsageKey, UsageCounts]) -> None:
        """See UsageStore."""
        keys, counts = list(sums), list(sums.values())
        values: dict[str, object] = {
            **{name: [_storable(getattr(key, name)) for key in keys] for name in UsageKey._fields},
            **{name: [getattr(count, name) for count in counts] for name in UsageCounts.__slots__},
        }
        await self.database.rows(_SQL["add"], values)

    async def delete(self, tenant: TenantId) -> None:
        """See UsageStore."""
        while await self.database.count(_SQL["delete_some"], {"tenant": tenant}):
            pass

    async def read(
        self,
        tenant: TenantId,
        *,
        room: str | None = None,
        since: float | None = None,
        until: float | None = None,
        limit: int = 1000,
        offset: int = 0,
    ) -> Sequence[UsageRow]:
        """See UsageStore."""
        values = {
            "tenant": tenant,
            "room": room,
            "since": -_MAX_TIME if since is None else hour_of(since),
            "until": _MAX_TIME if until is None else until,
            "limit": limit,
            "offset": offset,
        }
        return [
            UsageRow(UsageKey(tenant, name, identity, model, hour, price), UsageCounts(*counts))
            for name, identity, model, hour, price, *counts in await self.database.rows(_SQL["read"], values)
        ]

    async def totals(
        self,
        *,
        since: float | None = None,
        until: float | None = None,
        hours: int = 1,
        limit: int = 1000,
        offset: int = 0,
    ) -> Sequence[UsageRow]:
        """See UsageStore."""
        values = {
            "span": hours * HOUR,
            "since": -_MAX_TIME if since is None else hour_of(since),
            "until": _MAX_TIME if until is None else until,
            "limit": limit,
            "offset": offset,
        }
        rows = await self.database.rows(_SQL["totals"], values)
        return [UsageRow(UsageKey(*row[:6]), UsageCounts(*row[6:])) for row in rows]


def _storable(value: object) -> object:
    """A name as PostgreSQL can keep it: a participant may have a NUL in its name, which no text of PostgreSQL has."""
    return value.replace("\0", "\ufffd") if isinstance(value, str) else value

"""Usage in this process's memory: for tests and for servers that keep nothing. See `meshhost.stores.usage` for the contract."""

from collections.abc import Mapping, Sequence

from meshhost.identity.tenant import TenantId
from meshhost.stores.usage import HOUR, UsageCounts, UsageKey, UsageRow, hour_of

__all__ = ["MemoryUsageStore"]


class MemoryUsageStore:
    """A UsageStore whose content ends with the process. It needs no `open`."""

    def __init__(self) -> None:
        self._rows: dict[UsageKey, UsageCounts] = {}

    async def open(self) -> None:
        """Do nothing."""

    async def close(self) -> None:
        """Do nothing; the content stays until the object goes."""

    async def add(self, sums: Mapping[UsageKey, UsageCounts]) -> None:
        """See UsageStore."""
        for key, counts in sums.items():
            self._rows[key] = self._rows.get(key, UsageCounts()).plus(counts)

    async def delete(self, tenant: TenantId) -> None:
        """See UsageStore."""
        self._rows = {key: counts for key, counts in self._rows.items() if key.tenant != tenant}

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
        found = [
            UsageRow(key, counts)
            for key, counts in self._rows.items()
            if key.tenant == tenant
            and (room is None or key.room == room)
            and (since is None or key.hour >= hour_of(since))
            and (until is None or key.hour < until)
        ]
        found.sort(key=lambda row: (row.key.hour, row.key.room, row.key.identity, row.key.model, row.key.price))
        return found[offset : offset + limit]

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
        sums: dict[UsageKey, UsageCounts] = {}
        for key, counts in self._rows.items():
            if (since is None or key.hour >= hour_of(since)) and (until is None or key.hour < until):
                begin = key.hour // (hours * HOUR) * hours * HOUR
                total = UsageKey(key.tenant, "", "", key.model, begin, key.price)
                sums[total] = sums.get(total, UsageCounts()).plus(counts)
        found = [UsageRow(*row) for row in sums.items()]
        found.sort(key=lambda row: (row.key.hour, row.key.tenant, row.key.model, row.key.price))
        return found[offset : offset + limit]

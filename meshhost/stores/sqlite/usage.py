"""Usage in a SQLite file. See `meshhost.stores.usage` for the contract.

The primary key begins with tenant and hour, so a read touches only the rows of its tenant and its span of time. An `add` is
one transaction, made durable by the thread of the file (`thread.py`).
"""

import sqlite3
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import TypeVar

from meshhost.errors import RoomError
from meshhost.identity.tenant import TenantId
from meshhost.stores.sqlite.file import SqliteFile
from meshhost.stores.sqlite.thread import Operation, SqliteThread
from meshhost.stores.usage import HOUR, UsageCounts, UsageKey, UsageRow, hour_of

__all__ = ["SqliteUsageStore"]

T = TypeVar("T")

_MIGRATIONS = resources.files("meshhost.stores.sqlite") / "migrations" / "usage"
_ADD = """
INSERT INTO usage
    (tenant, hour, room, identity, model, price, requests, input_tokens, cached_tokens, output_tokens, seconds, unmeasured,
    cache_write_tokens)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET
    requests = requests + excluded.requests,
    input_tokens = input_tokens + excluded.input_tokens,
    cached_tokens = cached_tokens + excluded.cached_tokens,
    output_tokens = output_tokens + excluded.output_tokens,
    seconds = seconds + excluded.seconds,
    unmeasured = unmeasured + excluded.unmeasured,
    cache_write_tokens = cache_write_tokens + excluded.cache_write_tokens
"""
_READ = """
SELECT room, identity, model, hour, price, requests, input_tokens, cached_tokens, output_tokens, seconds, unmeasured,
    cache_write_tokens
FROM usage
WHERE tenant = :tenant AND hour >= :since AND hour < :until AND (:room IS NULL OR room = :room)
ORDER BY hour, room, identity, model, price LIMIT :limit OFFSET :offset
"""
_TOTALS = """
SELECT tenant, '', '', model, hour / :span * :span AS begin, price, sum(requests), sum(input_tokens), sum(cached_tokens),
    sum(output_tokens), sum(seconds), sum(unmeasured), sum(cache_write_tokens)
FROM usage
WHERE hour >= :since AND hour < :until
GROUP BY tenant, model, begin, price
ORDER BY begin, tenant, model, price LIMIT :limit OFFSET :offset
"""
# A few at a time, so that nobody waits long for the file's thread.
_DELETE = """
DELETE FROM usage WHERE (tenant, hour, room, identity, model, price) IN (
    SELECT tenant, hour, room, identity, model, price FROM usage WHERE tenant = :tenant LIMIT 250
)
"""
_MAX_TIME = 2**62


class SqliteUsageStore:
    """The usage of all tenants in the file `path`, which one process at a time can have open."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread: SqliteThread | None = None

    def __repr__(self) -> str:
        return f"<SqliteUsageStore {str(self._path)!r} open={self._thread is not None}>"

    async def open(self) -> None:
        """See UsageStore. The file is made if it is missing."""
        thread = SqliteThread(SqliteFile(self._path, migrations=_MIGRATIONS, what="usage store"))
        await thread.start()
        self._thread = thread

    async def close(self) -> None:
        """See UsageStore."""
        thread, self._thread = self._thread, None
        if thread is not None:
            await thread.stop()

    async def add(self, sums: Mapping[UsageKey, UsageCounts]) -> None:
        """See UsageStore."""
        rows = [
            (
                *(key.tenant, key.hour, key.room, key.identity, key.model, key.price),
                *(counts.requests, counts.input_tokens, counts.cached_tokens, counts.output_tokens),
                *(counts.seconds, counts.unmeasured, counts.cache_write_tokens),
            )
            for key, counts in sums.items()
        ]

        def operation(db: sqlite3.Connection) -> None:
            db.executemany(_ADD, rows)

        await self._run(operation)

    async def delete(self, tenant: TenantId) -> None:
        """See UsageStore."""
        while await self._run(lambda db: db.execute(_DELETE, {"tenant": tenant}).rowcount):
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
        parameters = {
            "tenant": tenant,
            "room": room,
            "since": -_MAX_TIME if since is None else hour_of(since),
            "until": _MAX_TIME if until is None else until,
            "limit": limit,
            "offset": offset,
        }

        def operation(db: sqlite3.Connection) -> list[UsageRow]:
            return [
                UsageRow(UsageKey(tenant, name, identity, model, hour, price), UsageCounts(*counts))
                for name, identity, model, hour, price, *counts in db.execute(_READ, parameters)
            ]

        return await self._run(operation)

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
        parameters = {
            "span": hours * HOUR,
            "since": -_MAX_TIME if since is None else hour_of(since),
            "until": _MAX_TIME if until is None else until,
            "limit": limit,
            "offset": offset,
        }

        def operation(db: sqlite3.Connection) -> list[UsageRow]:
            rows = db.execute(_TOTALS, parameters)
            return [UsageRow(UsageKey(*row[:6]), UsageCounts(*row[6:])) for row in rows]

        return await self._run(operation)

    async def _run(self, operation: Operation[T]) -> T:
        if self._thread is None:
            raise RoomError("the usage store is not open")
        return await self._thread.run(operation)

"""PGQueuer over PostgreSQL, with asyncpg. It needs at least twice its batch as concurrency: 2 stands for 1."""

import asyncio
import contextlib
import json
import threading
from collections.abc import Callable, Sequence
from typing import Any

import asyncpg
from common import Options, run
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgPoolDriver
from pgqueuer.queries import Queries


class PGQueuer:
    """See common.Contender."""

    is_threaded = False

    def __init__(self, options: Options, job: Callable[[float], None]) -> None:
        self._url = options.address["url"]
        self._pool_size = min(max(options.callers, options.concurrency, 3) + 2, 40)
        self._concurrency = options.concurrency
        self._job = job

    async def open(self) -> None:
        """Make the tables, unless they are there."""
        pool = await asyncpg.create_pool(self._url, min_size=3, max_size=self._pool_size)
        self._pool = pool
        self._queries = Queries(AsyncpgPoolDriver(pool))
        if await pool.fetchval("SELECT to_regclass('pgqueuer')") is None:
            with contextlib.suppress(asyncpg.PostgresError):
                await self._queries.install()

    async def close(self) -> None:
        """Disconnect."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2):
                await self._pool.close()

    async def send(self, body: dict[str, Any]) -> None:
        """See common.Contender."""
        await self._queries.enqueue("noop", json.dumps(body).encode())

    async def send_many(self, bodies: Sequence[dict[str, Any]]) -> None:
        """See common.Contender."""
        count = len(bodies)
        await self._queries.enqueue(["noop"] * count, [json.dumps(body).encode() for body in bodies], [0] * count)

    async def work(self, _: threading.Event) -> None:
        """See common.Contender."""
        queues = PgQueuer.from_asyncpg_pool(self._pool)

        @queues.entrypoint("noop")
        async def noop(job: Any) -> None:
            self._job(json.loads(job.payload)["sent"])

        batch = max(self._concurrency // 2, 1)
        await queues.qm.run(batch_size=batch, max_concurrent_tasks=max(self._concurrency, 2 * batch))


run(PGQueuer)

"""A queue store of each engine, with the clock that it reads, for the suites about queues.

A suite says what its store accepts with a constant `LIMITS`. Suites about other stores have a fixture `store` of their own.
"""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from doubles.engines import EVERY_STORE, opened_store

from meshhost.stores.memory.queues import MemoryQueueStore
from meshhost.stores.postgres.queues import PostgresQueueStore
from meshhost.stores.queues import QueueLimits, QueueStore
from meshhost.stores.sqlite.queues import SqliteQueueStore
from meshhost.testing.clock import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(params=EVERY_STORE)
async def store(request: pytest.FixtureRequest, tmp_path: Path, clock: FakeClock) -> AsyncIterator[QueueStore]:
    limits: QueueLimits = request.module.LIMITS
    async with opened_store(
        request,
        memory=lambda: MemoryQueueStore(limits=limits, clock=clock),
        sqlite=lambda: SqliteQueueStore(tmp_path / "queues.db", limits=limits, clock=clock),
        postgresql=lambda database: PostgresQueueStore(database, limits=limits, clock=clock),
    ) as made:
        yield made

"""What the tests of triggers share: a server's parts over one set of stores, without a socket."""

from collections.abc import AsyncIterator

import pytest

from meshhost.stores.engine import Engine
from meshhost.stores.memory.engine import memory_engine
from meshhost.testing.clock import FakeClock

# 2027-03-27 12:00 UTC: half a day before summer time begins in Berlin.
NOON = 1_806_148_800.0


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOON)


@pytest.fixture
async def engine(clock: FakeClock) -> AsyncIterator[Engine]:
    async with memory_engine(clock=clock) as made:
        yield made

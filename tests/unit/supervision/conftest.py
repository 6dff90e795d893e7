"""Agents and clocks for tests of supervision."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from meshhost.supervision.supervisor import Supervisor
from meshhost.testing.clock import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def supervisor(clock: FakeClock) -> AsyncIterator[Supervisor]:
    """Its chance is always the longest wait. At the end of the test what still lives is aborted."""
    made = Supervisor(clock=clock, random=lambda: 1.0)
    yield made
    made.abort_all()
    async with asyncio.timeout(5):
        while made.live:
            await clock.advance(1.0)

"""Agents and clocks for tests of supervision."""

import pytest

from meshhost.supervision.supervisor import Supervisor
from meshhost.testing.clock import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def supervisor(clock: FakeClock) -> Supervisor:
    """Its chance is always the longest wait."""
    return Supervisor(clock=clock, random=lambda: 1.0)

"""The machine's clock."""

import time

from meshhost.clock import Clock, SteadyTime, SystemClock
from meshhost.testing.clock import FakeClock


async def test_sleeping_moves_the_monotonic_clock_by_at_least_that_much() -> None:
    clock: Clock = SystemClock()
    before = clock.monotonic()

    await clock.sleep(0.01)

    # The event loop may wake a timer one tick of its clock early.
    assert clock.monotonic() - before >= 0.01 - time.get_clock_info("monotonic").resolution


def test_the_wall_clock_counts_from_the_epoch() -> None:
    before = time.time()

    assert before <= SystemClock().time() <= time.time()


async def test_steady_time_goes_on_when_the_wall_clock_is_set_and_follows_when_asked() -> None:
    clock = FakeClock()
    steady = SteadyTime(clock)
    began = steady.time()
    clock.step(-3600.0)
    await clock.advance(10)
    assert (steady.time(), steady.jump()) == (began + 10, -3600.0)
    steady.follow(-3600.0)
    assert (steady.time(), steady.jump()) == (clock.time(), 0.0)
    clock.step(0.5)  # drift
    assert steady.jump() == 0.0

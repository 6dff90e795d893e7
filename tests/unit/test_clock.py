"""The machine's clock."""

import time

from meshhost.clock import Clock, SystemClock


async def test_sleeping_moves_the_monotonic_clock_by_at_least_that_much() -> None:
    clock: Clock = SystemClock()
    before = clock.monotonic()

    await clock.sleep(0.01)

    # The event loop may wake a timer one tick of its clock early.
    assert clock.monotonic() - before >= 0.01 - time.get_clock_info("monotonic").resolution


def test_the_wall_clock_counts_from_the_epoch() -> None:
    before = time.time()

    assert before <= SystemClock().time() <= time.time()

"""A clock that moves when told to."""

import asyncio

from meshhost.clock import Clock
from meshhost.testing.clock import FakeClock


def test_time_stands_still() -> None:
    clock: Clock = FakeClock(start=5)
    assert (clock.time(), clock.monotonic()) == (5, 5)


async def test_sleepers_wake_in_order_each_at_its_own_time() -> None:
    clock = FakeClock(start=0)
    woken: list[tuple[str, float]] = []

    async def sleeper(name: str, seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append((name, clock.time()))

    async with asyncio.TaskGroup() as group:
        for name, seconds in [("c", 3), ("a", 1), ("b", 2), ("a2", 1), ("late", 9)]:
            group.create_task(sleeper(name, seconds))
        await clock.advance(4)
        assert woken == [("a", 1), ("a2", 1), ("b", 2), ("c", 3)]
        assert (clock.time(), clock.sleepers) == (4, 1)
        await clock.advance(5)
    assert woken[-1] == ("late", 9)
    assert clock.sleepers == 0


async def test_who_goes_to_sleep_again_is_woken_again() -> None:
    clock = FakeClock(start=0)
    ticks: list[float] = []

    async def ticker() -> None:
        while len(ticks) < 3:
            await clock.sleep(2)
            ticks.append(clock.monotonic())

    async with asyncio.TaskGroup() as group:
        group.create_task(ticker())
        await clock.advance(7)
    assert ticks == [2, 4, 6]


async def test_a_cancelled_sleeper_is_forgotten() -> None:
    clock = FakeClock()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(clock.sleep(1))
        await clock.advance(0)
        assert clock.sleepers == 1
        task.cancel()
    assert clock.sleepers == 0
    await clock.advance(2)


async def test_sleeping_no_time_returns() -> None:
    clock = FakeClock()
    await clock.sleep(0)
    await clock.sleep(-1)
    assert clock.sleepers == 0


async def test_time_that_is_skipped_wakes_nobody() -> None:
    clock = FakeClock(start=5)
    async with asyncio.TaskGroup() as group:
        group.create_task(clock.sleep(2))
        await asyncio.sleep(0)
        clock.skip(3)
        assert (clock.time(), clock.monotonic(), clock.sleepers) == (8, 8, 1)
        await clock.advance(0)
    assert clock.sleepers == 0

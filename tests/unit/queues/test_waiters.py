"""Hints go to whoever waits longest, and none is lost between waiters."""

import asyncio

import pytest

from meshhost.errors import LimitExceededError, NotFoundError
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.queues.waiters import Waiter, Waiters, wait_at_most
from meshhost.stores.notifier import Hint
from meshhost.stores.queues import HolderId, QueueKey
from meshhost.testing.clock import FakeClock

ROOM = RoomKey(TenantId("acme"), "lobby")
JOBS, MAIL = QueueKey(ROOM, "jobs"), QueueKey(ROOM, "mail")
ANN, BOB = HolderId("ann"), HolderId("bob")


@pytest.fixture
def line_up() -> Waiters:
    return Waiters(max_waiters=3)


def line(line_up: Waiters, count: int = 3) -> list[Waiter]:
    return [line_up.add(JOBS, ANN) for _ in range(count)]


def woken(waiters: list[Waiter]) -> list[bool]:
    return [waiter.woken for waiter in waiters]


def test_each_hint_wakes_the_oldest_that_has_none(line_up: Waiters) -> None:
    waiters = line(line_up)
    line_up.wake(Hint(JOBS))
    assert woken(waiters) == [True, False, False]
    line_up.wake(Hint(JOBS))
    assert woken(waiters) == [True, True, False]


def test_who_took_its_hint_keeps_its_place(line_up: Waiters) -> None:
    waiters = line(line_up)
    line_up.wake(Hint(JOBS))
    assert waiters[0].take() is False
    assert woken(waiters) == [False, False, False]
    line_up.wake(Hint(JOBS, many=True))
    assert woken(waiters) == [True, False, False]
    assert waiters[0].take() is True
    assert waiters[0].take() is False


@pytest.mark.parametrize("many", [False, True])
def test_a_hint_not_taken_goes_to_the_next(line_up: Waiters, many: bool) -> None:
    first, second, third = line(line_up)
    line_up.wake(Hint(JOBS, many=many))
    line_up.remove(first)
    assert (second.woken, second.many) == (True, many)
    assert not third.woken


def test_a_hint_taken_goes_to_nobody(line_up: Waiters) -> None:
    first, second = line(line_up, 2)
    line_up.wake(Hint(JOBS))
    first.take()
    line_up.remove(first)
    assert not second.woken


def test_removing_the_last_or_one_that_is_gone_does_nothing(line_up: Waiters) -> None:
    (waiter,) = line(line_up, 1)
    line_up.wake(Hint(JOBS))
    line_up.remove(waiter)
    line_up.remove(waiter)
    assert line_up.waiting(JOBS) == 0
    (later,) = line(line_up, 1)
    assert not later.woken


def test_hints_for_all_woken_or_for_nobody_are_dropped(line_up: Waiters) -> None:
    line_up.wake(Hint(JOBS))
    (waiter,) = line(line_up, 1)
    for _ in range(3):
        line_up.wake(Hint(JOBS))
    line_up.wake(Hint(MAIL))
    waiter.take()
    assert not waiter.woken


def test_a_line_has_a_limit(line_up: Waiters) -> None:
    waiters = line(line_up)
    with pytest.raises(LimitExceededError, match="3 receivers"):
        line_up.add(JOBS, BOB)
    line_up.add(MAIL, BOB)
    line_up.remove(waiters[1])
    line_up.add(JOBS, BOB)
    assert line_up.waiting(JOBS) == 3


def test_the_waits_for_a_queue_end_with_an_error(line_up: Waiters) -> None:
    (waiter,) = line(line_up, 1)
    other = line_up.add(MAIL, ANN)
    line_up.end_queue(JOBS, NotFoundError("no queue"))
    assert waiter.over()
    with pytest.raises(NotFoundError):
        waiter.check()
    assert not other.over()
    assert line_up.waiting(JOBS) == 0
    line_up.remove(waiter)


def test_the_waits_of_a_holder_end_in_all_queues(line_up: Waiters) -> None:
    mine = [line_up.add(JOBS, ANN), line_up.add(MAIL, ANN)]
    other = line_up.add(JOBS, BOB)
    line_up.end_holder(ANN)
    assert [waiter.over() for waiter in mine] == [True, True]
    assert not other.over()
    line_up.end_all()
    assert other.over()
    other.check()


def test_the_ended_get_no_hint_that_others_could_use(line_up: Waiters) -> None:
    line_up.add(JOBS, ANN)
    other = line_up.add(JOBS, BOB)
    line_up.end_holder(ANN)
    line_up.wake(Hint(JOBS))
    assert other.woken


async def test_an_ended_wait_stays_ended(line_up: Waiters) -> None:
    (waiter,) = line(line_up, 1)
    waiter.end()
    waiter.take()
    await waiter.wait(1000, FakeClock())
    assert "ended=True" in repr(waiter)


async def test_a_wait_ends_with_the_time() -> None:
    clock, event = FakeClock(), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(wait_at_most(event, 5, clock))
        await clock.advance(4)
        assert not waiting.done()
        await clock.advance(1)
        assert waiting.done()


async def test_a_wait_ends_with_the_event() -> None:
    clock, event = FakeClock(), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(wait_at_most(event, 5, clock))
        await clock.advance(1)
        event.set()
    assert clock.sleepers == 0


async def test_a_cancelled_wait_leaves_no_timer() -> None:
    clock = FakeClock()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(wait_at_most(asyncio.Event(), 5, clock))
        await clock.advance(1)
        task.cancel()
    assert clock.sleepers == 0

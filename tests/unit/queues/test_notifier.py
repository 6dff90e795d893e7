"""Hints go to whoever waits longest, and none is lost between waiters."""

import asyncio

import pytest

from meshhost.errors import LimitExceededError, NotFoundError
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.stores.notifier import QueueNotifier, QueueWaiter, wait_at_most
from meshhost.stores.queues import HolderId, QueueKey
from meshhost.testing.clock import FakeClock

ROOM = RoomKey(TenantId("acme"), "lobby")
JOBS, MAIL = QueueKey(ROOM, "jobs"), QueueKey(ROOM, "mail")
ANN, BOB = HolderId("ann"), HolderId("bob")


@pytest.fixture
def notifier() -> QueueNotifier:
    return QueueNotifier(max_waiters=3)


def line(notifier: QueueNotifier, count: int = 3) -> list[QueueWaiter]:
    return [notifier.add(JOBS, ANN) for _ in range(count)]


def woken(waiters: list[QueueWaiter]) -> list[bool]:
    return [waiter.woken for waiter in waiters]


def test_each_hint_wakes_the_oldest_that_has_none(notifier: QueueNotifier) -> None:
    waiters = line(notifier)
    notifier.wake(JOBS)
    assert woken(waiters) == [True, False, False]
    notifier.wake(JOBS)
    assert woken(waiters) == [True, True, False]


def test_who_took_its_hint_keeps_its_place(notifier: QueueNotifier) -> None:
    waiters = line(notifier)
    notifier.wake(JOBS)
    assert waiters[0].take() is False
    assert woken(waiters) == [False, False, False]
    notifier.wake(JOBS, many=True)
    assert woken(waiters) == [True, False, False]
    assert waiters[0].take() is True
    assert waiters[0].take() is False


@pytest.mark.parametrize("many", [False, True])
def test_a_hint_not_taken_goes_to_the_next(notifier: QueueNotifier, many: bool) -> None:
    first, second, third = line(notifier)
    notifier.wake(JOBS, many=many)
    notifier.remove(first)
    assert (second.woken, second.many) == (True, many)
    assert not third.woken


def test_a_hint_taken_goes_to_nobody(notifier: QueueNotifier) -> None:
    first, second = line(notifier, 2)
    notifier.wake(JOBS)
    first.take()
    notifier.remove(first)
    assert not second.woken


def test_removing_the_last_or_one_that_is_gone_does_nothing(notifier: QueueNotifier) -> None:
    (waiter,) = line(notifier, 1)
    notifier.wake(JOBS)
    notifier.remove(waiter)
    notifier.remove(waiter)
    assert notifier.waiting(JOBS) == 0
    (later,) = line(notifier, 1)
    assert not later.woken


def test_hints_for_all_woken_or_for_nobody_are_dropped(notifier: QueueNotifier) -> None:
    notifier.wake(JOBS)
    (waiter,) = line(notifier, 1)
    for _ in range(3):
        notifier.wake(JOBS)
    notifier.wake(MAIL)
    waiter.take()
    assert not waiter.woken


def test_a_line_has_a_limit(notifier: QueueNotifier) -> None:
    waiters = line(notifier)
    with pytest.raises(LimitExceededError, match="3 receivers"):
        notifier.add(JOBS, BOB)
    notifier.add(MAIL, BOB)
    notifier.remove(waiters[1])
    notifier.add(JOBS, BOB)
    assert notifier.waiting(JOBS) == 3


def test_the_waits_for_a_queue_end_with_an_error(notifier: QueueNotifier) -> None:
    (waiter,) = line(notifier, 1)
    other = notifier.add(MAIL, ANN)
    notifier.end_queue(JOBS, NotFoundError("no queue"))
    assert waiter.over()
    with pytest.raises(NotFoundError):
        waiter.check()
    assert not other.over()
    assert notifier.waiting(JOBS) == 0
    notifier.remove(waiter)


def test_the_waits_of_a_holder_end_in_all_queues(notifier: QueueNotifier) -> None:
    mine = [notifier.add(JOBS, ANN), notifier.add(MAIL, ANN)]
    other = notifier.add(JOBS, BOB)
    notifier.end_holder(ANN)
    assert [waiter.over() for waiter in mine] == [True, True]
    assert not other.over()
    notifier.end_all()
    assert other.over()
    other.check()


def test_the_ended_get_no_hint_that_others_could_use(notifier: QueueNotifier) -> None:
    notifier.add(JOBS, ANN)
    other = notifier.add(JOBS, BOB)
    notifier.end_holder(ANN)
    notifier.wake(JOBS)
    assert other.woken


async def test_an_ended_wait_stays_ended(notifier: QueueNotifier) -> None:
    (waiter,) = line(notifier, 1)
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

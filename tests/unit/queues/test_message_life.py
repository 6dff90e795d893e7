"""What the queue service adds to the life of messages: who is woken, who waits for an end, and how settings are changed."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from meshhost.backoff import Backoff
from meshhost.errors import InvalidRequestError, LimitExceededError, NotFoundError
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.queues.reader import fingerprint
from meshhost.queues.service import QueueService
from meshhost.queues.sweeper import QueueSweeper
from meshhost.queues.values import MAX_VALUE_BYTES
from meshhost.stores.memory.queues import MemoryQueueStore
from meshhost.stores.messages import MessageQuery, MessageRecord, MessageState
from meshhost.stores.queues import (
    Deliveries,
    Delivery,
    EndReason,
    HolderId,
    NewMessage,
    QueueKey,
    QueueLimits,
    QueueSettings,
)
from meshhost.stores.shared.local_notifier import LocalNotifier
from meshhost.testing.clock import FakeClock

ROOM = RoomKey(TenantId("acme"), "lobby")
JOBS = QueueKey(ROOM, "jobs")
ANN, BOB = HolderId("ann"), HolderId("bob")


class Store(MemoryQueueStore):
    """Counts the looks at messages; while `gate` is cleared, settings are read and changed later."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(limits=QueueLimits(max_attempts=2), clock=clock)
        self.looks = 0
        self.claims = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def get(self, queue: QueueKey, message_id: int) -> MessageRecord | None:
        self.looks += 1
        return await super().get(queue, message_id)

    async def lease(self, queue: QueueKey, holder: HolderId, **options: Any) -> Deliveries:
        self.claims += 1
        return await super().lease(queue, holder, **options)

    async def settings(self, queue: QueueKey) -> QueueSettings:
        found = await super().settings(queue)
        await self.gate.wait()
        return found


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def store(clock: FakeClock) -> AsyncIterator[Store]:
    made = Store(clock)
    await made.open()
    yield made
    await made.close()


@pytest.fixture
async def service(store: Store, clock: FakeClock) -> AsyncIterator[QueueService]:
    async with make(store, clock) as made:
        yield made


def make(store: Store, clock: FakeClock) -> QueueService:
    return QueueService(
        store,
        notifier=LocalNotifier(),
        sweeper=QueueSweeper(store, clock=clock),
        clock=clock,
        retry=Backoff(first_delay=2.0, max_delay=8.0, jitter=1.0),
        random=lambda: 0.5,
        max_watches=3,
    )


@pytest.fixture
async def tasks() -> AsyncIterator[asyncio.TaskGroup]:
    async with asyncio.TaskGroup() as group:
        yield group


async def take(service: QueueService) -> Delivery:
    delivery = await service.receive(JOBS, ANN, by="ann")
    assert delivery is not None
    return delivery


async def known(service: QueueService, message_id: int) -> MessageRecord:
    record = await service.get(JOBS, message_id)
    assert record is not None
    return record


def watch(
    service: QueueService, tasks: asyncio.TaskGroup, message_id: int, *, seen: str | None = None, seconds: float = 60
) -> asyncio.Task[MessageRecord | None]:
    return tasks.create_task(service.wait(JOBS, message_id, seconds, seen=seen))


async def ended(waiting: asyncio.Task[MessageRecord | None]) -> MessageState:
    record = await waiting
    assert record is not None
    return record.state


# --- Waiting for the end of a message


@pytest.mark.parametrize("how", ["ack", "nack", "cancel"])
async def test_who_waits_is_woken_when_this_process_ends_the_message(
    service: QueueService, tasks: asyncio.TaskGroup, clock: FakeClock, how: str
) -> None:
    message = await service.send(JOBS, NewMessage("a"))
    if how == "nack":
        await service.configure(JOBS, {"max_attempts": 1})
    waiting = [watch(service, tasks, message) for _ in range(2)]
    await clock.advance(0)
    if how == "cancel":
        await service.cancel(JOBS, message)
    else:
        lease = (await take(service)).lease
        await (service.ack(lease, result="7") if how == "ack" else service.nack(lease, reason=EndReason.FAILED))
    # The clock does not move: nobody had to look.
    states = {"ack": MessageState.DONE, "nack": MessageState.DEAD, "cancel": MessageState.CANCELLED}
    assert [await ended(each) for each in waiting] == [states[how]] * 2
    assert service.watching == 0


async def test_what_others_do_is_seen_within_about_a_second(
    service: QueueService, store: Store, tasks: asyncio.TaskGroup, clock: FakeClock
) -> None:
    message = await service.send(JOBS, NewMessage("a"))
    waiting = watch(service, tasks, message)
    async with make(store, clock) as other:
        await other.ack((await take(other)).lease)
    await clock.advance(0.9)
    assert not waiting.done()
    await clock.advance(0.2)
    assert await ended(waiting) is MessageState.DONE


async def test_progress_wakes_only_who_asks_for_it(
    service: QueueService, tasks: asyncio.TaskGroup, clock: FakeClock
) -> None:
    message = await service.send(JOBS, NewMessage("a"))
    lease = (await take(service)).lease
    record = await known(service, message)
    for_end, for_news = watch(service, tasks, message), watch(service, tasks, message, seen=fingerprint(record))
    await clock.advance(5)
    assert not for_news.done()
    await service.extend(lease, seconds=30, progress="0.5")
    news = await for_news
    assert news is not None
    assert news.progress == "0.5"
    # What was seen is not news; what nobody has seen is.
    assert (await watch(service, tasks, message, seen="")) == await known(service, message)
    assert not for_end.done()
    await service.ack(lease)
    assert await ended(for_end) is MessageState.DONE


async def test_who_asks_for_news_learns_at_once_that_somebody_works_on_the_message(
    service: QueueService, tasks: asyncio.TaskGroup, clock: FakeClock
) -> None:
    message = await service.send(JOBS, NewMessage("a"))
    waiting = watch(service, tasks, message, seen=fingerprint(await known(service, message)))
    await clock.advance(0)
    await take(service)
    assert await ended(waiting) is MessageState.LEASED


async def test_a_wait_that_is_over_returns_what_is_known(
    service: QueueService, tasks: asyncio.TaskGroup, clock: FakeClock
) -> None:
    message = await service.send(JOBS, NewMessage("a"))
    waiting = watch(service, tasks, message, seconds=3)
    await clock.advance(3)
    assert await ended(waiting) is MessageState.READY
    assert await service.wait(JOBS, message + 1, 60) is None
    assert fingerprint(None) == ""


async def test_a_wait_ends_with_its_queue(service: QueueService, tasks: asyncio.TaskGroup, clock: FakeClock) -> None:
    message = await service.send(JOBS, NewMessage("a"))
    waiting = watch(service, tasks, message)
    await clock.advance(0)
    await service.drain(JOBS)
    assert await waiting is None
    message = await service.send(JOBS, NewMessage("a"))
    waits = asyncio.ensure_future(service.wait(JOBS, message, 60))
    await clock.advance(0)
    await service.delete(JOBS)
    with pytest.raises(NotFoundError):
        await waits


async def test_waits_are_bounded_and_one_that_is_given_up_leaves_nothing_behind(
    service: QueueService, store: Store, clock: FakeClock
) -> None:
    message = await service.send(JOBS, NewMessage("a"))
    waiting = [asyncio.ensure_future(service.wait(JOBS, message + number % 2 * 0, 60)) for number in range(3)]
    await clock.advance(0)
    with pytest.raises(LimitExceededError, match="3 requests wait"):
        await service.wait(JOBS, message, 60)
    for each in waiting:
        each.cancel()
    await asyncio.wait(waiting)
    assert service.watching == 0
    looks = store.looks
    await clock.advance(10)
    assert store.looks == looks
    assert await service.wait(JOBS, message, 0) == await known(service, message)


async def test_waits_for_several_messages_and_queues_are_kept_apart(
    service: QueueService, store: Store, tasks: asyncio.TaskGroup, clock: FakeClock
) -> None:
    first, second = await service.send_many(JOBS, [NewMessage("a"), NewMessage("b")])
    waiting = watch(service, tasks, first), watch(service, tasks, second)
    await clock.advance(0)
    looks = store.looks
    await service.ack((await take(service)).lease)
    assert await ended(waiting[0]) is MessageState.DONE
    assert store.looks == looks + 1
    await service.cancel(JOBS, second)
    assert await ended(waiting[1]) is MessageState.CANCELLED


async def test_a_service_that_stops_ends_all_waits(store: Store, clock: FakeClock) -> None:
    service = make(store, clock)
    await service.start()
    message = await service.send(JOBS, NewMessage("a"))
    waiting = asyncio.ensure_future(service.wait(JOBS, message, 60))
    await clock.advance(0)
    await service.stop()
    assert await ended(waiting) is MessageState.READY


async def test_a_message_that_expires_ends_the_wait(
    service: QueueService, tasks: asyncio.TaskGroup, clock: FakeClock
) -> None:
    message = await service.send(JOBS, NewMessage("a", ttl=2))
    waiting = watch(service, tasks, message)
    await clock.advance(3)
    assert await ended(waiting) is MessageState.EXPIRED


# --- Who is woken


def park(service: QueueService, tasks: asyncio.TaskGroup, holder: HolderId = BOB) -> asyncio.Task[Delivery | None]:
    return tasks.create_task(service.receive(JOBS, holder, wait_seconds=60))


async def body(receiving: asyncio.Task[Delivery | None]) -> str:
    delivery = await receiving
    assert delivery is not None
    return delivery.body


async def pair(service: QueueService) -> Delivery:
    """Two messages of one key, the first one leased."""
    await service.send_many(JOBS, [NewMessage("a", key="k"), NewMessage("b", key="k")])
    return await take(service)


@pytest.mark.parametrize("how", ["ack", "ack soon", "dead", "cancelled", "expired"])
async def test_the_next_of_a_key_is_delivered_at_once_however_the_first_ends(
    service: QueueService, tasks: asyncio.TaskGroup, clock: FakeClock, how: str
) -> None:
    delivery = await pair(service)
    waiting = park(service, tasks)
    await clock.advance(0)
    if how == "ack":
        await service.ack(delivery.lease)
    elif how == "ack soon":
        service.ack_soon(delivery.lease)
    elif how == "dead":
        await service.configure(JOBS, {"max_attempts": 1})
        assert await service.nack(delivery.lease, reason=EndReason.FAILED)
    else:
        assert await service.cancel(JOBS, delivery.lease.message_id) is MessageState.LEASED
        if how == "cancelled":
            await service.nack(delivery.lease, reason=EndReason.INTERRUPTED)
        else:
            await clock.advance(31)
    assert await body(waiting) == "b"


async def test_cancelling_one_that_nobody_works_on_lets_the_next_of_its_key_through(
    service: QueueService, tasks: asyncio.TaskGroup, clock: FakeClock
) -> None:
    first, _ = await service.send_many(JOBS, [NewMessage("a", key="k", delay=600), NewMessage("b", key="k")])
    waiting = park(service, tasks)
    await clock.advance(0)
    assert await service.cancel(JOBS, first) is MessageState.CANCELLED
    assert await body(waiting) == "b"


async def test_a_delayed_message_is_delivered_at_its_time(
    service: QueueService, tasks: asyncio.TaskGroup, clock: FakeClock
) -> None:
    waiting = park(service, tasks)
    await service.send(JOBS, NewMessage("a", delay=2.5))
    await clock.advance(2)
    assert not waiting.done()
    await clock.advance(0.5)
    assert await body(waiting) == "a"


async def test_several_messages_wake_several_receivers(
    service: QueueService, tasks: asyncio.TaskGroup, clock: FakeClock
) -> None:
    waiting = [park(service, tasks) for _ in range(3)]
    await clock.advance(0)
    await service.send_many(JOBS, [NewMessage("a"), NewMessage("b"), NewMessage("c", delay=1)])
    assert sorted([await body(waiting[0]), await body(waiting[1])]) == ["a", "b"]
    await clock.advance(1)
    assert await body(waiting[2]) == "c"


async def test_a_paused_queue_delivers_to_all_who_wait_when_it_is_resumed(
    service: QueueService, tasks: asyncio.TaskGroup, clock: FakeClock
) -> None:
    await service.send_many(JOBS, [NewMessage("a"), NewMessage("b")])
    await service.pause(JOBS)
    waiting = [park(service, tasks) for _ in range(2)]
    await clock.advance(20)
    assert not any(each.done() for each in waiting)
    await service.resume(JOBS)
    assert sorted([await body(each) for each in waiting]) == ["a", "b"]


@pytest.mark.parametrize("how", ["ack", "nack"])
async def test_one_more_is_delivered_when_fewer_are_in_progress(
    service: QueueService, tasks: asyncio.TaskGroup, clock: FakeClock, how: str
) -> None:
    await service.send_many(JOBS, [NewMessage("a"), NewMessage("b")])
    await service.configure(JOBS, {"concurrency": 1})
    lease = (await take(service)).lease
    waiting = park(service, tasks)
    await clock.advance(0)
    assert not waiting.done()
    await (service.ack(lease) if how == "ack" else service.nack(lease, reason=EndReason.FAILED, delay=60))
    assert await body(waiting) == "b"


# --- Receiving several


async def bodies(receiving: asyncio.Task[Sequence[Delivery]]) -> list[str]:
    return [delivery.body for delivery in await receiving]


async def test_several_are_received_at_once_and_who_receives_is_known(
    service: QueueService, tasks: asyncio.TaskGroup, clock: FakeClock
) -> None:
    receiving = tasks.create_task(service.receive_many(JOBS, ANN, limit=2, wait_seconds=60, by="ann's worker"))
    await clock.advance(0)
    ids = await service.send_many(JOBS, [NewMessage("a"), NewMessage("b"), NewMessage("c")])
    assert await bodies(receiving) == ["a", "b"]
    assert (await known(service, ids[1])).by == "ann's worker"
    assert (await service.receive_many(JOBS, ANN, limit=9))[0].body == "c"
    assert await service.receive_many(JOBS, ANN, limit=9) == []


async def test_all_that_a_cancelled_receiver_had_leased_come_back(
    service: QueueService, tasks: asyncio.TaskGroup, clock: FakeClock
) -> None:
    receiving = asyncio.ensure_future(service.receive_many(JOBS, ANN, limit=3, wait_seconds=60))
    await clock.advance(0)
    sending = asyncio.ensure_future(service.send_many(JOBS, [NewMessage(each) for each in "abc"]))
    await sending
    await asyncio.sleep(0)
    receiving.cancel()
    await asyncio.wait([receiving])
    await clock.advance(0)
    again = await service.receive_many(JOBS, BOB, limit=3)
    assert [(each.body, each.delivery) for each in again] == [("a", 1), ("b", 1), ("c", 1)]


# --- Results


async def test_progress_that_is_too_large_is_refused_and_the_message_stays_leased(service: QueueService) -> None:
    message = await service.send(JOBS, NewMessage("a"))
    lease = (await take(service)).lease
    with pytest.raises(InvalidRequestError, match="progress: expected at most 65536 bytes of JSON, got 6553"):
        await service.extend(lease, seconds=5, progress="é" * (MAX_VALUE_BYTES // 2 + 1))
    assert (await known(service, message)).state is MessageState.LEASED
    await service.ack(lease, result="x" * MAX_VALUE_BYTES)
    assert (await known(service, message)).state is MessageState.DONE


async def test_a_holder_learns_that_its_message_was_cancelled(service: QueueService) -> None:
    message = await service.send(JOBS, NewMessage("a"))
    lease = (await take(service)).lease
    assert not (await service.extend(lease, seconds=5)).is_cancelled
    await service.cancel(JOBS, message)
    assert (await service.extend(lease, seconds=5)).is_cancelled


# --- Settings


@pytest.mark.parametrize(
    ("settings", "waits"),
    [
        ({}, [1.0, 2.0]),
        ({"max_retry_seconds": 1.0}, [0.5, 0.5]),
        (
            {"retry_seconds": 100.0},
            [75.0, 75.0],
        ),  # never less than half of it, and no shorter than the server's longest
        ({"retry_seconds": 100.0, "max_retry_seconds": 150.0}, [75.0, 112.5]),
    ],
)
async def test_the_settings_say_how_long_a_retry_waits(
    service: QueueService, clock: FakeClock, settings: dict[str, float], waits: list[float]
) -> None:
    message = await service.send(JOBS, NewMessage("a"))
    await service.configure(JOBS, {"max_attempts": 5, **settings})
    for seconds in waits:
        await service.nack((await take(service)).lease, reason=EndReason.FAILED)
        record = await known(service, message)
        assert record.due_at == clock.time() + seconds
        await clock.advance(seconds)


# --- Looking


async def test_what_is_next_is_said_in_the_order_of_delivery(service: QueueService) -> None:
    await service.send_many(JOBS, [NewMessage(each, priority=int(each == "d")) for each in "abcdef"])
    assert [each.body for each in await service.peek(JOBS, limit=3)] == ["d", "a", "b"]
    assert len((await service.find(JOBS, MessageQuery())).messages) == 6


def test_what_is_news_of_a_message() -> None:
    record = MessageRecord(1, MessageState.LEASED, 0.0)
    for change in ({"state": MessageState.READY}, {"progress": "1"}, {"began_at": 1.0}, {"is_cancelling": True}):
        assert fingerprint(replace(record, **change)) != fingerprint(record)
    assert fingerprint(replace(record, lease_until=5.0)) == fingerprint(record)


# --- Rates


async def test_a_waiting_receiver_is_woken_when_the_rate_allows_the_next_start_and_looks_not_before(
    service: QueueService, store: Store, tasks: asyncio.TaskGroup, clock: FakeClock
) -> None:
    await service.create(JOBS)
    await service.configure(JOBS, {"rate": "20/m"})
    await service.send_many(JOBS, [NewMessage("a"), NewMessage("b"), NewMessage("c")])
    await take(service)
    waiting = [park(service, tasks) for _ in range(2)]
    await clock.advance(0)
    claims = store.claims
    await clock.advance(2.9)
    assert not any(each.done() for each in waiting)
    assert store.claims == claims
    await clock.advance(0.2)
    assert [each.done() for each in waiting] == [True, False]
    await clock.advance(3)
    assert [await body(each) for each in waiting] == ["b", "c"]


async def test_a_higher_rate_wakes_receivers(service: QueueService, tasks: asyncio.TaskGroup, clock: FakeClock) -> None:
    await service.create(JOBS)
    await service.configure(JOBS, {"rate": "1/h"})
    await service.send_many(JOBS, [NewMessage("a"), NewMessage("b")])
    await take(service)
    waiting = park(service, tasks)
    await clock.advance(1)
    assert not waiting.done()
    await service.configure(JOBS, {"rate": None})
    assert await body(waiting) == "b"

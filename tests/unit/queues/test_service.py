"""Receivers that wait, over a store in memory that can be made to fail or to answer late."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from meshhost.backoff import Backoff
from meshhost.clock import Clock
from meshhost.errors import (
    LeaseLostError,
    LimitExceededError,
    NotFoundError,
    RequestTimeoutError,
)
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.queues.service import QueueService
from meshhost.queues.sweeper import QueueSweeper
from meshhost.stores.memory.queues import MemoryQueueStore
from meshhost.stores.notifier import Hint, Notifier
from meshhost.stores.queues import (
    Deliveries,
    Delivery,
    EndReason,
    HolderId,
    Lease,
    NewMessage,
    QueueKey,
    QueueLimits,
    QueueStore,
)
from meshhost.stores.shared.local_notifier import LocalNotifier
from meshhost.stores.sqlite.queues import SqliteQueueStore
from meshhost.testing.clock import FakeClock

ROOM = RoomKey(TenantId("acme"), "lobby")
JOBS, MAIL = QueueKey(ROOM, "jobs"), QueueKey(ROOM, "mail")
ANN, BOB = HolderId("ann"), HolderId("bob")


class Store(MemoryQueueStore):
    """While `gate` is cleared, what `lease` did is answered later. `broken` operations fail."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(limits=QueueLimits(max_attempts=2), clock=clock)
        self.gate = asyncio.Event()
        self.gate.set()
        self.broken: set[str] = set()
        self.sweeps = 0
        self.meanwhile: Callable[[], object] | None = None  # what happens just before a claim is answered

    def check(self, operation: str) -> None:
        if operation in self.broken:
            raise OSError(f"{operation} failed")

    async def lease(
        self, queue: QueueKey, holder: HolderId, *, seconds: float, limit: int = 1, by: str = ""
    ) -> Deliveries:
        if self.meanwhile is not None:
            asyncio.get_running_loop().call_soon(self.meanwhile)
        self.check("lease")
        deliveries = await super().lease(queue, holder, seconds=seconds, limit=limit, by=by)
        await self.gate.wait()
        return deliveries

    async def nack(self, lease: Lease, **options: Any) -> bool:
        self.check("nack")
        return await super().nack(lease, **options)

    async def sweep(self) -> Sequence[QueueKey]:
        self.sweeps += 1
        self.check("sweep")
        return await super().sweep()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def store(clock: FakeClock) -> AsyncIterator[Store]:
    backend = Store(clock)
    await backend.open()
    yield backend
    await backend.close()


@pytest.fixture
async def service(store: Store, clock: FakeClock) -> AsyncIterator[QueueService]:
    retry = Backoff(first_delay=2.0)
    async with make(store, clock=clock, retry=retry, random=lambda: 0.5, max_waiters=3) as made:
        yield made


def make(
    store: QueueStore, *, clock: Clock | None = None, notifier: Notifier | None = None, **options: Any
) -> QueueService:
    sweeper = QueueSweeper(store, clock=clock)
    return QueueService(store, notifier=notifier or LocalNotifier(), sweeper=sweeper, clock=clock, **options)


@pytest.fixture
async def tasks() -> AsyncIterator[asyncio.TaskGroup]:
    async with asyncio.TaskGroup() as group:
        yield group


async def settle(clock: FakeClock) -> None:
    await clock.advance(0)


def park(
    service: QueueService,
    tasks: asyncio.TaskGroup,
    holder: HolderId = ANN,
    *,
    queue: QueueKey = JOBS,
    wait_seconds: float = 60,
) -> asyncio.Task[Delivery | None]:
    return tasks.create_task(service.receive(queue, holder, wait_seconds=wait_seconds))


async def send(service: QueueService, *bodies: str, queue: QueueKey = JOBS) -> None:
    for body in bodies:
        await service.send(queue, NewMessage(body))


async def body(receive: asyncio.Task[Delivery | None]) -> str:
    delivery = await receive
    assert delivery is not None
    return delivery.body


async def fail(service: QueueService, **options: Any) -> bool:
    delivery = await service.receive(JOBS, ANN)
    assert delivery is not None
    return await service.nack(delivery.lease, reason=EndReason.FAILED, **options)


# --- Receiving


async def test_a_message_that_is_there_is_received_at_once(service: QueueService, clock: FakeClock) -> None:
    await send(service, "a", "b")
    delivery = await service.receive(JOBS, ANN)
    assert delivery is not None
    assert delivery.lease.expires_at == clock.time() + 30
    other = await service.receive(JOBS, BOB, wait_seconds=9, lease_seconds=5)
    assert other is not None
    assert (other.body, other.lease.holder, other.lease.expires_at) == ("b", BOB, clock.time() + 5)
    assert await service.receive(JOBS, ANN) is None


async def test_receiving_makes_the_queue_unless_told_not_to(service: QueueService) -> None:
    with pytest.raises(NotFoundError):
        await service.receive(JOBS, ANN, create=False)
    with pytest.raises(NotFoundError):
        await service.receive(JOBS, ANN, create=False, wait_seconds=9)
    assert await service.receive(JOBS, ANN) is None
    assert await service.exists(JOBS)
    assert await service.receive(JOBS, ANN, create=False) is None


async def test_a_waiting_receiver_gets_what_is_sent(
    service: QueueService, tasks: asyncio.TaskGroup, clock: FakeClock
) -> None:
    waiting = park(service, tasks)
    await settle(clock)
    await send(service, "a")
    assert await body(waiting) == "a"


async def test_a_wait_ends_without_a_message(service: QueueService, tasks: asyncio.TaskGroup, clock: FakeClock) -> None:
    waiting = park(service, tasks, wait_seconds=12)
    await clock.advance(11)
    assert not waiting.done()
    await clock.advance(1)
    assert await waiting is None


async def test_messages_go_to_those_who_wait_longest(
    service: QueueService, tasks: asyncio.TaskGroup, clock: FakeClock
) -> None:
    waiting = [park(service, tasks) for _ in range(3)]
    await settle(clock)
    for number, receiver in enumerate(waiting):
        await send(service, str(number))
        await settle(clock)
        assert [task.done() for task in waiting] == [position <= number for position in range(3)]
        assert await body(receiver) == str(number)


async def test_many_messages_at_once_reach_all_who_wait(
    service: QueueService, tasks: asyncio.TaskGroup, clock: FakeClock
) -> None:
    waiting = [park(service, tasks) for _ in range(3)]
    await settle(clock)
    await send(service, "0", "1", "2")
    assert sorted([await body(receiver) for receiver in waiting]) == ["0", "1", "2"]


async def test_a_message_whose_hint_was_lost_is_found_by_looking(
    service: QueueService, store: Store, tasks: asyncio.TaskGroup, clock: FakeClock
) -> None:
    waiting = park(service, tasks)
    await settle(clock)
    await store.send(JOBS, NewMessage("quiet"))
    await settle(clock)
    assert not waiting.done()
    await clock.advance(5)
    assert await body(waiting) == "quiet"


async def test_a_message_sent_between_the_look_and_the_wait_is_found(
    service: QueueService, store: Store, tasks: asyncio.TaskGroup, clock: FakeClock
) -> None:
    store.gate.clear()
    waiting = park(service, tasks)
    await settle(clock)
    await send(service, "a")
    store.gate.set()
    assert await body(waiting) == "a"


async def test_too_many_receivers_are_refused(
    service: QueueService, tasks: asyncio.TaskGroup, clock: FakeClock
) -> None:
    waiting = [park(service, tasks) for _ in range(3)]
    await settle(clock)
    with pytest.raises(LimitExceededError):
        await service.receive(JOBS, ANN, wait_seconds=1)
    assert await service.receive(JOBS, ANN) is None
    service.end_waits(ANN)
    assert [await receiver for receiver in waiting] == [None, None, None]


async def test_a_receiver_whose_store_fails_hears_of_it_and_passes_its_hint_on(
    service: QueueService, store: Store, tasks: asyncio.TaskGroup, clock: FakeClock
) -> None:
    first = asyncio.create_task(service.receive(JOBS, ANN, wait_seconds=60))
    await settle(clock)
    second = park(service, tasks, BOB)
    await settle(clock)
    store.broken = {"lease"}
    store.meanwhile = store.broken.clear
    await send(service, "a")
    with pytest.raises(OSError, match="lease failed"):
        await first
    assert await body(second) == "a"


# --- Cancelled and ended receivers


async def test_a_cancelled_receiver_gives_back_what_its_claim_brings(
    service: QueueService, store: Store, tasks: asyncio.TaskGroup, clock: FakeClock
) -> None:
    await send(service, "a")
    store.gate.clear()
    cancelled = park(service, tasks)
    await settle(clock)
    waiting = park(service, tasks, BOB)
    await settle(clock)
    cancelled.cancel()
    await settle(clock)
    assert cancelled.cancelled()
    store.gate.set()
    delivery = await waiting
    assert delivery is not None
    assert (delivery.delivery, delivery.lease.holder) == (1, BOB)


async def test_a_receiver_cancelled_as_its_message_arrives_gives_it_back(
    service: QueueService, store: Store, clock: FakeClock
) -> None:
    """The claim is answered, but the receiver's task is cancelled before it runs again."""
    await send(service, "a")
    receiver = asyncio.create_task(service.receive(JOBS, ANN))
    store.meanwhile = receiver.cancel
    with pytest.raises(asyncio.CancelledError):
        await receiver
    store.meanwhile = None
    await settle(clock)
    delivery = await service.receive(JOBS, BOB)
    assert delivery is not None
    assert (delivery.delivery, delivery.lease.token) == (1, 2)


async def test_a_cancelled_claim_that_finds_nothing_is_no_matter(
    service: QueueService, store: Store, clock: FakeClock
) -> None:
    await service.create(JOBS)
    store.gate.clear()
    receiver = asyncio.create_task(service.receive(JOBS, ANN))
    await settle(clock)
    receiver.cancel()
    await settle(clock)
    store.gate.set()
    await settle(clock)
    assert receiver.cancelled()


@pytest.mark.parametrize("late", [False, True])
async def test_a_receiver_cancelled_as_its_claim_fails_is_cancelled(
    service: QueueService, store: Store, clock: FakeClock, late: bool
) -> None:
    await service.create(JOBS)
    receiver = asyncio.create_task(service.receive(JOBS, ANN))
    store.broken = {"lease"}
    if late:
        store.meanwhile = receiver.cancel
    else:
        await asyncio.sleep(0)
        receiver.cancel()
    with pytest.raises(asyncio.CancelledError):
        await receiver
    await settle(clock)


@pytest.mark.parametrize("broken", [set(), {"nack"}])
async def test_what_cannot_be_given_back_expires(
    service: QueueService, store: Store, clock: FakeClock, broken: set[str], caplog: pytest.LogCaptureFixture
) -> None:
    await send(service, "a")
    store.gate.clear()
    receiver = asyncio.create_task(service.receive(JOBS, ANN))
    await settle(clock)
    receiver.cancel()
    await settle(clock)
    store.broken = broken
    if not broken:
        await service.release_holder(ANN, reason=EndReason.INTERRUPTED)
    store.gate.set()
    await settle(clock)
    assert ("giving a message back failed" in caplog.text) == bool(broken)
    await clock.advance(30)
    delivery = await service.receive(JOBS, BOB)
    assert delivery is not None
    assert delivery.delivery == 2


async def test_ended_waits_return_none_and_keep_nothing(
    service: QueueService, store: Store, tasks: asyncio.TaskGroup, clock: FakeClock
) -> None:
    parked, other = park(service, tasks), park(service, tasks, BOB)
    await settle(clock)
    await send(service, "x", queue=MAIL)
    store.gate.clear()
    claiming = park(service, tasks, queue=MAIL)
    await settle(clock)
    service.end_waits(ANN)
    store.gate.set()
    assert await parked is None
    assert await claiming is None
    await settle(clock)
    returned = await service.receive(MAIL, BOB)
    assert returned is not None
    assert returned.delivery == 1
    assert not other.done()
    await send(service, "y")
    assert await body(other) == "y"


async def test_receivers_of_a_deleted_queue_hear_of_it(service: QueueService, clock: FakeClock) -> None:
    receivers = [asyncio.create_task(service.receive(JOBS, ANN, wait_seconds=60)) for _ in range(2)]
    await settle(clock)
    await service.delete(JOBS)
    for error in await asyncio.gather(*receivers, return_exceptions=True):
        assert isinstance(error, NotFoundError)
        assert "jobs" in str(error)
    assert not await service.exists(JOBS)


# --- Settling


async def test_an_acked_message_is_gone_and_a_lease_can_be_extended(service: QueueService, clock: FakeClock) -> None:
    await send(service, "a")
    delivery = await service.receive(JOBS, ANN)
    assert delivery is not None
    lease = await service.extend(delivery.lease, seconds=100)
    await clock.advance(99)
    await service.ack(lease)
    with pytest.raises(LeaseLostError):
        await service.ack(lease)
    assert (await service.stats(ROOM))[0].ready == 0


async def test_a_failed_message_is_retried_after_the_policys_wait(
    service: QueueService, tasks: asyncio.TaskGroup, clock: FakeClock
) -> None:
    await send(service, "a")
    assert not await fail(service)
    waiting = park(service, tasks)
    await clock.advance(0.75)
    assert not waiting.done()
    await clock.advance(0.25)
    delivery = await waiting
    assert delivery is not None
    assert delivery.attempt == 2


@pytest.mark.parametrize("delay", [3.0, lambda attempt, _: 3.0 * attempt])
async def test_a_given_delay_is_kept(
    service: QueueService, tasks: asyncio.TaskGroup, clock: FakeClock, delay: Any
) -> None:
    await send(service, "a")
    await fail(service, delay=delay)
    waiting = park(service, tasks)
    await clock.advance(2.5)
    assert not waiting.done()
    await clock.advance(0.5)
    assert await body(waiting) == "a"


async def test_an_interrupted_message_goes_to_who_waits_at_once(
    service: QueueService, tasks: asyncio.TaskGroup, clock: FakeClock
) -> None:
    await send(service, "a")
    delivery = await service.receive(JOBS, ANN)
    assert delivery is not None
    waiting = park(service, tasks, BOB)
    await settle(clock)
    await service.nack(delivery.lease, reason=EndReason.INTERRUPTED)
    assert await body(waiting) == "a"


async def test_replayed_messages_reach_all_who_wait(
    service: QueueService, tasks: asyncio.TaskGroup, clock: FakeClock
) -> None:
    await send(service, "a", "b")
    for _ in range(4):
        await fail(service, delay=0)
    assert [letter.body for letter in await service.dead_letters(JOBS)] == ["b", "a"]
    assert await service.replay(JOBS, []) == 0
    waiting = [park(service, tasks) for _ in range(2)]
    await settle(clock)
    assert await service.replay(JOBS) == 2
    assert sorted([await body(receiver) for receiver in waiting]) == ["a", "b"]


async def test_a_released_holders_messages_reach_all_who_wait(
    service: QueueService, tasks: asyncio.TaskGroup, clock: FakeClock
) -> None:
    await send(service, "a", "b")
    for _ in range(2):
        await service.receive(JOBS, ANN)
    waiting = [park(service, tasks, BOB) for _ in range(2)]
    await settle(clock)
    assert await service.release_holder(ANN, reason=EndReason.INTERRUPTED, grace=2) == [JOBS]
    await clock.advance(1)
    assert not any(receiver.done() for receiver in waiting)
    await clock.advance(1)
    assert sorted([await body(receiver) for receiver in waiting]) == ["a", "b"]
    await service.create(MAIL)
    assert await service.drain(JOBS) == 2


# --- Time


async def test_expired_leases_wake_who_waits(service: QueueService, tasks: asyncio.TaskGroup, clock: FakeClock) -> None:
    await send(service, "a")
    await clock.advance(1)
    await service.receive(JOBS, ANN, lease_seconds=2)
    waiting = park(service, tasks, BOB)
    await settle(clock)
    await clock.advance(2)
    delivery = await waiting
    assert delivery is not None
    assert delivery.delivery == 2


async def test_an_idle_sweeper_rests(service: QueueService, store: Store, clock: FakeClock) -> None:
    await settle(clock)
    before = store.sweeps
    await clock.advance(50)
    assert store.sweeps - before == 10


async def test_a_later_due_time_does_not_disturb_the_sweeper(
    service: QueueService, store: Store, clock: FakeClock
) -> None:
    await send(service, "a")
    await settle(clock)
    before = store.sweeps
    await service.receive(JOBS, ANN, lease_seconds=7)
    await clock.advance(4)
    assert store.sweeps == before


async def test_a_failing_store_does_not_end_the_sweeper(
    service: QueueService, store: Store, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    await settle(clock)
    store.broken = {"sweep"}
    before = store.sweeps
    await clock.advance(5)
    await clock.advance(100)
    assert 6 <= store.sweeps - before <= 12
    assert caplog.text.count("sweeping the queues failed") == store.sweeps - before
    store.broken = set()
    await clock.advance(30)
    before = store.sweeps
    await clock.advance(10)
    assert store.sweeps - before == 2


# --- The end


async def test_stopping_ends_all_waits(store: Store, clock: FakeClock) -> None:
    service = make(store, clock=clock)
    await service.start()
    receiver = asyncio.create_task(service.receive(JOBS, ANN, wait_seconds=60))
    await settle(clock)
    await service.stop()
    assert await receiver is None
    assert clock.sleepers == 0


async def test_stopping_does_not_wait_for_ever_for_the_store(
    store: Store, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    service = make(store, clock=clock)
    await service.start()
    await service.create(JOBS)
    store.gate.clear()
    receiver = asyncio.create_task(service.receive(JOBS, ANN, wait_seconds=60))
    cancelled = asyncio.create_task(service.receive(JOBS, ANN, wait_seconds=60))
    await settle(clock)
    cancelled.cancel()
    await service.stop(timeout=0.01)
    with pytest.raises(RequestTimeoutError):
        await receiver
    assert "did not answer in time" in caplog.text


# --- Several processes over one store


@pytest.fixture
async def pair(store: Store, clock: FakeClock) -> AsyncIterator[tuple[QueueService, QueueService]]:
    """Two services over one store and notifier, as two servers have them."""
    notifier = LocalNotifier()
    await notifier.open()
    async with (
        make(store, clock=clock, notifier=notifier) as first,
        make(store, clock=clock, notifier=notifier) as second,
    ):
        yield first, second
    await notifier.close()


async def test_a_message_wakes_a_receiver_of_another_process_at_once(
    pair: tuple[QueueService, QueueService], tasks: asyncio.TaskGroup, clock: FakeClock
) -> None:
    here, there = pair
    receiver = park(there, tasks)
    await settle(clock)
    await send(here, "a")
    assert await body(receiver) == "a"


async def test_a_receiver_here_is_woken_before_one_of_another_process(
    pair: tuple[QueueService, QueueService], tasks: asyncio.TaskGroup, clock: FakeClock
) -> None:
    here, there = pair
    mine, theirs = park(here, tasks), park(there, tasks, BOB)
    await settle(clock)
    await send(here, "a")
    assert await body(mine) == "a"
    assert not theirs.done()
    await send(here, "b")
    assert await body(theirs) == "b"


async def test_what_one_process_swept_wakes_a_receiver_of_another(
    pair: tuple[QueueService, QueueService], tasks: asyncio.TaskGroup, clock: FakeClock
) -> None:
    here, there = pair
    await send(here, "a", "b")
    for _ in range(2):
        assert await here.receive(JOBS, ANN, lease_seconds=7) is not None
    receivers = [park(there, tasks, BOB), park(there, tasks, BOB)]
    await settle(clock)
    await clock.advance(7)
    assert sorted([await body(receiver) for receiver in receivers]) == ["a", "b"]


async def test_deleting_a_queue_ends_the_waits_of_other_processes(
    pair: tuple[QueueService, QueueService], clock: FakeClock
) -> None:
    here, there = pair
    await here.create(JOBS)
    receivers = [asyncio.create_task(there.receive(JOBS, ANN, wait_seconds=60)) for _ in range(3)]
    await settle(clock)
    await here.delete(JOBS)
    await settle(clock)
    for receiver in receivers:
        with pytest.raises(NotFoundError):
            await receiver


async def test_a_receiver_that_leaves_with_a_hint_gives_it_to_another_process(
    pair: tuple[QueueService, QueueService], store: Store, tasks: asyncio.TaskGroup, clock: FakeClock
) -> None:
    here, there = pair
    leaving, staying = park(here, tasks, ANN), park(there, tasks, BOB)
    await settle(clock)
    await store.send(JOBS, NewMessage("a"))
    here._wake(Hint(JOBS))
    leaving.cancel()
    assert await body(staying) == "a"


# --- On disk


async def test_many_receivers_and_senders_lose_nothing_on_disk(tmp_path: Path) -> None:
    """Real time: every tenth receiver is cancelled at some point, and each message is acked exactly once."""
    store = SqliteQueueStore(tmp_path / "queues.db")
    await store.open()
    acked: list[str] = []
    wanted = {str(number) for number in range(200)}
    done = asyncio.Event()

    async def work(service: QueueService, holder: HolderId) -> None:
        while True:
            delivery = await service.receive(JOBS, holder, wait_seconds=30)
            if delivery is not None:
                await service.ack(delivery.lease)
                acked.append(delivery.body)
            if len(acked) == len(wanted):
                done.set()

    async with make(store) as service:
        workers = [asyncio.create_task(work(service, HolderId(str(number)))) for number in range(20)]
        impatient = [asyncio.create_task(service.receive(JOBS, HolderId("gone"), wait_seconds=30)) for _ in range(20)]
        await asyncio.sleep(0)
        sends = [asyncio.create_task(service.send(JOBS, NewMessage(text))) for text in sorted(wanted)]
        for receiver in impatient:
            receiver.cancel()
        await asyncio.gather(*sends)
        await asyncio.wait_for(done.wait(), 30)
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, *impatient, return_exceptions=True)
    await store.close()
    assert sorted(acked) == sorted(wanted)

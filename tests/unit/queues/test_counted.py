"""Queues and messages of a tenant, counted for its quota."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from meshhost.errors import InvalidRequestError, LimitExceededError, NotFoundError, QuotaExceededError
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.queues.counted import CountedQueues
from meshhost.queues.service import QueueService
from meshhost.queues.sweeper import QueueSweeper
from meshhost.quotas.counts import UNCOUNTED, LocalCounts
from meshhost.quotas.quota import Resource, ServerQuota
from meshhost.stores.memory.queues import MemoryQueueStore
from meshhost.stores.queues import EndReason, HolderId, Lease, NewMessage, QueueKey, QueueLimits
from meshhost.stores.shared.local_notifier import LocalNotifier

ROOM, RIVAL = RoomKey(TenantId("acme"), "lobby"), RoomKey(TenantId("rival"), "lobby")
JOBS, ANN = QueueKey(ROOM, "jobs"), HolderId("ann")


class Store(MemoryQueueStore):
    """Counts what it is asked."""

    def __init__(self) -> None:
        super().__init__(limits=QueueLimits(max_attempts=1, max_message_bytes=100))
        self.asked: list[str] = []
        self.hangs = False

    async def exists(self, queue: QueueKey) -> bool:
        self.asked.append("exists")
        await asyncio.sleep(0)
        return await super().exists(queue)

    async def send_many(self, queue: QueueKey, messages: Sequence[NewMessage], *, create: bool = True) -> Sequence[int]:
        found = await super().send_many(queue, messages, create=create)
        if self.hangs:
            await asyncio.Event().wait()
        return found


@pytest.fixture
async def store() -> Store:
    made = Store()
    await made.open()
    return made


@pytest.fixture
def counts(store: Store) -> LocalCounts:
    async def count(tenant: str) -> dict[Resource, int]:
        store.asked.append("count")
        found = await store.of_tenant(TenantId(tenant))
        return {Resource.QUEUES: found.queues, Resource.MESSAGES: found.messages}

    quota = ServerQuota(max_queues=2, max_messages=5)
    return LocalCounts(lambda _: quota, sources=[(frozenset({Resource.QUEUES, Resource.MESSAGES}), count)])


@pytest.fixture
async def queues(store: Store, counts: LocalCounts) -> AsyncIterator[QueueService]:
    notifier = LocalNotifier()
    await notifier.open()
    async with QueueService(store, notifier=notifier, sweeper=QueueSweeper(store), counts=counts) as service:
        yield service


async def send(queues: QueueService, queue: QueueKey = JOBS, *, times: int = 1) -> int:
    results = await asyncio.gather(*(queues.send(queue, NewMessage("x")) for _ in range(times)), return_exceptions=True)
    assert {type(result) for result in results} <= {int, QuotaExceededError}
    return sum(isinstance(result, int) for result in results)


async def used(counts: LocalCounts) -> tuple[int, int]:
    """Queues and messages as they are counted, which is what is stored."""
    found = await counts.use("acme")
    return found[Resource.QUEUES], found[Resource.MESSAGES]


async def test_a_tenant_over_its_messages_is_refused_and_its_neighbour_is_not(queues: QueueService) -> None:
    assert await send(queues, times=20) == 5
    with pytest.raises(QuotaExceededError, match="max_messages: 5 messages"):
        await queues.send(QueueKey(ROOM, "other"), NewMessage("x"))
    assert await send(queues, QueueKey(RIVAL, "jobs"), times=3) == 3


async def test_room_is_made_by_acks_drains_and_deletions_but_not_by_deaths(
    queues: QueueService, counts: LocalCounts
) -> None:
    assert await send(queues, times=5) == 5
    first, second = [await queues.receive(JOBS, ANN) for _ in range(2)]
    assert first is not None
    assert second is not None
    await queues.ack(first.lease)
    assert await send(queues, times=2) == 1
    assert await queues.nack(second.lease, reason=EndReason.FAILED)
    assert await send(queues) == 0
    await queues.drain(JOBS)
    assert await used(counts) == (1, 1)
    assert await send(queues, times=9) == 4
    await queues.delete(JOBS)
    assert await send(queues, times=9) == 5
    assert await used(counts) == (1, 5)


async def test_queues_are_counted_once_each_however_they_are_made(queues: QueueService, counts: LocalCounts) -> None:
    await asyncio.gather(*(queues.create(JOBS) for _ in range(3)), queues.send(JOBS, NewMessage("x")))
    assert await queues.receive(QueueKey(ROOM, "other"), ANN) is None
    assert await used(counts) == (2, 1)
    third = QueueKey(ROOM, "third")
    for refused in (queues.create(third), queues.send(third, NewMessage("x")), queues.receive(third, ANN)):
        with pytest.raises(QuotaExceededError, match="max_queues: 2 queues may exist"):
            await refused
    with pytest.raises(NotFoundError):
        await queues.send(third, NewMessage("x"), create=False)
    await queues.delete(JOBS)
    await queues.create(third)
    assert await used(counts) == (2, 0)


async def test_the_deletion_of_a_room_or_tenant_makes_room(queues: QueueService, counts: LocalCounts) -> None:
    elsewhere = QueueKey(RoomKey(ROOM.tenant, "cellar"), "jobs")
    for room in (ROOM.name, None):
        assert await send(queues, elsewhere) == 1
        assert await send(queues, times=9) == 4
        await queues.delete_all(ROOM.tenant, room)
        assert await used(counts) == ((1, 1) if room else (0, 0))
        assert await send(queues) == 1  # the queue is made again, and counted
        assert await used(counts) == ((2, 2) if room else (1, 1))
        await queues.delete(JOBS)
        if room:
            await queues.delete(elsewhere)


async def test_a_message_that_is_sent_again_is_answered_over_the_limit_too(queues: QueueService) -> None:
    first = await queues.send(JOBS, NewMessage("x", sender_id="s"))
    assert await send(queues, times=9) == 4
    assert await queues.send(JOBS, NewMessage("x", sender_id="s")) == first
    with pytest.raises(QuotaExceededError):
        await queues.send(JOBS, NewMessage("x", sender_id="other"))


async def test_a_batch_takes_as_many_places_as_it_has_messages(queues: QueueService, counts: LocalCounts) -> None:
    await queues.send_many(JOBS, [NewMessage("x")] * 3)
    with pytest.raises(QuotaExceededError):
        await queues.send_many(JOBS, [NewMessage("x")] * 3)
    assert await used(counts) == (1, 3)
    await queues.send_many(JOBS, [NewMessage("x")] * 2)
    assert await used(counts) == (1, 5)


async def test_a_batch_that_is_sent_again_is_answered_over_the_limit_too(queues: QueueService) -> None:
    batch = [NewMessage("x", sender_id=f"s{number}") for number in range(4)]
    first = await queues.send_many(JOBS, batch)
    assert await queues.send_many(JOBS, batch) == first
    # Only what is new needs a place.
    more = await queues.send_many(JOBS, [*batch, NewMessage("x", sender_id="s4")])
    assert more[:4] == first
    with pytest.raises(QuotaExceededError):
        await queues.send_many(JOBS, [*batch, NewMessage("x", sender_id="s5"), NewMessage("x")])


async def test_room_is_made_by_cancelling_what_nobody_works_on(queues: QueueService) -> None:
    ids = await queues.send_many(JOBS, [NewMessage("x")] * 5)
    assert await queues.receive(JOBS, ANN) is not None
    for message_id in ids:
        await queues.cancel(JOBS, message_id)
    assert await send(queues, times=9) == 4


async def test_a_send_to_a_known_queue_asks_the_store_nothing_more(queues: QueueService, store: Store) -> None:
    assert await send(queues, times=1) == 1
    assert sorted(store.asked) == ["count", "exists"]
    assert await send(queues, times=3) == 3
    assert len(store.asked) == 2


async def test_what_was_not_sent_is_not_counted(queues: QueueService, counts: LocalCounts) -> None:
    for refused in (NewMessage("x" * 200), NewMessage("\ud800")):
        with pytest.raises((LimitExceededError, InvalidRequestError)):
            await queues.send(JOBS, refused)
    assert await used(counts) == (0, 0)
    assert await send(queues, times=9) == 5


async def test_a_send_whose_caller_is_gone_is_counted_as_it_ended(
    queues: QueueService, store: Store, counts: LocalCounts
) -> None:
    assert await send(queues, times=3) == 3
    store.hangs = True
    sending = asyncio.ensure_future(queues.send(JOBS, NewMessage("x")))
    await asyncio.sleep(0)
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    store.hangs = False
    assert await used(counts) == (1, 4)
    assert await send(queues, times=9) == 1


async def test_after_a_crash_the_count_is_what_is_stored(store: Store, counts: LocalCounts) -> None:
    for _ in range(4):
        await store.send(JOBS, NewMessage("x"))
    notifier = LocalNotifier()
    await notifier.open()
    async with QueueService(store, notifier=notifier, sweeper=QueueSweeper(store), counts=counts) as service:
        assert await send(service, times=9) == 1


class Failing(Store):
    """Raises what it is told to, where messages go."""

    error: BaseException = OSError("the disk is full")

    async def ack(self, lease: Lease, *, result: str | None = None) -> bool:
        raise self.error

    async def drain(self, queue: QueueKey) -> int:
        raise self.error


@pytest.mark.parametrize(("operation", "error"), [("ack", asyncio.CancelledError()), ("drain", OSError("disk full"))])
async def test_a_tenant_is_counted_again_when_nobody_knows_what_happened(operation: str, error: BaseException) -> None:
    store = Failing()
    await store.open()
    store.error = error
    doubted: list[tuple[str, Resource]] = []

    class Doubting(type(UNCOUNTED)):  # type: ignore[misc]
        def doubt(self, tenant: str, resource: Resource) -> None:
            doubted.append((tenant, resource))

    queues = CountedQueues(store, Doubting())
    await queues.send_many(JOBS, [NewMessage("a")], create=True)
    (delivery,) = await store.lease(JOBS, ANN, seconds=30)
    with pytest.raises(type(error)):
        await (queues.ack(delivery.lease) if operation == "ack" else queues.drain(JOBS))
    assert doubted == [("acme", Resource.MESSAGES)]


async def test_too_many_known_queues_are_forgotten(store: Store) -> None:
    queues = CountedQueues(store, UNCOUNTED, most_known=1)
    for name in ("a", "b", "a"):
        await queues.create(QueueKey(ROOM, name))
    assert store.asked.count("exists") == 3


async def test_a_queue_that_is_known_is_not_made_again(store: Store) -> None:
    queues = CountedQueues(store, UNCOUNTED)
    for _ in range(2):
        await queues.create(JOBS)
    assert store.asked.count("exists") == 1


async def test_a_tenant_is_counted_again_when_acks_of_many_fail_or_are_lost(
    queues: QueueService, counts: LocalCounts, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def failing(_: object) -> None:
        raise OSError("the disk is full")

    await send(queues, times=2)
    leases = [
        delivery.lease for delivery in [await queues.receive(JOBS, ANN) for _ in range(2)] if delivery is not None
    ]
    with monkeypatch.context() as patch:
        patch.setattr(store, "ack_many", failing)
        with pytest.raises(OSError, match="full"):
            await queues.ack_many(JOBS, [(lease, None) for lease in leases])
    assert await used(counts) == (1, 2)
    await queues.nack(leases[1], reason=EndReason.INTERRUPTED)
    large = f'"{"x" * 70_000}"'
    assert await queues.ack_many(JOBS, [(leases[0], large), (leases[1], large)]) == [True, False]
    assert await used(counts) == (1, 1)


async def test_who_waits_for_the_next_message_of_a_key_is_woken_by_an_ack_of_many(queues: QueueService) -> None:
    await queues.send_many(JOBS, [NewMessage("1", key="k"), NewMessage("2", key="k")])
    first = await queues.receive(JOBS, ANN)
    assert first is not None
    waiting = asyncio.ensure_future(queues.receive(JOBS, ANN, wait_seconds=30.0))
    await asyncio.sleep(0)
    assert await queues.ack_many(JOBS, [(first.lease, None)]) == [True]
    async with asyncio.timeout(10):
        second = await waiting
    assert second is not None
    assert second.body == "2"

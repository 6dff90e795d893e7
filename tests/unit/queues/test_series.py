"""Series of points about queues, over a store in memory and a clock that the test moves."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from meshhost.errors import NotFoundError
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.queues.activity import points
from meshhost.queues.activity.points import COARSE_SECONDS, Counts, Gauges, Point
from meshhost.queues.activity.series import QueueSeries
from meshhost.queues.service import QueueService
from meshhost.queues.sweeper import QueueSweeper
from meshhost.stores.memory.queues import MemoryQueueStore
from meshhost.stores.queues import EndReason, HolderId, NewMessage, QueueKey, QueueLimits, QueueStats
from meshhost.stores.shared.local_notifier import LocalNotifier
from meshhost.testing.clock import FakeClock

ACME = TenantId("acme")
ROOM = RoomKey(ACME, "lobby")
JOBS, MAIL = QueueKey(ROOM, "jobs"), QueueKey(ROOM, "mail")
ANN = HolderId("ann")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def service(clock: FakeClock) -> AsyncIterator[QueueService]:
    store = MemoryQueueStore(limits=QueueLimits(max_attempts=2), clock=clock)
    await store.open()
    async with QueueService(
        store, notifier=LocalNotifier(), sweeper=QueueSweeper(store, clock=clock), clock=clock
    ) as made:
        yield made


def keeper(service: QueueService, clock: FakeClock, **limits: int) -> QueueSeries:
    series = QueueSeries(service.stats, clock=clock, **limits)
    service.observers.append(series)
    return series


async def work(service: QueueService, queue: QueueKey, *, failing: bool = False) -> None:
    delivery = await service.receive(queue, ANN)
    assert delivery is not None
    if failing:
        await service.nack(delivery.lease, reason=EndReason.FAILED, delay=100.0)
    else:
        await service.ack(delivery.lease)


async def test_a_point_says_what_was_there_and_what_happened_in_its_time(
    service: QueueService, clock: FakeClock
) -> None:
    series = keeper(service, clock)
    begin = clock.time()
    for _ in range(4):
        await service.send(JOBS, NewMessage("1"))
    await work(service, JOBS)
    await work(service, JOBS, failing=True)
    await clock.advance(10)
    await series.sample()
    await service.receive(JOBS, ANN)
    await clock.advance(10)
    await series.sample()
    assert await series.of_queue(JOBS) == [
        Point(begin + 10, Gauges(ready=2, delayed=1, oldest_seconds=10.0), Counts(sent=4, started=2, done=1, failed=1)),
        Point(begin + 20, Gauges(ready=1, delayed=1, leased=1, oldest_seconds=20.0), Counts(started=1)),
    ]


async def test_a_room_and_a_tenant_are_the_sum_of_their_queues(service: QueueService, clock: FakeClock) -> None:
    series = keeper(service, clock)
    await service.send(JOBS, NewMessage("1"))
    await service.send_many(MAIL, [NewMessage("1"), NewMessage("2")])
    other = QueueKey(RoomKey(ACME, "cellar"), "jobs")
    await service.send(other, NewMessage("1"))
    await series.sample()
    (room,) = await series.of_room(ROOM)
    assert (room.gauges.ready, room.counts.sent) == (3, 3)
    (tenant,) = series.of_tenant(ACME)
    assert (tenant.gauges.ready, tenant.counts.sent) == (4, 4)
    assert series.of_tenant(TenantId("nobody")) == []


async def test_a_queue_in_which_nothing_happens_is_as_it_was_but_older(service: QueueService, clock: FakeClock) -> None:
    looks = 0

    async def stats(room: RoomKey) -> Sequence[QueueStats]:
        nonlocal looks
        looks += 1
        return await service.stats(room)

    series = QueueSeries(stats, clock=clock)
    service.observers.append(series)
    await service.send(JOBS, NewMessage("1"))
    for _ in range(4):
        await series.sample()
        await clock.advance(10)
    assert looks == 1
    points = await series.of_queue(JOBS)
    assert [point.gauges.oldest_seconds for point in points] == [0.0, 10.0, 20.0, 30.0]
    assert {point.gauges.ready for point in points} == {1}


async def test_points_of_a_minute_reach_back_further_and_the_last_one_is_not_over(
    service: QueueService, clock: FakeClock
) -> None:
    series = keeper(service, clock)
    for _ in range(12 * 6):
        await service.send(JOBS, NewMessage("1"))
        await series.sample()
        await clock.advance(10)
    fine, coarse = await series.of_queue(JOBS), await series.of_queue(JOBS, COARSE_SECONDS)
    assert len(fine) == 60
    assert [point.time for point in fine] == sorted(point.time for point in fine)
    assert sum(point.counts.sent for point in coarse) == 72
    assert len(coarse) in (12, 13)
    assert coarse[-1].gauges.ready == 72


async def test_who_asks_for_a_queue_that_is_not_kept_gets_a_point_of_now(
    service: QueueService, clock: FakeClock
) -> None:
    await service.send(JOBS, NewMessage("1"))
    series = keeper(service, clock)
    with pytest.raises(NotFoundError):
        await series.of_queue(MAIL)
    (point,) = await series.of_queue(JOBS)
    assert point == Point(clock.time(), Gauges(ready=1, oldest_seconds=0.0), Counts())
    assert len(await series.of_queue(JOBS, COARSE_SECONDS)) == 1
    assert len(await series.of_room(RoomKey(ACME, "cellar"))) == 1


async def test_what_is_kept_is_bounded_and_what_is_asked_for_gets_a_place(
    service: QueueService, clock: FakeClock
) -> None:
    series = keeper(service, clock, most_queues=2, most_rooms=1, most_tenants=1)
    third = QueueKey(ROOM, "third")
    for queue, count in ((JOBS, 3), (MAIL, 2), (third, 1)):
        await service.send_many(queue, [NewMessage("1")] * count)
    await service.send(QueueKey(RoomKey(TenantId("other"), "lobby"), "jobs"), NewMessage("1"))
    await series.sample()
    await clock.advance(10)
    assert (await series.of_queue(JOBS))[0].counts.sent == 3
    assert series.of_tenant(TenantId("other")) == []
    await clock.advance(10)
    assert (await series.of_queue(third))[0].gauges.ready == 1  # instead of the queue that was used longest ago
    assert (await series.of_queue(JOBS))[0].counts.sent == 3
    await clock.advance(600)
    await service.send(MAIL, NewMessage("1"))
    await series.sample()
    assert (await series.of_queue(MAIL))[-1].counts.sent == 1


async def test_a_store_that_does_not_answer_leaves_a_point_with_what_was_counted(
    service: QueueService, clock: FakeClock
) -> None:
    is_broken = False

    async def stats(room: RoomKey) -> Sequence[QueueStats]:
        if is_broken:
            raise OSError("broken")
        return await service.stats(room)

    series = QueueSeries(stats, clock=clock)
    service.observers.append(series)
    await service.send(JOBS, NewMessage("1"))
    await series.sample()
    is_broken = True
    await service.send(JOBS, NewMessage("1"))
    await series.sample()
    points = await series.of_queue(JOBS)
    assert [(point.gauges.ready, point.counts.sent) for point in points] == [(1, 1), (1, 1)]


async def test_nothing_is_kept_of_what_was_deleted(service: QueueService, clock: FakeClock) -> None:
    series = keeper(service, clock)
    for queue in (JOBS, MAIL):
        await service.send(queue, NewMessage("1"))
    await series.sample()
    await service.delete(MAIL)
    await service.send(JOBS, NewMessage("1"))
    await series.sample()
    with pytest.raises(NotFoundError):
        await series.of_queue(MAIL)
    await service.send(JOBS, NewMessage("1"))
    await service.delete_all(ACME)
    await series.sample()
    assert series.of_tenant(ACME) == []
    assert [point.counts.sent for point in await series.of_room(ROOM)] == [0]


async def test_nothing_is_kept_of_a_room_that_is_deleted_while_it_is_looked_at(
    service: QueueService, clock: FakeClock
) -> None:
    async def stats(room: RoomKey) -> Sequence[QueueStats]:
        found = await service.stats(room)
        await service.delete_all(ACME)
        return found

    series = QueueSeries(stats, clock=clock)
    service.observers.append(series)
    await service.send(JOBS, NewMessage("1"))
    await series.sample()
    assert series.of_tenant(ACME) == []
    with pytest.raises(NotFoundError):
        await series.of_queue(JOBS)


async def test_a_message_that_is_given_back_has_not_failed_and_one_that_dies_has(
    service: QueueService, clock: FakeClock
) -> None:
    series = keeper(service, clock)
    await service.send(JOBS, NewMessage("1"))
    for reason in (EndReason.RELEASED, EndReason.FAILED, EndReason.FAILED):
        delivery = await service.receive(JOBS, ANN)
        assert delivery is not None
        await service.nack(delivery.lease, reason=reason, delay=0.0)
    await series.sample()
    (point,) = await series.of_queue(JOBS)
    assert point.counts == Counts(sent=1, started=3, failed=2)
    assert point.gauges.dead == 1


async def test_saving_and_restoring_a_series_unpacks_no_more_than_its_newest_points(
    service: QueueService, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are done in the event loop, for hundreds of series with 1500 points each."""
    series = keeper(service, clock)
    await service.send(JOBS, NewMessage("1"))
    for _ in range(60):
        await series.sample()
        await clock.advance(60)
    unpacked, unpack = 0, points._unpacked

    def counted(values: tuple[float, ...]) -> Point:
        nonlocal unpacked
        unpacked += 1
        return unpack(values)

    again = QueueSeries(service.stats, clock=clock)
    with monkeypatch.context() as patch:
        patch.setattr(points, "_unpacked", counted)
        again.restore(series.save())
    assert unpacked == 3 * 2  # of a tenant, a room and a queue; of both lengths
    assert len(again.of_tenant(ACME, COARSE_SECONDS)) == 60
    assert again.of_tenant(ACME, COARSE_SECONDS) == series.of_tenant(ACME, COARSE_SECONDS)


async def test_the_task_samples_every_ten_seconds(service: QueueService, clock: FakeClock) -> None:
    series = keeper(service, clock)
    begin, task = clock.time(), asyncio.create_task(series.run())
    await service.send(JOBS, NewMessage("1"))
    await clock.advance(25)
    task.cancel()
    assert [point.time - begin for point in await series.of_queue(JOBS)] == [0, 10, 20]

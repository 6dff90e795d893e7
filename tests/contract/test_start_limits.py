"""What every queue store does with the rates of a queue and of its keys: who may be started when, and who is told of it."""

import pytest
from doubles.engines import EVERY_ENGINE

from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.stores.messages import MessageState
from meshhost.stores.queue_settings import QueueSettings
from meshhost.stores.queues import Deliveries, EndReason, HolderId, NewMessage, QueueKey, QueueLimits, QueueStore
from meshhost.testing.clock import FakeClock

ROOM = RoomKey(TenantId("acme"), "lobby")
JOBS, MAIL = QueueKey(ROOM, "jobs"), QueueKey(ROOM, "mail")
ANN = HolderId("ann")
LIMITS = QueueLimits(max_attempts=3, max_interruptions=3, max_depth=1000)

pytestmark = pytest.mark.parametrize("store", EVERY_ENGINE, indirect=True)


async def fill(store: QueueStore, settings: QueueSettings, *bodies: str, key: str | None = None) -> None:
    await store.create(JOBS)
    await store.configure(JOBS, settings)
    await store.send_many(JOBS, [NewMessage(body, key=key) for body in bodies])


async def claim(store: QueueStore, limit: int = 100, *, queue: QueueKey = JOBS, seconds: float = 300) -> Deliveries:
    return await store.lease(queue, ANN, seconds=seconds, limit=limit)


def bodies(deliveries: Deliveries) -> list[str]:
    return [delivery.body for delivery in deliveries]


async def state(store: QueueStore, message_id: int) -> MessageState:
    record = await store.get(JOBS, message_id)
    assert record is not None
    return record.state


# --- The rate of a queue


async def test_a_claim_over_the_rate_gets_what_is_left_and_learns_when_there_is_more(
    store: QueueStore, clock: FakeClock
) -> None:
    await fill(store, QueueSettings(rate="2/s", burst=3), *"abcdef")
    first = await claim(store, limit=2)
    assert bodies(first) == ["a", "b"]
    assert first.next_at is None
    second = await claim(store)
    assert bodies(second) == ["c"]
    assert second.next_at == pytest.approx(clock.time() + 0.5)
    third = await claim(store)
    assert (bodies(third), third.next_at) == ([], second.next_at)
    assert await store.next_due() == pytest.approx(clock.time() + 0.5)
    await clock.advance(0.5)
    assert bodies(await claim(store)) == ["d"]


async def test_the_sweep_reports_a_queue_once_when_its_rate_allows_more(store: QueueStore, clock: FakeClock) -> None:
    await fill(store, QueueSettings(rate="1/m"), *"abc")
    await claim(store)
    assert await store.sweep() == []
    await clock.advance(60)
    assert await store.sweep() == [JOBS]
    assert await store.sweep() == []
    assert bodies(await claim(store)) == ["b"]


async def test_a_claim_that_gets_all_that_it_wants_waits_for_nothing(store: QueueStore, clock: FakeClock) -> None:
    await fill(store, QueueSettings(rate="10/s"), "a")
    deliveries = await claim(store, limit=5)
    assert (bodies(deliveries), deliveries.next_at) == (["a"], None)
    assert await store.next_due() == pytest.approx(clock.time() + 300)  # the lease


async def test_what_was_not_started_in_a_pause_may_be_started_in_a_burst_and_no_more(
    store: QueueStore, clock: FakeClock
) -> None:
    await fill(store, QueueSettings(rate="1/s", burst=2), *"abcdef")
    assert len(await claim(store)) == 2
    await clock.advance(100)
    assert len(await claim(store)) == 2
    await clock.advance(1)
    assert len(await claim(store)) == 1


async def test_every_attempt_is_a_start(store: QueueStore, clock: FakeClock) -> None:
    await fill(store, QueueSettings(rate="1/m", burst=2), "a")
    for _ in range(2):
        (delivery,) = await claim(store)
        await store.nack(delivery.lease, reason=EndReason.FAILED)
    assert bodies(await claim(store)) == []
    await clock.advance(60)
    (delivery,) = await claim(store, seconds=10)
    assert delivery.attempt == 3
    await clock.advance(11)  # its lease expired
    assert bodies(await claim(store)) == []


async def test_a_message_that_ends_instead_of_being_handed_out_is_no_start(store: QueueStore, clock: FakeClock) -> None:
    await store.create(JOBS)
    await store.configure(JOBS, QueueSettings(rate="1/m"))
    await store.send_many(JOBS, [NewMessage("late", ttl=1), NewMessage("a"), NewMessage("b")])
    await clock.advance(2)
    assert bodies(await claim(store)) == ["a"]


async def test_the_rate_of_one_queue_is_nothing_to_another(store: QueueStore) -> None:
    await fill(store, QueueSettings(rate="1/h"), *"ab")
    await store.send_many(MAIL, [NewMessage("1"), NewMessage("2")])
    assert len(await claim(store)) == 1
    assert len(await claim(store, queue=MAIL)) == 2


async def test_a_rate_and_a_concurrency_both_count(store: QueueStore, clock: FakeClock) -> None:
    await fill(store, QueueSettings(rate="1/s", burst=3, concurrency=2), *"abcd")
    first = await claim(store)
    assert (bodies(first), first.next_at) == (["a", "b"], None)
    for delivery in first:
        await store.ack(delivery.lease)
    second = await claim(store)
    assert bodies(second) == ["c"]
    assert second.next_at == pytest.approx(clock.time() + 1)


async def test_a_paused_queue_starts_nothing_and_waits_for_nothing(store: QueueStore) -> None:
    await fill(store, QueueSettings(rate="1/h", key_rate="1/h", paused=True), "a", key="k")
    deliveries = await claim(store)
    assert (bodies(deliveries), deliveries.next_at) == ([], None)
    assert await store.next_due() is None


async def test_a_rate_that_changes_begins_anew(store: QueueStore, clock: FakeClock) -> None:
    await fill(store, QueueSettings(rate="1/h"), *"abc")
    await claim(store)
    assert bodies(await claim(store)) == []
    await store.configure(JOBS, QueueSettings(rate="1/h", deadline=60))
    assert bodies(await claim(store)) == []
    await store.configure(JOBS, QueueSettings(rate="1/s"))
    assert bodies(await claim(store)) == ["b"]


async def test_a_drain_keeps_what_was_started_and_a_new_queue_begins_anew(store: QueueStore, clock: FakeClock) -> None:
    await fill(store, QueueSettings(rate="1/h"), *"ab")
    await claim(store)
    await store.drain(JOBS)
    await store.send(JOBS, NewMessage("c"))
    assert bodies(await claim(store)) == []
    await store.delete(JOBS)
    assert await store.next_due() is None
    await clock.advance(3600)
    assert await store.sweep() == []
    await fill(store, QueueSettings(rate="1/h"), "d")
    assert bodies(await claim(store)) == ["d"]


async def test_what_was_started_is_known_after_the_store_was_closed(store: QueueStore, clock: FakeClock) -> None:
    await fill(store, QueueSettings(rate="1/m", key_rate="1/h"), *"ab")
    await claim(store)
    await store.close()
    await store.open()
    assert bodies(await claim(store)) == []
    await clock.advance(60)
    assert bodies(await claim(store)) == ["b"]


@pytest.mark.parametrize("seconds", [-7200.0, 7200.0])
async def test_a_clock_that_is_set_neither_stalls_a_queue_nor_lets_it_go_faster(
    store: QueueStore, clock: FakeClock, seconds: float
) -> None:
    await fill(store, QueueSettings(rate="1/m", key_rate="1/m"), "a", "b", key="k")
    await store.send(JOBS, NewMessage("c"))
    (delivery,) = await claim(store)
    await store.ack(delivery.lease)
    clock.step(seconds)
    await store.sweep()
    assert bodies(await claim(store)) == []
    await clock.advance(60)
    assert JOBS in await store.sweep()
    assert bodies(await claim(store)) == ["b"]


# --- The rate of a key


async def test_a_key_without_a_start_lets_others_go_first_until_its_time(store: QueueStore, clock: FakeClock) -> None:
    await store.create(JOBS)
    await store.configure(JOBS, QueueSettings(key_rate="1/m"))
    first, second, _ = await store.send_many(
        JOBS, [NewMessage("k1", key="k"), NewMessage("k2", key="k"), NewMessage("plain")]
    )
    (delivery,) = await claim(store, limit=1)
    await store.ack(delivery.lease)
    assert await state(store, first) == MessageState.DONE
    assert bodies(await claim(store, limit=1)) == ["plain"]
    assert await state(store, second) == MessageState.DELAYED
    record = await store.get(JOBS, second)
    assert record is not None
    assert record.due_at == pytest.approx(clock.time() + 60)
    await clock.advance(60)
    assert await store.sweep() == [JOBS]
    assert bodies(await claim(store)) == ["k2"]


async def test_each_key_has_a_rate_of_its_own_and_the_queue_has_one_as_well(
    store: QueueStore, clock: FakeClock
) -> None:
    await store.create(JOBS)
    await store.configure(JOBS, QueueSettings(rate="3/m", burst=3, key_rate="1/m"))
    await store.send_many(JOBS, [NewMessage(key, key=key) for key in "klmn"])
    deliveries = await claim(store)
    assert bodies(deliveries) == ["k", "l", "m"]
    assert deliveries.next_at == pytest.approx(clock.time() + 20)


async def test_every_attempt_is_a_start_of_its_key(store: QueueStore, clock: FakeClock) -> None:
    await fill(store, QueueSettings(key_rate="1/m"), "a", key="k")
    (delivery,) = await claim(store, seconds=10)
    await store.nack(delivery.lease, reason=EndReason.FAILED)
    assert bodies(await claim(store)) == []
    assert await state(store, delivery.lease.message_id) == MessageState.FAILED
    await clock.advance(60)
    (delivery,) = await claim(store, seconds=10)
    await clock.advance(11)  # its lease expired
    assert bodies(await claim(store)) == []
    record = await store.get(JOBS, delivery.lease.message_id)
    assert record is not None
    assert [attempt.reason for attempt in record.history] == [EndReason.FAILED, EndReason.EXPIRED]
    await clock.advance(49)
    (delivery,) = await claim(store)
    assert (delivery.attempt, delivery.delivery) == (2, 3)


async def test_another_rate_of_keys_frees_what_the_last_one_put_off_but_no_delay(
    store: QueueStore, clock: FakeClock
) -> None:
    await fill(store, QueueSettings(key_rate="1/h"), "a", "b", key="k")
    await store.send(JOBS, NewMessage("later", delay=100))
    (delivery,) = await claim(store)
    await store.ack(delivery.lease)
    assert bodies(await claim(store)) == []
    await store.configure(JOBS, QueueSettings(key_rate="1/h", deadline=60))
    assert bodies(await claim(store)) == []
    await store.configure(JOBS, QueueSettings())
    assert bodies(await claim(store)) == ["b"]


async def test_what_another_rate_of_keys_frees_has_waited_since_then(store: QueueStore, clock: FakeClock) -> None:
    await fill(store, QueueSettings(key_rate="1/h"), "a", "b", key="k")
    (delivery,) = await claim(store)
    await store.ack(delivery.lease)
    assert bodies(await claim(store)) == []
    await clock.advance(100)
    await store.configure(JOBS, QueueSettings())
    await clock.advance(5)
    (freed,) = await claim(store)
    assert freed.waited == pytest.approx(5)


async def test_a_cancelled_message_of_a_key_without_a_start_ends(store: QueueStore, clock: FakeClock) -> None:
    await fill(store, QueueSettings(key_rate="1/h"), "a", key="k")
    (delivery,) = await claim(store, seconds=10)
    await store.cancel(JOBS, delivery.lease.message_id)
    await clock.advance(11)
    assert bodies(await claim(store)) == []
    assert await state(store, delivery.lease.message_id) == MessageState.CANCELLED


async def test_a_thousand_keys_without_a_start_hide_nobody(store: QueueStore, clock: FakeClock) -> None:
    await store.create(JOBS)
    await store.configure(JOBS, QueueSettings(key_rate="1/h"))
    keys = [str(number) for number in range(600)]
    await store.send_many(JOBS, [NewMessage(key, key=key) for key in keys])
    assert len(await claim(store, limit=600, seconds=0)) == 600
    await store.send(JOBS, NewMessage("last"))
    assert bodies(await claim(store, limit=1)) == ["last"]
    assert bodies(await claim(store, limit=1)) == []

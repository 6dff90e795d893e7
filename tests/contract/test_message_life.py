"""What every queue store keeps of a message: when and in which order it is delivered, how it ended, and what is known of it."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from meshhost.errors import InvalidRequestError, LeaseLostError, LimitExceededError, NotFoundError
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.stores.messages import MAX_ERROR_CHARS, MAX_HISTORY, MessageQuery, MessageRecord, MessageState
from meshhost.stores.queue_settings import DEFAULT_RESULT_TTL, QueueSettings, parse_settings
from meshhost.stores.queues import (
    LONGEST_DELAY,
    MAX_BATCH,
    Delivery,
    EndReason,
    HolderId,
    NewMessage,
    QueueKey,
    QueueLimits,
    QueueStats,
    QueueStore,
)
from meshhost.testing.clock import FakeClock

ROOM = RoomKey(TenantId("acme"), "lobby")
JOBS, MAIL = QueueKey(ROOM, "jobs"), QueueKey(ROOM, "mail")
ANN, BOB = HolderId("ann"), HolderId("bob")
LIMITS = QueueLimits(max_attempts=3, max_interruptions=3, max_depth=50, max_message_bytes=1000)
CANCELLED, DEAD, DONE, EXPIRED = MessageState.CANCELLED, MessageState.DEAD, MessageState.DONE, MessageState.EXPIRED
BLOCKED, LEASED, READY = MessageState.BLOCKED, MessageState.LEASED, MessageState.READY
DELAYED, FAILED = MessageState.DELAYED, MessageState.FAILED


async def take(store: QueueStore, holder: HolderId = ANN, *, by: str = "", seconds: float = 30) -> Delivery:
    (delivery,) = await store.lease(JOBS, holder, seconds=seconds, by=by)
    return delivery


async def bodies(store: QueueStore, limit: int = 100) -> list[str]:
    return [delivery.body for delivery in await store.lease(JOBS, BOB, seconds=30, limit=limit)]


async def stats(store: QueueStore) -> QueueStats:
    (found,) = await store.stats(ROOM)
    return found


async def known(store: QueueStore, message_id: int) -> MessageRecord:
    found = await store.get(JOBS, message_id)
    assert found is not None
    return found


async def state(store: QueueStore, message_id: int) -> MessageState:
    return (await known(store, message_id)).state


async def set_up(store: QueueStore, settings: QueueSettings) -> None:
    await store.create(JOBS)
    await store.configure(JOBS, settings)


async def finish(store: QueueStore, result: str | None = None) -> int:
    delivery = await take(store)
    await store.ack(delivery.lease, result=result)
    return delivery.lease.message_id


async def fail(store: QueueStore, error: str = "boom", times: int = 1) -> int:
    for _ in range(times):
        delivery = await take(store)
        await store.nack(delivery.lease, reason=EndReason.FAILED, error=error)
    return delivery.lease.message_id


# --- When and in which order


async def test_a_message_is_not_delivered_before_its_delay_is_over(store: QueueStore, clock: FakeClock) -> None:
    later = await store.send(JOBS, NewMessage("later", delay=60))
    await store.send(JOBS, NewMessage("now"))
    assert await bodies(store) == ["now"]
    assert await state(store, later) == DELAYED
    assert (await known(store, later)).due_at == pytest.approx(clock.time() + 60)
    assert await store.next_due() == pytest.approx(clock.time() + 30)  # the lease
    await clock.advance(60)
    assert await store.sweep() == [JOBS]
    assert await bodies(store) == ["later", "now"]


async def test_the_highest_priority_comes_first_and_then_the_oldest(store: QueueStore) -> None:
    for body, priority in (("b", 0), ("d", -5), ("a", 7), ("c", 0)):
        await store.send(JOBS, NewMessage(body, priority=priority))
    assert await bodies(store, limit=3) == ["a", "b", "c"]
    assert await bodies(store) == ["d"]


async def test_a_delivery_says_its_priority_and_key(store: QueueStore) -> None:
    await store.send(JOBS, NewMessage("a", priority=7, key="user-1"))
    delivery = await take(store)
    assert (delivery.priority, delivery.key, delivery.deadline) == (7, "user-1", None)


async def test_messages_of_one_key_are_delivered_one_at_a_time_in_their_order(store: QueueStore) -> None:
    first, second, third = [await store.send(JOBS, NewMessage(body, key="k")) for body in "abc"]
    await store.send(JOBS, NewMessage("other", key="l"))
    await store.send(JOBS, NewMessage("free"))
    assert [await state(store, each) for each in (first, second, third)] == [READY, BLOCKED, BLOCKED]
    assert await bodies(store) == ["a", "other", "free"]
    found = await store.get(JOBS, first)
    assert found is not None
    assert (await stats(store)).blocked == 2


async def test_the_next_of_a_key_follows_when_one_is_done(store: QueueStore) -> None:
    for body in "ab":
        await store.send(JOBS, NewMessage(body, key="k"))
    delivery = await take(store)
    assert await store.ack(delivery.lease) is True
    delivery = await take(store)
    assert delivery.body == "b"
    assert await store.ack(delivery.lease) is False


async def test_a_retry_of_a_key_holds_back_those_behind_it(store: QueueStore, clock: FakeClock) -> None:
    for body in "ab":
        await store.send(JOBS, NewMessage(body, key="k"))
    delivery = await take(store)
    await store.nack(delivery.lease, reason=EndReason.FAILED, delay=10)
    assert await bodies(store) == []
    await clock.advance(10)
    assert await bodies(store) == ["a"]


async def test_the_next_of_a_key_follows_when_one_is_dead(store: QueueStore) -> None:
    for body in "ab":
        await store.send(JOBS, NewMessage(body, key="k"))
    await fail(store, times=3)
    assert await bodies(store) == ["b"]


async def test_the_next_of_a_key_follows_when_one_is_poison(store: QueueStore) -> None:
    for body in "ab":
        await store.send(JOBS, NewMessage(body, key="k"))
    for _ in range(3):
        await take(store)
        await store.release_holder(ANN, reason=EndReason.INTERRUPTED)
    assert await bodies(store) == ["b"]


async def test_a_lower_priority_of_a_key_does_not_overtake(store: QueueStore) -> None:
    await store.send(JOBS, NewMessage("first", key="k", priority=-1))
    await store.send(JOBS, NewMessage("second", key="k", priority=9))
    assert (await take(store)).body == "first"


async def test_a_delay_behind_a_key_goes_on_after_the_one_before_it(store: QueueStore, clock: FakeClock) -> None:
    await store.send(JOBS, NewMessage("a", key="k"))
    await store.send(JOBS, NewMessage("b", key="k", delay=60))
    await finish(store)
    assert await bodies(store) == []
    assert await store.next_due() == pytest.approx(clock.time() + 60)
    await clock.advance(60)
    assert await bodies(store) == ["b"]


async def test_a_delay_that_is_over_behind_a_key_is_not_waited_for(store: QueueStore, clock: FakeClock) -> None:
    await store.send(JOBS, NewMessage("a", key="k"))
    await store.send(JOBS, NewMessage("b", key="k", delay=5))
    await clock.advance(6)
    assert await store.sweep() == []
    await finish(store)
    assert await bodies(store) == ["b"]


async def test_a_lease_goes_on_to_the_one_behind_a_message_that_expired(store: QueueStore, clock: FakeClock) -> None:
    await store.send_many(JOBS, [NewMessage("a", key="k", ttl=4), NewMessage("b", key="k", delay=2), NewMessage("c")])
    await clock.advance(5)
    assert await bodies(store) == ["b", "c"]


async def test_one_key_in_two_queues_is_two_keys(store: QueueStore) -> None:
    await store.send(JOBS, NewMessage("a", key="k"))
    await store.send(MAIL, NewMessage("b", key="k"))
    assert await bodies(store) == ["a"]
    (delivery,) = await store.lease(MAIL, ANN, seconds=30)
    assert delivery.body == "b"


async def test_a_replayed_message_of_a_key_waits_for_the_one_that_is_first_now(store: QueueStore) -> None:
    await store.send(JOBS, NewMessage("a", key="k"))
    dead = await fail(store, times=3)
    for body in "bc":
        await store.send(JOBS, NewMessage(body, key="k"))
    assert await store.replay(JOBS) == 1
    assert await state(store, dead) == BLOCKED
    assert [(await take(store)).body] == ["b"]
    assert await bodies(store) == []


async def test_replayed_messages_of_a_key_come_in_their_order(store: QueueStore) -> None:
    for body in "ab":
        await store.send(JOBS, NewMessage(body, key="k", priority=3))
        await fail(store, times=3)
    assert await store.replay(JOBS) == 2
    delivery = await take(store)
    assert (delivery.body, delivery.priority, delivery.key) == ("a", 3, "k")
    assert (await stats(store)).blocked == 1


async def test_a_drain_leaves_no_key_behind(store: QueueStore) -> None:
    for body in "ab":
        await store.send(JOBS, NewMessage(body, key="k"))
    assert await store.drain(JOBS) == 2
    await store.send(JOBS, NewMessage("c", key="k"))
    assert await bodies(store) == ["c"]


async def test_no_message_is_twice_in_one_claim(store: QueueStore) -> None:
    await store.send(JOBS, NewMessage("a"))
    assert len(await store.lease(JOBS, ANN, seconds=0, limit=3)) == 1


# --- Time to live


async def test_a_message_is_not_delivered_after_its_ttl(store: QueueStore, clock: FakeClock) -> None:
    old = await store.send(JOBS, NewMessage("old", ttl=10))
    await clock.advance(10)
    await store.send(JOBS, NewMessage("new", ttl=10))
    assert await bodies(store) == ["new"]
    assert await state(store, old) == EXPIRED


async def test_a_sweep_ends_what_expired_and_lets_its_key_go_on(store: QueueStore, clock: FakeClock) -> None:
    old = await store.send(JOBS, NewMessage("old", key="k", ttl=10))
    await store.send(JOBS, NewMessage("new", key="k"))
    assert await store.next_due() == pytest.approx(clock.time() + 10)
    await clock.advance(10)
    assert await store.sweep() == [JOBS]
    assert await store.next_due() is None
    assert await state(store, old) == EXPIRED
    assert await bodies(store) == ["new"]


async def test_a_message_in_progress_does_not_expire(store: QueueStore, clock: FakeClock) -> None:
    await store.send(JOBS, NewMessage("a", ttl=10))
    delivery = await take(store, seconds=60)
    await clock.advance(20)
    assert await store.sweep() == []
    await store.ack(delivery.lease)
    assert await state(store, delivery.lease.message_id) == DONE


async def test_a_message_that_failed_expires_before_its_next_attempt(store: QueueStore, clock: FakeClock) -> None:
    await store.send(JOBS, NewMessage("a", ttl=10))
    delivery = await take(store)
    await store.nack(delivery.lease, reason=EndReason.FAILED, delay=5)
    assert await state(store, delivery.lease.message_id) == FAILED
    await clock.advance(10)
    assert await bodies(store) == []
    assert await state(store, delivery.lease.message_id) == EXPIRED


async def test_a_lease_that_expired_after_the_ttl_is_not_followed_by_another(
    store: QueueStore, clock: FakeClock
) -> None:
    await store.send(JOBS, NewMessage("a", ttl=10))
    delivery = await take(store, seconds=20)
    await clock.advance(21)
    assert await bodies(store) == []
    found = await known(store, delivery.lease.message_id)
    assert (found.state, found.deliveries) == (EXPIRED, 1)


async def test_a_replayed_message_does_not_expire(store: QueueStore, clock: FakeClock) -> None:
    await store.send(JOBS, NewMessage("a", ttl=10))
    await fail(store, times=3)
    await clock.advance(20)
    assert await store.replay(JOBS) == 1
    assert await bodies(store) == ["a"]


# --- Many at once


async def test_many_are_stored_in_their_order_with_their_options(store: QueueStore) -> None:
    ids = await store.send_many(JOBS, [NewMessage("a"), NewMessage("b", priority=1), NewMessage("c", delay=5)])
    assert list(ids) == sorted(ids)
    assert len(set(ids)) == 3
    assert await bodies(store) == ["b", "a"]


async def test_many_are_stored_all_or_none(store: QueueStore) -> None:
    await set_up(store, QueueSettings(max_depth=2))
    with pytest.raises(LimitExceededError, match="full"):
        await store.send_many(JOBS, [NewMessage("a"), NewMessage("b"), NewMessage("c")])
    with pytest.raises(LimitExceededError, match="bytes"):
        await store.send_many(JOBS, [NewMessage("a"), NewMessage("b" * 2000)])
    assert await bodies(store) == []
    await store.send_many(JOBS, [NewMessage("a"), NewMessage("b")])


async def test_many_of_a_key_are_in_order(store: QueueStore) -> None:
    await store.send_many(JOBS, [NewMessage(body, key="k") for body in "abc"])
    assert [(await bodies(store), (await stats(store)).blocked)] == [(["a"], 2)]


async def test_of_many_those_that_were_sent_before_are_not_stored_again(store: QueueStore) -> None:
    await set_up(store, QueueSettings(max_depth=3))
    (first,) = once = await store.send_many(JOBS, [NewMessage("a", sender_id="1")])
    ids = await store.send_many(
        JOBS,
        [
            NewMessage("a", sender_id="1"),
            NewMessage("b", sender_id="2"),
            NewMessage("c", sender_id="2"),
            NewMessage("d"),
        ],
    )
    assert (ids[0], ids[1] == ids[2]) == (first, True)
    assert await bodies(store) == ["a", "b", "d"]
    again = await store.send_many(JOBS, [NewMessage("a", sender_id="1")])
    assert list(again) == [first]
    assert (once.new, ids.new, again.new) == (1, 2, 0)


@pytest.mark.parametrize("count", [0, MAX_BATCH + 1])
async def test_too_few_or_too_many_are_refused(store: QueueStore, count: int) -> None:
    with pytest.raises(InvalidRequestError, match="messages"):
        await store.send_many(JOBS, [NewMessage("a")] * count)


async def test_a_missing_queue_takes_none_unless_it_is_to_be_made(store: QueueStore) -> None:
    with pytest.raises(NotFoundError):
        await store.send_many(JOBS, [NewMessage("a")], create=False)
    await store.send_many(JOBS, [NewMessage("a")])
    assert await bodies(store) == ["a"]


async def test_a_sender_says_how_long_its_id_is_remembered(store: QueueStore, clock: FakeClock) -> None:
    message = NewMessage("a", sender_id="order-17", remember_seconds=86400)
    first = await store.send(JOBS, message)
    await clock.advance(86399)
    await store.sweep()
    assert await store.send(JOBS, message) == first
    await clock.advance(2)
    await store.sweep()
    assert await store.send(JOBS, message) != first


@pytest.mark.parametrize(
    "options",
    [{"delay": -1}, {"delay": LONGEST_DELAY + 1}, {"ttl": 0}, {"priority": 101}, {"priority": -101}, {"key": "\ud800"}],
)
async def test_options_out_of_bounds_are_refused_by_name(store: QueueStore, options: dict[str, object]) -> None:
    (field,) = options
    with pytest.raises(InvalidRequestError, match=field):
        await store.send(JOBS, NewMessage("a", **options))  # type: ignore[arg-type]


# --- What is known of a message


async def test_the_life_of_a_message_can_be_read(store: QueueStore, clock: FakeClock) -> None:
    sent = clock.time()
    number = await store.send(JOBS, NewMessage('{"a": 1}', {"h": "x"}, priority=2, key="k", ttl=500))
    assert await known(store, number) == MessageRecord(
        number, READY, sent, 2, "k", '{"a": 1}', {"h": "x"}, expires_at=pytest.approx(sent + 500)
    )
    await clock.advance(1)
    delivery = await take(store, by="worker-1")
    found = await known(store, number)
    assert (found.state, found.began_at, found.by) == (LEASED, sent + 1, "worker-1")
    assert found.lease_until == pytest.approx(sent + 31)
    await clock.advance(1)
    await store.nack(delivery.lease, reason=EndReason.FAILED, error="boom", delay=10)
    found = await known(store, number)
    assert (found.state, found.failures, found.due_at) == (FAILED, 1, pytest.approx(sent + 12))
    (attempt,) = found.history
    assert (attempt.began_at, attempt.ended_at, attempt.by) == (sent + 1, sent + 2, "worker-1")
    assert (attempt.reason, attempt.error) == (EndReason.FAILED, "boom")
    await clock.advance(10)
    await store.ack((await take(store, by="worker-2")).lease, result='{"ok": true}')
    found = await known(store, number)
    assert (found.state, found.result, found.ended_at, found.by) == (DONE, '{"ok": true}', sent + 12, "worker-2")
    assert (found.body, found.headers, found.failures, found.deliveries) == (None, {}, 1, 1)
    assert len(found.history) == 1


async def test_how_a_message_ended_is_forgotten_after_a_while(store: QueueStore, clock: FakeClock) -> None:
    await set_up(store, QueueSettings(result_ttl=60))
    await store.send(JOBS, NewMessage("a"))
    number = await finish(store, '"done"')
    await clock.advance(59)
    await store.sweep()
    assert (await known(store, number)).result == '"done"'
    await clock.advance(2)
    await store.sweep()
    assert await store.get(JOBS, number) is None


async def test_a_queue_may_keep_nothing_of_what_ended(store: QueueStore) -> None:
    await set_up(store, QueueSettings(result_ttl=0))
    await store.send(JOBS, NewMessage("a"))
    assert await store.get(JOBS, await finish(store, '"done"')) is None


async def test_a_dead_message_is_known_until_it_is_replayed(store: QueueStore, clock: FakeClock) -> None:
    await store.send(JOBS, NewMessage("a", key="k"))
    number = await fail(store, "boom", times=3)
    found = await known(store, number)
    assert (found.state, found.reason, found.ended_at, found.body) == (DEAD, "boom", clock.time(), "a")
    assert [attempt.reason for attempt in found.history] == [EndReason.FAILED] * 3
    await store.replay(JOBS, [number])
    assert await state(store, number) == READY


async def test_ends_that_are_not_failures_are_in_the_history_too(store: QueueStore, clock: FakeClock) -> None:
    await store.send(JOBS, NewMessage("a"))
    await store.nack((await take(store)).lease, reason=EndReason.RELEASED)
    await take(store, by="one", seconds=5)
    await clock.advance(6)
    await take(store, by="two")
    await store.release_holder(ANN, reason=EndReason.INTERRUPTED)
    number = (await take(store)).lease.message_id
    history = (await known(store, number)).history
    assert [(attempt.by, attempt.reason) for attempt in history] == [
        ("one", EndReason.EXPIRED),
        ("two", EndReason.INTERRUPTED),
    ]


async def test_of_a_long_history_the_newest_is_kept(store: QueueStore) -> None:
    await set_up(store, QueueSettings(max_attempts=100))
    await store.send(JOBS, NewMessage("a"))
    for attempt in range(MAX_HISTORY + 2):
        number = await fail(store, f"boom {attempt}")
    errors = [attempt.error for attempt in (await known(store, number)).history]
    assert errors == [f"boom {attempt}" for attempt in range(2, MAX_HISTORY + 2)]


async def test_of_a_long_error_the_end_is_kept_where_a_traceback_says_what_went_wrong(store: QueueStore) -> None:
    await store.send(JOBS, NewMessage("a"))
    number = await fail(store, "Traceback\n" + "x" * MAX_ERROR_CHARS + "\nValueError: no such city")
    (attempt,) = (await known(store, number)).history
    assert len(attempt.error) == MAX_ERROR_CHARS
    assert attempt.error.endswith("\nValueError: no such city")


async def test_progress_is_that_of_the_present_delivery(store: QueueStore) -> None:
    await store.send(JOBS, NewMessage("a"))
    delivery = await take(store)
    number = delivery.lease.message_id
    await store.extend(delivery.lease, seconds=30, progress="0.5")
    await store.extend(delivery.lease, seconds=30)
    assert (await known(store, number)).progress == "0.5"
    await store.nack(delivery.lease, reason=EndReason.FAILED)
    await take(store)
    assert (await known(store, number)).progress is None


async def test_nothing_is_known_of_messages_elsewhere(store: QueueStore) -> None:
    with pytest.raises(NotFoundError):
        await store.get(JOBS, 1)
    number = await store.send(MAIL, NewMessage("a"))
    await store.create(JOBS)
    assert await store.get(JOBS, number) is None
    assert await store.cancel(JOBS, number) is None
    assert await store.get(JOBS, 2**70) is None


# --- Cancelling


async def test_a_cancelled_message_is_never_delivered(store: QueueStore) -> None:
    number = await store.send(JOBS, NewMessage("a", key="k"))
    await store.send(JOBS, NewMessage("b", key="k"))
    assert await store.cancel(JOBS, number) == CANCELLED
    assert await state(store, number) == CANCELLED
    assert await bodies(store) == ["b"]
    assert await store.cancel(JOBS, number) == CANCELLED


async def test_the_holder_of_a_cancelled_message_is_told(store: QueueStore) -> None:
    await store.send(JOBS, NewMessage("a"))
    delivery = await take(store)
    assert await store.cancel(JOBS, delivery.lease.message_id) == LEASED
    assert (await known(store, delivery.lease.message_id)).is_cancelling
    assert (await store.extend(delivery.lease, seconds=30)).is_cancelled
    assert await store.nack(delivery.lease, reason=EndReason.INTERRUPTED) is False
    assert await state(store, delivery.lease.message_id) == CANCELLED
    with pytest.raises(LeaseLostError):
        await store.ack(delivery.lease)


async def test_a_message_that_is_done_before_its_holder_is_told_is_done(store: QueueStore) -> None:
    await store.send(JOBS, NewMessage("a"))
    delivery = await take(store)
    await store.cancel(JOBS, delivery.lease.message_id)
    await store.ack(delivery.lease, result="1")
    assert (await known(store, delivery.lease.message_id)).state == DONE
    assert await store.cancel(JOBS, delivery.lease.message_id) == DONE


async def test_a_cancelled_message_does_not_come_back_from_a_holder_that_is_gone(
    store: QueueStore, clock: FakeClock
) -> None:
    await store.send(JOBS, NewMessage("a"))
    released = await take(store)
    await store.cancel(JOBS, released.lease.message_id)
    await store.release_holder(ANN, reason=EndReason.INTERRUPTED)
    assert await state(store, released.lease.message_id) == CANCELLED
    await store.send(JOBS, NewMessage("b"))
    expired = await take(store, seconds=5)
    await store.cancel(JOBS, expired.lease.message_id)
    await clock.advance(6)
    assert await bodies(store) == []
    assert await state(store, expired.lease.message_id) == CANCELLED


async def test_a_message_whose_holder_is_late_is_cancelled_at_once(store: QueueStore, clock: FakeClock) -> None:
    await store.send(JOBS, NewMessage("a"))
    delivery = await take(store, seconds=5)
    await clock.advance(6)
    assert await store.cancel(JOBS, delivery.lease.message_id) == CANCELLED
    with pytest.raises(LeaseLostError):
        await store.ack(delivery.lease)
    assert len((await known(store, delivery.lease.message_id)).history) == 1


async def test_nothing_is_kept_of_a_dead_message_that_is_cancelled_where_nothing_is_to_be(store: QueueStore) -> None:
    await set_up(store, QueueSettings(result_ttl=0))
    await store.send(JOBS, NewMessage("a"))
    number = await fail(store, times=3)
    assert await store.cancel(JOBS, number) == CANCELLED
    assert await store.get(JOBS, number) is None


async def test_a_dead_message_can_be_cancelled(store: QueueStore) -> None:
    await store.send(JOBS, NewMessage("a"))
    number = await fail(store, times=3)
    assert await store.cancel(JOBS, number) == CANCELLED
    assert await store.dead_letters(JOBS) == []
    assert await store.replay(JOBS, [number]) == 0
    assert await state(store, number) == CANCELLED
    assert (await stats(store)).dead == 0


# --- Looking for messages


async def found(store: QueueStore, query: MessageQuery) -> list[int]:
    numbers: list[int] = []
    while True:
        page = await store.find(JOBS, query)
        numbers += [record.id for record in page.messages]
        if page.next is None:
            return numbers
        query = replace(query, before=page.next)


async def one_of_each(store: QueueStore) -> dict[MessageState, int]:
    numbers: dict[MessageState, int] = {}
    await store.send(JOBS, NewMessage("done"))
    numbers[DONE] = await finish(store)
    await store.send(JOBS, NewMessage("dead", key="x"))
    numbers[DEAD] = await fail(store, "kaput", times=3)
    numbers[LEASED] = await store.send(JOBS, NewMessage("leased", priority=9))
    await take(store)
    await store.send(JOBS, NewMessage("failed", priority=9))
    delivery = await take(store)
    await store.nack(delivery.lease, reason=EndReason.FAILED, delay=60)
    numbers[FAILED] = delivery.lease.message_id
    numbers[READY] = await store.send(JOBS, NewMessage("ready", key="y"))
    numbers[BLOCKED] = await store.send(JOBS, NewMessage("blocked", key="y"))
    numbers[DELAYED] = await store.send(JOBS, NewMessage("delayed", delay=60))
    numbers[CANCELLED] = await store.send(JOBS, NewMessage("cancelled"))
    await store.cancel(JOBS, numbers[CANCELLED])
    return numbers


async def test_messages_of_every_state_are_found_the_newest_first(store: QueueStore) -> None:
    numbers = await one_of_each(store)
    everything = sorted(numbers.values(), reverse=True)
    assert await found(store, MessageQuery()) == everything
    assert await found(store, MessageQuery(limit=3)) == everything
    for each, number in numbers.items():
        assert await found(store, MessageQuery(states=frozenset({each}))) == [number]
    assert await found(store, MessageQuery(states=frozenset())) == []


async def test_messages_are_found_by_key_text_and_time(store: QueueStore, clock: FakeClock) -> None:
    numbers = await one_of_each(store)
    await clock.advance(5)
    new = await store.send(JOBS, NewMessage("new"))
    assert await found(store, MessageQuery(key="y")) == [numbers[BLOCKED], numbers[READY]]
    assert await found(store, MessageQuery(text="eas")) == [numbers[LEASED]]
    assert await found(store, MessageQuery(text="kaput")) == [numbers[DEAD]]
    assert await found(store, MessageQuery(text="%")) == []
    assert await found(store, MessageQuery(since=clock.time())) == [new]
    assert new not in await found(store, MessageQuery(until=clock.time() - 1))


async def test_few_among_many_are_found_by_pages_that_are_cut_short(store: QueueStore) -> None:
    await set_up(store, QueueSettings(max_depth=5000))
    first = await store.send(JOBS, NewMessage("needle 1"))
    for _ in range(3):
        await store.send_many(JOBS, [NewMessage("hay")] * 900)
    last = await store.send(JOBS, NewMessage("needle 2"))
    assert await found(store, MessageQuery(text="needle")) == [last, first]
    assert await found(store, MessageQuery(text="needle", limit=1)) == [last, first]
    assert len(await found(store, MessageQuery(limit=1000))) == 2702


async def test_what_is_found_says_what_is_known(store: QueueStore) -> None:
    number = await store.send(JOBS, NewMessage("a", {"h": "x"}, priority=3))
    (record,) = (await store.find(JOBS, MessageQuery())).messages
    assert record == await known(store, number)


async def test_those_that_are_delivered_next_can_be_seen_without_leasing_them(
    store: QueueStore, clock: FakeClock
) -> None:
    await set_up(store, QueueSettings(max_depth=5000, paused=True))
    await store.send_many(JOBS, [NewMessage("hay")] * 900)
    await store.send(JOBS, NewMessage("b", priority=2, key="k"))
    await store.send(JOBS, NewMessage("behind b", priority=9, key="k"))
    await store.send(JOBS, NewMessage("a", priority=5))
    await store.send(JOBS, NewMessage("later", priority=9, delay=10))
    assert [record.body for record in await store.peek(JOBS, limit=3)] == ["a", "b", "hay"]
    await clock.advance(10)
    assert [record.body for record in await store.peek(JOBS, limit=2)] == ["later", "a"]
    await store.configure(JOBS, QueueSettings())
    seen = [record.id for record in await store.peek(JOBS, limit=4)]
    assert seen == [delivery.lease.message_id for delivery in await store.lease(JOBS, ANN, seconds=5, limit=4)]
    assert not set(seen) & {record.id for record in await store.peek(JOBS, limit=4)}
    await clock.advance(6)
    assert [record.id for record in await store.peek(JOBS, limit=4)] == seen


async def test_looking_in_a_missing_queue_is_an_error(store: QueueStore) -> None:
    with pytest.raises(NotFoundError):
        await store.find(JOBS, MessageQuery())
    with pytest.raises(NotFoundError):
        await store.peek(JOBS, limit=1)
    with pytest.raises(NotFoundError):
        await store.cancel(JOBS, 1)
    with pytest.raises(NotFoundError):
        await store.settings(JOBS)
    with pytest.raises(NotFoundError):
        await store.configure(JOBS, QueueSettings())


# --- Settings


async def test_a_change_keeps_the_settings_that_it_does_not_name(store: QueueStore) -> None:
    await set_up(store, QueueSettings(max_attempts=7, deadline=60.0))
    changed = QueueSettings(max_attempts=7, paused=True)
    assert await store.configure(JOBS, {"paused": True, "deadline": None}) == changed
    assert await store.configure(JOBS, {}) == changed
    assert await store.settings(JOBS) == changed
    assert (await stats(store)).is_paused
    assert await store.configure(JOBS, {"paused": False, "result_ttl": DEFAULT_RESULT_TTL}) == QueueSettings(
        max_attempts=7
    )
    assert not (await stats(store)).is_paused


async def test_changes_at_the_same_moment_do_not_undo_each_other(store: QueueStore) -> None:
    await set_up(store, QueueSettings())
    for round_number in range(1, 6):
        change = {"max_attempts": round_number, "deadline": 60.0 + round_number, "concurrency": round_number}
        change |= {"max_depth": 100 + round_number, "paused": bool(round_number % 2)}
        await asyncio.gather(*(store.configure(JOBS, {name: value}) for name, value in change.items()))
        assert await store.settings(JOBS) == QueueSettings(**change)


async def test_a_wrong_or_unknown_setting_is_refused_by_name(store: QueueStore) -> None:
    await set_up(store, QueueSettings(max_attempts=7))
    with pytest.raises(InvalidRequestError, match=r"settings\.colour: expected one of burst, concurrency, deadline"):
        await store.configure(JOBS, {"colour": "red", "paused": True})
    with pytest.raises(InvalidRequestError, match="max_attempts"):
        await store.configure(JOBS, {"max_attempts": 0, "paused": True})
    assert await store.settings(JOBS) == QueueSettings(max_attempts=7)


async def test_a_paused_queue_delivers_nothing_until_it_is_resumed(store: QueueStore) -> None:
    await set_up(store, QueueSettings(paused=True))
    await store.send(JOBS, NewMessage("a"))
    assert await bodies(store) == []
    assert (await stats(store)).is_paused
    assert await store.rooms_with_work(within=0) == []
    await store.configure(JOBS, QueueSettings())
    assert await store.rooms_with_work(within=0) == [ROOM]
    assert await bodies(store) == ["a"]


async def test_no_more_are_in_progress_than_the_queue_allows(store: QueueStore, clock: FakeClock) -> None:
    await set_up(store, QueueSettings(concurrency=2))
    await store.send_many(JOBS, [NewMessage(body) for body in "abc"])
    first, _ = await store.lease(JOBS, ANN, seconds=30, limit=3)
    assert await bodies(store) == []
    assert await store.ack(first.lease) is True
    assert await bodies(store) == ["c"]
    await clock.advance(31)
    assert len(await bodies(store)) == 2


async def test_settings_outlive_a_drain_and_say_what_was_set(store: QueueStore) -> None:
    settings = QueueSettings(
        max_attempts=1, retry_seconds=2, max_retry_seconds=9, max_depth=3, deadline=60, concurrency=4, result_ttl=0
    )
    await set_up(store, settings)
    await store.send(JOBS, NewMessage("a"))
    await store.drain(JOBS)
    assert await store.settings(JOBS) == settings
    await store.send(JOBS, NewMessage("b"))
    delivery = await take(store)
    assert delivery.deadline == 60
    assert await store.nack(delivery.lease, reason=EndReason.FAILED) is True


async def test_a_delay_may_depend_on_the_settings(store: QueueStore, clock: FakeClock) -> None:
    seen: list[QueueSettings] = []

    def delay(attempt: int, settings: QueueSettings) -> float:
        seen.append(settings)
        return 7.0

    await set_up(store, QueueSettings(retry_seconds=7))
    await store.send(JOBS, NewMessage("a"))
    await store.nack((await take(store)).lease, reason=EndReason.FAILED, delay=delay)
    assert seen == [QueueSettings(retry_seconds=7)]


def test_settings_of_a_newer_release_are_ignored() -> None:
    assert parse_settings('{"paused": true, "colour": "red"}') == QueueSettings(paused=True)


@pytest.mark.parametrize(
    "values", [{"max_attempts": 0}, {"concurrency": 0}, {"deadline": 0}, {"result_ttl": -1}, {"retry_seconds": 1e12}]
)
def test_settings_out_of_bounds_are_refused_by_name(values: dict[str, float]) -> None:
    (field,) = values
    with pytest.raises(InvalidRequestError, match=field):
        QueueSettings(**values)  # type: ignore[arg-type]


# --- Archives and the clock


async def everything(store: QueueStore) -> Sequence[tuple[object, ...]]:
    kept = await store.stored(JOBS, after=0, limit=100, max_bytes=10_000)
    return [(one.body, one.priority, one.key, one.expires_at, one.due_at, one.died_at) for one in kept]


async def test_options_go_through_an_archive(store: QueueStore, clock: FakeClock) -> None:
    for message in (
        NewMessage("a", key="k", priority=5),
        NewMessage("b", key="k", ttl=100),
        NewMessage("c", delay=50),
    ):
        await store.send(JOBS, message)
    before = await everything(store)
    kept = await store.stored(JOBS, after=0, limit=100, max_bytes=10_000)
    await store.delete(JOBS)
    await store.restore(JOBS, kept)
    assert await everything(store) == before
    assert (await stats(store)).blocked == 1
    assert await bodies(store) == ["a"]


async def test_a_clock_that_is_set_ends_no_ttl_and_forgets_no_result(store: QueueStore, clock: FakeClock) -> None:
    await store.send(JOBS, NewMessage("a"))
    done = await finish(store)
    waiting = await store.send(JOBS, NewMessage("b", ttl=100))
    clock.step(7200)
    await store.sweep()
    assert await state(store, done) == DONE
    assert await state(store, waiting) == READY
    await clock.advance(100)
    await store.sweep()
    assert await state(store, waiting) == EXPIRED


# --- How long it waited


async def test_a_delivery_says_how_long_the_message_could_have_been_handed_out(
    store: QueueStore, clock: FakeClock
) -> None:
    await store.send(JOBS, NewMessage("now"))
    await store.send(JOBS, NewMessage("later", delay=10))
    await clock.advance(15)
    now, later = await store.lease(JOBS, ANN, seconds=30, limit=2)
    assert (now.waited, later.waited) == (pytest.approx(15), pytest.approx(5))
    await store.nack(now.lease, reason=EndReason.FAILED, delay=20)
    await store.nack(later.lease, reason=EndReason.RELEASED)
    await clock.advance(24)
    await store.sweep()
    first, second = await store.lease(JOBS, ANN, seconds=30, limit=2)
    assert (first.body, first.waited, second.waited) == ("now", pytest.approx(4), pytest.approx(24))
    await store.release_holder(ANN, reason=EndReason.INTERRUPTED)
    await clock.advance(3)
    assert (await take(store, seconds=10)).waited == pytest.approx(3)
    await store.nack((await take(store)).lease, reason=EndReason.FAILED, delay=3600)
    await clock.advance(12)  # the lease of the other one expired two seconds ago
    assert (await take(store)).waited == pytest.approx(2)


async def test_how_long_a_message_waited_that_was_dead_is_not_known(store: QueueStore) -> None:
    await store.send(JOBS, NewMessage("a"))
    await fail(store, times=LIMITS.max_attempts)
    assert await store.replay(JOBS) == 1
    assert (await take(store)).waited is None

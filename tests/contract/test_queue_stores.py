"""What every queue store does, whichever it is."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from meshhost.errors import (
    InvalidRequestError,
    LeaseLostError,
    LimitExceededError,
    NotFoundError,
    RoomError,
)
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.stores.messages import SENT_BY_SECONDS, MessageState, sent_by_mark
from meshhost.stores.queues import (
    Delivery,
    EndReason,
    HolderId,
    Lease,
    NewMessage,
    QueueKey,
    QueueLimits,
    QueueSettings,
    QueueStats,
    QueueStore,
    StoredMessage,
)
from meshhost.testing.clock import FakeClock

ROOM = RoomKey(TenantId("acme"), "lobby")
JOBS = QueueKey(ROOM, "jobs")
MAIL = QueueKey(ROOM, "mail")
ELSEWHERE = QueueKey(RoomKey(TenantId("rival"), "lobby"), "jobs")
ANN, BOB = HolderId("ann"), HolderId("bob")
LIMITS = QueueLimits(max_attempts=3, max_interruptions=6, max_depth=5, max_message_bytes=1000)


async def put(store: QueueStore, *bodies: str, queue: QueueKey = JOBS) -> list[int]:
    return [await store.send(queue, NewMessage(body)) for body in bodies]


async def take(store: QueueStore, holder: HolderId = ANN, *, queue: QueueKey = JOBS, seconds: float = 30) -> Delivery:
    (delivery,) = await store.lease(queue, holder, seconds=seconds)
    return delivery


async def bodies(store: QueueStore, queue: QueueKey = JOBS) -> list[str]:
    return [delivery.body for delivery in await store.lease(queue, BOB, seconds=30, limit=100)]


async def stats(store: QueueStore) -> QueueStats:
    (found,) = await store.stats(ROOM)
    return found


async def kill(store: QueueStore, error: str = "boom") -> int:
    """Let the first message fail until it is dead."""
    while True:
        delivery = await take(store)
        if await store.nack(delivery.lease, reason=EndReason.FAILED, error=error):
            return delivery.lease.message_id


# --- Queues


async def test_a_queue_exists_once_it_is_made(store: QueueStore) -> None:
    assert not await store.exists(JOBS)
    await store.create(JOBS)
    await store.create(JOBS)
    assert await store.exists(JOBS)
    assert not await store.exists(ELSEWHERE)


async def test_a_store_that_works_says_so(store: QueueStore) -> None:
    await store.check()
    await store.close()
    with pytest.raises(RoomError):
        await store.check()


async def test_making_a_queue_again_keeps_its_messages(store: QueueStore) -> None:
    await put(store, "a")
    await store.create(JOBS)
    assert await bodies(store) == ["a"]


async def test_deleting_a_queue_deletes_its_messages_dead_ones_too(store: QueueStore) -> None:
    await put(store, "dead", "alive")
    await kill(store)
    await put(store, "other", queue=MAIL)
    await store.delete(JOBS)
    assert not await store.exists(JOBS)
    await store.create(JOBS)
    assert await bodies(store) == []
    assert await store.dead_letters(JOBS) == []
    assert await bodies(store, MAIL) == ["other"]


@pytest.mark.parametrize("room", [None, "lobby"])
async def test_a_tenant_or_a_room_is_deleted_and_its_neighbours_are_not(store: QueueStore, room: str | None) -> None:
    upstairs = QueueKey(RoomKey(ROOM.tenant, "lobby-2"), "jobs")
    await put(store, "dead", "a")
    await put(store, "b", queue=MAIL)
    await put(store, "c", queue=upstairs)
    await put(store, "d", queue=ELSEWHERE)
    await kill(store)
    lease = (await take(store, queue=MAIL)).lease
    for _ in range(2):
        await store.delete_all(ROOM.tenant, room)
    assert await store.stats(ROOM) == []
    assert await store.exists(upstairs) is (room is not None)
    with pytest.raises(LeaseLostError):
        await store.ack(lease)
    assert await bodies(store, ELSEWHERE) == ["d"]
    await put(store, "new")
    assert await bodies(store) == ["new"]
    assert await store.dead_letters(JOBS) == []


async def test_dead_letters_are_listed_in_pages(store: QueueStore) -> None:
    await put(store, "a", "b", "c", "d")
    for _ in range(4):
        await kill(store, "x" * 50)
    first = await store.dead_letters(JOBS, limit=3)
    assert [letter.body for letter in first] == ["d", "c", "b"]
    rest = await store.dead_letters(JOBS, before=(first[-1].died_at, first[-1].message_id))
    assert [letter.body for letter in rest] == ["a"]
    assert [letter.body for letter in await store.dead_letters(JOBS, max_bytes=60)] == ["d", "c"]
    assert [letter.body for letter in await store.dead_letters(JOBS, max_bytes=1)] == ["d"]


async def test_a_lease_from_before_the_deletion_of_its_queue_is_lost(store: QueueStore) -> None:
    await put(store, "a")
    lease = (await take(store)).lease
    await store.delete(JOBS)
    with pytest.raises(LeaseLostError):
        await store.ack(lease)
    await put(store, "b")
    with pytest.raises(LeaseLostError):
        await store.ack(lease)


async def test_a_missing_queue_is_reported(store: QueueStore) -> None:
    for refused in (
        store.delete(JOBS),
        store.lease(JOBS, ANN, seconds=1),
        store.send(JOBS, NewMessage("a"), create=False),
        store.drain(JOBS),
        store.dead_letters(JOBS),
        store.replay(JOBS),
    ):
        with pytest.raises(NotFoundError, match="jobs"):
            await refused
    assert not await store.exists(JOBS)


async def test_a_closed_store_refuses(store: QueueStore) -> None:
    await store.close()
    await store.close()
    with pytest.raises(RoomError, match="not open"):
        await store.send(JOBS, NewMessage("a"))
    with pytest.raises(RoomError, match="not open"):
        await store.next_due()


async def test_messages_outlive_closing_and_opening(store: QueueStore) -> None:
    await put(store, "a")
    await store.close()
    await store.open()
    await store.open()
    assert await bodies(store) == ["a"]


# --- Order and content


async def test_messages_come_in_the_order_in_which_they_were_sent(store: QueueStore) -> None:
    ids = await put(store, "a", "b", "c")
    deliveries = await store.lease(JOBS, ANN, seconds=30, limit=2)
    assert [delivery.body for delivery in deliveries] == ["a", "b"]
    assert [delivery.lease.message_id for delivery in deliveries] == ids[:2]
    assert ids == sorted(set(ids))
    assert await bodies(store) == ["c"]


async def test_concurrent_sends_lose_nothing(store: QueueStore) -> None:
    ids = await asyncio.gather(*(store.send(JOBS, NewMessage(str(number))) for number in range(5)))
    assert ids == sorted(set(ids))
    assert await bodies(store) == ["0", "1", "2", "3", "4"]


async def test_queues_and_rooms_are_apart(store: QueueStore) -> None:
    await put(store, "mine")
    await put(store, "theirs", queue=ELSEWHERE)
    assert await bodies(store) == ["mine"]
    assert await bodies(store, ELSEWHERE) == ["theirs"]


async def test_ids_are_never_used_again(store: QueueStore) -> None:
    (first,) = await put(store, "a")
    await store.ack((await take(store)).lease)
    await store.delete(JOBS)
    (second,) = await put(store, "b")
    assert second > first


@pytest.mark.parametrize("text", ["", "\0", "grüße 👋🏽", "\u2028", "a" * 900, '"; DROP TABLE messages; --'])
async def test_texts_come_back_as_they_were(store: QueueStore, text: str) -> None:
    queue = QueueKey(ROOM, f"q {text}".replace("\0", ""))
    await store.send(queue, NewMessage(text, {"k": text[:10]}))
    delivery = await take(store, queue=queue)
    assert (delivery.body, delivery.headers) == (text, {"k": text[:10]})
    assert (await stats(store)).name == queue.name


async def test_a_name_with_a_nul_is_refused(store: QueueStore) -> None:
    with pytest.raises(InvalidRequestError, match="NUL"):
        await store.send(QueueKey(ROOM, "a\0b"), NewMessage("a"))
    assert not await store.exists(QueueKey(ROOM, "a\0b"))


async def test_what_is_not_unicode_is_refused(store: QueueStore) -> None:
    odd = QueueKey(ROOM, "\ud800")
    for refused in (
        store.send(JOBS, NewMessage("\ud800")),
        store.send(JOBS, NewMessage("", {"k": "\udfff"})),
        store.send(odd, NewMessage("a")),
        store.create(odd),
    ):
        with pytest.raises(InvalidRequestError, match="Unicode"):
            await refused
    assert not await store.exists(odd)
    with pytest.raises(NotFoundError):
        await store.lease(odd, ANN, seconds=1)


async def test_a_full_queue_takes_no_more_until_there_is_room(store: QueueStore) -> None:
    await put(store, *"abcde")
    with pytest.raises(LimitExceededError, match="full"):
        await put(store, "f")
    lease = (await take(store)).lease
    with pytest.raises(LimitExceededError):
        await put(store, "f")
    await store.ack(lease)
    await put(store, "f", "g", queue=MAIL)
    await put(store, "f")
    assert await bodies(store) == [*"bcdef"]


async def test_a_message_too_large_is_refused(store: QueueStore) -> None:
    with pytest.raises(LimitExceededError, match="1001 bytes"):
        await put(store, "a" * 999)
    with pytest.raises(LimitExceededError):
        await store.send(JOBS, NewMessage("ü" * 500, {"k": "v"}))
    await put(store, "a" * 998)


async def test_changing_the_headers_afterwards_changes_nothing(store: QueueStore) -> None:
    headers = {"k": "v"}
    await store.send(JOBS, NewMessage("a", headers))
    headers["k"] = "w"
    assert (await take(store)).headers == {"k": "v"}


# --- Leases


async def test_a_leased_message_is_hidden(store: QueueStore, clock: FakeClock) -> None:
    await put(store, "a")
    delivery = await take(store, seconds=30)
    assert delivery.lease.holder == ANN
    assert delivery.lease.expires_at == clock.time() + 30
    assert delivery.sent_at == clock.time()
    assert await bodies(store) == []


async def test_an_acked_message_is_gone(store: QueueStore, clock: FakeClock) -> None:
    await put(store, "a")
    lease = (await take(store)).lease
    await store.ack(lease)
    with pytest.raises(LeaseLostError):
        await store.ack(lease)
    await clock.advance(100)
    assert await bodies(store) == []


async def test_messages_that_are_acked_together_are_gone_and_lost_leases_are_told(store: QueueStore) -> None:
    plain = await put(store, "a", "b", "c")
    keyed = [await store.send(JOBS, NewMessage(body, key="k")) for body in ("d", "e")]
    deliveries = await store.lease(JOBS, ANN, seconds=30, limit=10)
    leases = {delivery.lease.message_id: delivery.lease for delivery in deliveries}
    assert sorted(leases) == [*plain, keyed[0]]
    lost = await store.nack(leases[plain[1]], reason=EndReason.RELEASED)
    assert not lost
    acks = [
        (leases[plain[0]], None),
        (leases[plain[1]], None),
        (leases[keyed[0]], None),
        (leases[plain[2]], '"result"'),
        (leases[plain[0]], None),
        (replace(leases[plain[2]], holder=BOB), None),
        (replace(leases[plain[2]], queue=MAIL), None),
        (replace(leases[plain[2]], queue=QueueKey(ROOM, "\ud800")), None),
    ]
    assert await store.ack_many(acks) == [False, None, True, False, None, None, None, None]
    assert (await stats(store)).ready == 2
    assert await bodies(store) == ["b", "e"]
    done = await store.get(JOBS, plain[0])
    assert done is not None
    assert (done.state, done.result) == (MessageState.DONE, None)
    with_result = await store.get(JOBS, plain[2])
    assert with_result is not None
    assert (with_result.state, with_result.result) == (MessageState.DONE, '"result"')


async def test_acks_of_a_bounded_queue_say_that_others_may_be_ready(store: QueueStore) -> None:
    await store.create(JOBS)
    await store.configure(JOBS, QueueSettings(concurrency=2, result_ttl=0))
    ids = await put(store, "a", "b", "c")
    leases = [delivery.lease for delivery in await store.lease(JOBS, ANN, seconds=30, limit=10)]
    assert await store.ack_many([(lease, None) for lease in leases]) == [True, True]
    assert await store.get(JOBS, ids[0]) is None
    assert await bodies(store) == ["c"]


async def test_a_lease_that_expired_is_another_delivery_but_not_another_attempt(
    store: QueueStore, clock: FakeClock
) -> None:
    await put(store, "a")
    await take(store, seconds=30)
    await clock.advance(29)
    assert await bodies(store) == []
    await clock.advance(1)
    again = await take(store, BOB)
    assert (again.attempt, again.delivery) == (1, 2)


async def test_a_late_holder_cannot_settle_what_was_leased_again(store: QueueStore, clock: FakeClock) -> None:
    await put(store, "a")
    late = (await take(store, seconds=30)).lease
    await clock.advance(30)
    present = (await take(store, seconds=30)).lease
    assert present.token > late.token
    for refused in (store.ack(late), store.nack(late, reason=EndReason.FAILED), store.extend(late, seconds=9)):
        with pytest.raises(LeaseLostError):
            await refused
    await store.ack(present)


@pytest.mark.parametrize("swept", [False, True])
async def test_a_late_holder_may_settle_what_nobody_took_over(store: QueueStore, clock: FakeClock, swept: bool) -> None:
    await put(store, "a")
    lease = (await take(store, seconds=30)).lease
    await clock.advance(31)
    if swept:
        assert await store.sweep() == [JOBS]
    assert (await stats(store)).ready == 1
    lease = await store.extend(lease, seconds=30)
    assert (await stats(store)).leased == 1
    assert await bodies(store) == []
    await store.ack(lease)


async def test_a_lease_is_known_by_all_that_is_in_it(store: QueueStore) -> None:
    await put(store, "a")
    lease = (await take(store)).lease
    for forged in (
        Lease(MAIL, lease.message_id, lease.token, ANN, 0),
        Lease(JOBS, lease.message_id + 1, lease.token, ANN, 0),
        Lease(JOBS, 2**80, lease.token, ANN, 0),
        Lease(JOBS, lease.message_id, lease.token + 1, ANN, 0),
        Lease(JOBS, lease.message_id, lease.token, BOB, 0),
        Lease(JOBS, lease.message_id, lease.token, HolderId("\ud800"), 0),
    ):
        with pytest.raises(LeaseLostError):
            await store.ack(forged)
    await store.ack(Lease(JOBS, lease.message_id, lease.token, ANN, math.nan))


async def test_extending_moves_the_end(store: QueueStore, clock: FakeClock) -> None:
    await put(store, "a")
    lease = (await take(store, seconds=30)).lease
    await clock.advance(20)
    extended = await store.extend(lease, seconds=30)
    assert extended.expires_at == clock.time() + 30
    assert extended.token == lease.token
    await clock.advance(29)
    assert await bodies(store) == []
    await clock.advance(1)
    assert await bodies(store) == ["a"]


async def test_a_lease_may_last_for_ever(store: QueueStore, clock: FakeClock) -> None:
    await put(store, "a")
    lease = (await take(store, seconds=math.inf)).lease
    await clock.advance(1e9)
    assert await bodies(store) == []
    await store.ack(lease)


# --- Nacks, attempts and the dead


async def test_a_failed_message_comes_back_at_its_old_place(store: QueueStore) -> None:
    await put(store, "a", "b")
    delivery = await take(store)
    assert not await store.nack(delivery.lease, reason=EndReason.FAILED)
    again = await take(store)
    assert (again.body, again.attempt, again.delivery) == ("a", 2, 2)


async def test_an_interrupted_message_keeps_its_attempts(store: QueueStore) -> None:
    await put(store, "a")
    for number in range(5):
        delivery = await take(store)
        assert (delivery.attempt, delivery.delivery) == (1, 1 + number)
        assert not await store.nack(delivery.lease, reason=EndReason.INTERRUPTED)


async def test_a_released_delivery_is_not_counted(store: QueueStore) -> None:
    await put(store, "a")
    for _ in range(5):
        delivery = await take(store)
        assert (delivery.attempt, delivery.delivery) == (1, 1)
        await store.nack(delivery.lease, reason=EndReason.RELEASED)


async def test_a_nack_ends_the_lease(store: QueueStore) -> None:
    await put(store, "a")
    lease = (await take(store)).lease
    await store.nack(lease, reason=EndReason.RELEASED)
    with pytest.raises(LeaseLostError):
        await store.nack(lease, reason=EndReason.RELEASED)


async def test_a_delayed_message_waits_and_others_pass_it(store: QueueStore, clock: FakeClock) -> None:
    await put(store, "a", "b")
    await store.nack((await take(store)).lease, reason=EndReason.FAILED, delay=10)
    assert (await stats(store)).delayed == 1
    await store.ack((await take(store)).lease)
    await clock.advance(9)
    await put(store, "c")
    await clock.advance(1)
    assert await bodies(store) == ["a", "c"]


async def test_the_delay_may_depend_on_the_attempt(store: QueueStore, clock: FakeClock) -> None:
    seen: list[int] = []

    def delay(attempt: int, _: QueueSettings) -> float:
        seen.append(attempt)
        return 10.0 * attempt

    await put(store, "a")
    await store.nack((await take(store)).lease, reason=EndReason.INTERRUPTED, delay=delay)
    assert await store.next_due() == clock.time() + 10
    await clock.advance(10)
    for attempt in (1, 2):
        await store.nack((await take(store)).lease, reason=EndReason.FAILED, delay=delay)
        assert await store.next_due() == clock.time() + 10 * attempt
        await clock.advance(10 * attempt)
    assert await store.nack((await take(store)).lease, reason=EndReason.FAILED, delay=delay)
    assert seen == [1, 1, 2]


async def test_a_delay_that_fails_changes_nothing(store: QueueStore) -> None:
    def delay(attempt: int, _: QueueSettings) -> float:
        raise ZeroDivisionError

    await put(store, "a")
    lease = (await take(store)).lease
    with pytest.raises(ZeroDivisionError):
        await store.nack(lease, reason=EndReason.RELEASED, delay=delay)
    await store.ack(lease)


async def test_a_message_dies_with_its_last_attempt(store: QueueStore, clock: FakeClock) -> None:
    sent_at = clock.time()
    (dead,) = await put(store, "a")
    await store.send(JOBS, NewMessage("b", {"k": "v"}))
    await clock.advance(7)
    assert await kill(store, "Traceback: boom") == dead
    (letter,) = await store.dead_letters(JOBS)
    assert letter.message_id == dead
    assert (letter.body, letter.headers, letter.attempts, letter.reason) == ("a", {}, 3, "Traceback: boom")
    assert (letter.sent_at, letter.died_at) == (sent_at, clock.time())
    assert await stats(store) == QueueStats("jobs", ready=1, leased=0, delayed=0, dead=1, oldest_age=7)
    assert await bodies(store) == ["b"]


async def test_the_text_of_an_error_may_be_anything(store: QueueStore) -> None:
    await put(store, "a")
    await kill(store, "bad \ud800 text \0")
    (letter,) = await store.dead_letters(JOBS)
    assert letter.reason.startswith("bad ")


async def test_the_dead_are_listed_newest_first(store: QueueStore, clock: FakeClock) -> None:
    ids = await put(store, "a", "b", "c")
    await kill(store)
    await kill(store)
    await clock.advance(1)
    await kill(store)
    assert [letter.message_id for letter in await store.dead_letters(JOBS)] == ids[::-1]
    assert [letter.message_id for letter in await store.dead_letters(JOBS, limit=1)] == ids[2:]


async def test_replayed_messages_begin_anew_at_their_old_places(store: QueueStore) -> None:
    ids = await put(store, "a", "b", "c", "d")
    for _ in range(3):
        await kill(store)
    assert await store.replay(JOBS, [ids[1], ids[3], 999, 2**70]) == 1
    assert await store.replay(JOBS, []) == 0
    assert [letter.message_id for letter in await store.dead_letters(JOBS)] == [ids[2], ids[0]]
    assert await store.replay(JOBS) == 2
    assert (await stats(store)).dead == 0
    delivery = await take(store)
    assert (delivery.body, delivery.attempt, delivery.delivery) == ("a", 1, 4)
    assert await bodies(store) == ["b", "c", "d"]


async def test_replay_takes_no_dead_of_other_queues(store: QueueStore) -> None:
    await put(store, "a")
    dead = await kill(store)
    await store.create(MAIL)
    assert await store.replay(MAIL, [dead]) == 0
    assert (await stats_by_name(store))["jobs"].dead == 1


async def stats_by_name(store: QueueStore) -> dict[str, QueueStats]:
    return {found.name: found for found in await store.stats(ROOM)}


async def test_replay_goes_above_the_limit_if_need_be(store: QueueStore) -> None:
    await put(store, "dead")
    await kill(store)
    await put(store, *"abcde")
    assert await store.replay(JOBS) == 1
    with pytest.raises(LimitExceededError):
        await put(store, "f")
    assert await bodies(store) == ["dead", *"abcde"]


async def test_a_lease_from_before_its_death_does_not_settle_a_replayed_message(store: QueueStore) -> None:
    await put(store, "a")
    leases = []
    for _ in range(3):
        leases.append((await take(store)).lease)
        await store.nack(leases[-1], reason=EndReason.FAILED)
    await store.replay(JOBS)
    present = (await take(store)).lease
    for lease in leases:
        with pytest.raises(LeaseLostError):
            await store.ack(lease)
    await store.ack(present)


# --- Holders


@pytest.mark.parametrize(
    ("reason", "delivery"), [(EndReason.INTERRUPTED, 2), (EndReason.EXPIRED, 2), (EndReason.RELEASED, 1)]
)
async def test_what_a_holder_had_is_ready_when_it_is_gone(store: QueueStore, reason: EndReason, delivery: int) -> None:
    await put(store, "a", "b")
    await put(store, "c", queue=MAIL)
    lease = (await take(store)).lease
    other = (await take(store, BOB)).lease
    await take(store, queue=MAIL)
    assert await store.release_holder(ANN, reason=reason) == [JOBS, MAIL]
    assert await store.release_holder(ANN, reason=reason) == []
    with pytest.raises(LeaseLostError):
        await store.ack(lease)
    again = await take(store, BOB)
    assert (again.body, again.attempt, again.delivery) == ("a", 1, delivery)
    await store.ack(other)


async def test_with_a_grace_the_holder_may_still_finish(store: QueueStore, clock: FakeClock) -> None:
    await put(store, "a", "b", "c")
    long, soon = (await take(store, seconds=30)).lease, (await take(store, seconds=3)).lease
    assert await store.release_holder(ANN, reason=EndReason.INTERRUPTED, grace=10) == [JOBS]
    assert await store.next_due() == soon.expires_at
    await clock.advance(4)
    assert await bodies(store) == ["b", "c"]
    assert await store.next_due() == clock.time() + 6
    await store.ack(long)


async def test_with_a_grace_the_leases_end_when_it_is_over(store: QueueStore, clock: FakeClock) -> None:
    await put(store, "a")
    lease = (await take(store, seconds=30)).lease
    await store.release_holder(ANN, reason=EndReason.INTERRUPTED, grace=10)
    await clock.advance(10)
    assert (await take(store, BOB)).delivery == 2
    with pytest.raises(LeaseLostError):
        await store.ack(lease)


@pytest.mark.parametrize("grace", [0.0, 10.0])
async def test_a_holder_can_be_released_after_its_lease_expired(
    store: QueueStore, clock: FakeClock, grace: float
) -> None:
    await put(store, "a")
    await take(store, seconds=30)
    await clock.advance(30)
    assert await store.sweep() == [JOBS]
    assert await store.release_holder(ANN, reason=EndReason.INTERRUPTED, grace=grace) == [JOBS]
    assert await store.next_due() is None
    assert (await take(store, BOB)).delivery == 2


# --- Time


async def test_a_sweep_reports_each_message_once(store: QueueStore, clock: FakeClock) -> None:
    await put(store, "a", "b")
    await put(store, "c", queue=MAIL)
    assert await store.next_due() is None
    assert await store.sweep() == []
    await take(store, seconds=10)
    await store.nack((await take(store)).lease, reason=EndReason.FAILED, delay=20)
    await take(store, queue=MAIL, seconds=20)
    assert await store.next_due() == clock.time() + 10
    await clock.advance(10)
    assert await store.next_due() == clock.time()
    assert await store.sweep() == [JOBS]
    assert await store.sweep() == []
    await clock.advance(15)
    assert await store.next_due() == clock.time() - 5
    assert await store.sweep() == [JOBS, MAIL]
    assert await store.next_due() is None
    assert await bodies(store) == ["a", "b"]


async def test_what_came_due_is_reported_although_a_lease_passed_it(store: QueueStore, clock: FakeClock) -> None:
    await put(store, "a", "b")
    await store.lease(JOBS, ANN, seconds=10, limit=2)
    await clock.advance(10)
    assert (await take(store, BOB, seconds=30)).body == "a"
    assert await store.next_due() == clock.time()
    assert await store.sweep() == [JOBS]
    assert await store.next_due() == clock.time() + 30


async def test_acked_and_drained_messages_are_never_due(store: QueueStore, clock: FakeClock) -> None:
    await put(store, "a", "b")
    await store.ack((await take(store)).lease)
    await take(store)
    await store.drain(JOBS)
    await clock.advance(100)
    assert await store.next_due() is None
    assert await store.sweep() == []


async def test_of_concurrent_sweepers_one_reports_a_message(store: QueueStore, clock: FakeClock) -> None:
    await put(store, "a")
    await put(store, "b", queue=MAIL)
    await take(store, seconds=10)
    await take(store, queue=MAIL, seconds=10)
    await clock.advance(10)
    reports = await asyncio.gather(*(store.sweep() for _ in range(8)))
    assert sorted(queue for report in reports for queue in report) == [JOBS, MAIL]


# --- Drain and stats


async def test_draining_takes_all_but_the_dead(store: QueueStore) -> None:
    await put(store, *"abcd")
    await put(store, "other", queue=MAIL)
    dead = await kill(store)
    lease = (await take(store)).lease
    await store.nack((await take(store)).lease, reason=EndReason.FAILED, delay=10)
    assert await store.drain(JOBS) == 3
    assert await store.drain(JOBS) == 0
    with pytest.raises(LeaseLostError):
        await store.ack(lease)
    assert [letter.message_id for letter in await store.dead_letters(JOBS)] == [dead]
    assert await bodies(store, MAIL) == ["other"]
    await put(store, *"abcde")


async def test_stats_count_what_is_in_each_queue_of_the_room(store: QueueStore, clock: FakeClock) -> None:
    assert await store.stats(ROOM) == []
    await store.create(MAIL)
    await put(store, "x", queue=ELSEWHERE)
    await put(store, *"abc")
    await clock.advance(5)
    await put(store, *"de")
    await kill(store)
    await store.nack((await take(store)).lease, reason=EndReason.FAILED, delay=60)
    await take(store, seconds=60)
    await take(store, seconds=10)
    await clock.advance(10)
    assert await store.stats(ROOM) == [
        QueueStats("jobs", ready=2, leased=1, delayed=1, dead=1, oldest_age=15),
        QueueStats("mail", ready=0, leased=0, delayed=0, dead=0, oldest_age=None),
    ]


# --- Many callers at once


async def test_concurrent_claims_take_batches_that_do_not_overlap(store: QueueStore) -> None:
    sent = await put(store, *"abcde")
    batches = await asyncio.gather(*(store.lease(JOBS, ANN, seconds=30, limit=2) for _ in range(4)))
    taken = [[delivery.lease.message_id for delivery in batch] for batch in batches]
    assert sorted(message for batch in taken for message in batch) == sent
    assert all(batch == sorted(batch) and len(batch) <= 2 for batch in taken)


async def test_concurrent_sends_do_not_pass_the_limit(store: QueueStore) -> None:
    results = await asyncio.gather(*(store.send(JOBS, NewMessage("x")) for _ in range(12)), return_exceptions=True)
    assert sum(isinstance(result, int) for result in results) == LIMITS.max_depth
    assert sum(isinstance(result, LimitExceededError) for result in results) == 12 - LIMITS.max_depth
    assert (await stats(store)).ready == LIMITS.max_depth


def _interrupted(reason: EndReason) -> Callable[[QueueStore, FakeClock, Delivery], Awaitable[None]]:
    async def nack(store: QueueStore, _: FakeClock, delivery: Delivery) -> None:
        await store.nack(delivery.lease, reason=reason)

    return nack


async def _holder_gone(store: QueueStore, _: FakeClock, delivery: Delivery) -> None:
    await store.release_holder(delivery.lease.holder, reason=EndReason.INTERRUPTED)


async def _expired(store: QueueStore, clock: FakeClock, _: Delivery) -> None:
    await clock.advance(31)


async def _expired_and_swept(store: QueueStore, clock: FakeClock, _: Delivery) -> None:
    await clock.advance(31)
    await store.sweep()


@pytest.mark.parametrize(
    "end", [_interrupted(EndReason.INTERRUPTED), _holder_gone, _expired, _expired_and_swept], ids=range(4)
)
async def test_a_message_that_is_interrupted_too_often_is_poison(
    store: QueueStore, clock: FakeClock, end: Callable[..., Awaitable[None]]
) -> None:
    bad, _ = await put(store, "bad", "good")
    for number in range(LIMITS.max_interruptions):
        delivery = await take(store)
        assert (delivery.body, delivery.attempt, delivery.delivery) == ("bad", 1, number + 1)
        await end(store, clock, delivery)
    assert (await take(store)).body == "good"
    (letter,) = await store.dead_letters(JOBS)
    assert (letter.message_id, letter.attempts, letter.body) == (bad, 0, "bad")
    assert letter.reason.startswith(f"poison: {LIMITS.max_interruptions} deliveries")
    found = await stats(store)
    assert (found.ready, found.leased, found.dead) == (0, 1, 1)
    with pytest.raises(LeaseLostError):
        await store.ack(delivery.lease)


async def test_a_poisonous_message_that_is_replayed_has_all_its_tries_again(store: QueueStore) -> None:
    await put(store, "bad")
    for _ in range(2):
        for _ in range(LIMITS.max_interruptions):
            await store.nack((await take(store)).lease, reason=EndReason.INTERRUPTED)
        assert (await stats(store)).dead == 1
        assert await store.replay(JOBS) == 1
    assert (await take(store)).delivery == 2 * LIMITS.max_interruptions + 1


async def test_a_nack_says_that_the_message_is_poison(store: QueueStore) -> None:
    await put(store, "bad")
    ends = [
        await store.nack((await take(store)).lease, reason=EndReason.INTERRUPTED)
        for _ in range(LIMITS.max_interruptions)
    ]
    assert ends == [False] * (LIMITS.max_interruptions - 1) + [True]


async def test_released_deliveries_and_failures_are_no_interruptions(store: QueueStore) -> None:
    await put(store, "m")
    for _ in range(3 * LIMITS.max_interruptions):
        await store.nack((await take(store)).lease, reason=EndReason.RELEASED)
        await take(store)
        await store.release_holder(ANN, reason=EndReason.RELEASED)
    for _ in range(LIMITS.max_attempts - 1):
        await store.nack((await take(store)).lease, reason=EndReason.FAILED)
    for _ in range(LIMITS.max_interruptions - 1):
        await store.nack((await take(store)).lease, reason=EndReason.INTERRUPTED)
    assert (await take(store)).attempt == LIMITS.max_attempts


async def test_poisonous_messages_do_not_keep_the_others_back(store: QueueStore, clock: FakeClock) -> None:
    await put(store, *"abc")
    for _ in range(LIMITS.max_interruptions):
        assert len(await store.lease(JOBS, ANN, seconds=30, limit=2)) == 2
        await clock.advance(31)
    assert await bodies(store) == ["c"]
    assert (await stats(store)).dead == 2


async def test_the_queues_of_a_tenant_are_counted_with_their_messages_dead_ones_too(store: QueueStore) -> None:
    assert await store.of_tenant(TenantId("acme")) == (0, 0)
    await put(store, "dead", "alive", "leased")
    await kill(store)
    await take(store)
    await put(store, "other", queue=QueueKey(RoomKey(TenantId("acme"), "cellar"), "jobs"))
    await put(store, "rival's", queue=ELSEWHERE)
    assert await store.of_tenant(TenantId("acme")) == (2, 4)
    assert await store.of_tenant(TenantId("rival")) == (1, 1)
    await store.drain(JOBS)
    assert await store.of_tenant(TenantId("acme")) == (2, 2)
    await store.delete(JOBS)
    assert await store.of_tenant(TenantId("acme")) == (1, 1)


async def test_a_message_sent_again_under_its_id_is_stored_once(store: QueueStore) -> None:
    first = await store.send(JOBS, NewMessage("a", sender_id="s1"))
    assert await store.send(JOBS, NewMessage("changed", sender_id="s1"), create=False) == first
    assert await store.send(JOBS, NewMessage("b", sender_id="s2")) != first
    assert await store.send(MAIL, NewMessage("c", sender_id="s1")) != first
    assert await bodies(store) == ["a", "b"]
    assert await bodies(store, MAIL) == ["c"]


async def test_an_id_is_found_as_long_as_it_is_remembered(store: QueueStore, clock: FakeClock) -> None:
    assert await store.find_sent(JOBS, "s") is None
    first = await store.send(JOBS, NewMessage("a", sender_id="s"))
    await store.ack((await take(store)).lease)
    assert await store.find_sent(JOBS, "s") == first
    for queue, sender_id in ((JOBS, "t"), (JOBS, "\ud800"), (MAIL, "s"), (ELSEWHERE, "s")):
        assert await store.find_sent(queue, sender_id) is None
    await clock.advance(LIMITS.remember_ids_seconds + 1)
    assert await store.find_sent(JOBS, "s") is None


async def test_it_is_known_who_sent_a_message_beyond_its_end(store: QueueStore, clock: FakeClock) -> None:
    first = await store.send(JOBS, NewMessage("a", sent_by="ada"))
    named = NewMessage("b", sender_id="b", sent_by="ada", key="k", delay=3600)
    (second, third) = await store.send_many(JOBS, [named, NewMessage("c", sent_by="bob")])
    await store.ack((await take(store)).lease)

    async def senders(message_id: int) -> set[str]:
        return {name for name in ("ada", "bob") if await store.find_sent(JOBS, sent_by_mark(message_id, name))}

    assert [await senders(each) for each in (first, second, third)] == [{"ada"}, {"ada"}, {"bob"}]
    assert await store.find_sent(JOBS, sent_by_mark(first, "ada")) == first
    assert await store.send(JOBS, replace(named, sent_by="bob")) == second  # which bob did not send
    assert await senders(second) == {"ada"}
    assert await store.send(JOBS, NewMessage("d")) > third
    await store.drain(JOBS)
    assert await senders(first) == {"ada"}
    await clock.advance(SENT_BY_SECONDS + 1)
    assert [await senders(each) for each in (first, second, third)] == [set(), {"ada"}, set()]
    await clock.advance(3600)
    assert await senders(second) == set()


async def test_concurrent_sends_under_one_id_are_one(store: QueueStore) -> None:
    ids = await asyncio.gather(*(store.send(JOBS, NewMessage("a", sender_id="s")) for _ in range(8)))
    assert len(set(ids)) == 1
    assert await bodies(store) == ["a"]


async def test_an_id_outlives_its_message_and_a_full_queue_answers_it(store: QueueStore) -> None:
    first = await store.send(JOBS, NewMessage("a", sender_id="s"))
    await store.ack((await take(store)).lease)
    await put(store, *"bcdef")
    assert await store.send(JOBS, NewMessage("a", sender_id="s")) == first
    with pytest.raises(LimitExceededError):
        await store.send(JOBS, NewMessage("a", sender_id="other"))
    await store.drain(JOBS)
    assert await store.send(JOBS, NewMessage("a", sender_id="other")) > first  # what was refused is not remembered


async def test_a_drain_forgets_no_id(store: QueueStore, clock: FakeClock) -> None:
    first = await store.send(JOBS, NewMessage("a", sender_id="s"))
    for _ in range(2):
        await store.send(JOBS, NewMessage("b"))
        await store.drain(JOBS)
        assert await store.find_sent(JOBS, "s") == first
        assert await store.send(JOBS, NewMessage("a", sender_id="s")) == first
    second = await store.send(JOBS, NewMessage("c", sender_id="t"))
    assert await store.send(JOBS, NewMessage("c", sender_id="t")) == second
    assert await bodies(store) == ["c"]
    await clock.advance(LIMITS.remember_ids_seconds)
    assert await store.send(JOBS, NewMessage("a", sender_id="s")) > second
    await store.delete(JOBS)
    assert await store.send(JOBS, NewMessage("c", sender_id="t")) > second  # another queue of that name


async def test_an_id_is_forgotten_after_its_time_and_with_its_queue(store: QueueStore, clock: FakeClock) -> None:
    first = await store.send(JOBS, NewMessage("a", sender_id="s"))
    await clock.advance(LIMITS.remember_ids_seconds - 1)
    await store.sweep()
    assert await store.send(JOBS, NewMessage("a", sender_id="s")) == first
    await clock.advance(2)
    second = await store.send(JOBS, NewMessage("a", sender_id="s"))
    await store.sweep()
    assert first < second == await store.send(JOBS, NewMessage("a", sender_id="s"))
    await store.delete(JOBS)
    assert await store.send(JOBS, NewMessage("a", sender_id="s")) > second


async def test_an_id_that_is_not_unicode_is_refused(store: QueueStore) -> None:
    with pytest.raises(InvalidRequestError, match="id: expected Unicode"):
        await store.send(JOBS, NewMessage("a", sender_id="\ud800"))


@pytest.mark.parametrize("step", [-86_400.0, -30.0, 40.0, 86_400.0])
async def test_a_clock_that_is_set_ends_and_prolongs_no_lease_and_no_delay(
    store: QueueStore, clock: FakeClock, step: float
) -> None:
    await put(store, "a", "b", "c")
    await store.send(MAIL, NewMessage("m", sender_id="s"))
    leased, failed = await take(store, seconds=30), await take(store, seconds=30)
    await store.nack(failed.lease, reason=EndReason.FAILED, delay=20)
    await clock.advance(1)
    clock.step(step)
    assert await bodies(store) == ["c"]  # before it was noticed
    assert await store.sweep() == []
    assert await bodies(store) == []
    due = await store.next_due()
    assert due == pytest.approx(clock.time() + 19)
    await clock.advance(19.5)
    assert await store.sweep() == [JOBS]
    assert await bodies(store) == ["b"]
    extended = await store.extend(leased.lease, seconds=30)
    assert extended.expires_at == pytest.approx(clock.time() + 30)
    await clock.advance(29)
    await store.sweep()
    await store.ack(leased.lease)
    first = await store.send(MAIL, NewMessage("m", sender_id="s"))
    assert await bodies(store, MAIL) == ["m"]
    await clock.advance(LIMITS.remember_ids_seconds)
    assert await store.send(MAIL, NewMessage("m", sender_id="s")) > first


async def test_what_people_read_is_the_time_of_the_wall(store: QueueStore, clock: FakeClock) -> None:
    clock.step(-5000.0)
    await put(store, "a")
    await clock.advance(10)
    assert (await take(store)).sent_at == pytest.approx(clock.time() - 10)
    assert (await stats(store)).oldest_age == pytest.approx(10)


# --- Rooms with work


async def test_a_room_has_work_while_a_message_is_ready_leased_or_nearly_due(
    store: QueueStore, clock: FakeClock
) -> None:
    assert await store.rooms_with_work(within=10) == []
    await store.create(MAIL)
    await put(store, "a")
    await put(store, "b", queue=ELSEWHERE)
    assert await store.rooms_with_work(within=10) == [ROOM, ELSEWHERE.room]
    assert await store.rooms_with_work(within=10, room=ROOM) == [ROOM]
    leased = await take(store, seconds=100)
    assert await store.rooms_with_work(within=0, room=ROOM) == [ROOM]
    await store.nack(leased.lease, reason=EndReason.FAILED, delay=50)
    assert await store.rooms_with_work(within=10, room=ROOM) == []
    assert await store.rooms_with_work(within=10) == [ELSEWHERE.room]
    assert await store.rooms_with_work(within=60, room=ROOM) == [ROOM]
    await clock.advance(41)
    assert await store.rooms_with_work(within=10, room=ROOM) == [ROOM]
    await clock.advance(9)
    delivery = await take(store)
    await clock.advance(31)  # the lease expired: whoever comes finds work
    await store.sweep()
    assert await store.rooms_with_work(within=0, room=ROOM) == [ROOM]
    await store.ack(delivery.lease)
    assert await store.rooms_with_work(within=1000, room=ROOM) == []


async def test_the_dead_are_no_work(store: QueueStore) -> None:
    await put(store, "a")
    await kill(store)
    assert await store.rooms_with_work(within=1000) == []
    await store.replay(JOBS)
    assert await store.rooms_with_work(within=0) == [ROOM]


async def test_the_rooms_of_a_tenant_are_those_with_a_queue(store: QueueStore) -> None:
    await store.create(JOBS)
    await store.create(MAIL)
    await store.create(QueueKey(RoomKey(ROOM.tenant, "attic"), "jobs"))
    await store.create(ELSEWHERE)
    assert await store.rooms_of(ROOM.tenant) == ["attic", "lobby"]
    assert await store.rooms_of(TenantId("nobody")) == []


async def test_an_overview_has_the_queues_of_all_rooms_of_a_tenant_or_of_all(
    store: QueueStore, clock: FakeClock
) -> None:
    assert await store.overview() == []
    attic = QueueKey(RoomKey(ROOM.tenant, "attic"), "jobs")
    await put(store, "dies")
    await kill(store)
    await put(store, "a", "b", queue=JOBS)
    await store.create(MAIL)
    await put(store, "c", queue=attic)
    await put(store, "d", queue=ELSEWHERE)
    await clock.advance(5)
    await take(store, queue=attic)
    of_rooms = [(room, each) for room in (attic.room, ROOM) for each in await store.stats(room)]
    elsewhere = [(ELSEWHERE.room, each) for each in await store.stats(ELSEWHERE.room)]
    assert await store.overview(ROOM.tenant) == of_rooms
    assert [(room.name, each.name, each.ready, each.leased, each.dead) for room, each in of_rooms] == [
        ("attic", "jobs", 0, 1, 0),
        ("lobby", "jobs", 2, 0, 1),
        ("lobby", "mail", 0, 0, 0),
    ]
    assert await store.overview() == sorted([*of_rooms, *elsewhere], key=lambda each: (each[0], each[1].name))
    assert await store.overview(TenantId("nobody")) == []


async def test_totals_are_the_sum_over_all_rooms(store: QueueStore, clock: FakeClock) -> None:
    assert await store.totals() == QueueStats("", ready=0, leased=0, delayed=0, dead=0, oldest_age=None)
    await put(store, "dies")
    await kill(store)
    await put(store, "a", "b", queue=ELSEWHERE)
    await clock.advance(5)
    await put(store, "c", "d", queue=MAIL)
    await take(store, queue=ELSEWHERE)
    failed = await take(store, queue=MAIL)
    await store.nack(failed.lease, reason=EndReason.FAILED, delay=100)
    assert await store.totals() == QueueStats("", ready=2, leased=1, delayed=1, dead=1, oldest_age=5)
    await clock.advance(30)
    assert await store.totals() == QueueStats("", ready=3, leased=0, delayed=1, dead=1, oldest_age=35)


async def everything(store: QueueStore, queue: QueueKey = JOBS, *, limit: int = 2) -> list[StoredMessage]:
    found: list[StoredMessage] = []
    while page := await store.stored(queue, after=found[-1].id if found else 0, limit=limit, max_bytes=10_000):
        found += page
    return found


async def test_an_archive_reads_all_that_a_queue_holds_by_id_and_restores_it_in_order(
    store: QueueStore, clock: FakeClock
) -> None:
    await put(store, "dead", "delayed", "leased", "ready")
    await store.send(JOBS, NewMessage("headers\0", {"trace": "1"}))
    for _ in range(LIMITS.max_attempts):
        await store.nack((await take(store)).lease, reason=EndReason.FAILED, error="boom")
    await store.nack((await take(store)).lease, reason=EndReason.FAILED, delay=60)
    await store.nack((await take(store)).lease, reason=EndReason.INTERRUPTED)
    await take(store)
    kept = await everything(store)
    assert [message.body for message in kept] == ["dead", "delayed", "leased", "ready", "headers\0"]
    dead, delayed, leased, ready, headers = kept
    assert (dead.reason, dead.attempts, dead.deliveries) == ("boom", 3, 3)
    assert dead.died_at == pytest.approx(clock.time())
    assert delayed.due_at == pytest.approx(clock.time() + 60)
    assert (delayed.attempts, delayed.reason) == (1, None)
    assert (leased.due_at, leased.interruptions, leased.deliveries) == (None, 1, 1)
    assert (ready.due_at, ready.attempts, ready.died_at) == (None, 0, None)
    assert headers.headers == {"trace": "1"}

    await put(store, "there before", queue=ELSEWHERE)
    await store.restore(ELSEWHERE, kept)
    copied = await everything(store, ELSEWHERE)
    assert [replace(message, id=0, due_at=None) for message in copied[1:]] == [
        replace(message, id=0, due_at=None) for message in kept
    ]
    assert copied[2].due_at == pytest.approx(delayed.due_at)
    (there,) = await store.stats(ELSEWHERE.room)
    assert (there.ready, there.leased, there.delayed, there.dead) == (4, 0, 1, 1)
    assert await bodies(store, ELSEWHERE) == ["there before", "leased", "ready", "headers\0"]
    await clock.advance(61)
    due = await store.lease(ELSEWHERE, ANN, seconds=9, limit=10)
    assert [delivery.attempt for delivery in due if delivery.body == "delayed"] == [2]
    assert await store.replay(ELSEWHERE) == 1
    assert await bodies(store, ELSEWHERE) == ["dead"]


async def test_a_page_of_an_archive_ends_with_its_bytes(store: QueueStore) -> None:
    await put(store, *("x" * 100 for _ in range(4)))
    page = await store.stored(JOBS, after=0, limit=10, max_bytes=150)
    assert len(page) == 2
    assert len(await store.stored(JOBS, after=page[-1].id, limit=10, max_bytes=1)) == 1
    with pytest.raises(NotFoundError):
        await store.stored(MAIL, after=0, limit=1, max_bytes=1)


async def test_messages_of_an_archive_are_restored_all_or_none_and_above_the_depth(store: QueueStore) -> None:
    small = StoredMessage(0, "small", {}, 1.0)
    with pytest.raises(LimitExceededError):
        await store.restore(JOBS, [small, StoredMessage(0, "x" * 2000, {}, 1.0)])
    assert not await store.exists(JOBS)
    await store.restore(JOBS, [small] * (LIMITS.max_depth + 2))
    assert (await stats(store)).ready == LIMITS.max_depth + 2
    with pytest.raises(LimitExceededError):
        await store.send(JOBS, NewMessage("one more"))

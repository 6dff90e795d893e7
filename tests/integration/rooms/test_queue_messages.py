"""Options of messages, what becomes of them, and the settings of queues, over the wire."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from meshhost.errors import (
    AccessDeniedError,
    InvalidRequestError,
    LimitExceededError,
    MessageFailedError,
    NotFoundError,
    RequestTimeoutError,
    RoomError,
)
from meshhost.identity.grants import ApiScope, QueuesGrant
from meshhost.room.client import RoomClient
from meshhost.room.reconnect import ReconnectPolicy
from meshhost.room.services.queues import LeasedMessage, MessageRecord, NewMessage, QueueSettings
from meshhost.server.services import queue_replies
from meshhost.stores.queues import QueueLimits
from meshhost.testing.server import RunningServer


@pytest.fixture
async def server(serve: Any) -> AsyncIterator[RunningServer]:
    """A room server with its queues in SQLite."""
    async with serve(queues_on_disk=True) as running:
        yield running


async def take(room: RoomClient, name: str = "q", **options: Any) -> LeasedMessage:
    leased = await room.queues.lease(name=name, **options)
    assert leased is not None
    return leased


async def state(room: RoomClient, id: str | None, name: str = "q") -> str | None:
    record = await room.queues.get(name, id or "")
    return None if record is None else record.state


async def all_ready(room: RoomClient, count: int) -> None:
    """Wait until what goes back in the background is ready again."""
    async with asyncio.timeout(5):
        while (await room.queues.list())[0].ready != count:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.01)


# --- Options


async def test_options_are_delivered_with_the_message(server: RunningServer) -> None:
    async with server.client() as a:
        message_id = await a.queues.send("q", 1, priority=7, key="k", ttl=60)
        await a.queues.configure("q", deadline=90)
        leased = await take(a)
        assert (leased.id, leased.priority, leased.key, leased.deadline) == (message_id, 7, "k", 90)


async def test_an_urgent_message_comes_first(server: RunningServer) -> None:
    async with server.client() as a:
        await a.queues.send("q", "later")
        await a.queues.send("q", "now", priority=100)
        await a.queues.send("q", "at last", priority=-100)
        assert [leased.message for leased in await a.queues.lease_many("q", limit=3)] == ["now", "later", "at last"]


async def test_a_delayed_message_wakes_its_receiver_when_its_time_comes(server: RunningServer) -> None:
    async with server.client() as a:
        message_id = await a.queues.send("q", "later", delay=0.2)
        assert await state(a, message_id) == "delayed"
        assert (await a.queues.list())[0].delayed == 1
        assert (await take(a)).id == message_id


@pytest.mark.parametrize("past", [True, False])
async def test_a_message_may_be_sent_for_a_time(server: RunningServer, past: bool) -> None:
    async with server.client() as a:
        at = datetime.now(UTC) + timedelta(hours=-1 if past else 1)
        first = await a.queues.send("q", 1, at=at)
        second = await a.queues.send("q", 1, at=at.timestamp())
        for message_id in (first, second):
            record = await a.queues.get("q", message_id or "")
            assert record is not None
            assert record.state == ("ready" if past else "delayed")
            assert past or record.due_at == pytest.approx(at.timestamp(), abs=5)


async def test_messages_of_a_key_follow_each_other_however_the_first_ends(server: RunningServer) -> None:
    async with server.client() as a, server.client(name="w") as worker:
        ids = [await a.queues.send("q", number, key="k") for number in range(4)]
        assert [await state(a, each) for each in ids] == ["ready", "blocked", "blocked", "blocked"]
        assert (await a.queues.list())[0].blocked == 3
        first = await take(worker)
        waiting = asyncio.create_task(take(worker))
        await first.ack()
        second = await waiting
        assert (first.message, second.message) == (0, 1)
        waiting = asyncio.create_task(take(worker))
        await a.queues.cancel("q", second.id or "")
        await second.nack()
        assert (await waiting).message == 2


async def test_the_next_of_a_key_is_delivered_when_the_first_is_dead(serve: Any) -> None:
    async with serve(limits=QueueLimits(max_attempts=1)) as server, server.client() as a:
        await a.queues.send_many("q", [NewMessage(1, key="k"), NewMessage(2, key="k")])
        first = await take(a)
        waiting = asyncio.create_task(take(a))
        assert await first.nack(error="boom")
        assert (await waiting).message == 2


async def test_a_message_that_is_not_begun_in_time_is_never_delivered(server: RunningServer) -> None:
    async with server.client() as a:
        message_id = await a.queues.send("q", 1, ttl=0.05)
        record = await a.queues.wait("q", message_id or "")
        assert record is not None
        assert record.state == "expired"
        assert await a.queues.lease(name="q", wait=False) is None


async def test_a_message_that_is_sent_twice_under_an_id_is_stored_once(server: RunningServer) -> None:
    async with server.client() as a:
        first = await a.queues.send("q", 1, id="invoice-7")
        assert await a.queues.send("q", 2, id="invoice-7") == first
        brief = await a.queues.send("q", 3, id="brief", id_seconds=0.001)
        await asyncio.sleep(0.01)
        assert await a.queues.send("q", 3, id="brief", id_seconds=0.001) != brief


async def test_many_are_stored_in_order_or_none(server: RunningServer) -> None:
    async with server.client() as a:
        ids = await a.queues.send_many("q", ["a", NewMessage("b", headers={"h": "1"}, id="b"), {"c": 1}])
        leased = await a.queues.lease_many("q", limit=50)
        assert [each.id for each in leased] == ids
        assert [each.message for each in leased] == ["a", "b", {"c": 1}]
        assert leased[1].headers["h"] == "1"
        with pytest.raises(InvalidRequestError, match=r"messages\[1\]\.message\.x: NaN"):
            await a.queues.send_many("q", [1, {"x": float("nan")}])
        with pytest.raises(InvalidRequestError, match=r"messages\.1\.priority"):
            await a.queues.send_many("q", [1, NewMessage(1, priority=101)])
        with pytest.raises(InvalidRequestError, match="messages"):
            await a.queues.send_many("q", [])
        with pytest.raises(InvalidRequestError, match="messages"):
            await a.queues.send_many("q", [1] * 1001)
        assert (await a.queues.list())[0].ready == 0
        with pytest.raises(NotFoundError):
            await a.queues.send_many("other", [1], create=False)


async def test_many_wake_all_receivers(server: RunningServer) -> None:
    async with server.client() as a, server.client(name="w") as worker:
        waiting = [asyncio.create_task(take(worker)) for _ in range(3)]
        async with asyncio.timeout(5):
            await a.queues.send_many("q", [1, 2, 3])
            assert sorted([(await task).message for task in waiting]) == [1, 2, 3]


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"delay": -1}, "delay"),
        ({"delay": float("inf")}, "delay"),
        ({"delay": 1, "at": 1e9}, "at"),
        ({"at": 1e12}, "at"),
        ({"at": float("nan")}, "at"),
        ({"at": datetime(2030, 1, 1)}, "at"),  # noqa: DTZ001 - that is what is refused
        ({"priority": 101}, "priority"),
        ({"priority": 0.5}, "priority"),
        ({"key": ""}, "key"),
        ({"key": "x" * 201}, "key"),
        ({"ttl": 0}, "ttl"),
        ({"id": ""}, "id"),
        ({"id_seconds": 5}, "id_seconds"),
        ({"id": "x", "id_seconds": 0}, "id_seconds"),
    ],
)
async def test_a_wrong_option_is_refused_by_name(server: RunningServer, options: dict[str, Any], field: str) -> None:
    async with server.client() as a:
        with pytest.raises(InvalidRequestError, match=rf"^{field}\b"):
            await a.queues.send("q", 1, **options)


# --- Results and progress


async def test_a_sender_that_asks_for_a_reply_gets_the_result(server: RunningServer) -> None:
    async with server.client() as a, server.client(name="w") as worker:
        asking = asyncio.create_task(a.queues.send("q", 20, reply=True))
        leased = await take(worker)
        await leased.ack(result={"answer": leased.message + 1})
        assert await asking == {"answer": 21}


async def test_a_reply_that_does_not_come_says_why(serve: Any) -> None:
    async with serve(limits=QueueLimits(max_attempts=1)) as server, server.client() as a, server.client() as worker:
        asking = asyncio.create_task(a.queues.send("q", 1, reply=True))
        await (await take(worker)).nack(error="kaput")
        with pytest.raises(MessageFailedError, match="dead: kaput") as raised:
            await asking
        assert (raised.value.state, raised.value.reason) == ("dead", "kaput")
        with pytest.raises(MessageFailedError, match="expired"):
            await a.queues.send("q", 1, ttl=0.01, reply=True)
        with pytest.raises(RequestTimeoutError, match="not done within"):
            await a.queues.send("q", 1, reply=True, timeout=0.01)
        await a.queues.configure("q", result_ttl=0)
        asking = asyncio.create_task(a.queues.send("q", 1, reply=True))
        for leased in await worker.queues.lease_many("q", limit=2):
            await leased.ack()
        if not asking.done():
            await (await take(worker)).ack()
        with pytest.raises(MessageFailedError, match="not known any more"):
            await asking


async def test_who_waits_sees_progress_and_the_end(server: RunningServer) -> None:
    async with server.client() as a, server.client(name="w") as worker:
        message_id = await a.queues.send("q", 1) or ""
        seen: asyncio.Queue[MessageRecord] = asyncio.Queue()
        waiting = asyncio.create_task(a.queues.wait("q", message_id, on_progress=seen.put))
        assert (await seen.get()).state == "ready"
        leased = await take(worker)
        for progress in ({"done": 0.5}, {"done": 0.9}):
            await leased.report_progress(progress)
            while (record := await seen.get()).progress != progress:
                pass
            assert (record.state, record.by) == ("leased", "w")
        await leased.ack(result="ok")
        ended = await waiting
        assert ended is not None
        assert (ended.state, ended.result, ended.message, ended.by) == ("done", "ok", None, "w")
        # A wait for one that has ended is over at once, also with a function that is no coroutine.
        assert await a.queues.wait("q", message_id, on_progress=lambda record: None) == ended


async def test_a_wait_goes_on_over_a_lost_connection(server: RunningServer) -> None:
    async with server.client(reconnect=ReconnectPolicy(first_delay=0.0)) as a, server.client(name="w") as worker:
        message_id = await a.queues.send("q", 1) or ""
        waiting = asyncio.create_task(a.queues.wait("q", message_id))
        leased = await take(worker)
        server.cut(a)
        await leased.ack(result=5)
        ended = await waiting
        assert ended is not None
        assert ended.result == 5


async def test_a_wait_that_is_over_returns_the_message_as_it_is(server: RunningServer) -> None:
    async with server.client() as a:
        message_id = await a.queues.send("q", 1) or ""
        record = await a.queues.wait("q", message_id, timeout=0.05)
        assert record is not None
        assert not record.has_ended
        assert await a.queues.wait("q", "12345") is None


async def test_a_wait_that_the_server_ends_is_asked_again(serve: Any) -> None:
    async with serve(receive_seconds=0.02) as server, server.client() as a, server.client(name="w") as worker:
        message_id = await a.queues.send("q", 1) or ""
        waiting = asyncio.create_task(a.queues.wait("q", message_id))
        leased = await take(worker)
        await asyncio.sleep(0.1)
        await leased.ack()
        assert (await waiting) is not None


async def test_a_given_up_wait_leaves_nothing_behind(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meshhost.server.services.queue_messages.MAX_WATCHING", 1)
    async with server.client() as a:
        message_id = await a.queues.send("q", 1) or ""
        seen: asyncio.Queue[MessageRecord] = asyncio.Queue()
        waiting = asyncio.create_task(a.queues.wait("q", message_id, on_progress=seen.put))
        await seen.get()
        waiting.cancel()
        await asyncio.wait([waiting])
        async with asyncio.timeout(5):
            while True:
                with contextlib.suppress(LimitExceededError):
                    await a.queues.wait("q", message_id, timeout=0)
                    break


async def test_more_may_wait_than_the_server_takes_at_once(server: RunningServer) -> None:
    async with server.client() as a, server.client(name="w") as worker:
        asking = [asyncio.create_task(a.queues.send("q", number, reply=True)) for number in range(150)]
        for _ in range(150):
            leased = await take(worker)
            await leased.ack(result=leased.message)
        assert [await each for each in asking] == list(range(150))


@pytest.mark.parametrize("value", [{"x": float("nan")}, {"x": float("inf")}])
async def test_a_result_that_is_no_json_leaves_the_message_leased(server: RunningServer, value: Any) -> None:
    async with server.client() as a:
        message_id = await a.queues.send("q", 1)
        leased = await take(a)
        with pytest.raises(InvalidRequestError, match=r"^result"):
            await leased.ack(result=value)
        with pytest.raises(InvalidRequestError, match=r"^progress"):
            await leased.extend(progress=value)
        with pytest.raises(InvalidRequestError, match=r"^progress"):
            await leased.extend(progress="x" * 70_000)
        assert await state(a, message_id) == "leased"
        await leased.ack(result="x" * 65_000)
        assert await state(a, message_id) == "done"


async def test_of_several_acks_none_is_done_when_one_is_wrong(server: RunningServer) -> None:
    async with server.client() as a:
        ids = await a.queues.send_many("q", [1, 2])
        first, second = await a.queues.lease_many("q", limit=2)
        with pytest.raises(InvalidRequestError, match=r"lease: expected"):
            await a.send_request("queues.ack_many", {"name": "q", "acks": [first.shown(1), {"lease": "x"}]})
        assert [await state(a, each) for each in ids] == ["leased", "leased"]
        assert await a.queues.ack_many("q", [(first, "x" * 70_000), (second, None)]) == [True, True]
        assert await a.queues.ack_many("q", [(first, 1), (second, None)]) == [False, False]


# --- Cancelling


async def test_a_message_that_nobody_works_on_is_cancelled_at_once(server: RunningServer) -> None:
    async with server.client() as a:
        message_id = await a.queues.send("q", 1) or ""
        assert await a.queues.cancel("q", message_id) == "cancelled"
        assert await a.queues.lease(name="q", wait=False) is None
        assert await state(a, message_id) == "cancelled"
        with pytest.raises(NotFoundError, match="nothing is known of message 12345"):
            await a.queues.cancel("q", "12345")


async def test_the_worker_of_a_cancelled_message_is_told(server: RunningServer) -> None:
    async with server.client() as a, server.client(name="w") as worker:
        asking = asyncio.create_task(a.queues.send("q", 1, reply=True))
        leased = await take(worker)
        await leased.extend()
        assert not leased.is_cancelled
        assert await a.queues.cancel("q", leased.id or "") == "leased"
        record = await a.queues.get("q", leased.id or "")
        assert record is not None
        assert record.is_cancelling
        await leased.extend()
        assert leased.is_cancelled
        await leased.nack(reason="interrupted")
        with pytest.raises(MessageFailedError, match="cancelled"):
            await asking


# --- Looking


async def test_messages_are_found_over_all_pages(server: RunningServer) -> None:
    async with server.client() as a:
        await a.queues.send_many("q", [NewMessage({"n": number}, key="even") for number in range(0, 120, 2)])
        await a.queues.send_many("q", [NewMessage({"n": number}) for number in range(1, 20, 2)])
        found = [record.message["n"] async for record in a.queues.find("q")]
        assert found == [*range(19, 0, -2), *range(118, -1, -2)]
        assert len([record async for record in a.queues.find("q", key="even", limit=55)]) == 55
        assert [record.message["n"] async for record in a.queues.find("q", text='"n": 118')] == [118]
        assert len([record async for record in a.queues.find("q", states=["blocked"])]) == 59
        await a.queues.send("letters", {"to": "Zoë 😀"})
        assert len([record async for record in a.queues.find("letters", text="Zoë 😀")]) == 1
        assert [record async for record in a.queues.find("q", since=time.time() + 60)] == []
        soon = datetime.now(UTC) + timedelta(minutes=1)
        assert len([record async for record in a.queues.find("q", until=soon)]) == 70


async def test_large_messages_are_found_in_several_replies(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_replies, "MANY_BYTES", 1000)
    async with server.client() as a:
        await a.queues.send_many("q", [f"{number}{'x' * 400}" for number in range(5)])
        await a.queues.send("q", "5" + "x" * 2000)
        answer = await a.send_request("queues.find", {"name": "q"})
        assert len(answer["messages"]) == 1
        assert [record.message[0] async for record in a.queues.find("q")] == list("543210")
        assert [record.message[0] for record in await a.queues.peek("q", limit=6)] == ["0", "1"]
        # What does not fit is not leased.
        leased = await a.queues.lease_many("q", limit=6)
        assert [each.message[0] for each in leased] == ["0", "1"]
        await all_ready(a, 4)
        again = await a.queues.lease_many("q", limit=6)
        assert [(each.message[0], each.delivery) for each in again] == [("2", 1), ("3", 1)]


async def test_peeking_leases_nothing(server: RunningServer) -> None:
    async with server.client() as a:
        await a.queues.send("q", "second")
        await a.queues.send("q", "first", priority=1)
        await a.queues.send("q", "later", delay=60)
        assert [record.message for record in await a.queues.peek("q", limit=5)] == ["first", "second"]
        assert [record.message for record in await a.queues.peek("q")] == ["first"]
        assert (await a.queues.list())[0].ready == 2


async def test_the_history_of_a_message_says_who_failed(server: RunningServer) -> None:
    async with server.client() as a, server.client(name="w") as worker:
        message_id = await a.queues.send("q", {"x": 1}, headers={"h": "1"}) or ""
        await (await take(worker)).nack(error="boom", delay=60)
        record = await a.queues.get("q", message_id)
        assert record is not None
        assert (record.state, record.message, record.headers["h"], record.failures) == ("failed", {"x": 1}, "1", 1)
        (attempt,) = record.history
        assert (attempt.by, attempt.reason, attempt.error) == ("w", "failed", "boom")


# --- Settings


async def test_a_setting_is_changed_and_the_others_stay(server: RunningServer) -> None:
    async with server.client() as a:
        await a.queues.open(name="q")
        assert await a.queues.settings("q") == QueueSettings()
        await a.queues.configure("q", max_attempts=2, concurrency=1)
        assert await a.queues.configure("q", deadline=60) == QueueSettings(max_attempts=2, concurrency=1, deadline=60)
        await a.queues.configure("q", max_attempts=None)
        assert await a.queues.settings("q") == QueueSettings(concurrency=1, deadline=60)


@pytest.mark.parametrize(
    "wrong",
    [
        {"colour": 1},
        {"max_attempts": 0},
        {"deadline": float("inf")},
        {"paused": None},
        {"result_ttl": None},
        {"rate": "10 a second"},
        {"key_rate": 5},
        {"burst": 0},
    ],
)
async def test_a_wrong_setting_is_refused_by_name(server: RunningServer, wrong: dict[str, Any]) -> None:
    (field,) = wrong
    async with server.client() as a:
        await a.queues.open(name="q")
        with pytest.raises(InvalidRequestError) as raised:
            await a.queues.configure("q", **wrong)
        assert "not JSON" in str(raised.value) or f"settings.{field}" in str(raised.value)
        assert await a.queues.settings("q") == QueueSettings()
        with pytest.raises(NotFoundError):
            await a.queues.configure("missing", paused=True)


async def test_a_receiver_gets_no_more_than_the_rate_allows_and_the_next_one_at_its_time(server: RunningServer) -> None:
    async with server.client() as a, server.client(name="w") as worker:
        await a.queues.open(name="q")
        await a.queues.configure("q", rate="4/s", burst=1)
        assert (await a.queues.settings("q")).rate == "4/s"
        for number in range(3):
            await a.queues.send("q", number)
        begin = time.monotonic()
        found = [await worker.queues.lease(name="q") for _ in range(3)]
        assert [delivery.message for delivery in found if delivery] == [0, 1, 2]
        assert time.monotonic() - begin > 0.49


async def test_a_paused_queue_delivers_when_it_is_resumed(server: RunningServer) -> None:
    async with server.client() as a, server.client(name="w") as worker:
        await a.queues.send("q", 1)
        await a.queues.pause("q")
        assert (await a.queues.list())[0].paused
        waiting = [asyncio.create_task(take(worker)) for _ in range(2)]
        await a.queues.send("q", 2)
        assert await a.queues.lease(name="q", wait=False) is None
        async with asyncio.timeout(4):
            await a.queues.resume("q")
            assert sorted([(await task).message for task in waiting]) == [1, 2]


async def test_a_retry_waits_as_the_queue_says(server: RunningServer) -> None:
    async with server.client() as a:
        message_id = await a.queues.send("q", 1) or ""
        await a.queues.configure("q", retry_seconds=100)
        before = time.time()
        await (await take(a)).nack()
        record = await a.queues.get("q", message_id)
        assert record is not None
        assert record.due_at is not None
        assert 50 <= record.due_at - before <= 105


async def test_one_more_is_delivered_when_one_is_settled_where_few_may_be_worked_on(server: RunningServer) -> None:
    async with server.client() as a, server.client(name="w") as worker:
        await a.queues.send_many("q", [1, 2, 3])
        await a.queues.configure("q", concurrency=1)
        first = await take(worker)
        waiting = asyncio.create_task(take(worker))
        async with asyncio.timeout(4):
            await first.nack(delay=60)
            second = await waiting
            waiting = asyncio.create_task(take(worker))
            await second.ack()
            assert (await waiting).message == 3


async def test_a_purge_says_how_many_it_deleted(server: RunningServer) -> None:
    async with server.client() as a:
        ids = await a.queues.send_many("q", [1, 2])
        waiting = asyncio.create_task(a.queues.wait("q", ids[0]))
        assert await a.queues.purge("q") == 2
        assert await waiting is None


# --- Leasing several


async def test_several_are_leased_at_once_and_settled_one_by_one(server: RunningServer) -> None:
    async with server.client() as a:
        await a.queues.send_many("q", [1, 2, 3])
        first, second = await a.queues.lease_many("q", limit=2, seconds=12)
        assert (first.message, second.message, second.seconds) == (1, 2, 12)
        await first.ack()
        await second.nack(delay=0)
        assert [each.message for each in await a.queues.lease_many("q", limit=50)] == [2, 3]
        assert await a.queues.lease_many("q", limit=5, wait=False) == []


async def test_a_lease_of_several_waits_for_the_first(server: RunningServer) -> None:
    async with server.client() as a, server.client(name="w") as worker:
        waiting = asyncio.create_task(worker.queues.lease_many("q", limit=5))
        await a.queues.send_many("q", [1, 2])
        assert [each.message for each in await waiting] == [1, 2]


async def test_several_that_reached_nobody_all_come_back(server: RunningServer) -> None:
    async with server.client() as a, server.client(name="w") as worker:
        await a.queues.send_many("q", [1, 2, 3])
        for turns in range(0, 30, 3):
            leasing = asyncio.create_task(worker.queues.lease_many("q", limit=3, seconds=600))
            for _ in range(turns):
                await asyncio.sleep(0.0003)
            leasing.cancel()
            await asyncio.wait([leasing])
            if not leasing.cancelled():
                for leased in leasing.result():
                    await leased.nack(reason="released")
            await all_ready(a, 3)
        assert {each.delivery for each in await a.queues.lease_many("q", limit=3)} == {1}


async def test_a_limit_is_for_leases(server: RunningServer) -> None:
    async with server.client() as a:
        with pytest.raises(InvalidRequestError, match="limit: expected together with `lease`"):
            await a.send_request("queues.receive", {"name": "q", "limit": 2})


# --- Grants


async def test_who_may_only_send_learns_the_end_but_not_the_contents(server: RunningServer) -> None:
    scope = ApiScope(queues=QueuesGrant(send=["q"], receive=[]))
    async with server.client() as a, server.client(name="s", scope=scope) as sender:
        message_id = await sender.queues.send("q", "secret", headers={"h": "1"}, priority=3, key="k") or ""
        leased = await take(a)
        await leased.extend(progress=1)
        record = await sender.queues.get("q", message_id)
        assert record is not None
        assert (record.state, record.progress, record.priority) == ("leased", 1, 3)
        assert (record.message, record.headers, record.history) == (None, {}, ())
        asking = asyncio.create_task(sender.queues.wait("q", message_id))
        await leased.ack(result=7)
        ended = await asking
        assert ended is not None
        assert ended.result == 7
        for refused in (
            sender.queues.cancel("q", message_id),
            sender.queues.settings("q"),
            sender.queues.pause("q"),
            sender.queues.purge("q"),
            sender.queues.peek("q"),
            anext(aiter(sender.queues.find("q"))),
            sender.queues.lease_many("q", limit=2),
            sender.queues.get("other", message_id),
        ):
            with pytest.raises(AccessDeniedError):
                await refused


async def test_who_may_only_send_reads_what_it_sent_itself(server: RunningServer) -> None:
    scope = ApiScope(queues=QueuesGrant(send=["q", "p"], receive=[]))
    async with (
        server.client() as a,
        server.client(name="s", scope=scope) as sender,
        server.client(name="t", scope=scope) as other,
    ):
        mine, second = await sender.queues.send_many("q", [1, 2])
        theirs = await other.queues.send("q", 3) or ""
        ours = await a.queues.send("q", 4) or ""
        for message_id in (mine, second):
            assert await sender.queues.get("q", message_id) is not None
        for message_id in (theirs, ours, "987654321"):
            with pytest.raises(AccessDeniedError, match="read a message that another participant sent to queue q"):
                await sender.queues.get("q", message_id)
            with pytest.raises(AccessDeniedError):
                await sender.queues.wait("q", message_id)
            with pytest.raises(AccessDeniedError):
                await sender.queues.body("q", message_id, part="result")
        assert await a.queues.get("q", theirs) is not None

        asking = asyncio.create_task(sender.queues.send("p", 5, reply=True))
        await (await take(a, "p")).ack(result="done")
        async with asyncio.timeout(10):
            assert await asking == "done"
    async with server.client(name="s", scope=scope) as again:
        assert await again.queues.get("q", mine) is not None


async def test_who_may_only_receive_may_look_and_cancel_but_not_send(server: RunningServer) -> None:
    scope = ApiScope(queues=QueuesGrant(receive=["q"], send=[]))
    async with server.client() as a, server.client(name="r", scope=scope) as receiver:
        message_id = await a.queues.send("q", "contents") or ""
        record = await receiver.queues.get("q", message_id)
        assert record is not None
        assert record.message == "contents"
        assert await receiver.queues.cancel("q", message_id) == "cancelled"
        with pytest.raises(AccessDeniedError):
            await receiver.queues.send_many("q", [1])


# --- Servers without these


class _Older(RoomClient):
    """Believes that the server offers less."""

    offered: tuple[str, ...] = ()

    @property
    def extensions(self) -> dict[str, Any]:
        return super().extensions | {"extensions": self.offered}


async def test_an_option_that_the_server_cannot_keep_is_refused(server: RunningServer) -> None:
    async with server.client() as joined:
        older = _Older(protocol=joined.protocol)
        async with older as a:
            for options in ({"delay": 1}, {"at": 1.0}, {"priority": 1}, {"key": "k"}, {"ttl": 1}, {"id": "x"}):
                (name,) = options
                with pytest.raises(RoomError, match=f"does not offer the option `{name}`"):
                    await a.queues.send("q", 1, **options)
            with pytest.raises(RoomError, match="does not offer results"):
                await a.queues.send("q", 1, reply=True)
            with pytest.raises(RoomError, match="does not offer sending many"):
                await a.queues.send_many("q", [1])
            for refused in (a.queues.get("q", "1"), a.queues.cancel("q", "1"), a.queues.settings("q")):
                with pytest.raises(RoomError, match="does not offer queues"):
                    await refused
            await a.queues.send("q", 1)
            assert [each.message for each in await a.queues.lease_many("q", limit=5)] == [1]


async def test_a_result_that_the_server_cannot_keep_is_refused() -> None:
    leased = LeasedMessage(message=1, queue="q")
    assert not leased.keeps_results
    for refused in (leased.ack(result=1), leased.extend(progress=1)):
        with pytest.raises(RoomError, match="keeps no"):
            await refused


async def test_too_many_waits_on_a_connection_are_refused(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meshhost.server.services.queue_messages.MAX_WATCHING", 0)
    async with server.client() as a:
        message_id = await a.queues.send("q", 1) or ""
        with pytest.raises(LimitExceededError, match="wait for messages on this connection"):
            await a.queues.wait("q", message_id)


async def test_an_id_that_only_the_server_gives_is_refused(serve: Any) -> None:
    async with serve() as server, server.client("room", name="a") as a:
        taken = "meshhost:schedule:0000:1.000"
        with pytest.raises(InvalidRequestError, match=r"^id: expected a text that does not begin with 'meshhost:'"):
            await a.queues.send("q", 1, id=taken)
        with pytest.raises(InvalidRequestError, match=r"^messages\[1\]\.id: expected a text"):
            await a.queues.send_many("q", [1, NewMessage(1, id=taken)])
        assert await a.queues.receive(name="q", wait=False) is None


async def test_a_header_that_only_the_server_sets_is_refused(serve: Any) -> None:
    async with serve() as server, server.client("room", name="a") as a:
        feigned = {"Meshhost-Schedule": "0000"}
        with pytest.raises(InvalidRequestError, match=r"^headers: .* leave out 'Meshhost-Schedule'"):
            await a.queues.send("q", 1, headers=feigned)
        with pytest.raises(InvalidRequestError, match=r"^messages\[1\]\.headers: .* leave out"):
            await a.queues.send_many("q", [1, NewMessage(1, headers=feigned)])
        assert await a.queues.receive(name="q", wait=False) is None

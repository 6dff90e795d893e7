"""The loop of a queue worker, over a queue in memory."""

import asyncio
import time
from collections.abc import Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from meshhost.clock import Clock, SystemClock
from meshhost.errors import AccessDeniedError, ConnectionLostError, InvalidRequestError, LeaseLostError, RoomError
from meshhost.room.consuming import QueueConsumer, current_job, job
from meshhost.room.reconnect import ReconnectPolicy
from meshhost.room.services.queues import LeasedMessage
from meshhost.testing.clock import FakeClock
from meshhost.usage import Tally, UsageSums, reporting_to


@dataclass(slots=True)
class _Leased(LeasedMessage):
    """A message that notes what becomes of it."""

    settled: asyncio.Queue[tuple[str, Any]] = field(default_factory=asyncio.Queue)
    fail: list[Exception] = field(default_factory=list)
    extended: int = 0
    many_extensions: asyncio.Event = field(default_factory=asyncio.Event)
    progress: list[Any] = field(default_factory=list)

    async def ack(self, *, result: Any = None) -> None:
        self._note("ack", result)

    async def nack(self, *, reason: Any = "failed", error: str = "", delay: float | None = None) -> bool:
        self._note("nack", (reason, error, delay))
        return False

    async def extend(self, *, seconds: float | None = None, progress: Any = None) -> None:
        self.extended += 1
        if progress is not None:
            self.progress.append(progress)
        if self.extended >= 3:
            self.many_extensions.set()
        if self.fail:
            raise self.fail.pop(0)

    def _note(self, what: str, detail: Any = None) -> None:
        self.settled.put_nowait((what, detail))
        if self.fail:
            raise self.fail.pop(0)


class _Room:
    """A room with one queue. What is put is handed out; an error is raised by the receive."""

    def __init__(self) -> None:
        self.queues = self
        self.is_closed = False
        self.clock: Clock = SystemClock()
        self.waiting: asyncio.Queue[_Leased | RoomError | None] = asyncio.Queue()
        self.asked: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def lease_many(self, **options: Any) -> list[_Leased]:
        leased = await self.lease(**options)
        return [] if leased is None else [leased]

    async def ack_many(self, name: str, settled: Any) -> list[bool]:
        for leased, result in settled:
            await leased.ack(result=result)
        return [True] * len(settled)

    async def lease(self, **options: Any) -> _Leased | None:
        self.asked.put_nowait(options)
        item = await self.waiting.get()
        if isinstance(item, RoomError):
            raise item
        return item


class _Work:
    """What processing does: notes messages, and waits or raises if told."""

    def __init__(self) -> None:
        self.begun: asyncio.Queue[Any] = asyncio.Queue()
        self.go = asyncio.Event()
        self.go.set()
        self.error: BaseException | None = None
        self.cancelled = 0

    async def __call__(self, leased: LeasedMessage) -> None:
        self.begun.put_nowait(leased.message)
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.error is not None:
            raise self.error


@pytest.fixture
def room() -> _Room:
    return _Room()


@pytest.fixture
def work() -> _Work:
    return _Work()


@pytest.fixture
def running(room: _Room, work: _Work) -> Callable[..., Any]:
    """Run a consumer; it is drained at the end, and must then end by itself."""

    @asynccontextmanager
    async def run(**options: Any) -> Any:
        values = {"backoff": ReconnectPolicy(first_delay=0.0)} | options
        consumer: Any = QueueConsumer(room=room, queue="q", process=work, **values)  # type: ignore[arg-type]
        async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
            consumer.task = tasks.create_task(consumer.run())
            yield consumer
            consumer.drain()

    return run


def _message(number: int = 1, **options: Any) -> _Leased:
    return _Leased(message=number, queue="q", **options)


async def test_a_processed_message_is_acked_and_the_next_is_taken(running: Any, room: _Room, work: _Work) -> None:
    async with running(lease_seconds=12.0):
        assert await room.asked.get() == {"name": "q", "create": True, "wait": True, "seconds": 12.0, "load": False}
        for number in (1, 2):
            message = _message(number)
            room.waiting.put_nowait(message)
            assert await message.settled.get() == ("ack", None)
        room.waiting.put_nowait(None)
        assert [await work.begun.get(), await work.begun.get()] == [1, 2]


async def test_one_message_is_worked_on_at_a_time(running: Any, room: _Room, work: _Work) -> None:
    work.go.clear()
    async with running() as consumer:
        room.waiting.put_nowait(_message(1))
        room.waiting.put_nowait(_message(2))
        await work.begun.get()
        assert not consumer.idle.is_set()
        assert room.waiting.qsize() == 1
        work.go.set()
        await work.begun.get()
    assert consumer.idle.is_set()


async def test_a_failed_message_is_nacked_with_the_traceback(running: Any, room: _Room, work: _Work) -> None:
    work.error = ZeroDivisionError("no good")
    async with running():
        message = _message()
        room.waiting.put_nowait(message)
        what, (reason, error, delay) = await message.settled.get()
        assert (what, reason, delay) == ("nack", "failed", None)
        assert error.startswith("Traceback")
        assert error.endswith("ZeroDivisionError: no good\n")


async def test_a_long_traceback_keeps_its_end(running: Any, room: _Room, work: _Work) -> None:
    work.error = ValueError("x" * 100_000 + "end")
    async with running():
        message = _message()
        room.waiting.put_nowait(message)
        _, (_, error, _) = await message.settled.get()
        assert len(error) == job.MAX_REASON_CHARS
        assert error.endswith("end\n")


async def test_a_server_without_leases_is_asked_for_no_renewal(running: Any, room: _Room, work: _Work) -> None:
    work.go.clear()
    async with running():
        message = _message(seconds=None)
        room.waiting.put_nowait(message)
        await work.begun.get()
        work.go.set()
        assert (await message.settled.get())[0] == "ack"
        assert message.extended == 0


async def test_the_lease_is_renewed_at_every_third_of_its_time(running: Any, room: _Room, work: _Work) -> None:
    room.clock = clock = FakeClock()
    work.go.clear()
    async with running():
        message = _message(seconds=30.0)
        room.waiting.put_nowait(message)
        await work.begun.get()
        for number in range(3):
            await clock.advance(9.9)
            assert message.extended == number
            await clock.advance(0.1)
            assert message.extended == number + 1
        work.go.set()
        assert (await message.settled.get())[0] == "ack"


async def test_a_renewal_that_fails_is_tried_again(running: Any, room: _Room, work: _Work) -> None:
    work.go.clear()
    async with running():
        message = _message(seconds=0.003, fail=[ConnectionLostError(), ConnectionLostError()])
        room.waiting.put_nowait(message)
        await message.many_extensions.wait()
        work.go.set()
        assert (await message.settled.get())[0] == "ack"


async def test_a_lost_lease_ends_the_processing_and_is_not_settled(
    running: Any, room: _Room, work: _Work, caplog: pytest.LogCaptureFixture, until: Any
) -> None:
    work.go.clear()
    async with running() as consumer:
        message = _message(seconds=0.003, fail=[LeaseLostError("lost")])
        room.waiting.put_nowait(message)
        await consumer.idle.wait()
        await until(lambda: work.cancelled)
        await consumer.idle.wait()
        assert message.settled.empty()
        work.go.set()
        following = _message(2)
        room.waiting.put_nowait(following)
        assert (await following.settled.get())[0] == "ack"
    assert "lease lost" in caplog.text


async def test_a_message_that_cannot_be_settled_keeps_nobody_back(
    running: Any, room: _Room, work: _Work, caplog: pytest.LogCaptureFixture
) -> None:
    async with running():
        room.waiting.put_nowait(_message(1, fail=[LeaseLostError("late")]))
        following = _message(2)
        room.waiting.put_nowait(following)
        assert (await following.settled.get())[0] == "ack"
    assert "not settled" in caplog.text


async def test_a_cancelled_worker_gives_its_message_back_as_interrupted(running: Any, room: _Room, work: _Work) -> None:
    work.go.clear()
    async with running() as consumer:
        message = _message()
        room.waiting.put_nowait(message)
        await work.begun.get()
        consumer.task.cancel()
        assert await message.settled.get() == ("nack", ("interrupted", "", 0.0))
        await asyncio.wait([consumer.task])
        assert consumer.task.cancelled()
        assert consumer.idle.is_set()
    assert work.cancelled == 1


async def test_a_cancelled_worker_ends_although_giving_back_fails(running: Any, room: _Room, work: _Work) -> None:
    work.go.clear()
    async with running() as consumer:
        message = _message(fail=[ConnectionLostError()])
        room.waiting.put_nowait(message)
        await work.begun.get()
        consumer.task.cancel()
        await asyncio.wait([consumer.task])
        assert consumer.task.cancelled()


async def test_draining_ends_a_waiting_receive(running: Any, room: _Room) -> None:
    async with running() as consumer:
        await room.asked.get()
        consumer.drain()
        await asyncio.wait([consumer.task])
        assert consumer.task.exception() is None
    assert room.asked.empty()


async def test_draining_lets_the_message_in_work_be_finished(running: Any, room: _Room, work: _Work) -> None:
    work.go.clear()
    async with running() as consumer:
        message = _message()
        room.waiting.put_nowait(message)
        await room.asked.get()
        await work.begun.get()
        consumer.drain()
        work.go.set()
        assert (await message.settled.get())[0] == "ack"
        await asyncio.wait([consumer.task])
    assert room.asked.empty()


async def test_receiving_is_tried_again_with_backoff(
    running: Any, room: _Room, caplog: pytest.LogCaptureFixture
) -> None:
    async with running():
        for _ in range(3):
            room.waiting.put_nowait(RoomError("down"))
        message = _message()
        room.waiting.put_nowait(message)
        assert (await message.settled.get())[0] == "ack"
    assert caplog.text.count("receiving from the queue failed") == 3


async def test_draining_ends_a_backoff(running: Any, room: _Room, until: Any) -> None:
    async with running(backoff=ReconnectPolicy(first_delay=10_000.0, max_delay=10_000.0)) as consumer:
        room.waiting.put_nowait(RoomError("down"))
        await until(room.waiting.empty)
        consumer.drain()
        await asyncio.wait([consumer.task])
        assert consumer.task.exception() is None


async def test_a_closed_room_and_a_missing_grant_end_the_worker(room: _Room, work: _Work) -> None:
    consumer = QueueConsumer(room=room, queue="q", process=work)  # type: ignore[arg-type]
    room.waiting.put_nowait(AccessDeniedError("queues.receive", "q"))
    with pytest.raises(AccessDeniedError):
        await consumer.run()
    room.is_closed = True
    room.waiting.put_nowait(ConnectionLostError("ended"))
    with pytest.raises(ConnectionLostError, match="ended"):
        await consumer.run()


# What is reported


async def _reported(running: Any, room: _Room, message: _Leased, *, settled: int = 1) -> UsageSums:
    tally = Tally()
    with reporting_to(tally):
        async with running():
            room.waiting.put_nowait(message)
            for _ in range(settled):
                await message.settled.get()
            room.waiting.put_nowait(None)
    return tally.sums()


async def test_a_done_message_is_reported_with_its_wait_and_its_work(running: Any, room: _Room) -> None:
    sums = await _reported(running, room, _message(sent_at=time.time() - 100.0))
    assert sums.messages == {"done": 1}
    assert 100.0 <= sums.waits.total < 130.0
    assert sum(sums.works.counts) == 1


@pytest.mark.parametrize("options", [{}, {"sent_at": 1.0, "delivery": 2}])
async def test_a_wait_that_is_not_known_or_was_reported_before_is_not(
    running: Any, room: _Room, options: dict[str, Any]
) -> None:
    sums = await _reported(running, room, _message(**options))
    assert (sum(sums.waits.counts), sum(sums.works.counts)) == (0, 1)


async def test_a_message_from_a_clock_ahead_of_ours_waited_for_nothing(running: Any, room: _Room) -> None:
    sums = await _reported(running, room, _message(sent_at=time.time() + 1000.0))
    assert (sum(sums.waits.counts), sums.waits.total) == (1, 0.0)


async def test_a_failed_message_is_reported(running: Any, room: _Room, work: _Work) -> None:
    work.error = ValueError("no good")
    assert (await _reported(running, room, _message())).messages == {"failed": 1}


async def test_a_message_after_its_last_attempt_is_reported_as_dead(
    running: Any, room: _Room, work: _Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nack(self: _Leased, **_: Any) -> bool:
        self._note("nack")
        return True

    monkeypatch.setattr(_Leased, "nack", nack)
    work.error = ValueError("no good")
    assert (await _reported(running, room, _message())).messages == {"dead": 1}


async def test_a_message_that_could_not_be_settled_is_reported_as_lost(running: Any, room: _Room) -> None:
    message = _message(fail=[ConnectionLostError("gone")])
    assert (await _reported(running, room, message)).messages == {"lost": 1}


@pytest.mark.parametrize(("fail", "outcome"), [([], "released"), ([ConnectionLostError("gone")], "lost")])
async def test_a_message_of_a_stopped_consumer_is_reported_by_whether_the_server_took_it_back(
    running: Any, room: _Room, work: _Work, fail: list[Exception], outcome: str
) -> None:
    work.go.clear()
    tally = Tally()
    with reporting_to(tally):
        async with running() as consumer:
            room.waiting.put_nowait(_message(fail=fail))
            await work.begun.get()
            consumer.task.cancel()
    assert tally.sums().messages == {outcome: 1}


async def test_a_message_that_was_acked_while_the_consumer_was_stopped_is_reported_as_done(
    running: Any, room: _Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, answered = asyncio.Event(), asyncio.Event()

    async def ack(_: _Leased, *, result: Any = None) -> None:
        asked.set()
        await answered.wait()

    monkeypatch.setattr(_Leased, "ack", ack)
    tally = Tally()
    with reporting_to(tally):
        async with running() as consumer:
            room.waiting.put_nowait(_message())
            await asked.wait()
            consumer.task.cancel()
            asyncio.get_running_loop().call_soon(answered.set)
    assert tally.sums().messages == {"done": 1}


async def test_a_message_that_comes_while_we_are_stopped_is_returned(running: Any, room: _Room) -> None:
    async with running() as consumer:
        await room.asked.get()
        message = _message()
        room.waiting.put_nowait(message)
        await asyncio.sleep(0)  # the queue has it for the receive, which has not run yet
        await asyncio.sleep(0)
        consumer.task.cancel()
        await asyncio.wait([consumer.task])
        assert message.settled.get_nowait() == ("nack", ("released", "", 0.0))


@pytest.mark.parametrize(
    "error", [SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError(), BaseException("a panic")]
)
async def test_whatever_the_processing_raises_fails_its_message_only(
    running: Any, room: _Room, work: _Work, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    work.error = error
    async with running():
        failed = _message(1)
        room.waiting.put_nowait(failed)
        what, (reason, text, _) = await failed.settled.get()
        assert (what, reason) == ("nack", "failed")
        assert type(error).__name__ in text
        assert "processing failed" in caplog.text
        work.error = None
        fine = _message(2)
        room.waiting.put_nowait(fine)
        assert await fine.settled.get() == ("ack", None)


async def test_a_failure_is_logged_with_its_error_and_its_traceback_once_for_a_message(
    running: Any, room: _Room, work: _Work, caplog: pytest.LogCaptureFixture
) -> None:
    work.error = KeyError("to")
    async with running():
        for attempt in (1, 2, 3):
            failed = _message(1, attempt=attempt)
            room.waiting.put_nowait(failed)
            await failed.settled.get()

    records = [record for record in caplog.records if record.message == "processing failed"]
    assert [record.__dict__["error"] for record in records] == ["KeyError: 'to'"] * 3
    assert [record.exc_info is not None for record in records] == [True, False, False]


async def test_a_processing_that_cancels_its_own_task_fails_its_message(room: _Room) -> None:
    async def process(_: LeasedMessage) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    consumer = QueueConsumer(room=room, queue="q", process=process)  # type: ignore[arg-type]
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        tasks.create_task(consumer.run())
        message = _message()
        room.waiting.put_nowait(message)
        assert (await message.settled.get())[1][0] == "failed"
        consumer.drain()


async def test_an_ack_that_fails_is_tried_again_while_the_lease_runs(running: Any, room: _Room) -> None:
    async with running():
        message = _message(seconds=30.0, fail=[ConnectionLostError(), TimeoutError(), RoomError("down")])
        room.waiting.put_nowait(message)
        assert [await message.settled.get() for _ in range(4)] == [("ack", None)] * 4
        assert message.fail == []


async def test_an_ack_whose_answer_was_lost_is_no_failure(
    running: Any, room: _Room, caplog: pytest.LogCaptureFixture
) -> None:
    async with running():
        message = _message(seconds=30.0, fail=[ConnectionLostError(), LeaseLostError("settled")])
        room.waiting.put_nowait(message)
        following = _message(2)
        room.waiting.put_nowait(following)
        assert (await following.settled.get())[0] == "ack"
        assert message.settled.qsize() == 2
    assert "not settled" not in caplog.text


async def test_settling_ends_with_the_lease(running: Any, room: _Room, caplog: pytest.LogCaptureFixture) -> None:
    async with running():
        room.waiting.put_nowait(_message(seconds=0.05, fail=[ConnectionLostError() for _ in range(100_000)]))
        following = _message(2)
        room.waiting.put_nowait(following)
        assert (await following.settled.get())[0] == "ack"
    assert "message not settled" in caplog.text


async def test_nothing_is_tried_again_when_the_room_was_left(running: Any, room: _Room) -> None:
    async with running():
        room.is_closed = True
        message = _message(seconds=30.0, fail=[ConnectionLostError()])
        room.waiting.put_nowait(message)
        following = _message(2)
        room.waiting.put_nowait(following)
        assert (await following.settled.get())[0] == "ack"
        assert message.settled.qsize() == 1
        room.is_closed = False


async def test_a_drained_worker_that_is_stopped_returns_its_message_as_interrupted(
    running: Any, room: _Room, work: _Work
) -> None:
    work.go.clear()
    async with running() as consumer:
        message = _message()
        room.waiting.put_nowait(message)
        await work.begun.get()
        consumer.drain()
        consumer.task.cancel()
        assert await message.settled.get() == ("nack", ("interrupted", "", 0.0))


# Several at once


async def test_up_to_concurrency_messages_are_worked_on_at_once(running: Any, room: _Room, work: _Work) -> None:
    work.go.clear()
    async with running(concurrency=3) as consumer:
        for number in range(5):
            room.waiting.put_nowait(_message(number))
        assert [await work.begun.get() for _ in range(3)] == [0, 1, 2]
        assert room.waiting.qsize() == 2
        assert len(consumer.processing) == 3
        work.go.set()
        assert [await work.begun.get() for _ in range(2)] == [3, 4]


async def test_as_many_are_leased_as_there_is_room_for(running: Any, room: _Room, work: _Work) -> None:
    work.go.clear()
    async with running(concurrency=3):
        room.waiting.put_nowait(_message(1))
        assert (await room.asked.get())["limit"] == 3
        await work.begun.get()
        assert (await room.asked.get())["limit"] == 2
        room.waiting.put_nowait(_message(2))
        await work.begun.get()
        assert "limit" not in await room.asked.get()
        work.go.set()


async def test_the_next_message_is_asked_for_while_the_last_one_is_settled(
    running: Any, room: _Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered = asyncio.Event()

    async def ack(self: _Leased, *, result: Any = None) -> None:
        await answered.wait()
        self._note("ack", result)

    monkeypatch.setattr(_Leased, "ack", ack)
    async with running() as consumer:
        message = _message()
        room.waiting.put_nowait(message)
        await room.asked.get()
        await room.asked.get()
        assert not consumer.idle.is_set()
        assert consumer.processing == ()
        answered.set()
        await message.settled.get()
        await consumer.idle.wait()


async def test_a_cancelled_worker_gives_all_its_messages_back(running: Any, room: _Room, work: _Work) -> None:
    work.go.clear()
    async with running(concurrency=2) as consumer:
        messages = [_message(number) for number in range(2)]
        for message in messages:
            room.waiting.put_nowait(message)
            await work.begun.get()
        consumer.task.cancel()
        await asyncio.wait([consumer.task])
        assert [message.settled.get_nowait() for message in messages] == [("nack", ("interrupted", "", 0.0))] * 2


async def test_a_worker_whose_room_is_lost_gives_its_messages_back(running: Any, room: _Room, work: _Work) -> None:
    work.go.clear()
    consumer = QueueConsumer(room=room, queue="q", process=work, concurrency=2)  # type: ignore[arg-type]
    task = asyncio.create_task(consumer.run())
    message = _message()
    room.waiting.put_nowait(message)
    await work.begun.get()
    room.is_closed = True
    room.waiting.put_nowait(ConnectionLostError("ended"))
    with pytest.raises(ConnectionLostError):
        await task
    assert message.settled.get_nowait() == ("nack", ("interrupted", "", 0.0))


async def test_all_leases_are_renewed(running: Any, room: _Room, work: _Work) -> None:
    room.clock = clock = FakeClock()
    work.go.clear()
    async with running(concurrency=2):
        messages = [_message(number, seconds=30.0) for number in range(2)]
        for message in messages:
            room.waiting.put_nowait(message)
            await work.begun.get()
        await clock.advance(10)
        assert [message.extended for message in messages] == [1, 1]
        work.go.set()


async def test_a_message_that_comes_after_a_pause_is_renewed_too(running: Any, room: _Room, work: _Work) -> None:
    room.clock = clock = FakeClock()
    async with running():
        room.waiting.put_nowait(_message(1, seconds=30.0))
        await work.begun.get()
        await clock.advance(10)
        work.go.clear()
        later = _message(2, seconds=30.0)
        room.waiting.put_nowait(later)
        await work.begun.get()
        await clock.advance(10)
        assert later.extended == 1
        work.go.set()


# Results, deadlines, cancelling and progress


@pytest.mark.parametrize(
    ("returned", "kept"),
    [
        ({"sum": 3}, {"sum": 3}),
        ((1, 2), [1, 2]),
        ({1: "one"}, {"1": "one"}),
        (None, None),
        ([[[]]] * 200, [[[]]] * 200),
    ],
)
async def test_what_the_processing_returns_is_the_result(room: _Room, returned: Any, kept: Any) -> None:
    async def process(_: LeasedMessage) -> Any:
        return returned

    consumer = QueueConsumer(room=room, queue="q", process=process)  # type: ignore[arg-type]
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        tasks.create_task(consumer.run())
        message = _message(id="7")
        room.waiting.put_nowait(message)
        assert await message.settled.get() == ("ack", kept)
        consumer.drain()


def _nested(levels: int) -> list[Any]:
    found: list[Any] = []
    for _ in range(levels):
        found = [found]
    return found


def _circle() -> list[Any]:
    found: list[Any] = []
    found.append(found)
    return found


@pytest.mark.parametrize(
    ("returned", "why"),
    [
        (object(), "object is no JSON value: Object of type object is not JSON serializable"),
        (float("nan"), "float is no JSON value: NaN and Infinity are none"),
        (_circle(), "list is no JSON value: Circular reference detected"),
        ("x" * 70_000, "it has 70002 characters as JSON, at most 65536: store it as a file"),
        (_nested(150), "it is nested too deeply: more than 100 lists and objects in each other"),
        (_nested(20_000), "it is nested too deeply: more than 100 lists and objects in each other"),
    ],
    ids=["object", "nan", "circle", "large", "nested", "too deep for Python"],
)
async def test_a_result_that_cannot_be_kept_says_why_and_the_host_warns(
    room: _Room, returned: Any, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def process(_: LeasedMessage) -> Any:
        return returned

    consumer = QueueConsumer(room=room, queue="q", process=process)  # type: ignore[arg-type]
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        tasks.create_task(consumer.run())
        message = _message(id="7")
        room.waiting.put_nowait(message)
        assert await message.settled.get() == ("ack", {"meshhost_error": f"the result cannot be kept: {why}"})
        consumer.drain()
    warned = [record for record in caplog.records if record.message == "a result cannot be kept"]
    assert [(each.levelname, each.__dict__["reason"]) for each in warned] == [("WARNING", why)]


async def test_a_server_that_keeps_no_results_gets_none(room: _Room) -> None:
    async def process(_: LeasedMessage) -> Any:
        return "done"

    consumer = QueueConsumer(room=room, queue="q", process=process)  # type: ignore[arg-type]
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        tasks.create_task(consumer.run())
        message = _message()
        room.waiting.put_nowait(message)
        assert await message.settled.get() == ("ack", None)
        consumer.drain()


@pytest.mark.parametrize(("own", "of_queue"), [(0.01, None), (None, 0.01), (0.01, 1000.0)])
async def test_a_message_that_takes_too_long_fails(
    running: Any, room: _Room, work: _Work, own: float | None, of_queue: float | None
) -> None:
    work.go.clear()
    async with running(deadline=own):
        message = _message(deadline=of_queue)
        room.waiting.put_nowait(message)
        what, (reason, error, _) = await message.settled.get()
        assert (what, reason) == ("nack", "failed")
        assert "longer than its deadline of 0.01 s" in error
    assert work.cancelled == 1


async def test_a_timeout_of_the_processing_itself_is_not_taken_for_the_deadline(
    running: Any, room: _Room, work: _Work
) -> None:
    work.error = TimeoutError("of its own")
    async with running(deadline=1000.0):
        message = _message()
        room.waiting.put_nowait(message)
        assert "TimeoutError: of its own" in (await message.settled.get())[1][1]


async def test_a_cancelled_message_ends_its_processing_and_is_given_up(
    running: Any, room: _Room, work: _Work, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    work.go.clear()
    tally = Tally()
    with reporting_to(tally):
        async with running():
            message = _message(seconds=0.003)
            room.waiting.put_nowait(message)
            await work.begun.get()
            message.is_cancelled = True
            assert await message.settled.get() == ("nack", ("interrupted", "", 0.0))
    assert tally.sums().messages == {"cancelled": 1}
    assert "message was cancelled" in caplog.text


async def test_progress_is_sent_at_once_and_then_with_the_next_renewal(room: _Room) -> None:
    room.clock = clock = FakeClock()
    reported, go = asyncio.Event(), asyncio.Event()

    async def process(_: LeasedMessage) -> None:
        job = current_job()
        assert job is not None
        for progress in (0.1, 0.2, 0.3):
            await job.report_progress(progress)
        reported.set()
        await go.wait()

    consumer = QueueConsumer(room=room, queue="q", process=process)  # type: ignore[arg-type]
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        tasks.create_task(consumer.run())
        message = _message(seconds=30.0, id="7")
        room.waiting.put_nowait(message)
        await reported.wait()
        assert message.progress == [0.1]
        await clock.advance(10)
        assert message.progress == [0.1, 0.3]
        await clock.advance(10)
        assert message.progress == [0.1, 0.3]
        go.set()
        await message.settled.get()
        consumer.drain()
    assert current_job() is None


async def _with_job(room: _Room, message: _Leased, work: Callable[[Any], Any]) -> None:
    """Run a consumer on one message; `work` is called with its job."""

    async def process(_: LeasedMessage) -> None:
        job = current_job()
        assert job is not None
        await work(job)

    consumer = QueueConsumer(room=room, queue="q", process=process)  # type: ignore[arg-type]
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        tasks.create_task(consumer.run())
        room.waiting.put_nowait(message)
        await message.settled.get()
        consumer.drain()


async def test_progress_that_comes_while_other_progress_is_sent_is_sent_with_the_next_renewal(
    room: _Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, answer = asyncio.Event(), asyncio.Event()

    async def extend(self: _Leased, *, seconds: float | None = None, progress: Any = None) -> None:
        self.progress.append(progress)
        asked.set()
        await answer.wait()

    async def work(job: Any) -> None:
        first = asyncio.create_task(job.report_progress(0.1))
        await asked.wait()
        await job.report_progress(0.2)
        answer.set()
        await first
        await job.renew()
        await job.renew()

    monkeypatch.setattr(_Leased, "extend", extend)
    message = _message(seconds=30.0, id="7")
    await _with_job(room, message, work)
    assert message.progress == [0.1, 0.2, None]


@pytest.mark.parametrize("progress", [object(), float("nan"), "x" * 70_000], ids=["object", "nan", "large"])
async def test_progress_that_cannot_be_kept_is_refused_and_the_lease_is_renewed_all_the_same(
    room: _Room, progress: Any
) -> None:
    async def work(job: Any) -> None:
        with pytest.raises(InvalidRequestError, match="progress"):
            await job.report_progress(progress)
        await job.renew()

    message = _message(seconds=30.0, id="7")
    await _with_job(room, message, work)
    assert (message.extended, message.progress) == (1, [])


async def test_progress_is_not_sent_to_a_server_that_keeps_none(room: _Room) -> None:
    async def work(job: Any) -> None:
        await job.report_progress(0.5)
        await job.renew()

    message = _message(seconds=30.0)
    await _with_job(room, message, work)
    assert (message.extended, message.progress) == (1, [])


@pytest.mark.parametrize("broken", ["ack", "extend"])
async def test_an_error_that_is_none_of_the_room_ends_the_consumer(
    room: _Room, work: _Work, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    async def fail(self: _Leased, **_: Any) -> None:
        raise ZeroDivisionError("a bug of ours")

    monkeypatch.setattr(_Leased, broken, fail)
    if broken == "extend":
        work.go.clear()
    consumer = QueueConsumer(room=room, queue="q", process=work, concurrency=2)  # type: ignore[arg-type]
    room.waiting.put_nowait(_message(1, seconds=0.003))
    room.waiting.put_nowait(_message(2, seconds=0.003))
    async with asyncio.timeout(10):
        with pytest.raises(ZeroDivisionError):
            await consumer.run()

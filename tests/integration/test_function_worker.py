"""Workers whose work is a function, and what any worker keeps of its work, on a real room server."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from meshhost.agents.function_worker import FunctionWorker
from meshhost.agents.worker import MAX_CONCURRENCY, Worker
from meshhost.errors import InvalidRequestError, MessageFailedError, RoomError
from meshhost.room.client import RoomClient
from meshhost.testing.server import RunningServer, running_server


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RunningServer]:
    async with running_server(tmp_path / "data") as running:
        yield running


@pytest.fixture
async def user(server: RunningServer) -> AsyncIterator[RoomClient]:
    async with server.client("room") as room:
        yield room


@asynccontextmanager
async def working(server: RunningServer, worker: Worker) -> AsyncIterator[None]:
    async with server.client("room", name=worker.name, role="agent") as room:
        await worker.start(room=room)
        try:
            yield
        finally:
            await worker.stop()


class Order(BaseModel):
    """An order."""

    number: int
    items: list[str]


class Receipt(BaseModel):
    """What comes of an order."""

    number: int
    count: int


async def test_a_function_gets_what_it_declares_and_returns_the_result(server: RunningServer, user: RoomClient) -> None:
    async def pack(order: Order) -> Receipt:
        """Pack an order."""
        return Receipt(number=order.number, count=len(order.items))

    worker = FunctionWorker(queue="orders", function=pack)
    assert (worker.name, worker.description) == ("pack", "Pack an order.")
    async with working(server, worker):
        result = await user.queues.send("orders", {"number": 7, "items": ["a", "b"]}, reply=True, timeout=10)
    assert result == {"number": 7, "count": 2}


async def test_a_plain_function_runs_in_a_thread(server: RunningServer, user: RoomClient) -> None:
    def where(message) -> str:  # type: ignore[no-untyped-def]  # as people write it
        return threading.current_thread().name

    async with working(server, FunctionWorker(queue="jobs", function=where, name="where")):
        name = await user.queues.send("jobs", {}, reply=True, timeout=10)
    assert name != threading.main_thread().name


async def test_a_function_may_ask_for_the_room_and_for_what_is_known_of_the_message(
    server: RunningServer, user: RoomClient
) -> None:
    async def save(text: str, *, room: RoomClient, message_id: str, attempt: int, idempotency_key: str) -> list[Any]:
        await room.storage.upload(path="out.txt", data=text.encode())
        return [message_id, attempt, idempotency_key]

    async with working(server, FunctionWorker(queue="jobs", function=save)):
        number = await user.queues.send("jobs", "hello")
        assert number is not None
        record = await user.queues.wait("jobs", number, timeout=10)
    assert record.result[:2] == [number, 1]
    assert record.result[2].startswith(f"room/jobs/{number}/")
    assert (await user.storage.download(path="out.txt")).data == b"hello"


async def test_the_idempotency_key_is_that_of_all_attempts_and_of_no_message_of_another_server(
    server: RunningServer, user: RoomClient, tmp_path: Path
) -> None:
    keys: list[str] = []

    async def note(message: Any, *, attempt: int, idempotency_key: str) -> None:
        keys.append(idempotency_key)
        if attempt == 1:
            raise ValueError("once more")

    async def done_by(server: RunningServer, room: RoomClient) -> None:
        await room.queues.open(name="jobs")
        await room.queues.configure("jobs", retry_seconds=0.01)
        async with working(server, FunctionWorker(queue="jobs", function=note)):
            await room.queues.send("jobs", {}, reply=True, timeout=20)

    await done_by(server, user)
    async with running_server(tmp_path / "other") as other, other.client("room") as room:
        await done_by(other, room)
    assert keys[0] == keys[1] != keys[2] == keys[3]


async def test_a_message_that_does_not_fit_says_which_field(server: RunningServer, user: RoomClient) -> None:
    async def pack(order: Order) -> None:
        raise AssertionError("never called")

    await user.queues.open(name="orders")
    await user.queues.configure("orders", max_attempts=1)
    async with working(server, FunctionWorker(queue="orders", function=pack)):
        with pytest.raises(MessageFailedError):
            await user.queues.send("orders", {"number": "x", "items": []}, reply=True, timeout=10)
    [dead] = await user.queues.dead(name="orders")
    assert "number: Input should be a valid integer" in dead.reason


async def test_those_who_wait_see_the_progress(server: RunningServer, user: RoomClient) -> None:
    go = asyncio.Event()

    async def climb(height: int, *, report_progress: Any) -> str:
        await report_progress({"metres": height})
        await go.wait()
        return "there"

    seen: list[Any] = []

    async def note(record: Any) -> None:
        seen.append(record.progress)
        go.set()

    async with working(server, FunctionWorker(queue="jobs", function=climb)):
        assert await user.queues.send("jobs", 8848, reply=True, timeout=10, on_progress=note) == "there"
    assert {"metres": 8848} in seen


async def test_progress_outside_of_a_message_is_refused() -> None:
    async def nothing(message: Any) -> None: ...

    with pytest.raises(RoomError, match="while a message is being processed"):
        await FunctionWorker(queue="jobs", function=nothing).report_progress(None, 0.5)


async def test_a_worker_with_concurrency_works_on_several_at_once(server: RunningServer, user: RoomClient) -> None:
    together = asyncio.Barrier(3)

    async def meet(message: int) -> int:
        await together.wait()
        return message

    await user.queues.send_many("jobs", [1, 2, 3])
    async with asyncio.timeout(10), working(server, FunctionWorker(queue="jobs", function=meet, concurrency=3)):
        number = await user.queues.send("jobs", 4)
        await user.queues.send_many("jobs", [5, 6])
        assert number is not None
        assert (await user.queues.wait("jobs", number)).result == 4


async def test_a_cancelled_message_stops_its_worker_and_the_sender_is_told(
    server: RunningServer, user: RoomClient
) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def hang(message: Any) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    worker = FunctionWorker(queue="jobs", function=hang)
    async with asyncio.timeout(40), working(server, worker):
        number = await user.queues.send("jobs", {})
        assert number is not None
        await begun.wait()
        assert await user.queues.cancel("jobs", number) == "leased"
        await ended.wait()
        record = await user.queues.wait("jobs", number)
    assert record.state == "cancelled"


@dataclass
class Point:
    """A place."""

    x: int
    y: int


async def test_any_type_that_pydantic_knows_may_be_declared(server: RunningServer, user: RoomClient) -> None:
    async def far(points: list[Point]) -> int:
        return max(point.x + point.y for point in points)

    async with working(server, FunctionWorker(queue="jobs", function=far)):
        assert await user.queues.send("jobs", [{"x": 1, "y": 2}, {"x": 4, "y": 1}], reply=True, timeout=10) == 5


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (lambda: None, "has to take the message"),
        (lambda message, other: None, "takes 'other'"),
        (lambda *messages: None, "has to take the message"),
        (lambda room: None, "has to take the message"),
        (3, "expected a function"),
    ],
    ids=["nothing", "too much", "all", "no message", "no function"],
)
def test_a_function_that_cannot_be_called_with_a_message_is_refused(function: Any, says: str) -> None:
    with pytest.raises(InvalidRequestError, match=says):
        FunctionWorker(queue="jobs", function=function, name="f")


def test_a_type_without_a_form_in_json_is_refused() -> None:
    async def bad(message: threading.Lock) -> None: ...  # type: ignore[valid-type]

    with pytest.raises(InvalidRequestError, match="no form"):
        FunctionWorker(queue="jobs", function=bad)


@pytest.mark.parametrize(
    "options", [{"concurrency": 0}, {"concurrency": MAX_CONCURRENCY + 1}, {"deadline": 0}, {"queue": ""}]
)
def test_bad_options_are_refused_by_name(options: dict[str, Any]) -> None:
    async def nothing(message: Any) -> None: ...

    (field,) = options
    with pytest.raises(InvalidRequestError, match=field):
        FunctionWorker(**{"queue": "jobs", "function": nothing} | options)

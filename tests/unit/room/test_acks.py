"""Acks of several messages share requests, and none of them waits for more than it has to."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from meshhost.errors import ConnectionLostError, InvalidRequestError, LeaseLostError
from meshhost.room.consuming.settling import Acks
from meshhost.room.services.queues import MAX_ACKS, LeasedMessage
from meshhost.tasks import TaskOwner


@dataclass
class _Room:
    """A room that notes the acks of each request, and answers when `go` is set."""

    requests: list[list[Any]] = field(default_factory=list)
    go: asyncio.Event = field(default_factory=asyncio.Event)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    lost: Sequence[Any] = ()
    error: Exception | None = None

    @property
    def queues(self) -> "_Room":
        return self

    async def ack_many(self, name: str, settled: Sequence[tuple[LeasedMessage, Any]]) -> list[bool]:
        messages = [leased.message for leased, _ in settled]
        self.requests.append(messages)
        self.asked.set()
        await self.go.wait()
        if self.error is not None and "bad" in messages:
            raise self.error
        return [message not in self.lost for message in messages]


@pytest.fixture
def room() -> _Room:
    return _Room()


@pytest.fixture
async def tasks() -> TaskOwner:
    return TaskOwner("test")


@pytest.fixture
def acks(room: _Room, tasks: TaskOwner) -> Acks:
    return Acks(room=room, queue="q", tasks=tasks)  # type: ignore[arg-type]


def start(acks: Acks, *messages: Any) -> list[asyncio.Task[None]]:
    return [asyncio.create_task(acks.ack(LeasedMessage(message=each, queue="q"), None)) for each in messages]


async def test_acks_that_come_during_a_request_go_together_in_the_next(acks: Acks, room: _Room) -> None:
    first = start(acks, 1)
    await room.asked.wait()
    others = start(acks, 2, 3)
    await asyncio.sleep(0)
    room.go.set()
    await asyncio.gather(*first, *others)
    assert room.requests == [[1], [2, 3]]


async def test_a_request_has_no_more_than_the_server_takes(acks: Acks, room: _Room) -> None:
    room.go.set()
    await asyncio.gather(*start(acks, *range(MAX_ACKS + 1)))
    assert [len(request) for request in room.requests] == [MAX_ACKS, 1]


async def test_one_whose_lease_was_lost_is_told_and_the_others_are_done(acks: Acks, room: _Room) -> None:
    room.lost = [2]
    room.go.set()
    outcomes = await asyncio.gather(*start(acks, 1, 2, 3), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [type(None), LeaseLostError, type(None)]


async def test_one_that_is_refused_does_not_fail_the_others(acks: Acks, room: _Room) -> None:
    room.error = InvalidRequestError("result", "too large")
    room.go.set()
    outcomes = await asyncio.gather(*start(acks, 1, "bad", 3), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [type(None), InvalidRequestError, type(None)]


async def test_a_lost_connection_is_told_to_all_of_the_request(acks: Acks, room: _Room) -> None:
    room.error = ConnectionLostError()
    room.go.set()
    outcomes = await asyncio.gather(*start(acks, "bad", 2), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [ConnectionLostError, ConnectionLostError]
    assert await asyncio.gather(*start(acks, 4)) == [None]


async def test_an_ack_that_nobody_waits_for_is_left_out_or_changes_nothing(acks: Acks, room: _Room) -> None:
    first = start(acks, 1, 2)
    await room.asked.wait()
    following = start(acks, 3, 4)
    await asyncio.sleep(0)
    first[0].cancel()
    following[0].cancel()
    await asyncio.sleep(0)
    room.go.set()
    assert await asyncio.gather(first[1], following[1]) == [None, None]
    assert room.requests == [[1, 2], [4]]


async def test_acks_end_with_their_tasks(acks: Acks, room: _Room, tasks: TaskOwner) -> None:
    waiting = start(acks, 1)
    await room.asked.wait()
    await tasks.stop()
    with pytest.raises(ConnectionLostError, match="the worker is ending"):
        await waiting[0]


async def test_a_job_that_is_cancelled_while_its_ack_is_under_way_learns_how_it_ended(acks: Acks, room: _Room) -> None:
    acked = acks.begin(LeasedMessage(message=1, queue="q"), None)

    async def wait() -> None:
        await acked

    job = asyncio.ensure_future(wait())
    await room.asked.wait()
    job.cancel()
    room.go.set()
    with pytest.raises(asyncio.CancelledError):
        await job
    assert acked.result() is None

"""What the queues client sends, over a link in memory."""

import asyncio
from typing import Any

import pytest

from meshhost.errors import ConnectionLostError, RequestTimeoutError, RoomError
from meshhost.protocol.messages import EmptyResponse, JsonResponse
from meshhost.room.services import queue_messages
from meshhost.room.services import queues as module
from meshhost.room.services.queues import QueuesClient
from meshhost.testing.clock import FakeClock


class _Link:
    """Answers every request with nothing, or raises what is put into `errors`."""

    def __init__(self) -> None:
        self.errors: list[Exception] = []
        self.headers: list[dict[str, Any]] = []

    async def request(self, type: str, header: dict[str, Any], *_: Any, **__: Any) -> Any:
        self.headers.append(header)
        if self.errors:
            raise self.errors.pop(0)
        return EmptyResponse(), {}


async def test_a_lease_names_those_whose_replies_were_lost_with_the_connection() -> None:
    link = _Link()
    queues = QueuesClient(room=link)  # type: ignore[arg-type]
    link.errors = [ConnectionLostError(), ConnectionLostError(), RequestTimeoutError("late")]
    for error in (ConnectionLostError, ConnectionLostError, RequestTimeoutError):
        with pytest.raises(error):
            await queues.lease(name="q")
    for _ in range(2):
        assert await queues.lease(name="q") is None
    calls = [header["call"] for header in link.headers]
    assert len(set(calls)) == 5
    given_up = [header.get("given_up") for header in link.headers]
    # Also after the timeout: nobody knows whether the server read that one.
    assert given_up == [None, calls[:1], calls[:2], calls[:2], None]


async def test_only_as_many_lost_replies_are_named_as_the_server_takes() -> None:
    link = _Link()
    queues = QueuesClient(room=link)  # type: ignore[arg-type]
    for _ in range(module.MAX_LOST + 10):
        link.errors = [ConnectionLostError()]
        with pytest.raises(ConnectionLostError):
            await queues.lease(name="q")
    await queues.lease(name="q")
    assert len(link.headers[-1]["given_up"]) == module.MAX_LOST


class _Ours(_Link):
    """A server of ours. Answers what is put into `answers`, the last one again and again; notes what was asked."""

    def __init__(self, *answers: Any) -> None:
        super().__init__()
        self.answers = list(answers)
        self.clock = FakeClock()
        self.extensions = {"extensions": ["send_id", "message_life"]}
        self.request_timeout = 60.0
        self.is_closed = False
        self.asked = asyncio.Queue[dict[str, Any]]()

    async def request(self, type: str, header: dict[str, Any], *_: Any, **__: Any) -> Any:
        self.asked.put_nowait(header)
        await super().request(type, header)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, asyncio.Event):
            await answer.wait()
        return JsonResponse(json={"message": answer if isinstance(answer, dict) else None}), {}

    async def send_request(self, type: str, header: dict[str, Any], **_: Any) -> Any:
        return None


READY = {"id": "1", "state": "ready", "sent_at": 0.0, "seen": "a"}


async def test_a_wait_goes_on_when_a_request_of_it_is_lost() -> None:
    link = _Ours(READY, READY | {"state": "done", "result": 5, "colour": "from a newer release"})
    link.errors = [ConnectionLostError(), RequestTimeoutError("late")]
    waiting = asyncio.create_task(QueuesClient(room=link).wait("q", "1"))  # type: ignore[arg-type]
    for _ in range(3):
        await link.clock.advance(1)
    record = await waiting
    assert record is not None
    assert (record.result, len(link.headers)) == (5, 4)


@pytest.mark.parametrize("over", ["the room", "the time"])
async def test_a_wait_whose_request_is_lost_ends_with_the_room_or_its_time(over: str) -> None:
    link = _Ours(READY)
    link.errors, link.is_closed = [ConnectionLostError()], over == "the room"
    queues = QueuesClient(room=link)  # type: ignore[arg-type]
    with pytest.raises(ConnectionLostError):
        await queues.wait("q", "1", timeout=None if over == "the room" else 0)


async def test_what_was_seen_is_not_told_again() -> None:
    link = _Ours(READY, READY, READY | {"seen": "b", "progress": 1}, None)
    told: list[Any] = []
    waiting = QueuesClient(room=link).wait("q", "1", on_progress=lambda record: told.append(record.progress))  # type: ignore[arg-type]
    assert await waiting is None
    assert told == [None, 1]
    assert [header["seen"] for header in link.headers] == ["", "a", "a", "b"]


async def test_when_many_wait_they_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue_messages, "_MOST_WAITS", 1)
    held = asyncio.Event()
    link = _Ours(held, READY)
    queues = QueuesClient(room=link)  # type: ignore[arg-type]
    first = asyncio.create_task(queues.wait("q", "1"))
    # A turn is short: as many wait as may, and there may be others.
    assert (await link.asked.get())["wait"] == 1.0
    # One whose time is over before its turn looks once and does not wait.
    record = await queues.wait("q", "2", timeout=0)
    assert record is not None
    assert "wait" not in await link.asked.get()
    held.set()
    assert await first is None


async def test_a_server_that_does_not_say_how_many_it_purged_is_believed() -> None:
    assert await QueuesClient(room=_Ours(None)).purge("q") is None  # type: ignore[arg-type]


async def test_before_the_first_connection_the_request_says_so() -> None:
    class Unconnected(_Ours):
        @property
        def extensions(self) -> Any:
            raise RoomError("not connected")

        @extensions.setter
        def extensions(self, value: Any) -> None: ...

    assert await QueuesClient(room=Unconnected(None)).get("q", "1") is None  # type: ignore[arg-type]

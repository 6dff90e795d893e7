"""One connection to a room: requests, replies, and how it ends."""

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from doubles.memory_transport import MemoryTransport

from meshhost.errors import (
    ConnectionLostError,
    LimitExceededError,
    LocalProtocolError,
    NotFoundError,
    RequestTimeoutError,
    RoomError,
)
from meshhost.protocol.connection import MessageReceived, RoomConnection
from meshhost.protocol.frames import Limits
from meshhost.protocol.messages import EmptyResponse, ErrorResponse, JsonResponse, TextResponse
from meshhost.room.session import RoomSession


class _Side:
    """The session under test, its transport, and the server's end of it."""

    def __init__(self, **options: Any) -> None:
        self.near, self.far = MemoryTransport.pair()
        self.messages: asyncio.Queue[MessageReceived] = asyncio.Queue()
        self.session = RoomSession(self.near, self.messages.put_nowait, **{"limits": Limits()} | options)
        self.server = RoomConnection()
        self.running: asyncio.Task[RoomError]

    async def next(self) -> MessageReceived:
        while True:
            event = self.server.receive(await self.far.receive())
            if isinstance(event, MessageReceived):
                return event


@asynccontextmanager
async def _open(**options: Any) -> AsyncIterator[_Side]:
    """A running session; keyword arguments are those of RoomSession."""
    side = _Side(**options)
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        side.running = tasks.create_task(side.session.run())
        yield side
        side.near.break_connection()


async def _outcome(side: _Side, timeout: float = 5.0) -> RoomError | None:
    try:
        await side.session.request("ask", {"a": 1}, None, timeout=timeout)
    except RoomError as error:
        return error
    return None


async def test_replies_find_their_requests_in_any_order() -> None:
    async with _open() as side, asyncio.TaskGroup() as tasks:
        first = tasks.create_task(side.session.request("a", {}, None, timeout=5))
        second = tasks.create_task(side.session.request("b", {}, b"data", timeout=5))
        one, two = await side.next(), await side.next()
        assert (one.type, two.type, two.payload) == ("a", "b", b"data")
        await side.far.send(side.server.reply(two.id, TextResponse(text="two"), {"extra": 2}))
        await side.far.send(side.server.reply(one.id, JsonResponse(json=1)))
        assert (await first)[0] == JsonResponse(json=1)
        response, extra = await second
        assert (response, extra["extra"]) == (TextResponse(text="two"), 2)
        assert "awaited=0" in repr(side.session)


async def test_an_error_body_is_raised() -> None:
    async with _open() as side, asyncio.TaskGroup() as tasks:
        asking = tasks.create_task(_outcome(side))
        request = await side.next()
        await side.far.send(side.server.reply(request.id, ErrorResponse(text="gone", code=1003)))
        await asyncio.wait([asking])
        assert isinstance(asking.result(), NotFoundError)


async def test_a_request_waits_no_longer_than_its_time_and_a_late_reply_is_dropped() -> None:
    async with _open() as side:
        error = await _outcome(side, timeout=0.01)
        assert isinstance(error, RequestTimeoutError)
        request = await side.next()
        await side.far.send(side.server.reply(request.id, EmptyResponse()))
        await side.far.send(side.server.notify("later", {})[1])
        assert (await side.messages.get()).type == "later"


async def test_a_cancelled_request_is_forgotten() -> None:
    async with _open() as side, asyncio.TaskGroup() as tasks:
        asking = tasks.create_task(_outcome(side))
        request = await side.next()
        asking.cancel()
        await asyncio.wait([asking])
        await side.far.send(side.server.reply(request.id, EmptyResponse()))
        await side.far.send(side.server.notify("later", {})[1])
        assert (await side.messages.get()).type == "later"


async def test_every_awaited_reply_fails_when_the_connection_breaks() -> None:
    async with _open() as side:
        async with asyncio.TaskGroup() as tasks:
            asking = [tasks.create_task(_outcome(side)) for _ in range(5)]
            await side.next()
            side.near.break_connection()
        ends = [await side.running, *(task.result() for task in asking)]
        facts = {(type(end), str(end), end.clean) for end in ends if isinstance(end, ConnectionLostError)}
        assert (len(ends), facts) == (6, {(ConnectionLostError, str(ends[0]), False)})
        # Each has its own: one that several raised would collect all their frames.
        assert len(set(map(id, ends))) == 6
        for late in (side.session.request("x", {}, None, timeout=1), side.session.notify("x", {})):
            with pytest.raises(ConnectionLostError):
                await late
        with pytest.raises(ConnectionLostError):
            await side.session.respond(1, "x", EmptyResponse())
        await side.session.close()


async def test_a_request_that_waits_for_room_fails_too() -> None:
    async with _open(max_waiting_bytes=10) as side:
        side.far.hold()
        async with asyncio.TaskGroup() as tasks:
            asking = [tasks.create_task(_outcome(side)) for _ in range(3)]
            await asyncio.sleep(0)
            side.near.break_connection()
        assert all(isinstance(task.result(), ConnectionLostError) for task in asking)


async def test_the_end_tells_how_the_other_side_closed() -> None:
    async with _open() as side:
        await side.far.close(4001, "revoked")
        end = await side.running
        assert isinstance(end, ConnectionLostError)
        assert (end.clean, end.close_code, str(end)) == (True, 4001, "revoked")


async def test_closing_sends_what_waits() -> None:
    async with _open() as side:
        await side.session.notify("bye", {})
        await side.session.close()
        assert (await side.next()).type == "bye"
        assert isinstance(await side.running, ConnectionLostError)
        with pytest.raises(ConnectionLostError) as caught:
            await side.far.receive()
        assert caught.value.close_code == 1000


async def test_closing_does_not_wait_for_ever() -> None:
    async with _open() as side:
        side.far.hold()
        await side.session.notify("bye", {})
        await side.session.close(flush_timeout=0.01)
        assert isinstance(await side.running, ConnectionLostError)


@pytest.mark.parametrize(("packet", "code"), [(b"broken", 1002), (struct.pack(">QII", 1, 0, 2**30) + b"x", 1009)])
async def test_broken_framing_closes_with_its_code(packet: bytes, code: int) -> None:
    async with _open() as side:
        await side.far.send([packet])
        end = await side.running
        assert isinstance(end, ConnectionLostError)
        assert (end.close_code, "broke the protocol" in str(end)) == (code, True)
        with pytest.raises(ConnectionLostError) as caught:
            await side.far.receive()
        assert caught.value.close_code == code


async def test_a_text_frame_closes_with_1003() -> None:
    async with _open() as side:
        side.far.send_text("x")
        await side.running
        assert side.far.end is not None
        assert side.far.end.close_code == 1003


async def test_an_unreadable_message_is_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    async with _open() as side:
        await side.far.send([struct.pack(">QII", 7, 0, 0) + b"odd"])
        await side.far.send(side.server.notify("good", {})[1])
        assert (await side.messages.get()).type == "good"
    assert "unreadable message" in caplog.text


async def test_a_reply_that_nobody_awaits_is_passed_over() -> None:
    async with _open() as side:
        await side.far.send(side.server.reply(99, EmptyResponse()))
        await side.far.send(side.server.notify("good", {})[1])
        assert (await side.messages.get()).type == "good"


async def test_a_bug_ends_the_session_with_an_error(caplog: pytest.LogCaptureFixture) -> None:
    near, far = MemoryTransport.pair()

    def bug(_: MessageReceived) -> None:
        raise ZeroDivisionError

    session = RoomSession(near, bug, limits=Limits())
    await far.send(RoomConnection().notify("x", {})[1])
    assert "session failed" in str(await session.run())
    assert "ZeroDivisionError" in caplog.text


async def test_a_cancelled_session_closes_in_order() -> None:
    async with _open() as side, asyncio.TaskGroup() as tasks:
        asking = tasks.create_task(_outcome(side))
        await side.next()
        side.running.cancel()
        await asyncio.wait([asking])
        assert "left" in str(asking.result())
        assert side.far.end is not None
        assert (side.far.end.clean, side.far.end.close_code) == (True, 1000)


async def test_a_message_over_the_limit_is_not_sent() -> None:
    async with _open(limits=Limits(message_bytes=200)) as side:
        with pytest.raises(LimitExceededError):
            await side.session.request("x", {"x": "y" * 200}, None, timeout=1)
        with pytest.raises(LocalProtocolError):
            await side.session.request("x" * 300, {}, None, timeout=1)
        await side.session.respond(5, "agent.tool_call_response", TextResponse(text="y" * 200))
        answer = await side.next()
        assert (answer.id, answer.header["type"]) == (5, "error")


async def _cancelled(asking: asyncio.Task[RoomError | None]) -> None:
    asking.cancel()
    await asyncio.wait([asking])


async def test_a_request_that_is_given_up_is_given_up_at_the_server() -> None:
    async with _open() as side, asyncio.TaskGroup() as tasks:
        side.session.can_cancel = True
        asking = tasks.create_task(_outcome(side))
        request = await side.next()
        await _cancelled(asking)
        cancel = await side.next()
        assert (cancel.type, cancel.header) == ("request.cancel", {"id": request.id})
        assert isinstance(await _outcome(side, timeout=0.01), RequestTimeoutError)
        request, cancel = await side.next(), await side.next()
        assert (cancel.type, cancel.header) == ("request.cancel", {"id": request.id})


async def test_a_reply_that_comes_with_the_cancellation_is_given_up_too() -> None:
    async with _open() as side, asyncio.TaskGroup() as tasks:
        side.session.can_cancel = True
        asking = tasks.create_task(_outcome(side))
        request = await side.next()
        side.session._replies[request.id][0].set_result((EmptyResponse(), {}))
        await _cancelled(asking)
        assert (await side.next()).header == {"id": request.id}


async def test_an_answered_request_and_another_server_are_told_nothing() -> None:
    async with _open() as side, asyncio.TaskGroup() as tasks:
        asking = tasks.create_task(_outcome(side))
        await side.next()
        await _cancelled(asking)
        side.session.can_cancel = True
        for answer in (EmptyResponse(), ErrorResponse(text="no")):
            asking = tasks.create_task(_outcome(side))
            request = await side.next()
            assert request.type == "ask"
            await side.far.send(side.server.reply(request.id, answer))
            await asyncio.wait([asking])
        await side.session.notify("last", {})
        assert (await side.next()).type == "last"


async def test_giving_up_is_told_however_much_waits_to_be_sent() -> None:
    async with _open(max_waiting_bytes=100) as side, asyncio.TaskGroup() as tasks:
        side.session.can_cancel = True
        asking = tasks.create_task(_outcome(side))
        request = await side.next()
        side.near.hold()
        filling = tasks.create_task(side.session.notify("fill", {}, b"x" * 200_000))
        await asyncio.wait([filling])
        await _cancelled(asking)
        side.near.release()
        assert (await side.next()).type == "fill"
        assert (await side.next()).header == {"id": request.id}

"""What one connection receives: within its budget, in time, and with an answer for what was dropped."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from meshhost.errors import LimitExceededError
from meshhost.protocol.connection import RoomConnection
from meshhost.protocol.frames import Limits
from meshhost.protocol.messages import EmptyResponse, ErrorResponse, FileResponse, Response, TextResponse
from meshhost.quotas.in_flight import FREE_BYTES, InFlight
from meshhost.quotas.quota import ServerQuota
from meshhost.server.core.peer import CloseReason
from meshhost.server.core.requests import Request
from meshhost.server.wire import arriving, inbox
from meshhost.server.wire.arriving import Arrivals

ROOM = 1_000_000


class _Holds:
    """Answers "hold" when `go` is set, "file" with `size` bytes, and everything else at once."""

    def __init__(self) -> None:
        self.begun: asyncio.Queue[str] = asyncio.Queue()
        self.go = asyncio.Event()
        self.size = 0

    def finished(self, request: Request, error: BaseException | None = None) -> None:
        pass

    def unreadable(self, request: Request, error: Exception) -> Response:
        return ErrorResponse(text=str(error), code=LimitExceededError.code)

    def __call__(self, request: Request) -> Any:
        if request.message.type == "hold":
            return self._hold()
        if request.message.type == "file":
            return self._file(request)
        return EmptyResponse()

    async def _hold(self) -> Response:
        self.begun.put_nowait("hold")
        await self.go.wait()
        return EmptyResponse()

    async def _file(self, request: Request) -> None:
        await request.peer.reserve(self.size)
        self.begun.put_nowait("file")
        await request.reply(FileResponse(data=bytes(self.size), name="f", mime_type="m"), reserved=self.size)


@pytest.fixture
def everything() -> InFlight:
    return InFlight(ROOM, lambda _: ServerQuota(max_in_flight_bytes=None))


@pytest.fixture
def budget(everything: InFlight) -> dict[str, Any]:
    """Arguments of a connection."""
    accounts = {name: everything.account("t", max_bytes=10 * ROOM) for name in ("received", "sent")}
    return {**accounts, "max_waiting_bytes": 10 * ROOM}


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox, "ROOM_SECONDS", 0.05)
    monkeypatch.setattr(arriving, "_LOOK_SECONDS", 0.01)


async def test_a_message_is_held_until_its_request_is_answered(
    serving: Any, everything: InFlight, budget: Any, until: Callable[..., Any]
) -> None:
    holds = _Holds()
    async with serving(holds, **budget) as served:
        await served.send("hold", payload=bytes(500_000))
        await holds.begun.get()
        assert 500_000 - FREE_BYTES < everything.total < 510_000
        holds.go.set()
        assert await served.reply() == EmptyResponse()
        await until(lambda: everything.total == 0)
        await served.send("now", payload=bytes(500_000))
        assert await served.reply() == EmptyResponse()
        await until(lambda: everything.total == 0)


async def test_without_room_the_reader_waits_and_goes_on_when_there_is_some(
    serving: Any, everything: InFlight, budget: Any, until: Callable[..., Any]
) -> None:
    holds = _Holds()
    async with serving(holds, **budget) as served:
        await served.send("hold", payload=bytes(800_000))
        await holds.begun.get()
        message_id = await served.send("now", payload=bytes(500_000))
        await until(everything.has_waiters)
        assert everything.total <= ROOM
        holds.go.set()
        assert {(await served.next()).id, (await served.next()).id} == {message_id, message_id - 1}


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("size", [500_000, 10], ids=["large", "small"])
async def test_a_message_without_room_is_dropped_after_a_while_and_answered(
    serving: Any, everything: InFlight, budget: Any, size: int
) -> None:
    holds = _Holds()
    assert everything.account("u", max_bytes=10 * ROOM).take(ROOM + FREE_BYTES)
    async with serving(holds, **budget) as served:
        assert budget["received"].take(FREE_BYTES)  # nothing is free any more
        await served.send("now", payload=bytes(size))
        answer = await served.reply()
        assert isinstance(answer, ErrorResponse)
        assert "no room for it now: try again later" in answer.text
        budget["received"].give_back(FREE_BYTES)
        await served.send("now", payload=b"small")
        assert await served.reply() == EmptyResponse()


@pytest.mark.usefixtures("impatient")
async def test_unfinished_messages_that_fill_the_budget_do_not_wait_for_each_other(
    serving: Any, everything: InFlight, budget: Any
) -> None:
    other = everything.account("u", max_bytes=10 * ROOM)
    async with serving(_Holds(), **budget) as served:
        assert other.take(ROOM - 100_000)
        *begun, last = served.client.request("now", {}, bytes(400_000))[1]
        await served.far.send(begun)
        await served.far.send([last])
        assert isinstance(await served.reply(), ErrorResponse)
    assert everything.of_tenant("t") == 0


async def test_a_message_over_the_limit_holds_nothing(serving: Any, everything: InFlight, budget: Any) -> None:
    async with serving(_Holds(), limits=Limits(message_bytes=200_000), **budget) as served:
        *begun, last = served.client.request("now", {}, bytes(600_000))[1]
        await served.far.send(begun)
        await served.far.send([last])
        assert isinstance(await served.reply(), ErrorResponse)
        assert everything.total == 0


@pytest.mark.usefixtures("impatient")
async def test_a_message_that_is_not_finished_in_time_ends_its_connection(
    serving: Any, everything: InFlight, budget: Any
) -> None:
    arrivals = Arrivals(seconds=0.03, bytes_per_second=1e9)
    async with serving(_Holds(), arrivals=arrivals, **budget) as served:
        first, second, *_ = served.client.request("now", {}, bytes(600_000))[1]
        await served.far.send([first, second])
        end = await served.serving
        assert end.close_code == 1013
        assert "not finished in time" in str(end)
        assert served.connection.closing is CloseReason.TOO_SLOW
    assert everything.total == 0


@pytest.mark.usefixtures("impatient")
async def test_a_message_may_take_longer_when_more_of_it_comes(serving: Any, budget: Any) -> None:
    arrivals = Arrivals(seconds=0.03, bytes_per_second=1000)
    async with serving(_Holds(), arrivals=arrivals, **budget) as served:
        *begun, last = served.client.request("now", {}, bytes(100_000))[1]
        await served.far.send(begun)
        await asyncio.sleep(0.2)
        await served.far.send([last])
        assert isinstance(await served.reply(), EmptyResponse)


async def test_an_answer_is_reserved_before_it_is_loaded(serving: Any, everything: InFlight, budget: Any) -> None:
    holds = _Holds()
    holds.size = 600_000
    async with serving(holds, **budget) as served:
        served.far.hold()
        for _ in range(4):
            await served.send("file")
        assert await holds.begun.get() == "file"
        await asyncio.sleep(0.05)
        assert holds.begun.empty()
        assert everything.total <= ROOM
        served.far.release()
        for _ in range(4):
            answer = await served.reply()
            assert isinstance(answer, FileResponse)
            assert len(answer.data) == 600_000
    assert everything.total == 0


async def test_an_answer_that_can_never_fit_becomes_an_error(serving: Any, everything: InFlight, budget: Any) -> None:
    holds = _Holds()
    holds.size = 2 * ROOM
    async with serving(holds, **budget) as served:
        await served.send("file")
        answer = await served.reply()
        assert isinstance(answer, ErrorResponse)
        assert "may be in flight" in answer.text
    assert everything.total == 0


async def test_a_message_that_can_never_fit_is_refused_without_a_wait(
    serving: Any, everything: InFlight, budget: Any
) -> None:
    async with asyncio.timeout(5), serving(_Holds(), **budget) as served:
        await served.send("now", payload=bytes(3 * ROOM))
        answer = await served.reply()
        assert isinstance(answer, ErrorResponse)
        assert f"and at most {ROOM + FREE_BYTES} may be in flight" in answer.text
        assert everything.total == 0
        await served.send("now", payload=b"small")
        assert await served.reply() == EmptyResponse()


async def test_an_answer_to_a_request_that_was_given_up_holds_nothing(
    serving: Any, everything: InFlight, budget: Any
) -> None:
    async with serving(_Holds(), **budget) as served:
        await served.far.send(RoomConnection().reply(7, TextResponse(text="x" * 200_000)))
        await served.send("now")
        assert await served.reply() == EmptyResponse()
        assert everything.total == 0
        assert budget["received"].held == 0

"""One participant's connection: exactly one reply to each request, whatever happens."""

import asyncio
import struct
from contextlib import AsyncExitStack
from typing import Any

import pytest

from meshhost.errors import ConnectionLostError, InvalidRequestError, NotFoundError, RoomError
from meshhost.protocol.connection import MessageReceived, RoomConnection, packed_notice
from meshhost.protocol.frames import Limits
from meshhost.protocol.messages import EmptyResponse, ErrorResponse, JsonResponse, RawOutputs, TextResponse
from meshhost.server.core.peer import CloseReason, Event
from meshhost.server.core.requests import Answer, Request
from meshhost.server.wire.dialect import Handshake
from meshhost.server.wire.sdk06 import SDK_06
from tests.unit.server.conftest import Serving


class _Dispatch:
    """Answers by the type of the request."""

    def __init__(self) -> None:
        self.begun: asyncio.Queue[str] = asyncio.Queue()
        self.go = asyncio.Event()
        self.cancelled = 0
        self.finished_with: list[BaseException | None] = []

    def finished(self, request: Request, error: BaseException | None = None) -> None:
        self.finished_with.append(error)

    def __call__(self, request: Request) -> Any:
        kind = request.message.type
        match kind:
            case "now":
                return TextResponse(text="now")
            case "extra":
                return JsonResponse(json=1), {"more": 2}
            case "nothing":
                return None
            case "bug":
                raise ZeroDivisionError
            case "refused":
                raise NotFoundError
            case "large":
                return TextResponse(text="x" * 10_000)
            case "raw":
                return RawOutputs(outputs=[1])
            case _:
                return self._later(kind)

    def unreadable(self, request: Request, error: RoomError) -> Answer:
        if request.message.type == "bug":
            raise ZeroDivisionError
        return ErrorResponse(text=str(error), code=error.code)

    async def _later(self, kind: str) -> Answer:
        self.begun.put_nowait(kind)
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if kind == "late bug":
            raise ZeroDivisionError
        return TextResponse(text=kind)


@pytest.fixture
def dispatch() -> _Dispatch:
    return _Dispatch()


async def test_a_request_is_answered_under_its_id(serving: Any, dispatch: _Dispatch) -> None:
    async with serving(dispatch) as served:
        assert await served.ask("now") == TextResponse(text="now")
        await served.send("extra")
        reply = await served.next()
        assert (reply.response, reply.extra["more"]) == (JsonResponse(json=1), 2)
        assert repr(served.connection) == "<Connection of 'p' to r>"


async def test_slow_requests_keep_no_quick_one_back(serving: Any, dispatch: _Dispatch) -> None:
    async with serving(dispatch) as served:
        await served.send("later")
        assert await served.ask("now") == TextResponse(text="now")
        dispatch.go.set()
        assert await served.reply() == TextResponse(text="later")


async def test_a_one_way_message_gets_no_reply(serving: Any, dispatch: _Dispatch) -> None:
    async with serving(dispatch) as served:
        await served.send("nothing")
        assert await served.ask("now") == TextResponse(text="now")


@pytest.mark.parametrize("kind", ["bug", "late bug"])
async def test_a_handlers_bug_is_an_error_and_the_connection_lives(
    serving: Any, dispatch: _Dispatch, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    dispatch.go.set()
    async with serving(dispatch) as served:
        answer = await served.ask(kind)
        assert isinstance(answer, ErrorResponse)
        assert answer.text == f"{kind} failed inside the room server; its log says why"
        assert await served.ask("now") == TextResponse(text="now")
    assert "ZeroDivisionError" in caplog.text


async def test_a_refusal_carries_text_and_code(serving: Any, dispatch: _Dispatch) -> None:
    async with serving(dispatch) as served:
        assert await served.ask("refused") == ErrorResponse(text="NotFoundError", code=NotFoundError.code)


async def test_an_oversized_reply_becomes_an_error(serving: Any, dispatch: _Dispatch) -> None:
    async with serving(dispatch, limits=Limits(message_bytes=5_000)) as served:
        answer = await served.ask("large")
        assert isinstance(answer, ErrorResponse)
        assert "5000" in answer.text
        assert await served.ask("now") == TextResponse(text="now")


async def test_a_body_that_old_clients_cannot_read_is_turned(serving: Any, dispatch: _Dispatch) -> None:
    async with serving(dispatch) as served:
        assert await served.ask("raw") == JsonResponse(json={"outputs": [1]})


async def test_an_unreadable_message_is_answered(serving: Any, dispatch: _Dispatch) -> None:
    async with serving(dispatch) as served:
        message_id, _ = served.client.request("x", {})
        await served.far.send([struct.pack(">QII", message_id, 0, 0) + b"x"])
        assert isinstance(await served.reply(), ErrorResponse)
        assert await served.ask("now") == TextResponse(text="now")


async def test_a_bug_in_the_handling_of_an_unreadable_message_is_an_error(
    serving: Any, dispatch: _Dispatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(dispatch) as served:
        message_id, _ = served.client.request("bug", {})
        await served.far.send([struct.pack(">QII", message_id, 0, 0) + b"bug"])
        assert isinstance(await served.reply(), ErrorResponse)
        assert await served.ask("now") == TextResponse(text="now")
    assert "ZeroDivisionError" in caplog.text


class _Picky(type(SDK_06.translator(Handshake({}, {})))):  # type: ignore[misc]
    """A translator that cannot translate every body."""

    def request(self, message: MessageReceived) -> tuple[str, MessageReceived]:
        if message.type == "untranslatable":
            raise InvalidRequestError("arguments", "expected json")
        return super().request(message)  # type: ignore[no-any-return]


async def test_a_body_that_cannot_be_translated_is_refused(serving: Any, dispatch: _Dispatch) -> None:
    async with serving(dispatch, translator=_Picky(frozenset())) as served:
        assert await served.ask("untranslatable") == ErrorResponse(text="arguments: expected json", code=1002)
        assert await served.ask("now") == TextResponse(text="now")


async def test_what_is_under_way_ends_with_the_connection(serving: Any, dispatch: _Dispatch) -> None:
    async with serving(dispatch) as served:
        for _ in range(4):
            await served.send("later")
        for _ in range(4):
            await dispatch.begun.get()
        served.near.break_connection()
        end = await served.serving
        assert (end.clean, dispatch.cancelled) == (False, 4)


async def test_only_so_many_requests_run_at_once(serving: Any, dispatch: _Dispatch) -> None:
    async with serving(dispatch) as served:
        for _ in range(6):
            await served.send("later")
        for _ in range(4):
            await dispatch.begun.get()
        for _ in range(10):
            await asyncio.sleep(0)
        assert dispatch.begun.empty()
        dispatch.go.set()
        for _ in range(6):
            assert await served.reply() == TextResponse(text="later")
        dispatch.go.clear()
        for _ in range(5):
            await served.send("later")
        for _ in range(6):
            await dispatch.begun.get()
        served.serving.cancel()
        await asyncio.wait([served.serving])
        assert dispatch.cancelled == 4


async def test_a_request_that_never_ran_leaves_nothing(serving: Any, dispatch: _Dispatch) -> None:
    async with serving(dispatch) as served:
        await served.send("later")
        served.connection.close(CloseReason.SERVER_STOPPING, "bye")
        await served.far.send(RoomConnection().request("later", {})[1])
        await asyncio.wait([served.serving])
        assert dispatch.begun.qsize() <= 1


async def test_closing_answers_what_is_under_way_and_sends_what_waits(serving: Any, dispatch: _Dispatch) -> None:
    async with serving(dispatch) as served:
        await served.send("later")
        await dispatch.begun.get()
        served.connection.tell(Event("bye", {"x": 1}, b"y", trace={"traceparent": "z"}))
        served.connection.close(CloseReason.ROOM_ENDED, "the room has ended")
        served.connection.close(CloseReason.SERVER_STOPPING, "too late")
        assert served.connection.closing is CloseReason.ROOM_ENDED
        await served.send("later")
        message = await served.message()
        assert (message.type, message.payload, message.trace) == ("bye", b"y", {"traceparent": "z"})
        refusals = [await served.reply()]
        assert refusals[0] == ErrorResponse(text="the room has ended", code=ConnectionLostError.code)
        end = await served.serving
        assert (end.clean, end.close_code) == (True, 4004)
        assert served.far.end is not None
        assert (served.far.end.close_code, str(served.far.end)) == (4004, "the room has ended")


async def test_a_request_that_comes_while_closing_is_refused(serving: Any, dispatch: _Dispatch) -> None:
    async with serving(dispatch) as served:
        await served.send("later")
        await dispatch.begun.get()
        served.far.hold()  # what waits cannot be sent yet
        served.connection.close(CloseReason.SERVER_STOPPING, "stopping")
        await asyncio.sleep(0)
        await served.send("later")
        for _ in range(20):
            await asyncio.sleep(0)
        served.far.release()
        answers = {(await served.reply()).text for _ in range(2)}
        assert answers == {"stopping"}
        assert dispatch.begun.empty()


async def test_an_answer_that_was_ready_is_sent_before_the_end(serving: Any, dispatch: _Dispatch) -> None:
    async with serving(dispatch) as served:
        await served.send("later")
        await dispatch.begun.get()
        dispatch.go.set()
        for _ in range(5):
            await asyncio.sleep(0)
        served.connection.close(CloseReason.SERVER_STOPPING, "stopping")
        assert await served.reply() == TextResponse(text="later")


async def test_a_slow_consumer_is_disconnected(serving: Any, dispatch: _Dispatch) -> None:
    async with serving(dispatch, max_waiting_bytes=100) as served:
        served.far.hold()
        for _ in range(20):
            served.connection.tell(Event("news", {"x": "y" * 50}))
        served.far.release()
        end = await served.serving
        assert (end.clean, end.close_code) == (True, 1013)


async def test_one_who_takes_nothing_is_not_waited_for(serving: Any, dispatch: _Dispatch) -> None:
    async with serving(dispatch, flush_timeout=0.01) as served:
        served.far.hold()
        served.connection.tell(Event("news", {}))
        served.connection.close(CloseReason.SERVER_STOPPING, "stopping")
        end = await served.serving
        assert end.close_code == 1001


@pytest.mark.parametrize(("packet", "code"), [(b"broken", 1002), (struct.pack(">QII", 1, 0, 2**30), 1009)])
async def test_broken_framing_ends_the_connection(serving: Any, dispatch: _Dispatch, packet: bytes, code: int) -> None:
    async with serving(dispatch) as served:
        await served.far.send([packet])
        end = await served.serving
        assert (end.clean, end.close_code) == (False, code)
        assert served.far.end is not None
        assert served.far.end.close_code == code


async def test_flushing_waits_for_the_transport(serving: Any, dispatch: _Dispatch) -> None:
    async with serving(dispatch) as served, asyncio.TaskGroup() as tasks:
        served.far.hold()
        await served.connection.reply(1, "now", EmptyResponse())
        flushing = tasks.create_task(served.connection.flush())
        for _ in range(5):
            await asyncio.sleep(0)
        assert not flushing.done()
        served.far.release()
        await flushing
        assert served.near.sent


async def test_a_request_that_its_client_gave_up_is_cancelled_and_not_answered(
    serving: Any, dispatch: _Dispatch
) -> None:
    async with serving(dispatch, max_requests=1) as served:
        for _ in range(3):  # and its place is free again
            request = await served.send("later")
            await dispatch.begun.get()
            await served.notify("request.cancel", {"id": request})
        assert await served.ask("now") == TextResponse(text="now")
        assert dispatch.cancelled == 3


async def test_a_request_that_is_given_up_before_it_began_frees_its_place(serving: Any, dispatch: _Dispatch) -> None:
    async with serving(dispatch, max_requests=1) as served:
        for _ in range(3):
            request, packets = served.client.request("later", {})
            await served.far.send([*packets, *served.client.notify("request.cancel", {"id": request})[1]])
        dispatch.go.set()
        assert await served.ask("later") == TextResponse(text="later")


async def test_an_answer_that_its_client_gave_up_is_reported(serving: Any, dispatch: _Dispatch) -> None:
    given_up: list[tuple[Any, ...]] = []
    async with serving(dispatch, given_up=lambda *facts: given_up.append(facts)) as served:
        request = await served.send("now")
        await served.reply()
        for message_id in (request, "1", None, [], 2**80):
            await served.notify("request.cancel", {"id": message_id})
        assert await served.ask("now") == TextResponse(text="now")
        expected = (served.room, served.participant, served.connection)
        assert given_up == [(*expected, request), (*expected, 2**80)]


async def test_an_event_for_many_is_packed_once_for_all_that_speak_alike(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed: list[Any] = []
    monkeypatch.setattr(
        "meshhost.server.wire.connection.packed_notice",
        lambda header, trace: packed.append(header) or packed_notice(header, trace),
    )
    event = Event("room.changed", {"text": "x" * 1000}, b"tail", {"traceparent": "00-1"})
    async with AsyncExitStack() as stack:
        all_served = [await stack.enter_async_context(serving(None)) for _ in range(3)]
        for served in all_served:
            served.connection.tell(event)
            told = await served.next()
            assert isinstance(told, MessageReceived)
            assert (told.header["text"], told.payload) == ("x" * 1000, b"tail")
        assert len(packed) == 1
        all_served[0].connection.tell(Event("room.changed", {"text": "other"}))
        assert len(packed) == 2

"""RoomClient against a room server in memory."""

import asyncio
import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from meshhost.errors import ConnectionLostError, NotFoundError, RequestTimeoutError, RoomError, RoomRefusedError
from meshhost.identity.tenant import TenantId
from meshhost.protocol.connection import MessageReceived
from meshhost.protocol.messages import EmptyResponse, FileResponse, JsonResponse, LinkResponse, TextResponse
from meshhost.room.call import CallContext
from meshhost.room.client import RoomClient, RoomState
from meshhost.room.participants import Participant, RemoteParticipant
from meshhost.room.reconnect import ReconnectPolicy
from meshhost.room.requirements import Requirement, requirement_from_json

Joined = Callable[..., AbstractAsyncContextManager[RoomClient]]


def _events(room: RoomClient, name: str) -> asyncio.Queue[dict[str, Any]]:
    queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    room.on(name, lambda **fields: queue.put_nowait(fields))
    return queue


async def test_a_joined_client_knows_its_room(joined: Joined, fake: Any) -> None:
    call = CallContext(tenant=TenantId("t"), room="r", identity="me")
    async with joined(call=call) as room:
        assert (room.room_name, room.session_id, room.local_participant.id) == ("r", "s", "p")
        assert room.extensions == {}
        assert room.call is call
        assert room.protocol is fake
        assert repr(room).startswith("<RoomClient open <RoomSession")
        with pytest.raises(RoomError, match="make a new one"):
            await room.connect()


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        (JsonResponse(json=[1]), [1]),
        (TextResponse(text="t"), "t"),
        (EmptyResponse(), None),
        (FileResponse(data=b"1", name="n", mime_type="m"), FileResponse(data=b"1", name="n", mime_type="m")),
    ],
    ids=range(4),
)
async def test_a_request_returns_what_the_answer_holds(joined: Joined, fake: Any, answer: Any, value: Any) -> None:
    async with joined() as room, asyncio.TaskGroup() as tasks:
        asking = tasks.create_task(room.send_request("x", {}))
        await fake.answer(answer, "x")
        assert await asking == value


async def test_an_answer_of_a_wrong_kind_is_an_error(joined: Joined, fake: Any) -> None:
    async with joined() as room:
        for call in (room.send_request("x", {}), room.queues.receive(name="q"), room.queues.lease(name="q")):
            async with asyncio.TaskGroup() as tasks:
                asking = tasks.create_task(_error(call))
                await fake.answer(LinkResponse(name="n", url="u"))
            assert "unexpected link reply" in str(asking.result())
        async with asyncio.TaskGroup() as tasks:
            asking = tasks.create_task(_error(room.storage.download(path="f")))
            await fake.answer(TextResponse(text="x"))
        assert "did not answer with a file" in str(asking.result())
        async with asyncio.TaskGroup() as tasks:
            asking = tasks.create_task(_error(room.agents.list_toolkits()))
            await fake.answer(JsonResponse(json={"tools": {"kit": {}}}))
        assert "lacks its tools" in str(asking.result())


async def _error(awaitable: Any) -> RoomError | None:
    try:
        await awaitable
    except RoomError as error:
        return error
    return None


async def test_a_server_without_leases_is_served_too(joined: Joined, fake: Any) -> None:
    async with joined() as room, asyncio.TaskGroup() as tasks:
        leasing = tasks.create_task(room.queues.lease(name="q"))
        await fake.answer(TextResponse(text="message"))
        leased = await leasing
        assert leased is not None
        assert (leased.message, leased.seconds) == ("message", None)
        await leased.ack()
        assert not await leased.nack()
        await leased.extend()
        receiving = tasks.create_task(room.queues.receive(name="q"))
        await fake.answer(EmptyResponse())
        assert await receiving is None
        sending = tasks.create_task(room.queues.send(name="q", message=1))
        await fake.answer(EmptyResponse())
        assert await sending is None


async def test_a_server_that_says_no_hello_is_given_up(joined: Joined, fake: Any) -> None:
    fake.hello.pop()
    with pytest.raises(RequestTimeoutError, match="hello"):
        async with joined(handshake_timeout=0.01):
            pass
    assert fake.far.end is not None


async def test_a_connection_that_ends_before_the_hello_says_how(joined: Joined, fake: Any) -> None:
    connect = fake.connect

    async def connect_and_close(*, resume: str | None = None) -> Any:
        near = await connect(resume=resume)
        await fake.far.close(1011, "full")
        return near

    fake.hello, fake.connect = [], connect_and_close
    with pytest.raises(ConnectionLostError, match="full"):
        async with joined():
            pass


@pytest.mark.parametrize(
    ("index", "header"),
    [
        (0, {"room_name": "r"}),
        (2, {"type": "init", "participantId": "p"}),
        (2, {"type": "init", "participantId": "p", "attributes": 3}),
        (2, {"type": "init", "participantId": "p", "attributes": ["ab", "x"]}),
    ],
    ids=range(4),
)
async def test_a_hello_that_lacks_a_member_is_an_error(joined: Joined, fake: Any, index: int, header: Any) -> None:
    fake.hello[index] = (fake.hello[index][0], header)
    with pytest.raises(RoomError, match="lacks a member"):
        async with joined():
            pass


async def test_a_cancelled_connect_leaves_nothing(fake: Any, until: Any) -> None:
    fake.hello = []
    room = RoomClient(protocol=fake)
    async with asyncio.TaskGroup() as tasks:
        connecting = tasks.create_task(room.connect())
        await until(lambda: fake.resumed)
        connecting.cancel()
    assert room.is_closed
    assert str(await room.wait_closed()) == "left"
    assert fake.far.end is not None


async def test_the_client_dials_until_it_is_let_in(joined: Joined, fake: Any) -> None:
    fake.hello[2][1]["meshhost"] = {"resume_token": "again"}
    async with joined() as room:
        reconnecting, reconnected = _events(room, "reconnecting"), _events(room, "reconnected")
        fake.failures = [ConnectionLostError("no"), RoomRefusedError("full", status=503), RequestTimeoutError("slow")]
        fake.near.break_connection()
        await reconnecting.get()
        await reconnected.get()
        assert fake.resumed == [None, "again", "again", "again", "again"]
        assert room.is_open


@pytest.mark.parametrize("error", [RoomRefusedError("no", status=403), RoomError("odd")], ids=["refused", "odd"])
async def test_a_final_refusal_ends_the_stay(joined: Joined, fake: Any, error: RoomError) -> None:
    async with joined() as room:
        closed = _events(room, "closed")
        fake.failures = [error]
        fake.near.break_connection()
        assert (await closed.get())["reason"].error is error
        assert (await room.wait_closed()).error is error
        with pytest.raises(RoomError) as caught:
            await room.send_request("x", {})
        assert caught.value is error


async def test_a_final_close_ends_the_stay_at_once(joined: Joined, fake: Any) -> None:
    async with joined() as room:
        await fake.far.close(4004, "the room has ended")
        assert str(await room.wait_closed()) == "the room has ended"
        assert fake.resumed == [None]


async def test_a_renewed_token_is_tried_after_the_old_one_expired(joined: Joined, fake: Any) -> None:
    async with joined() as room:
        reconnected = _events(room, "reconnected")
        fake.token = "newer"
        await fake.far.close(4001, "expired")
        await reconnected.get()
        assert room.is_open


async def test_everything_is_restored_after_a_reconnect(
    joined: Joined, fake: Any, caplog: pytest.LogCaptureFixture, until: Any
) -> None:
    async with joined() as room, asyncio.TaskGroup() as tasks:
        done: list[str] = []

        async def good() -> None:
            done.append("good")

        async def bad() -> None:
            done.append("bad")
            raise NotFoundError("cannot")

        async def removed() -> None:
            done.append("removed")

        for restorer in (bad, removed, good):
            room.add_restorer(restorer)
        room.remove_restorer(removed)
        room.remove_restorer(removed)
        for call, kind in (
            (room.local_participant.set_attribute("mood", "fine"), None),
            (room.messaging.enable(), "messaging.enable"),
            (room.developer.enable(), "developer.watch"),
        ):
            task = tasks.create_task(call)
            await (fake.answer(None, kind) if kind else fake.next())
            await task
        reconnected = _events(room, "reconnected")
        fake.near.break_connection()
        await until(lambda: room.state is RoomState.RECONNECTING)
        await until(lambda: room.is_open)
        attributes = await fake.next()
        assert (attributes.type, attributes.header) == ("set_attributes", {"mood": "fine"})
        await fake.answer(None, "messaging.enable")
        await fake.answer(None, "developer.watch")
        await reconnected.get()
        assert done == ["bad", "good"]
        assert room.local_participant.get_attribute("mood") == "fine"
    assert "not restored" in caplog.text


async def test_a_restore_ends_with_its_connection(joined: Joined, fake: Any, until: Any) -> None:
    async with joined() as room:
        begun: asyncio.Queue[int] = asyncio.Queue()
        go = asyncio.Event()

        async def slow() -> None:
            begun.put_nowait(1)
            await go.wait()

        async def asking() -> None:
            await room.send_request("register", {})

        room.add_restorer(asking)
        room.add_restorer(slow)
        reconnected = _events(room, "reconnected")
        fake.near.break_connection()
        await until(lambda: len(fake.resumed) >= 2)
        await fake.next()
        fake.near.break_connection()  # in the middle of a request
        await until(lambda: len(fake.resumed) >= 3)
        await fake.answer(None, "register")
        await begun.get()
        fake.near.break_connection()  # between two requests
        await until(lambda: len(fake.resumed) >= 4)
        go.set()
        await fake.answer(None, "register")
        await reconnected.get()
        assert begun.qsize() == 1
        assert reconnected.empty()


async def test_messages_reach_their_handlers(joined: Joined, fake: Any, caplog: pytest.LogCaptureFixture) -> None:
    async with joined() as room:
        got: asyncio.Queue[MessageReceived] = asyncio.Queue()

        def bad(_: MessageReceived) -> None:
            raise ZeroDivisionError

        async def good(message: MessageReceived) -> None:
            got.put_nowait(message)

        async def bad_too(_: MessageReceived) -> None:
            raise ZeroDivisionError

        room.register_handler("bad", bad)
        room.register_handler("bad_too", bad_too)
        room.register_handler("good", good)
        for kind in ("unknown", "bad", "bad_too", "good"):
            await fake.tell(kind, {"x": 1}, b"y")
        message = await got.get()
        assert (message.header, message.payload) == ({"x": 1}, b"y")
        room.unregister_handler("good")
        room.unregister_handler("good")
        await fake.tell("good", {})
        status = _events(room, "room.status")
        await fake.tell("room.status", {"status": "starting", "message": "m"})
        assert await status.get() == {"status": "starting", "message": "m"}
        assert got.empty()
    assert "message handler raised" in caplog.text
    assert "room task failed" in caplog.text


async def test_events_of_the_application_and_their_handlers(joined: Joined) -> None:
    async with joined() as room:
        calls: list[int] = []

        def handler(x: int) -> None:
            calls.append(x)

        room.on("mine", handler)
        room.emit("mine", x=1)
        room.off("mine", handler)
        room.emit("mine", x=2)
        assert calls == [1]


async def test_what_was_never_begun_at_the_end_is_dropped_silently(joined: Joined) -> None:
    async with joined() as room:

        async def handler(**_: Any) -> None:
            raise AssertionError

        room.on("mine", handler)
        room.emit("mine")
        room.developer.log_nowait(type="x", data={})


async def test_leaving_does_not_wait_for_ever(joined: Joined, caplog: pytest.LogCaptureFixture) -> None:
    free = asyncio.Event()
    async with joined() as room:

        async def stubborn() -> None:
            while not free.is_set():
                try:
                    await free.wait()
                except asyncio.CancelledError:
                    continue

        room.spawn(stubborn(), "stubborn")
        await asyncio.sleep(0)
        await room.close(timeout=0.01)
        assert "tasks did not end" in caplog.text
        free.set()


async def test_presence_follows_what_the_server_tells(joined: Joined, fake: Any) -> None:
    async with joined() as room:
        added, removed = (_presence(room, f"participant_{what}") for what in ("added", "removed"))

        async def tell(type: str, message: Any, sender: str = "s") -> None:
            await fake.tell("messaging.send", {"from_participant_id": sender, "type": type, "message": message})

        await tell("messaging.enabled", {"participants": [{"id": "a"}, {"id": "b", "role": "agent"}]})
        assert [(await added.get()).id, (await added.get()).id] == ["a", "b"]
        await tell("messaging.enabled", {"participants": [{"id": "b", "role": "agent"}, {"id": "c"}]})
        assert ((await removed.get()).id, (await added.get()).id) == ("a", "c")
        await tell("participant.disabled", {"id": "nobody"})
        await tell("participant.attributes", {"attributes": {"x": 1}}, sender="nobody")
        await tell("participant.disabled", {"id": "c"})
        assert (await removed.get()).id == "c"
        (left,) = room.messaging.get_participants()
        assert (left.role, repr(left)) == ("agent", "<RemoteParticipant b None>")
        assert RemoteParticipant(id="x").role == "unknown"


def _presence(room: RoomClient, event: str) -> asyncio.Queue[Participant]:
    queue: asyncio.Queue[Participant] = asyncio.Queue()
    room.messaging.on(event, lambda **fields: queue.put_nowait(fields["participant"]))
    return queue


def test_a_requirement_must_be_one_of_two() -> None:
    with pytest.raises(RoomError):
        requirement_from_json({"other": "x"})
    with pytest.raises(NotImplementedError):
        Requirement(name="x").to_json()


async def test_trace_context_travels(joined: Joined, fake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meshhost.room.session._trace", lambda: {"traceparent": "00-1"})
    async with joined() as room, asyncio.TaskGroup() as tasks:
        task = tasks.create_task(room.send_request("x", {"a": json.loads("1")}))
        message = await fake.answer()
        assert message.trace == {"traceparent": "00-1"}
        await task


async def test_requests_wait_while_the_client_dials(joined: Joined, fake: Any, until: Any) -> None:
    never = ReconnectPolicy(first_delay=1000.0, max_delay=1000.0)
    async with joined(reconnect=never, request_timeout=0.05) as room:
        fake.near.break_connection()
        await until(lambda: not room.is_open)
        with pytest.raises(ConnectionLostError, match="reconnecting"):
            await room.notify("x", {})
        await room.respond(1, "x", EmptyResponse())
    async with joined() as room:
        fake.near.break_connection()
        await room.respond(1, "x", EmptyResponse())


def _offer_send_ids(fake: Any) -> None:
    fake.hello[2][1]["meshhost"] = {"extensions": ["send_id"]}


async def test_a_send_whose_answer_was_lost_is_sent_again_under_its_id(joined: Joined, fake: Any) -> None:
    _offer_send_ids(fake)
    async with joined() as room, asyncio.TaskGroup() as tasks:
        reconnected = _events(room, "reconnected")
        sending = tasks.create_task(room.queues.send(name="q", message={"n": 1}))
        first = await fake.next()
        fake.near.break_connection()
        await reconnected.get()
        second = await fake.answer(JsonResponse(json={"id": "7"}), "queues.send")
        assert await sending == "7"
        assert first.header == second.header
        assert first.header["id"]
        sending = tasks.create_task(room.queues.send(name="q", message={"n": 1}))
        third = await fake.answer(JsonResponse(json={"id": "8"}), "queues.send")
        assert third.header["id"] != first.header["id"]


async def test_a_server_that_would_store_it_twice_is_not_asked_again(joined: Joined, fake: Any) -> None:
    async with joined() as room, asyncio.TaskGroup() as tasks:
        reconnected = _events(room, "reconnected")
        sending = tasks.create_task(_error(room.queues.send(name="q", message=1)))
        assert "id" not in (await fake.next()).header
        fake.near.break_connection()
        assert isinstance(await sending, ConnectionLostError)
        await reconnected.get()
        # Neither is one that was replaced by an older release.
        _offer_send_ids(fake)
        fake.near.break_connection()
        await reconnected.get()
        sending = tasks.create_task(_error(room.queues.send(name="q", message=1)))
        assert (await fake.next()).header["id"]
        del fake.hello[2][1]["meshhost"]
        fake.near.break_connection()
        assert isinstance(await sending, ConnectionLostError)


async def test_a_send_is_not_resumed_beyond_its_time(joined: Joined, fake: Any) -> None:
    _offer_send_ids(fake)
    async with joined(request_timeout=0.2) as room:
        sending = asyncio.create_task(_error(room.queues.send(name="q", message=1)))
        await fake.next()
        fake.failures = [ConnectionLostError("down")] * 100_000
        fake.near.break_connection()
        assert isinstance(await sending, ConnectionLostError)

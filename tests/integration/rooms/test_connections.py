"""How connections to a room begin, break, come back and end."""

import asyncio
import json
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import jwt
import pytest

from meshhost.errors import ConnectionLostError, NotFoundError, RequestTimeoutError, RoomError, RoomRefusedError
from meshhost.identity.grants import ApiScope
from meshhost.identity.keys import ApiKey, encode_api_key, new_api_key
from meshhost.identity.tokens import ParticipantGrant, ParticipantToken
from meshhost.protocol.connection import RoomConnection
from meshhost.protocol.frames import Limits
from meshhost.protocol.messages import EmptyResponse
from meshhost.room.client import RoomClient, RoomState
from meshhost.room.participants import RemoteParticipant
from meshhost.room.reconnect import ReconnectPolicy
from meshhost.server.core.requests import Answer, Body, Operation, Operations, Request
from meshhost.server.core.service import RoomService
from meshhost.testing.server import RunningServer
from meshhost.transport.websocket_client import WebSocketClientProtocol

AT_ONCE = ReconnectPolicy(first_delay=0.0)
NEVER = ReconnectPolicy(first_delay=10_000, max_delay=10_000)


def _client(server: RunningServer, jwt: str, room: str = "room", **options: Any) -> RoomClient:
    protocol = WebSocketClientProtocol(url=server.server.room_url(room), token=jwt)
    return RoomClient(protocol=protocol, reconnect=AT_ONCE, **options)


def _signed(key: ApiKey, *, room: str | None = "room", **token: Any) -> str:
    grants = [] if room is None else [ParticipantGrant(name="room", scope=room)]
    grants.append(ParticipantGrant(name="api", scope=ApiScope.full()))
    return ParticipantToken(name="x", grants=grants).to_jwt(api_key=encode_api_key(key), **token)


@asynccontextmanager
async def _raw(
    http: aiohttp.ClientSession, server: RunningServer, room: str = "room"
) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    """A WebSocket in the room, in the manner of the MeshAgent SDK: the token is in the URL."""
    url = f"{server.url}/rooms/{room}?token={server.token(room)}&v=0.6.13"
    async with http.ws_connect(url) as socket:
        yield socket


async def _end_of(socket: aiohttp.ClientWebSocketResponse) -> int | None:
    """Read to the end; the close code."""
    async with asyncio.timeout(10):
        while (await socket.receive()).type is aiohttp.WSMsgType.BINARY:
            pass
    return socket.close_code


async def test_the_handshake_tells_who_and_where(server: RunningServer) -> None:
    async with server.client("my-room", name="me", role="agent") as a:
        assert a.room_name == "my-room"
        assert a.room_url == server.server.room_url("my-room")
        assert a.local_participant.get_attribute("name") == "me"
        assert set(a.extensions["extensions"]) == {
            "leases",
            "resume",
            "dead_letters",
            "cancel",
            "cancel_request",
            "send_id",
            "confirm_receive",
            "ack_many",
            "message_life",
            "large_bodies",
            "resume_uploads",
            "traces",
            "tool_progress",
            "log_lines",
            "table_rows",
        }
        async with server.client("my-room", name="other") as b:
            assert b.session_id == a.session_id


@pytest.mark.parametrize(
    ("room", "token", "status"),
    [
        ("room", lambda server: "", 401),
        ("room", lambda server: "junk", 401),
        ("room", lambda server: _signed(new_api_key(server.key.project_id)), 401),
        ("room", lambda server: _signed(ApiKey(server.key.id, server.key.project_id, "other" * 10)), 401),
        ("room", lambda server: _signed(server.key, expiration=datetime.now(UTC) - timedelta(minutes=1)), 401),
        ("room", lambda server: _signed(server.key, room="other"), 403),
        ("room", lambda server: _signed(server.key, room=None), 403),
        ("Bad_Name", lambda server: _signed(server.key, room="Bad_Name"), 400),
        ("-x", lambda server: _signed(server.key, room="-x"), 400),
    ],
    ids=["empty", "junk", "unknown-key", "wrong-secret", "expired", "other-room", "no-room", "bad-name", "bad-start"],
)
async def test_a_refusal_is_an_http_status(
    server: RunningServer, room: str, token: Callable[[RunningServer], str], status: int
) -> None:
    client = _client(server, token(server), room)
    with pytest.raises(RoomRefusedError) as caught:
        await client.connect()
    assert caught.value.status == status
    assert client.is_closed
    assert (await client.wait_closed()).error is caught.value
    with pytest.raises(RoomError):
        await client.connect()


async def test_a_request_without_any_token_is_refused(server: RunningServer, http: aiohttp.ClientSession) -> None:
    for headers in ({}, {"Authorization": "Basic eDp5"}):
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await http.ws_connect(f"{server.url}/rooms/room", headers=headers)
        assert caught.value.status == 401


async def test_a_server_that_is_not_there_cannot_be_reached() -> None:
    client = RoomClient(protocol=WebSocketClientProtocol(url="ws://127.0.0.1:1/rooms/x", token="t"))
    with pytest.raises(ConnectionLostError, match=r"ws://127\.0\.0\.1:1"):
        await client.connect()


async def test_a_token_without_a_key_id_is_checked_with_the_servers_secret(serve: Any) -> None:
    secret = "s" * 40
    token = ParticipantToken(name="x", grants=[ParticipantGrant(name="room", scope="room")])
    async with serve(default_secret=secret) as server, _client(server, token.to_jwt(token=secret)) as a:
        assert a.room_name == "room"
        with pytest.raises(RoomError, match="permission denied"):
            await a.queues.list()


async def test_an_expiring_token_ends_the_stay(server: RunningServer) -> None:
    expiration = datetime.now(UTC) + timedelta(seconds=1.2)
    async with server.client(expiration=expiration) as a:
        reason = await a.wait_closed()
        assert isinstance(reason.error, ConnectionLostError)
        assert reason.error.close_code == 4001
        assert "expired" in str(reason)
        with pytest.raises(ConnectionLostError, match="expired"):
            await a.queues.list()


async def test_a_token_without_expiry_or_with_a_far_one_stays(server: RunningServer) -> None:
    for expiry in ({}, {"exp": 10**11}):
        claims = ParticipantToken(
            name="x", project_id=server.key.project_id, api_key_id=server.key.id,
            grants=[ParticipantGrant(name="room", scope="room")],
        ).to_json()  # fmt: skip
        async with _client(server, jwt.encode(claims | expiry, server.key.secret)) as a:
            assert a.is_open


async def test_a_text_frame_ends_the_connection(server: RunningServer, http: aiohttp.ClientSession) -> None:
    async with _raw(http, server) as socket:
        await socket.send_str("hello")
        assert await _end_of(socket) == 1003


@pytest.mark.parametrize(
    ("packet", "code"),
    [
        (b"", 1002),
        (b"short", 1002),
        (struct.pack(">QII", 1, 5, 1) + b"x", 1002),
        (struct.pack(">QII", 1, 0, 0) + b"x" * 300, 1002),
        (struct.pack(">QII", 1, 0, 0) + b"\xff", 1002),
        (struct.pack(">QII", 1, 0, 2**31) + b"x", 1009),
    ],
    ids=["empty", "short", "data-first", "long-type", "type-not-utf8", "too-many-packets"],
)
async def test_a_malformed_packet_ends_its_connection_only(
    server: RunningServer, http: aiohttp.ClientSession, packet: bytes, code: int
) -> None:
    async with server.client() as neighbour, _raw(http, server) as socket:
        await socket.send_bytes(packet)
        assert await _end_of(socket) == code
        await neighbour.queues.list()


async def test_a_message_over_the_limit_is_answered_with_an_error(serve: Any, http: aiohttp.ClientSession) -> None:
    async with serve(wire=Limits(message_bytes=1000)) as server, _raw(http, server) as socket:
        connection = RoomConnection()
        for payload in (b"x" * 1000, b""):
            for packet in connection.request("queues.list", {}, payload)[1]:
                await socket.send_bytes(packet)
        assert [reply async for reply in _replies(socket, 2)] == [(1, "error"), (2, "json")]


async def test_an_unreadable_message_is_answered_and_the_connection_lives(
    server: RunningServer, http: aiohttp.ClientSession
) -> None:
    async with _raw(http, server) as socket:
        connection = RoomConnection()
        await socket.receive_bytes()  # room_ready: its header packet tells that data follows
        await socket.send_bytes(struct.pack(">QII", 0, 0, 0) + b"queues.list")
        for packet in connection.request("queues.list", {})[1]:
            await socket.send_bytes(packet)
        replies = [message async for message in _replies(socket, 2)]
        assert replies == [(0, "error"), (1, "json")]


async def _replies(socket: aiohttp.ClientWebSocketResponse, count: int) -> AsyncIterator[tuple[int, str]]:
    while count:
        head = await socket.receive_bytes()
        message_id, number, _ = struct.unpack_from(">QII", head)
        if number == 0 and head[16:] == b"__response__":
            body = await socket.receive_bytes()
            yield message_id, json.loads(body[20:])["type"]
            count -= 1


async def test_an_unknown_request_is_answered_with_an_error(server: RunningServer) -> None:
    async with server.client() as a:
        with pytest.raises(RoomError, match="nope"):
            await a.send_request("nope.nope", {})


async def test_tenants_with_one_room_name_do_not_meet(server: RunningServer, other_key: ApiKey) -> None:
    stranger = _client(server, _signed(other_key))
    async with server.client() as a, stranger as b:
        assert a.session_id != b.session_id
        await a.messaging.enable()
        await b.messaging.enable()
        await a.storage.upload(path="f", data=b"1")
        await a.queues.send(name="q", message=1)
        assert b.messaging.remote_participants == []
        assert await b.storage.list(path="") == []
        assert await b.queues.list() == []
        to = RemoteParticipant(id=a.local_participant.id)
        with pytest.raises(NotFoundError):
            await b.messaging.send_message(to=to, type="x", message={})


async def test_a_broken_connection_is_resumed(server: RunningServer, heard: Any) -> None:
    async with server.client() as a, server.client(name="b", role="agent", reconnect=AT_ONCE) as b:
        reconnecting, reconnected = heard(b, "reconnecting"), heard(b, "reconnected")
        added = heard(a.messaging, "participant_added", "participant")
        removed = heard(a.messaging, "participant_removed", "participant")
        await a.messaging.enable()
        await b.messaging.enable()
        await b.local_participant.set_attribute("mood", "fine")
        assert (await added.get()).id == b.local_participant.id
        before = b.local_participant.id
        server.cut(b)
        await reconnecting.get()
        await reconnected.get()
        assert b.local_participant.id == before
        assert (await removed.get()).id == before
        again = await added.get()
        assert (again.id, again.get_attribute("mood")) == (before, "fine")
        assert [one.id for one in b.messaging.remote_participants] == [a.local_participant.id]


async def test_only_a_connected_client_of_the_test_server_can_be_cut(server: RunningServer) -> None:
    stranger = _client(server, server.token("room"))
    async with stranger:
        for client in (stranger, server.client()):
            with pytest.raises(RoomError, match="can be cut"):
                server.cut(client)
        assert stranger.is_open


async def test_a_resumption_ends_the_old_connection(server: RunningServer) -> None:
    async with server.client() as a:
        token = a.extensions["resume_token"]
        async with AsyncExitStack() as stack:
            transport = await a.protocol.connect(resume=token)
            stack.push_async_callback(transport.close)
            reason = await a.wait_closed()
            assert isinstance(reason.error, ConnectionLostError)
            assert reason.error.close_code == 4000
            assert len(server.server.rooms[0].members) == 1


async def test_only_the_same_name_can_resume(server: RunningServer) -> None:
    async with server.client(name="a") as a:
        thief = server.client(name="b")
        transport = await thief.protocol.connect(resume=a.extensions["resume_token"])
        await transport.receive()
        assert len(server.server.rooms[0].members) == 2
        assert a.is_open
        await transport.close()


async def test_requests_under_way_fail_when_the_connection_breaks(server: RunningServer) -> None:
    async with server.client(reconnect=AT_ONCE) as a:
        async with asyncio.TaskGroup() as tasks:
            parked = tasks.create_task(_error(a.queues.receive(name="q")))
            await a.queues.list()
            server.cut(a)
        assert isinstance(parked.result(), ConnectionLostError)
        assert await a.queues.list() is not None


async def _error(awaitable: Any) -> RoomError | None:
    try:
        await awaitable
    except RoomError as error:
        return error
    return None


async def test_a_request_waits_for_the_connection(server: RunningServer, heard: Any) -> None:
    async with server.client(reconnect=ReconnectPolicy(first_delay=0.2)) as a:
        reconnecting = heard(a, "reconnecting")
        server.cut(a)
        await reconnecting.get()
        assert a.state is RoomState.RECONNECTING
        await a.queues.send(name="q", message=1)
        assert a.is_open


async def test_a_request_waits_no_longer_than_its_time(server: RunningServer, heard: Any) -> None:
    async with server.client(reconnect=NEVER) as a:
        reconnecting = heard(a, "reconnecting")
        server.cut(a)
        await reconnecting.get()
        with pytest.raises(ConnectionLostError, match="reconnecting"):
            await a.send_request("queues.list", {}, timeout=0.01)
        # An answer to somebody whose connection is gone goes nowhere.
        await a.respond(1, "agent.tool_call_response", EmptyResponse())


async def test_a_request_that_is_not_answered_in_time_fails(server: RunningServer) -> None:
    async with server.client() as a:
        with pytest.raises(RequestTimeoutError, match=r"queues\.receive"):
            await a.send_request("queues.receive", {"name": "q"}, timeout=0.01)
        await a.queues.list()


async def test_a_client_finds_its_room_on_a_new_server(serve: Any, heard: Any) -> None:
    async with AsyncExitStack() as clients, AsyncExitStack() as servers:
        first = await servers.enter_async_context(serve())
        port, soon = first.server.port, ReconnectPolicy(first_delay=0.02, max_delay=0.05)
        room = await clients.enter_async_context(first.client(name="a", reconnect=soon))
        other = await clients.enter_async_context(first.client(name="b", reconnect=soon))
        await room.messaging.enable()
        await other.messaging.enable()
        before, session = room.local_participant.id, room.session_id
        lost, back, other_back = heard(room, "reconnecting"), heard(room, "reconnected"), heard(other, "reconnected")
        await servers.aclose()
        await lost.get()
        await clients.enter_async_context(serve(port=port))
        await back.get()
        await other_back.get()
        assert room.local_participant.id != before
        assert room.session_id != session
        await room.queues.list()
        assert [one.id for one in other.messaging.remote_participants] == [room.local_participant.id]
        await clients.aclose()


async def test_a_stopping_server_says_so(serve: Any, http: aiohttp.ClientSession) -> None:
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(serve())
        async with _raw(http, server) as socket, asyncio.TaskGroup() as tasks:
            end = tasks.create_task(_end_of(socket))
            await stack.aclose()
        assert end.result() == 1001


class _Stubborn(RoomService):
    """Offers `stubborn.work`, which goes on when it is cancelled, until it is released."""

    def __init__(self) -> None:
        self.begun, self.cancelled, self.release = asyncio.Event(), asyncio.Event(), asyncio.Event()

    def operations(self) -> Operations:
        return {"stubborn.work": Operation(Body, self._work, lambda scope, body: True)}

    async def _work(self, _: Request, __: Body) -> Answer:
        self.begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            await self.release.wait()
        return EmptyResponse()


async def test_a_stopping_server_takes_nobody_in(serve: Any, http: aiohttp.ClientSession) -> None:
    service = _Stubborn()
    async with (
        serve(room_services=[service]) as server,
        server.client(reconnect=NEVER) as a,
        asyncio.TaskGroup() as tasks,
    ):
        tasks.create_task(_error(a.send_request("stubborn.work", {})))
        await service.begun.wait()
        stop = tasks.create_task(server.server.stop())
        await service.cancelled.wait()
        with pytest.raises(RoomRefusedError) as caught:
            await server.client().connect()
        assert caught.value.status == 503
        async with http.get(f"{server.url}/readyz") as response:
            assert response.status == 503
        assert not stop.done()
        service.release.set()


async def test_waiting_requests_are_no_obstacle_to_a_stop(serve: Any) -> None:
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(serve())
        room = server.client(reconnect=NEVER)
        async with room, asyncio.timeout(5), asyncio.TaskGroup() as tasks:
            parked = tasks.create_task(_error(room.queues.receive(name="q")))
            await room.queues.list()
            await stack.aclose()
        # Answered before the connection ends: a MeshAgent client would wait for ever.
        error = parked.result()
        assert isinstance(error, RoomError)
        assert (str(error), error.code) == ("the room server is stopping", ConnectionLostError.code)


async def test_the_end_of_a_room_ends_all_stays(server: RunningServer) -> None:
    async with server.client() as a:
        (room,) = server.server.rooms
        server.server.parts.directory.end(room)
        server.server.parts.directory.end(room)
        reason = await a.wait_closed()
        assert isinstance(reason.error, ConnectionLostError)
        assert reason.error.close_code == 4004
        assert server.server.rooms == []


async def test_leaving_is_idempotent_and_says_so(server: RunningServer) -> None:
    a = server.client()
    assert (a.state, a.is_closed) == (RoomState.NEW, False)
    for read in ("room_name", "room_url", "session_id", "extensions", "local_participant"):
        with pytest.raises(RoomError, match="not connected"):
            getattr(a, read)
    async with a:
        await a.close()
        await a.close()
        assert str(await a.wait_closed()) == "left"
        with pytest.raises(ConnectionLostError, match="closed"):
            await a.queues.list()
        a.messaging.send_message_nowait(to=a.local_participant, type="x", message={})
    assert a.is_closed


async def test_leaving_while_reconnecting_is_quick(server: RunningServer, heard: Any) -> None:
    async with asyncio.timeout(5), server.client(reconnect=NEVER) as a:
        reconnecting = heard(a, "reconnecting")
        server.cut(a)
        await reconnecting.get()


async def test_a_revoked_token_is_not_tried_for_ever(serve: Any, heard: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serve() as server, server.client(reconnect=AT_ONCE) as a:
        closed = heard(a, "closed", "reason")
        monkeypatch.setattr(server.server.engines.identity, "find_key", lambda _: None)
        server.cut(a)
        reason = await closed.get()
        assert isinstance(reason.error, RoomRefusedError)
        assert reason.error.status == 401
        with pytest.raises(RoomRefusedError):
            await a.queues.list()


async def test_a_slow_reader_is_disconnected(serve: Any, http: aiohttp.ClientSession, until: Any) -> None:
    async with serve(max_waiting_bytes=100_000) as server, server.client() as a, _raw(http, server, "room") as socket:
        (slow,) = [member for member in server.server.rooms[0].connected() if member.id != a.local_participant.id]
        to = RemoteParticipant(id=slow.id)
        # While nobody receives from the socket, aiohttp soon stops to read from the network.
        connection = slow.peer
        for _ in range(3000):
            await a.messaging.send_message(to=to, type="x", message={"x": "y" * 50_000})
            if connection.closing is not None:
                break
        assert await _end_of(socket) == 1013


async def test_a_participant_is_known_by_its_id_as_far_as_it_is_known(server: RunningServer) -> None:
    async with server.client(name="a") as a, server.client(name="b") as b:
        await b.messaging.enable()
        await a.messaging.enable()
        known, unknown = a.participant(b.local_participant.id), a.participant("somebody")
        assert a.participant(a.local_participant.id) is a.local_participant
        assert known is not None
        assert known.get_attribute("name") == "b"
        assert unknown is not None
        assert (unknown.id, unknown.get_attribute("name")) == ("somebody", None)
        assert a.participant(None) is None

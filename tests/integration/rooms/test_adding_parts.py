"""A service, a dialect and an ownership of rooms are each added by registering one object."""

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from meshhost.errors import ConnectionLostError, InvalidRequestError, RoomRefusedError
from meshhost.identity.tenant import RoomKey
from meshhost.protocol.connection import MessageReceived, ReplyReceived, RoomConnection
from meshhost.protocol.messages import EmptyResponse, ErrorResponse, Header, JsonResponse, Response
from meshhost.server.core.ownership import OwnedElsewhereError
from meshhost.server.core.participants import Participant
from meshhost.server.core.peer import Capability, CloseReason, Event, Peer
from meshhost.server.core.requests import Answer, Body, Operation, Operations, Request
from meshhost.server.core.room import Room
from meshhost.server.core.service import RoomService
from meshhost.server.core.slots import Slot
from meshhost.server.services.queues import QueuesService
from meshhost.server.wire.dialect import Handshake, Welcome, WireEvent
from meshhost.testing.server import RunningServer

# ---- a toy service: it counts, per room, what its participants add --------------------------------------------------


class _Add(Body):
    amount: int = 1


class _Count:
    def __init__(self) -> None:
        self.total = 0
        self.by_participant: dict[Participant, int] = {}


class CounterService(RoomService):
    """Offers `counter.add`, and reports the new total to everybody as the event `counter.changed`."""

    def __init__(self) -> None:
        self.counts = Slot(_Count)
        self.hooks: asyncio.Queue[str] = asyncio.Queue()
        self.running = asyncio.Event()

    def operations(self) -> Operations:
        return {"counter.add": Operation(_Add, self._add, lambda scope, _: scope.messaging is not None)}

    async def run(self) -> None:
        self.running.set()

    async def opened(self, room: Room) -> None:
        self.hooks.put_nowait("opened")

    def joined(self, room: Room, participant: Participant, peer: Peer) -> None:
        self.hooks.put_nowait("joined")
        peer.tell(Event("counter.changed", {"total": self.counts.of(room).total}))

    def disconnected(self, room: Room, participant: Participant, peer: Peer) -> None:
        self.hooks.put_nowait("disconnected")

    async def settle(self, room: Room, participant: Participant, peer: Peer, *, orderly: bool) -> None:
        self.hooks.put_nowait(f"settle orderly={orderly}")

    async def left(self, room: Room, participant: Participant) -> None:
        self.counts.of(room).by_participant.pop(participant, None)
        self.hooks.put_nowait("left")

    async def ended(self, room: Room) -> None:
        self.hooks.put_nowait("ended")

    def _add(self, request: Request, body: _Add) -> Answer:
        count = self.counts.of(request.room)
        count.total += body.amount
        count.by_participant[request.participant] = count.by_participant.get(request.participant, 0) + body.amount
        request.room.tell(request.room.connected(), Event("counter.changed", {"total": count.total}))
        return JsonResponse(json={"total": count.total})


# ---- a toy dialect: other names, bodies, greeting, answers and close codes -----------------------------------------


class TickTalk:
    """Recognised by `?v=ticktalk`. Says `tick` for `counter.add` and sends its number as text in the payload."""

    name = "ticktalk"
    capabilities: frozenset[Capability] = frozenset()

    def matches(self, handshake: Handshake) -> bool:
        return handshake.query.get("v") == "ticktalk"

    def resume_token(self, handshake: Handshake) -> str | None:
        return None

    def refusal_status(self, status: int) -> int:
        return 403 if status == 401 else status

    def operations(self, shared: Operations) -> Operations:
        return shared | {"ticktalk.ping": Operation(Body, lambda *_: EmptyResponse())}  # type: ignore[operator]

    def translator(self, handshake: Handshake) -> "TickTalk":
        return self

    def greeting(self, welcome: Welcome) -> list[WireEvent]:
        return [("hello", {"you": welcome.participant_id}, welcome.room_name.encode())]

    def request(self, message: MessageReceived) -> tuple[str, MessageReceived]:
        if message.type == "tick":
            if not message.payload.isdigit():
                raise InvalidRequestError("payload", "expected a number")
            header = {"amount": int(message.payload)}
            return "counter.add", MessageReceived(message.id, message.type, header, b"", message.trace)
        return {"ping": "ticktalk.ping"}.get(message.type, message.type), message

    def answer(self, operation: str, response: Response, extra: Header | None) -> tuple[Response, Header | None]:
        if operation == "counter.add" and isinstance(response, JsonResponse):
            return JsonResponse(json=response["total"]), extra
        return response, extra

    def event(self, event: Event) -> WireEvent:
        return f"tock.{event.body['total']}", {}, b""

    def close_code(self, reason: CloseReason) -> int:
        return {CloseReason.ROOM_ENDED: 3001}.get(reason, 3000)


class _Client:
    """A client of the toy dialect."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self._protocol = RoomConnection()

    async def ask(self, type: str, payload: bytes = b"") -> Response:
        """Ask, and return the reply; events before it are dropped."""
        for packet in self._protocol.request(type, {}, payload)[1]:
            await self.socket.send_bytes(packet)
        while True:
            received = await self.next()
            if isinstance(received, ReplyReceived):
                return received.response

    async def next(self) -> Any:
        while True:
            received = self._protocol.receive(await self.socket.receive_bytes(timeout=5))
            if received is not None:
                return received


@asynccontextmanager
async def _ticktalk(http: aiohttp.ClientSession, server: RunningServer) -> AsyncIterator[_Client]:
    params = {"token": server.token("room", name="tick"), "v": "ticktalk"}
    async with http.ws_connect(f"{server.url}/rooms/room", params=params) as socket:
        yield _Client(socket)


async def test_a_service_is_added_by_registering_it(serve: Any, heard: Any) -> None:
    counter = CounterService()
    async with serve(room_services=[counter], linger_seconds=0.0) as server:
        async with asyncio.timeout(5):
            await counter.running.wait()
        async with server.client() as one, server.client(name="two") as two:
            told: asyncio.Queue[int] = asyncio.Queue()
            two.register_handler("counter.changed", lambda event: told.put_nowait(event.header["total"]))
            assert await two.send_request("counter.add", {"amount": 0}) == {"total": 0}
            assert await one.send_request("counter.add", {"amount": 2}) == {"total": 2}
            assert await one.send_request("counter.add", {}) == {"total": 3}
            async with asyncio.timeout(5):
                # First those of joining, and of the request above.
                while (total := await told.get()) == 0:
                    pass
                assert [total, await told.get()] == [2, 3]
            with pytest.raises(InvalidRequestError, match="amount"):
                await one.send_request("counter.add", {"amount": "much"})
        async with asyncio.timeout(5):
            hooks = [await counter.hooks.get() for _ in range(10)]
        assert sorted(hooks[:3]) == ["joined", "joined", "opened"]
        left = ["disconnected", "settle orderly=True", "left"]
        assert hooks[3:] == [*left, *left, "ended"]


async def test_what_services_keep_is_freed_when_the_room_ends(serve: Any, http: aiohttp.ClientSession) -> None:
    counter = CounterService()
    async with serve(room_services=[counter]) as server:
        async with server.client() as room, _old_client(http, server) as old:
            await room.send_request("counter.add", {})
            await room.messaging.enable()
            await room.queues.send(name="q", message=1)
            await old.ask_receive()
            await room.storage.open(path="unfinished")
            tools = {"t": {"input_schema": {"type": "object"}}}
            await room.send_request("agent.register_toolkit", {"name": "kit", "public": True, "tools": tools})
            [live] = server.server.rooms
            kept = [weakref.ref(live), *map(weakref.ref, live.members.values())]
            counts = weakref.ref(counter.counts.of(live))
            server.server.parts.directory.end(live)
            del live
            reason = await room.wait_closed()
            assert isinstance(reason.error, ConnectionLostError)
        async with asyncio.timeout(5):
            while any(each() is not None for each in [*kept, counts]):
                gc.collect()
                await asyncio.sleep(0.01)
        assert not server.server.service(QueuesService)._unsettled


class _OldClient(_Client):
    async def ask_receive(self) -> None:
        for packet in self._protocol.request("queues.receive", {"name": "q", "wait": True})[1]:
            await self.socket.send_bytes(packet)
        while not isinstance(await self.next(), ReplyReceived):
            pass


@asynccontextmanager
async def _old_client(http: aiohttp.ClientSession, server: RunningServer) -> AsyncIterator[_OldClient]:
    params = {"token": server.token("room", name="old", role="agent")}
    async with http.ws_connect(f"{server.url}/rooms/room", params=params) as socket:
        yield _OldClient(socket)


async def test_a_dialect_is_added_by_registering_it(serve: Any, http: aiohttp.ClientSession) -> None:
    async with (
        serve(room_services=[CounterService()], dialects=[TickTalk()]) as server,
        server.client(name="other") as other,
        _ticktalk(http, server) as client,
    ):
        hello = await client.next()
        [mine] = [member for member in server.server.rooms[0].members.values() if member.name == "tick"]
        assert (hello.type, hello.header, hello.payload) == ("hello", {"you": mine.id}, b"room")
        assert (await client.next()).type == "tock.0"
        # Both dialects meet in one room.
        assert await client.ask("tick", b"5") == JsonResponse(json=5)
        assert await other.send_request("counter.add", {}) == {"total": 6}
        assert (await client.next()).type == "tock.6"
        # Its own request, one of the services, one that it cannot translate, and one that nobody offers.
        assert await client.ask("ping") == EmptyResponse()
        assert isinstance(await client.ask("queues.list"), JsonResponse)
        assert await client.ask("tick", b"x") == ErrorResponse(text="payload: expected a number", code=1002)
        refusal = await client.ask("tack")
        assert isinstance(refusal, ErrorResponse)
        assert "does not offer 'tack'" in refusal.text
        server.server.parts.directory.end(server.server.rooms[0])
        end = await client.socket.receive(timeout=5)
        assert (end.type, end.data) == (aiohttp.WSMsgType.CLOSE, 3001)


async def test_a_dialect_chooses_the_status_of_a_refusal(serve: Any, http: aiohttp.ClientSession) -> None:
    async with serve(dialects=[TickTalk()]) as server:
        for params, status in (({"v": "ticktalk"}, 403), ({"v": "0.6.13"}, 401), ({}, 403)):
            async with http.get(f"{server.url}/rooms/room", params=params | {"token": "wrong"}) as response:
                assert response.status == status


# ---- an ownership that knows of another server ---------------------------------------------------------------------


class _Elsewhere:
    """Every room except `mine` is served by another server."""

    def __init__(self) -> None:
        self.released: asyncio.Queue[str] = asyncio.Queue()

    async def claim(self, key: RoomKey) -> None:
        if key.name != "mine":
            raise OwnedElsewhereError("https://b.example")

    async def release(self, key: RoomKey) -> None:
        self.released.put_nowait(key.name)


async def test_a_room_of_another_server_is_refused_before_the_upgrade(serve: Any, http: aiohttp.ClientSession) -> None:
    ownership = _Elsewhere()
    async with serve(ownership=ownership, linger_seconds=0.0) as server:
        with pytest.raises(RoomRefusedError) as caught:
            await server.client("theirs").connect()
        assert caught.value.status == 421
        url, params = f"{server.url}/rooms/theirs", {"token": server.token("theirs")}
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await http.ws_connect(url, params=params)
        assert refused.value.status == 421
        assert server.server.rooms == []
        async with server.client("mine"):
            assert [room.key.name for room in server.server.rooms] == ["mine"]
        async with asyncio.timeout(5):
            assert await ownership.released.get() == "mine"


async def test_a_plain_get_opens_no_room(server: RunningServer, http: aiohttp.ClientSession) -> None:
    async with http.get(f"{server.url}/rooms/room", params={"token": server.token("room")}) as response:
        assert response.status == 400
    assert server.server.rooms == []

"""The room server of a host that dials in, as far as a benchmark needs one: it takes one link, calls agents and welcomes them.

As the other stand-ins it does next to nothing while the time runs: calls are made beforehand, and what participants get is made
once. It is the room for the agents and the caller of the host at once, because both are at one end of the link.
"""

import asyncio
import base64
import functools
import json
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass

from aiohttp import web

from meshhost.errors import ConnectionLostError
from meshhost.identity.tokens import ParticipantToken
from meshhost.link.core import LinkCore, LinkState
from meshhost.link.events import MessageReceived, Offered
from meshhost.link.greeting import read_hello
from meshhost.protocol.connection import RESPONSE
from meshhost.protocol.frames import Message, packets
from meshhost.protocol.messages import EmptyResponse, Header, pack_message, pack_response
from meshhost.transport.websocket_server import AiohttpTransport

__all__ = ["LinkedCall", "StandInLinkedRoom"]

KEY = "bench-secret-of-more-than-32-bytes!"
STALL_SECONDS = 120.0
_PACKET = struct.Struct(">QII")
_STARTED = b"developer.log"


@dataclass(frozen=True, slots=True)
class LinkedCall:
    """A call of an agent: its identity, and the message that calls it."""

    identity: str
    message: bytes


def _message(message_id: int, type: str, header: Header) -> tuple[bytes, ...]:
    return tuple(packets(Message(message_id, type, pack_message(header))))


@functools.lru_cache(maxsize=256)
def _reply(message_id: int) -> tuple[bytes, ...]:
    return tuple(packets(Message(message_id, RESPONSE, pack_response(EmptyResponse()))))


class _Seat:
    """One participant: its identity, and the message that is being received."""

    __slots__ = ("count", "id", "identity", "type")

    def __init__(self, identity: str) -> None:
        self.identity = identity
        self.id, self.count, self.type = 0, 0, b""


class StandInLinkedRoom:
    """Serves `/link` inside `async with`. One host at a time."""

    def __init__(self) -> None:
        self.url = ""
        self._runner: web.AppRunner | None = None
        self._core = LinkCore(dials=False)
        self._transport: AiohttpTransport | None = None
        self._host = 0
        self._seats: dict[int, _Seat] = {}
        self._linked = asyncio.Event()
        self._calls: Sequence[LinkedCall] = ()
        self._numbers: dict[str, int] = {}
        self._begun: list[float] = []
        self._milliseconds: list[float] = []
        self._made = self._left = 0
        self._done: asyncio.Future[None] | None = None
        self._awaited = 0
        self._joined: asyncio.Future[None] | None = None

    async def __aenter__(self) -> "StandInLinkedRoom":
        app = web.Application()
        app.add_routes([web.get("/link", self._handle)])
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._transport is not None:
            self._transport.abort()
        if self._runner is not None:
            await self._runner.cleanup()

    async def wait_linked(self) -> None:
        """Wait until a host has dialled in and takes calls."""
        async with asyncio.timeout(60):
            await self._linked.wait()

    def prepare(self, number: int, identity: str) -> LinkedCall:
        """Prepare a call before the time that is measured."""
        token = ParticipantToken(name=identity)
        token.add_room_grant("bench")
        token.add_role_grant("agent")
        data = {"room_name": "bench", "room_url": "", "token": token.to_jwt(token=KEY), "arguments": {}}
        return LinkedCall(identity, json.dumps({"type": "call", "id": number, "path": "/idle", "data": data}).encode())

    async def start(self, calls: Sequence[LinkedCall], *, parallel: int) -> tuple[list[float], float]:
        """Make these calls, `parallel` at a time; returns the milliseconds until each agent started, and the seconds of all.

        Raises ConnectionError for a call that is refused, TimeoutError when no agent starts for STALL_SECONDS.
        """
        self._calls, self._made, self._left = calls, 0, len(calls)
        self._numbers = {call.identity: number for number, call in enumerate(calls)}
        self._begun, self._milliseconds = [0.0] * len(calls), [0.0] * len(calls)
        self._done = asyncio.get_running_loop().create_future()
        begun = time.perf_counter()
        for _ in range(min(parallel, len(calls))):
            self._next()
        await self._flush()
        async with asyncio.timeout(STALL_SECONDS):
            await self._done
        return self._milliseconds, time.perf_counter() - begun

    async def rejoin(self, *, resumed: bool) -> float:
        """Cut the connection; return the seconds until all agents are there again.

        `resumed`: the link goes on, and each agent is asked for an answer to a ping of the link. Else the server has forgotten
        everything, as after a restart, and each agent joins again.
        """
        loop = asyncio.get_running_loop()
        self._linked.clear()
        count = len(self._seats)
        begun = time.perf_counter()
        assert self._transport is not None
        if not resumed:
            self._core, self._seats = LinkCore(dials=False), {}
            self._awaited, self._joined = count, loop.create_future()
        self._transport.abort()
        await self.wait_linked()
        if self._joined is not None:
            await asyncio.wait_for(self._joined, STALL_SECONDS)
            self._joined = None
        return time.perf_counter() - begun

    async def _handle(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(compress=False, max_msg_size=0)
        await socket.prepare(request)
        transport = AiohttpTransport(socket, connection=request.transport)
        try:
            hello = read_hello(await transport.receive())
            core, self._transport = self._core, transport
            core.attach()
            core.welcome(hello, token="bench", resume_seconds=60)
            if self._seats:
                self._linked.set()
            await self._flush()
            while core.state is LinkState.OPEN:
                for event in core.receive(await transport.receive()):
                    if isinstance(event, MessageReceived):
                        self._received(event)
                    elif isinstance(event, Offered):
                        self._offered(event)
                await self._flush()
        except ConnectionLostError:
            pass
        finally:
            core.detach()
        return socket

    async def _flush(self) -> None:
        while self._transport is not None and (data := self._core.data_to_send()[0]):
            if not self._transport.send_at_once((data,)):
                await self._transport.send((data,))

    def _offered(self, event: Offered) -> None:
        asked = json.loads(event.meta)
        self._core.accept(event.channel)
        if asked["kind"] == "host":
            self._host = event.channel
            return
        claims = asked["token"].split(".")[1]
        identity = json.loads(base64.urlsafe_b64decode(claims + "=="))["name"]
        self._seats[event.channel] = _Seat(identity)
        connected = {"type": "init", "participantId": identity, "attributes": {"name": identity}}
        ready = {"room_name": "bench", "room_url": f"{self.url}/rooms/bench", "session_id": "s"}
        for packet in (*_message(1, "room_ready", ready), *_message(2, "connected", connected)):
            self._core.send(event.channel, packet)
        if self._joined is not None:
            self._awaited -= 1
            if not self._awaited and not self._joined.done():
                self._joined.set_result(None)

    def _received(self, event: MessageReceived) -> None:
        self._core.consumed(event.channel, event.cost)
        if event.channel == self._host:
            message = json.loads(event.data)
            if message["type"] == "answer" and message["status"] != 200:
                self._fail(message)
            elif message["type"] == "announce":
                self._linked.set()
            return
        seat = self._seats[event.channel]
        if seat.count:
            number = int.from_bytes(event.data[8:12], "big")
        else:
            (seat.id, number, seat.count), seat.type = _PACKET.unpack_from(event.data), event.data[_PACKET.size :]
        if number < seat.count:
            return
        seat.count = 0
        if seat.type == _STARTED:
            self._started(seat.identity)
        if seat.type != RESPONSE.encode():
            for packet in _reply(seat.id):
                self._core.send(event.channel, packet)

    def _next(self) -> None:
        if self._made < len(self._calls):
            number, self._made = self._made, self._made + 1
            self._begun[number] = time.perf_counter()
            self._core.send(self._host, self._calls[number].message)

    def _started(self, identity: str) -> None:
        number = self._numbers.pop(identity, None)
        if number is None:
            return
        self._milliseconds[number] = (time.perf_counter() - self._begun[number]) * 1000
        self._left -= 1
        if not self._left and self._done is not None and not self._done.done():
            self._done.set_result(None)
        self._next()

    def _fail(self, message: dict[str, object]) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_exception(ConnectionError(f"the host did not accept a call: {message}"))

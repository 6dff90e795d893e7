"""Stand-ins for what surrounds a host: those who call it, and the room that its agents join. They do next to nothing, so that
what is measured is the host: a core that serves them must not be what limits the starts.

Both speak to known peers only (hosts made with aiohttp; our WebSocket client and aiohttp's), hence they read no more of HTTP
and of frames than those send, and write bytes that were made beforehand.
"""

import asyncio
import base64
import functools
import hashlib
import json
import re
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from meshhost.identity.tokens import ParticipantToken
from meshhost.protocol.connection import RESPONSE
from meshhost.protocol.frames import Message, packets
from meshhost.protocol.messages import EmptyResponse, Header, pack_message, pack_response

__all__ = ["Call", "StandInCaller", "StandInRoom"]

KEY = "bench-secret-of-more-than-32-bytes!"
BACKLOG = 1024
WAIT_SECONDS = 60.0
STALL_SECONDS = 120.0
RETRY_SECONDS = 0.1
BUSY = (429, 503)

_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:", re.IGNORECASE)
_WEBSOCKET_KEY = re.compile(rb"\r\nsec-websocket-key: *(\S+)", re.IGNORECASE)
# The first part of a JWT does not matter, the second names who comes.
_TOKEN = re.compile(rb"(?:\r\nauthorization: *bearer +|[?&]token=)[\w-]+\.([\w-]+)\.", re.IGNORECASE)
_ROOM = re.compile(rb"GET /rooms/([^/? ]+)")
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %b\r\n\r\n"
)
_REFUSAL = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

# First bytes of frames: FIN and the opcode.
_BINARY, _CLOSE, _PING, _PONG = 0x82, 0x88, 0x89, 0x8A
_UNSUPPORTED = (1003).to_bytes(2, "big")
_PACKET = struct.Struct(">QII")
# Of a packet only its header and the message type are looked at.
_LOOKED_AT = _PACKET.size + 256
_STARTED = b"developer.log"


def _frame(payload: bytes, first: int = _BINARY) -> bytes:
    size = len(payload)
    if size < 126:
        return bytes((first, size)) + payload
    if size < 2**16:
        return struct.pack(">BBH", first, 126, size) + payload
    return struct.pack(">BBQ", first, 127, size) + payload


def _message(message_id: int, type: str, header: Header) -> bytes:
    return b"".join(map(_frame, packets(Message(message_id, type, pack_message(header)))))


@functools.lru_cache(maxsize=256)
def _ready(url: str, path: bytes) -> bytes:
    room = unquote(path.decode("latin-1"))
    return _message(1, "room_ready", {"room_name": room, "room_url": f"{url}/rooms/{room}", "session_id": "s"})


@functools.lru_cache(maxsize=256)
def _reply(message_id: int) -> bytes:
    # All agents count their messages from the same number.
    return b"".join(map(_frame, packets(Message(message_id, RESPONSE, pack_response(EmptyResponse())))))


def _identity(request: bytes) -> str:
    """Who comes; nothing when no token says so."""
    found = _TOKEN.search(request)
    try:
        claims = json.loads(base64.urlsafe_b64decode(found[1] + b"==")) if found else {}
    except ValueError:
        return ""
    return str(claims.get("name", "")) if isinstance(claims, dict) else ""


def _span(buffer: bytes, at: int) -> tuple[int, int] | None:
    """Where the mask of the client's frame at `at` begins, and where the frame ends; None when it is not whole."""
    if len(buffer) < at + 2:
        return None
    size, mask = buffer[at + 1] & 0x7F, at + 2
    if size >= 126:
        mask += 2 if size == 126 else 8
        size = int.from_bytes(buffer[at + 2 : mask], "big")
    end = mask + 4 + size
    return (mask, end) if len(buffer) >= end else None


def _unmasked(buffer: bytes, mask: int, end: int) -> bytes:
    """The first _LOOKED_AT bytes of the frame whose mask is there."""
    data = buffer[mask + 4 : min(end, mask + 4 + _LOOKED_AT)]
    size = len(data)
    key = (buffer[mask : mask + 4] * (size // 4 + 1))[:size]
    return (int.from_bytes(data, "little") ^ int.from_bytes(key, "little")).to_bytes(size, "little")


class StandInRoom:
    """Serves `/rooms/{name}`: lets everybody in, and answers every request with `empty`.

    `started[name]` is the `perf_counter` at which that identity called `developer.log`.
    """

    def __init__(self) -> None:
        self.started: dict[str, float] = {}
        self.url = ""
        self._awaited: dict[str, list[Callable[[float], object]]] = {}
        self._present: dict[str, _Seat] = {}
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> "StandInRoom":
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Seat(self), "127.0.0.1", 0, backlog=BACKLOG)
        self.url = f"ws://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._server is not None:
            self._server.close()
        for seat in list(self._present.values()):
            seat.abort()

    @property
    def present(self) -> int:
        """How many participants are connected."""
        return len(self._present)

    async def wait_started(self, identity: str) -> float:
        """When this identity started, waiting for it if need be."""
        found: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        # Who gives up waiting leaves its future here, cancelled.
        self.when_started(identity, lambda moment: None if found.done() else found.set_result(moment))
        async with asyncio.timeout(WAIT_SECONDS):
            return await found

    def when_started(self, identity: str, then: Callable[[float], object]) -> None:
        """Call `then` with the moment at which this identity started, at once if it has."""
        if identity in self.started:
            then(self.started[identity])
        else:
            self._awaited.setdefault(identity, []).append(then)

    async def dismiss(self, identity: str) -> None:
        """Send this participant away; return when it has left."""
        async with asyncio.timeout(WAIT_SECONDS):
            await self._present[identity].dismiss()

    def forget(self, identity: str) -> None:
        """It is over."""
        self.started.pop(identity, None)
        self._awaited.pop(identity, None)

    # Called by those who sit here.

    def joined(self, seat: "_Seat") -> None:
        """It is here."""
        self._present[seat.identity] = seat

    def left(self, seat: "_Seat") -> None:
        """It is gone."""
        if self._present.get(seat.identity) is seat:
            del self._present[seat.identity]

    def has_started(self, identity: str) -> None:
        """It says so now."""
        moment = self.started[identity] = time.perf_counter()
        for then in self._awaited.pop(identity, ()):
            then(moment)


class _Seat(asyncio.Protocol):
    """A participant's connection."""

    __slots__ = ("_buffer", "_count", "_gone", "_id", "_room", "_sent", "_transport", "_type", "identity")

    def __init__(self, room: StandInRoom) -> None:
        self.identity = ""
        self._room = room
        self._transport: Any = None
        self._buffer = b""
        self._gone: asyncio.Future[None] | None = None
        # Of the message that comes in: its id, its type, and how many packets carry it.
        self._id, self._type, self._count = 0, b"", 0
        # `room_ready` and `connected` are 1 and 2.
        self._sent = 2

    def abort(self) -> None:
        """Cut the connection."""
        self._transport.abort()

    async def dismiss(self) -> None:
        """Ask it to leave; return when it has."""
        self._sent += 1
        header = {"from_participant_id": "bench", "type": "dismiss", "message": {}}
        self._gone = self._gone or asyncio.get_running_loop().create_future()
        self._transport.write(_message(self._sent, "messaging.send", header))
        await asyncio.wait({self._gone})

    # Called by the event loop.

    def connection_made(self, transport: Any) -> None:
        """It is open."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        buffer = self._buffer + data if self._buffer else data
        if not self.identity:
            end = buffer.find(_END)
            if end >= 0:
                self._welcome(buffer[: end + 2])
                buffer = buffer[end + len(_END) :]
        self._buffer = self._take_frames(buffer) if self.identity else buffer

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over."""
        self._room.left(self)
        if self._gone is not None and not self._gone.done():
            self._gone.set_result(None)

    def _welcome(self, request: bytes) -> None:
        room, key, identity = _ROOM.match(request), _WEBSOCKET_KEY.search(request), _identity(request)
        if room is None or key is None or not identity:
            self._transport.write(_REFUSAL)
            self._transport.close()
            return
        self.identity = identity
        accept = base64.b64encode(hashlib.sha1(key[1] + _GUID, usedforsecurity=False).digest())
        connected = {"type": "init", "participantId": identity, "attributes": {"name": identity}}
        hello = _ready(self._room.url, room[1]), _message(2, "connected", connected)
        self._transport.write(b"".join((_SWITCH % accept, *hello)))
        self._room.joined(self)

    def _take_frames(self, buffer: bytes) -> bytes:
        """Answer all that is whole; returns the rest."""
        at, answers = 0, []
        while span := _span(buffer, at):
            first, (mask, at) = buffer[at], span
            answers.append(self._take(first, _unmasked(buffer, mask, at)))
        answer = b"".join(answers)
        # Who leaves at once does not wait for the answer.
        if answer and not self._transport.is_closing():
            self._transport.write(answer)
            if answers[-1][0:1] == bytes((_CLOSE,)):
                self._transport.close()
        return buffer[at:]

    def _take(self, first: int, data: bytes) -> bytes:
        """What to answer this frame with; after a close frame comes nothing more."""
        if first == _BINARY:
            return self._take_packet(data)
        if first == _PING:
            return _frame(data, _PONG)
        if first == _PONG:
            return b""
        return _frame(data[:2] if first == _CLOSE else _UNSUPPORTED, _CLOSE)

    def _take_packet(self, packet: bytes) -> bytes:
        if self._count:
            number = int.from_bytes(packet[8:12], "big")
        else:
            (self._id, number, self._count), self._type = _PACKET.unpack_from(packet), packet[_PACKET.size :]
        if number < self._count:
            return b""
        self._count = 0
        if self._type == _STARTED:
            self._room.has_started(self.identity)
        return b"" if self._type == RESPONSE.encode() else _reply(self._id)


@dataclass(frozen=True, slots=True)
class Call:
    """Who is to be started, and the HTTP request that asks for it."""

    identity: str
    request: bytes


class StandInCaller:
    """Calls agents of the host at `url` into a room, over connections that it keeps.

    `refusals` counts those for load; such a call is made again.
    """

    def __init__(self, url: str, room: StandInRoom) -> None:
        parts = urlsplit(url)
        self._host, self._port = str(parts.hostname), parts.port or 80
        self._room = room
        self._idle: list[_Line] = []
        self.refusals = 0

    def close(self) -> None:
        """Close the connections that are not in use."""
        while self._idle:
            self._idle.pop().abort()

    def prepare(self, identity: str, *, tenant: str | None = None) -> Call:
        """A call, made ahead of the time that is measured."""
        token = ParticipantToken(name=identity, project_id=tenant)
        token.add_room_grant("bench")
        token.add_role_grant("agent")
        data = {
            "room_name": "bench",
            "room_url": f"{self._room.url}/rooms/bench",
            "token": token.to_jwt(token=KEY),
            "arguments": {},
        }
        body = json.dumps({"event": "room.call", "data": data}).encode()
        head = (
            f"POST /idle HTTP/1.1\r\nHost: {self._host}:{self._port}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        return Call(identity, head.encode() + body)

    async def connect(self, count: int) -> None:
        """Have this many connections that are not in use."""
        self._idle = [line for line in self._idle if line.is_open]
        loop = asyncio.get_running_loop()
        while len(self._idle) < count:
            _, line = await loop.create_connection(_Line, self._host, self._port)
            self._idle.append(line)

    async def start(self, calls: Sequence[Call], *, parallel: int) -> tuple[list[float], float]:
        """Make these calls, `parallel` at a time; returns the milliseconds until each had started, and the seconds of all.

        Raises ConnectionError when one is not accepted, and TimeoutError when none gets on for STALL_SECONDS.
        """
        count = min(parallel, len(calls))
        await self.connect(count)
        lines = [self._idle.pop() for _ in range(count)]
        run = _Run(calls, self._room)
        begun = time.perf_counter()
        try:
            await run.finish(lines)
        except BaseException:
            for line in lines:
                line.abort()
            raise
        finally:
            self.refusals += run.refusals
        elapsed = time.perf_counter() - begun
        self._idle += lines
        return run.milliseconds, elapsed


class _Line(asyncio.Protocol):
    """A connection to the host, for one request at a time."""

    __slots__ = ("_answered", "_buffer", "_transport")

    def __init__(self) -> None:
        self._transport: Any = None
        self._buffer = b""
        self._answered: Callable[[int], None] | None = None

    @property
    def is_open(self) -> bool:
        """Whether a request can be made."""
        return not self._transport.is_closing()

    def ask(self, request: bytes, answered: Callable[[int], None]) -> None:
        """Send; `answered` gets the status, 0 when the connection is lost."""
        if not self.is_open:
            answered(0)
            return
        self._answered = answered
        self._transport.write(request)

    def abort(self) -> None:
        """Cut the connection; nobody waits for an answer any more."""
        self._answered = None
        self._transport.abort()

    # Called by the event loop.

    def connection_made(self, transport: Any) -> None:
        """It is open."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        self._buffer += data
        end = self._buffer.find(_END)
        if end < 0:
            return
        if _CHUNKED.search(self._buffer, 0, end):
            self._transport.abort()  # none of the hosts does it, and it would have to be read otherwise
            return
        length = _LENGTH.search(self._buffer, 0, end)
        if len(self._buffer) >= end + len(_END) + (int(length[1]) if length else 0):
            status, self._buffer = int(self._buffer[9:12]), b""
            self._end(status)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over."""
        self._end(0)

    def _end(self, status: int) -> None:
        answered, self._answered = self._answered, None
        if answered is not None:
            answered(status)


class _Run:
    """Calls over several lines: each line makes the next call when the agent of its last one has started."""

    def __init__(self, calls: Sequence[Call], room: StandInRoom) -> None:
        self.milliseconds = [0.0] * len(calls)
        self.refusals = 0
        self._calls = calls
        self._room = room
        self._begun = [0.0] * len(calls)
        self._made = 0
        self._left = len(calls)
        self._loop = asyncio.get_running_loop()
        self._done: asyncio.Future[None] = self._loop.create_future()

    async def finish(self, lines: Sequence[_Line]) -> None:
        """Make all calls. Raises as `StandInCaller.start` does."""
        for line in lines:
            self._next(line)
        try:
            while self._left and not self._done.done():
                before = self._left
                await asyncio.wait({self._done}, timeout=STALL_SECONDS)
                if self._left == before and not self._done.done():
                    raise TimeoutError(f"no agent started within {STALL_SECONDS:g} s, {before} are awaited")
            if self._done.done():
                self._done.result()
        finally:
            # What still comes finds that nobody waits.
            self._done.cancel()

    def _next(self, line: _Line) -> None:
        if self._made < len(self._calls) and not self._done.done():
            number, self._made = self._made, self._made + 1
            self._begun[number] = time.perf_counter()
            self._ask(line, number)

    def _ask(self, line: _Line, number: int) -> None:
        line.ask(self._calls[number].request, functools.partial(self._answered, line, number))

    def _answered(self, line: _Line, number: int, status: int) -> None:
        if status in BUSY:
            self.refusals += 1
            self._loop.call_later(RETRY_SECONDS, self._ask, line, number)
        elif 200 <= status < 300:
            self._room.when_started(self._calls[number].identity, functools.partial(self._started, line, number))
        elif not self._done.done():
            what = f"it answered {status}" if status else "the connection was lost"
            self._done.set_exception(ConnectionError(f"the host did not accept a call: {what}"))

    def _started(self, line: _Line, number: int, moment: float) -> None:
        self.milliseconds[number] = (moment - self._begun[number]) * 1000
        self._left -= 1
        if not self._left and not self._done.done():
            self._done.set_result(None)
        self._next(line)

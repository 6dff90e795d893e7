"""The room that agents of a benchmark join: it accepts everyone and answers every request with nothing.

It does next to nothing, so that what is measured is the host and not the room: a core that serves the room must not limit how
many agents start. It only ever meets our WebSocket client and aiohttp's, so it reads no more of HTTP and of frames than those
send, and writes bytes that were made beforehand.
"""

import asyncio
import base64
import functools
import hashlib
import json
import re
import struct
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

from meshhost.protocol.connection import RESPONSE
from meshhost.protocol.frames import Message, packets
from meshhost.protocol.messages import EmptyResponse, Header, pack_message, pack_response

__all__ = ["StandInRoom"]

BACKLOG = 1024
WAIT_SECONDS = 60.0

_END = b"\r\n\r\n"
_WEBSOCKET_KEY = re.compile(rb"\r\nsec-websocket-key: *(\S+)", re.IGNORECASE)
# The second part of a JWT has the identity; no signature is checked.
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
    """Return the identity that a request's token names; "" when it has none."""
    found = _TOKEN.search(request)
    try:
        claims = json.loads(base64.urlsafe_b64decode(found[1] + b"==")) if found else {}
    except ValueError:
        return ""
    return str(claims.get("name", "")) if isinstance(claims, dict) else ""


def _span(buffer: bytes, at: int) -> tuple[int, int] | None:
    """Return where the mask of the frame at `at` begins, and where the frame ends; None when the frame is not complete."""
    if len(buffer) < at + 2:
        return None
    size, mask = buffer[at + 1] & 0x7F, at + 2
    if size >= 126:
        mask += 2 if size == 126 else 8
        size = int.from_bytes(buffer[at + 2 : mask], "big")
    end = mask + 4 + size
    return (mask, end) if len(buffer) >= end else None


def _unmasked(buffer: bytes, mask: int, end: int) -> bytes:
    """Return the first _LOOKED_AT bytes of the frame, unmasked."""
    data = buffer[mask + 4 : min(end, mask + 4 + _LOOKED_AT)]
    size = len(data)
    key = (buffer[mask : mask + 4] * (size // 4 + 1))[:size]
    return (int.from_bytes(data, "little") ^ int.from_bytes(key, "little")).to_bytes(size, "little")


class StandInRoom:
    """Serves `/rooms/{name}` inside `async with`; answers every request with `empty`.

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
        """Wait until this identity has started; returns when that was. Raises TimeoutError."""
        found: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        # A caller that times out leaves its future here, cancelled.
        self.when_started(identity, lambda moment: None if found.done() else found.set_result(moment))
        async with asyncio.timeout(WAIT_SECONDS):
            return await found

    def when_started(self, identity: str, then: Callable[[float], object]) -> None:
        """Call `then` with the time at which this identity started; at once if it has."""
        if identity in self.started:
            then(self.started[identity])
        else:
            self._awaited.setdefault(identity, []).append(then)

    async def dismiss(self, identity: str) -> None:
        """Dismiss this participant; return when it has left."""
        async with asyncio.timeout(WAIT_SECONDS):
            await self._present[identity].dismiss()

    def forget(self, identity: str) -> None:
        """Forget what is known of this identity."""
        self.started.pop(identity, None)
        self._awaited.pop(identity, None)

    # Called by the connections

    def joined(self, seat: "_Seat") -> None:
        """A participant has connected."""
        self._present[seat.identity] = seat

    def left(self, seat: "_Seat") -> None:
        """A participant has disconnected."""
        if self._present.get(seat.identity) is seat:
            del self._present[seat.identity]

    def has_started(self, identity: str) -> None:
        """A participant says that its agent has started."""
        moment = self.started[identity] = time.perf_counter()
        for then in self._awaited.pop(identity, ()):
            then(moment)


class _Seat(asyncio.Protocol):
    """The connection of one participant."""

    __slots__ = ("_buffer", "_count", "_gone", "_id", "_room", "_sent", "_transport", "_type", "identity")

    def __init__(self, room: StandInRoom) -> None:
        self.identity = ""
        self._room = room
        self._transport: Any = None
        self._buffer = b""
        self._gone: asyncio.Future[None] | None = None
        # The message that is being received: its id, its type, and the number of its packets.
        self._id, self._type, self._count = 0, b"", 0
        # The ids of `room_ready` and `connected` are 1 and 2.
        self._sent = 2

    def abort(self) -> None:
        """Abort the connection."""
        self._transport.abort()

    async def dismiss(self) -> None:
        """Send a dismissal; return when the connection has ended."""
        self._sent += 1
        header = {"from_participant_id": "bench", "type": "dismiss", "message": {}}
        self._gone = self._gone or asyncio.get_running_loop().create_future()
        self._transport.write(_message(self._sent, "messaging.send", header))
        await asyncio.wait({self._gone})

    # Called by the event loop

    def connection_made(self, transport: Any) -> None:
        """The connection is open."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Bytes were received."""
        buffer = self._buffer + data if self._buffer else data
        if not self.identity:
            end = buffer.find(_END)
            if end >= 0:
                self._welcome(buffer[: end + 2])
                buffer = buffer[end + len(_END) :]
        self._buffer = self._take_frames(buffer) if self.identity else buffer

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has ended."""
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
        """Answer all complete frames; returns the remaining bytes."""
        at, answers = 0, []
        while span := _span(buffer, at):
            first, (mask, at) = buffer[at], span
            answers.append(self._take(first, _unmasked(buffer, mask, at)))
        answer = b"".join(answers)
        # The participant may have closed the connection already.
        if answer and not self._transport.is_closing():
            self._transport.write(answer)
            if answers[-1][0:1] == bytes((_CLOSE,)):
                self._transport.close()
        return buffer[at:]

    def _take(self, first: int, data: bytes) -> bytes:
        """Return the bytes that answer this frame. No frame follows a close frame."""
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

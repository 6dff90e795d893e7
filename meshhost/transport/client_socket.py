"""A client WebSocket connection that takes little memory: a host keeps one open for every idle agent.

The `websockets` library's protocol without I/O does the handshake and the frames. Its own connection object takes nearly
twice the memory of this one (bench/hosting.py measures both), because it has a task and several queues per connection. This
is an asyncio protocol without tasks: the event loop calls it with what arrived, and a receiver or sender waits only while
there is nothing to take or no room to send.

The library parses and builds each frame in many steps of Python, which took a third of the CPU of a client with many small
messages. So what nearly all frames are, whole binary ones, is read and written here (`frames.py`); the library gets all other
frames, one whole frame at a time, and with them everything that needs rules: handshake, ping, close, errors. Packets that are
sent in one turn of the event loop leave in one write at its end. Invariant: frames leave in the order in which they were given,
whether they were built here or by the library.

Longer than 400 lines because one object is reader, writer and timer of a connection: that keeps an idle one small.
"""

import asyncio
import dataclasses
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from ssl import SSLContext
from typing import Any

from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import USER_AGENT, Response
from websockets.protocol import State
from websockets.uri import WebSocketURI

from meshhost.errors import ConnectionLostError, RemoteProtocolError
from meshhost.transport.base import close_reason
from meshhost.transport.frames import FrameSplitter, binary_frame, new_mask

__all__ = ["ClientSocket", "Timeouts", "open_socket"]

# Bytes received and not yet taken; above this, reading pauses, and TCP makes the other side wait.
_MAX_UNREAD_BYTES = 1024 * 1024
# Small packets are joined up to this many bytes for one write.
_BATCH_BYTES = 64 * 1024
_DATA = (Opcode.TEXT, Opcode.BINARY, Opcode.CONT)
_HEAD_END = b"\r\n\r\n"


@dataclasses.dataclass(frozen=True, slots=True)
class Timeouts:
    """Times in seconds. A connection that is silent for `heartbeat` is pinged, and lost when nothing comes within `pong`.

    `send` is how long the other side may take no data, `close` how long it may take to answer a close frame.
    """

    heartbeat: float
    pong: float
    send: float
    close: float


async def open_socket(
    uri: WebSocketURI,
    headers: Mapping[str, str],
    *,
    ssl: SSLContext | None,
    max_frame_bytes: int,
    timeouts: Timeouts,
    logger: Any,
) -> "ClientSocket":
    """Dial and shake hands. The caller must set a timeout.

    Raises OSError, and what `websockets` raises for a handshake that fails (InvalidStatus for a refusal).
    """
    loop = asyncio.get_running_loop()
    # A user name in the URL is not sent: the token in the headers says who connects.
    uri = dataclasses.replace(uri, username=None, password=None)
    protocol = ClientProtocol(uri, max_size=max_frame_bytes, logger=logger)
    _, socket = await loop.create_connection(
        lambda: ClientSocket(protocol, timeouts, max_frame_bytes), uri.host, uri.port, ssl=ssl
    )
    try:
        await socket.shake_hands(headers)
    except BaseException:
        socket.abort()
        raise
    return socket


class ClientSocket(asyncio.Protocol):
    """See `Transport`. Made by `open_socket`."""

    __slots__ = (
        "_close_timer",
        "_end",
        "_fragments",
        "_gone",
        "_heard_at",
        "_is_closing",
        "_is_held",
        "_is_paused",
        "_is_write_due",
        "_out",
        "_out_bytes",
        "_pinged_at",
        "_protocol",
        "_receiver",
        "_sending",
        "_shaken",
        "_splitter",
        "_timeouts",
        "_timer",
        "_transport",
        "_unread",
        "_unread_bytes",
        "_writable",
    )

    def __init__(self, protocol: ClientProtocol, timeouts: Timeouts, max_frame_bytes: int) -> None:
        self._protocol = protocol
        self._timeouts = timeouts
        # None: the library takes everything, as it is and in whatever pieces it comes.
        self._splitter: FrameSplitter | None = FrameSplitter(max_frame_bytes)
        # Frames for the write at the end of this turn; None while there are none.
        self._out: list[bytes] | None = None
        self._out_bytes = 0
        self._is_write_due = False
        self._transport: Any = None
        self._shaken: asyncio.Future[None] | None = None
        # Created when needed: most connections never have two packets waiting.
        self._unread: deque[bytes | RemoteProtocolError] | None = None
        self._unread_bytes = 0
        self._fragments: list[bytes] | None = None
        self._receiver: asyncio.Future[None] | None = None
        self._sending = asyncio.Lock()
        self._writable: asyncio.Future[None] | None = None
        self._gone: asyncio.Future[None] | None = None
        self._is_paused = False
        self._is_closing = False
        self._is_held = False
        self._heard_at = 0.0
        self._pinged_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._close_timer: asyncio.TimerHandle | None = None
        self._end: ConnectionLostError | None = None

    def __repr__(self) -> str:
        return f"<ClientSocket {self._protocol.state.name} end={self._end!r}>"

    async def shake_hands(self, headers: Mapping[str, str]) -> None:
        """Send the upgrade request and return when the server has accepted it. Raises as `open_socket` does."""
        request = self._protocol.connect()
        request.headers["User-Agent"] = USER_AGENT
        request.headers.update(headers)
        self._protocol.send_request(request)
        self._shaken = asyncio.get_running_loop().create_future()
        self._flush()
        try:
            await self._shaken
        finally:
            self._shaken = None
        if self._end is None:
            self._timer = self._later(self._timeouts.heartbeat, self._ping)

    async def receive(self) -> bytes:
        """Return the next packet. Raises ConnectionLostError, or RemoteProtocolError for a text frame."""
        while not self._unread:
            if self._end is not None:
                raise self._end.again()
            self._receiver = asyncio.get_running_loop().create_future()
            try:
                await self._receiver
            finally:
                self._receiver = None
        packet = self._unread.popleft()
        if isinstance(packet, RemoteProtocolError):
            raise packet
        self._unread_bytes -= len(packet)
        if not self._unread:
            self._unread = None
            self._hold(False)
        return packet

    async def send(self, packets: Iterable[bytes]) -> None:
        """Send these packets contiguously. Raises ConnectionLostError, also when the other side takes nothing any more."""
        left = iter(packets)
        if not self._sending.locked() and self._write(left):
            return
        try:
            async with asyncio.timeout(self._timeouts.send), self._sending:
                while not self._write(left):
                    await self._wait_writable()
        except TimeoutError:
            raise ConnectionLostError(f"the room server took no data for {self._timeouts.send:g} s") from None

    def send_at_once(self, packets: Iterable[bytes]) -> bool:
        """Send these packets, which are few and small, without waiting; False when that is impossible, and nothing was sent.

        Raises ConnectionLostError.
        """
        if self._sending.locked() or self._is_paused:
            return False
        self._check_open()
        for packet in packets:
            self._add(packet)
        if self._out_bytes >= _BATCH_BYTES:
            self._flush()
        elif not self._is_write_due:
            self._is_write_due = True
            asyncio.get_running_loop().call_soon(self._flush)
        return True

    def flush(self) -> None:
        """Write what `send_at_once` took, now."""
        if self._out is not None:
            self._flush()

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close in order, within `Timeouts.close`."""
        if self._end is not None:
            return
        self._is_closing = True
        self._unread, self._unread_bytes, self._fragments = None, 0, None
        if self._protocol.state is State.OPEN:
            self._protocol.send_close(code, close_reason(reason))
        self._flush()
        self._hold(False)  # the close frame may come after data that is not read any more
        self._expect_end()
        if self._gone is None:
            self._gone = asyncio.get_running_loop().create_future()
        # wait() rather than await: a waiter that is cancelled must not cancel the future that others wait for.
        await asyncio.wait({self._gone})

    def abort(self) -> None:
        """Cut the connection."""
        self._transport.abort()

    # Called by the event loop.

    def connection_made(self, transport: Any) -> None:
        """Start: the connection is established."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Take bytes that arrived."""
        self._heard_at = asyncio.get_running_loop().time()
        splitter = self._splitter
        if splitter is None:
            self._feed(data)
        elif self._protocol.state is State.CONNECTING:
            self._take_head(splitter, data)
        else:
            self._take_frames(splitter, data)

    def _take_head(self, splitter: FrameSplitter, data: bytes) -> None:
        """Give the answer to the handshake to the library, without frames that may follow it at once."""
        head, end, rest = splitter.until(_HEAD_END, data)
        self._feed(head)
        if end and self._protocol.state is State.OPEN:
            self._take_frames(splitter, rest)
        elif end:
            self._splitter = None  # a refusal, with its body
            self._feed(rest)

    def _take_frames(self, splitter: FrameSplitter, data: bytes) -> None:
        for frame, is_packet in splitter.split(data):
            if is_packet and self._fragments is None and self._protocol.state is State.OPEN:
                if not self._is_closing:
                    self._keep(frame)
            else:
                self._feed(splitter.whole(frame, is_packet))
        if splitter.is_over:  # the library refuses what follows
            self._splitter = None
            self._feed(splitter.rest())

    def _feed(self, data: bytes) -> None:
        """Let the library take bytes."""
        self._protocol.receive_data(data)
        self._flush()
        for event in self._protocol.events_received():
            if isinstance(event, Response):
                self._take_answer(event)
            elif isinstance(event, Frame) and event.opcode in _DATA and not self._is_closing:
                self._take(event)
        if self._protocol.handshake_exc is not None:
            self._fail_handshake(self._protocol.handshake_exc)
        if self._protocol.close_expected():
            self._expect_end()

    def eof_received(self) -> None:
        """Take the end of the other side's data; the loop then closes the connection."""
        self._protocol.receive_eof()
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail all waits: the connection ended."""
        self._protocol.receive_eof()
        self._end = self._lost(exc)
        for timer in (self._timer, self._close_timer):
            if timer is not None:
                timer.cancel()
        self._timer = self._close_timer = None
        self._fail_handshake(self._protocol.handshake_exc or self._end.again())
        self._wake_receiver()
        self.resume_writing()
        if self._gone is not None:
            self._gone.set_result(None)
        # Reference cycles would keep this object until the next full garbage collection.
        self._protocol.parser.close()
        _untie(self._transport)

    def pause_writing(self) -> None:
        """Make senders wait: the write buffer is full."""
        self._is_paused = True

    def resume_writing(self) -> None:
        """Let senders go on: the write buffer has room again."""
        self._is_paused = False
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    def _take_answer(self, answer: Response) -> None:
        # A refusal keeps its headers: it goes into the error.
        if self._protocol.handshake_exc is None and self._shaken is not None and not self._shaken.done():
            answer.headers.clear()  # the library keeps the answer, which is not read again
            self._shaken.set_result(None)

    def _fail_handshake(self, error: Exception) -> None:
        if self._shaken is not None and not self._shaken.done():
            self._shaken.set_exception(error)

    def _take(self, frame: Frame) -> None:
        if frame.opcode is Opcode.TEXT:
            self._keep(RemoteProtocolError("a text frame: only binary frames are legal", close_code=1003))
            return
        data = bytes(frame.data)
        if self._fragments is not None:
            self._fragments.append(data)
        elif not frame.fin:
            self._fragments = [data]
        if frame.fin:
            whole, self._fragments = data if self._fragments is None else b"".join(self._fragments), None
            self._keep(whole)

    def _keep(self, packet: bytes | RemoteProtocolError) -> None:
        if self._unread is None:
            self._unread = deque()
        self._unread.append(packet)
        if isinstance(packet, bytes):
            self._unread_bytes += len(packet)
            if self._unread_bytes > _MAX_UNREAD_BYTES:
                self._hold(True)
        self._wake_receiver()

    def _hold(self, held: bool) -> None:
        """Pause or resume reading, which makes the other side wait or go on."""
        if held is not self._is_held:
            self._is_held = held
            (self._transport.pause_reading if held else self._transport.resume_reading)()

    def _wake_receiver(self) -> None:
        if self._receiver is not None and not self._receiver.done():
            self._receiver.set_result(None)

    def _write(self, packets: Iterator[bytes]) -> bool:
        """Write until all are written (True) or the write buffer is full (False)."""
        while not self._is_paused:
            waiting = 0
            for packet in packets:
                self._check_open()
                self._add(packet)
                waiting += len(packet)
                if waiting >= _BATCH_BYTES:
                    break
            else:
                self._flush()
                return not self._is_paused
            self._flush()
        self._check_open()
        return False

    async def _wait_writable(self) -> None:
        self._check_open()
        if self._is_paused:
            self._writable = asyncio.get_running_loop().create_future()
            try:
                await self._writable
            finally:
                self._writable = None

    def _check_open(self) -> None:
        if self._end is not None:
            raise self._end.again()
        if self._protocol.state is not State.OPEN:
            raise ConnectionLostError("the connection is closing", clean=True)

    def _add(self, packet: bytes) -> None:
        """Put a packet behind what is to be written."""
        frame = binary_frame(packet, new_mask())
        if self._out is None:
            self._out = []
        self._out.append(frame)
        self._out_bytes += len(frame)

    def _flush(self) -> None:
        """Write the packets that were added, and then what the library has to say."""
        self._is_write_due = False
        writes = self._protocol.data_to_send()
        is_last = bool(writes) and writes[-1] == b""
        if self._out is not None:
            writes = [*self._out, *writes]
            self._out, self._out_bytes = None, 0
        if not writes or self._transport.is_closing():
            return
        data = writes[0] if len(writes) == 1 else b"".join(writes)
        if data:
            self._transport.write(data)
        if is_last and self._transport.can_write_eof():
            self._transport.write_eof()

    def _ping(self) -> None:
        now = asyncio.get_running_loop().time()
        silent = now - self._heard_at
        if silent < self._timeouts.heartbeat:
            self._timer = self._later(self._timeouts.heartbeat - silent, self._ping)
        elif self._protocol.state is State.OPEN:
            self._protocol.send_ping(b"")
            self._flush()
            self._pinged_at = now
            self._timer = self._later(self._timeouts.pong, self._look_for_pong)

    def _look_for_pong(self) -> None:
        if self._heard_at > self._pinged_at:
            self._ping()
        else:
            self._end = ConnectionLostError("the room server did not answer a ping")
            self.abort()

    def _expect_end(self) -> None:
        if self._close_timer is None and self._end is None:
            self._close_timer = self._later(self._timeouts.close, self.abort)

    def _lost(self, exc: Exception | None) -> ConnectionLostError:
        if self._end is not None:
            return self._end
        close = self._protocol.close_rcvd
        if close is not None:
            text = f"the connection to the room ended{f': {close.reason}' if close.reason else ''}"
            return ConnectionLostError(text, clean=True, close_code=close.code)
        cause = exc or self._protocol.parser_exc
        return ConnectionLostError(f"the connection to the room was lost{f': {cause}' if cause and str(cause) else ''}")

    @staticmethod
    def _later(seconds: float, call: Callable[[], None]) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(seconds, call)


def _untie(transport: Any) -> None:
    """Break the cycles of an ended transport: asyncio's transports keep bound methods of themselves."""
    attributes = getattr(transport, "__dict__", {})
    for name in [name for name, value in attributes.items() if getattr(value, "__self__", None) is transport]:
        del attributes[name]

"""An accepted aiohttp WebSocket as a transport.

Both sides use it: the room server for its participants, and a host that was called by upgrade (room-protocol §18.4), which
then speaks as a client over the connection that the room server opened.
"""

import asyncio
import contextlib
from collections.abc import Iterable

from aiohttp import ClientConnectionResetError, WSMessage, WSMsgType, web

from meshhost.errors import ConnectionLostError, RemoteProtocolError
from meshhost.transport.base import Transport, close_reason
from meshhost.transport.frames import binary_frame
from meshhost.transport.heartbeat import Heartbeat, watch_socket

__all__ = ["AiohttpTransport", "InboundClientProtocol"]

SEND_TIMEOUT = 60.0
CLOSE_TIMEOUT = 5.0
# Frames of one turn of the event loop are written together, up to so many bytes.
_BATCH_BYTES = 64 * 1024
# Others get a turn of the event loop after each packet of this size.
_LARGE_PACKET = 16 * 1024


class AiohttpTransport:
    """See `Transport`. The socket is prepared by the caller.

    Given its TCP `connection`, small messages are sent without a task: their frames are written past the library, those of one
    turn of the event loop in one write. What the library writes itself are pings and pongs, which may pass them, and a close
    frame, before which `close` writes what is left.

    With `heartbeat_seconds` the socket must have been made with `autoping=False` and no heartbeat of its own: `heartbeat`
    then watches it and ends the connection, until that ends by itself.
    """

    def __init__(
        self,
        socket: web.WebSocketResponse,
        *,
        send_timeout: float = SEND_TIMEOUT,
        heartbeat_seconds: float | None = None,
        connection: asyncio.Transport | None = None,
    ) -> None:
        self._socket = socket
        self._send_timeout = send_timeout
        self._sending = asyncio.Lock()
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._out: list[bytes] = []
        self._out_bytes = 0
        self.heartbeat: Heartbeat | None = None
        if heartbeat_seconds is not None and connection is not None:
            watch_socket(connection.get_extra_info("socket"))
            self.heartbeat = Heartbeat(seconds=heartbeat_seconds, ping=socket.ping, end=connection.abort)
            self.heartbeat.start()

    async def receive(self) -> bytes:
        """Return the next packet. Raises ConnectionLostError, or RemoteProtocolError for a text frame."""
        message = await self._receive()
        if message.type is WSMsgType.BINARY:
            data: bytes = message.data
            return data
        if message.type is WSMsgType.TEXT:
            raise RemoteProtocolError("a text frame: only binary frames are legal", close_code=1003)
        # `close_code` is 1006 when the other side left without a close frame.
        code = message.data if message.type is WSMsgType.CLOSE else self._socket.close_code
        orderly = message.type is WSMsgType.CLOSE
        raise ConnectionLostError("the connection ended", clean=orderly, close_code=code)

    async def _receive(self) -> WSMessage:
        heartbeat = self.heartbeat
        if heartbeat is None:
            return await self._socket.receive()
        heartbeat.listen()
        try:
            while (message := await self._socket.receive()).type in (WSMsgType.PING, WSMsgType.PONG):
                heartbeat.heard()
                if message.type is WSMsgType.PING:
                    with contextlib.suppress(ConnectionError, RuntimeError):
                        await self._socket.pong(message.data)
        except BaseException:
            heartbeat.stop()
            raise
        heartbeat.heard(listening=False)
        if message.type not in (WSMsgType.BINARY, WSMsgType.TEXT):
            heartbeat.stop()
        return message

    async def send(self, packets: Iterable[bytes]) -> None:
        """Send these packets contiguously. Raises ConnectionLostError, also when the other side is too slow."""
        try:
            async with asyncio.timeout(self._send_timeout), self._sending:
                self.flush()
                for packet in packets:
                    await self._socket.send_bytes(packet)
                    if len(packet) >= _LARGE_PACKET:  # one message may go to hundreds of connections at once
                        await asyncio.sleep(0)
        except TimeoutError:
            raise ConnectionLostError(f"the other side took no data for {self._send_timeout:g} s") from None
        except (ClientConnectionResetError, ConnectionError, RuntimeError):
            # aiohttp raises RuntimeError for a socket that is closed or was never prepared.
            raise ConnectionLostError("the connection ended") from None

    def send_at_once(self, packets: Iterable[bytes]) -> bool:
        """Send these packets, of no more than half of what a TCP transport buffers, if nothing waits to be sent.

        Returns whether they were sent. Raises ConnectionLostError.
        """
        connection = self._connection
        if connection is None or self._socket.compress or self._sending.locked() or connection.get_write_buffer_size():
            return False
        if self._socket.closed or connection.is_closing():
            raise ConnectionLostError("the connection ended")
        out = self._out
        if not out:
            self._loop.call_soon(self.flush)
        for packet in packets:
            frame = binary_frame(packet)
            out.append(frame)
            self._out_bytes += len(frame)
        if self._out_bytes >= _BATCH_BYTES:
            self.flush()
        return True

    def flush(self) -> None:
        """Write what `send_at_once` took, now. Idempotent."""
        if self._out:
            data = b"".join(self._out)
            self._out.clear()
            self._out_bytes = 0
            if self._connection is not None and not self._connection.is_closing():
                self._connection.write(data)

    def abort(self) -> None:
        """Cut the connection, after what was sent."""
        self.flush()
        if self._connection is not None:
            self._connection.close()

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close in order, within CLOSE_TIMEOUT."""
        self.flush()
        with contextlib.suppress(TimeoutError, ConnectionError, RuntimeError):
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await self._socket.close(code=code, message=close_reason(reason).encode())


class InboundClientProtocol:
    """A ClientProtocol over a socket that the room server opened towards us (room-protocol §18.4). It cannot be redialled."""

    def __init__(self, socket: web.WebSocketResponse, *, url: str, token: str) -> None:
        self._transport: AiohttpTransport | None = AiohttpTransport(socket)
        self._url = url
        self._token = token

    @property
    def url(self) -> str:
        """The room's WebSocket URL, as the call named it."""
        return self._url

    @property
    def token(self) -> str:
        """The participant token as JWT text."""
        return self._token

    async def connect(self, *, resume: str | None = None) -> Transport:
        """Return the inbound connection, once. Raises ConnectionLostError afterwards."""
        transport, self._transport = self._transport, None
        if transport is None:
            raise ConnectionLostError(
                "the room server ended the connection that it had opened", clean=True, close_code=4004
            )
        return transport

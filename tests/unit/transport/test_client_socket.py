"""Our own WebSocket connection: what the contract of transports does not ask about."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from websockets.exceptions import InvalidMessage, InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from meshhost.errors import ConnectionLostError
from meshhost.transport.client_socket import ClientSocket, Timeouts, open_socket
from meshhost.transport.websocket_client import HEARTBEAT, PONG_TIMEOUT

LONG = Timeouts(heartbeat=60.0, pong=60.0, send=60.0, close=60.0)
logger = logging.getLogger(__name__)


class Peer:
    """The server's side of one connection, frame by frame."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.protocol = ServerProtocol(max_size=None)

    async def next(self) -> Request | Frame:
        while not (events := self.protocol.events_received()):
            data = await self.reader.read(65536)
            (self.protocol.receive_data(data) if data else self.protocol.receive_eof())
            if not data:
                raise EOFError
        (event,) = events
        assert isinstance(event, Request | Frame)
        return event

    async def rest(self, *, answers: bool = True) -> list[Frame]:
        """What comes until the end."""
        frames = []
        try:
            while True:
                frame = await self.next()
                assert isinstance(frame, Frame)
                frames.append(frame)
                if answers:
                    self.flush()
        except (EOFError, ConnectionError):
            return frames

    async def agree(self) -> None:
        request = await self.next()
        assert isinstance(request, Request)
        self.protocol.send_response(self.protocol.accept(request))
        self.flush()

    def flush(self) -> None:
        for data in self.protocol.data_to_send():
            self.writer.write(data)


Serve = Callable[[Peer], Awaitable[None]]


@asynccontextmanager
async def serving(serve: Serve) -> AsyncIterator[str]:
    """A server whose one connection `serve` handles; gives its URL."""
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(Peer(reader, writer))
        finally:
            writer.close()
            done.set_result(None)

    async with asyncio.timeout(10), await asyncio.start_server(handle, "127.0.0.1", 0) as listening:
        yield f"ws://127.0.0.1:{listening.sockets[0].getsockname()[1]}/x"
        await done


async def dial(url: str, timeouts: Timeouts = LONG) -> ClientSocket:
    return await open_socket(parse_uri(url), {}, ssl=None, max_frame_bytes=1000, timeouts=timeouts, logger=logger)


async def test_a_silent_connection_is_pinged_and_lives_when_it_answers() -> None:
    pings: list[bytes] = []

    async def serve(peer: Peer) -> None:
        await peer.agree()
        for _ in range(3):
            ping = await peer.next()
            assert isinstance(ping, Frame)
            pings.append(bytes(ping.data))
            peer.flush()  # the pong
        peer.protocol.send_binary(b"still here")
        peer.flush()

    async with serving(serve) as url:
        socket = await dial(url, replace(LONG, heartbeat=0.01, pong=0.05))
        assert await socket.receive() == b"still here"
        socket.abort()
    assert len(pings) == 3


async def test_a_connection_that_answers_no_ping_is_lost() -> None:
    async def serve(peer: Peer) -> None:
        await peer.agree()
        await peer.rest(answers=False)

    async with serving(serve) as url:
        socket = await dial(url, replace(LONG, heartbeat=0.01, pong=0.01))
        with pytest.raises(ConnectionLostError, match="did not answer a ping"):
            await socket.receive()
        assert "did not answer" in repr(socket)


def test_a_half_open_connection_is_noticed_within_15_seconds() -> None:
    assert HEARTBEAT + PONG_TIMEOUT < 15.0


async def test_who_talks_is_not_pinged() -> None:
    opcodes: list[Opcode] = []

    async def serve(peer: Peer) -> None:
        await peer.agree()
        for _ in range(20):
            peer.protocol.send_binary(b"x")
            peer.flush()
            await asyncio.sleep(0.01)
        opcodes.extend(frame.opcode for frame in await peer.rest())

    async with serving(serve) as url:
        socket = await dial(url, replace(LONG, heartbeat=5.0))
        for _ in range(20):
            assert await socket.receive() == b"x"
        socket.abort()
    assert opcodes == []


async def test_fragments_are_joined() -> None:
    async def serve(peer: Peer) -> None:
        await peer.agree()
        peer.protocol.send_binary(b"a", fin=False)
        peer.protocol.send_continuation(b"b", fin=False)
        peer.protocol.send_ping(b"between")
        peer.protocol.send_continuation(b"c", fin=True)
        peer.protocol.send_binary(b"d")
        peer.flush()

    async with serving(serve) as url:
        socket = await dial(url)
        assert [await socket.receive(), await socket.receive()] == [b"abc", b"d"]
        socket.abort()


async def test_a_packet_over_the_limit_ends_the_connection_with_its_code() -> None:
    codes: list[int] = []

    async def serve(peer: Peer) -> None:
        await peer.agree()
        peer.protocol.send_binary(b"x" * 1001)
        peer.flush()
        frame = await peer.next()
        assert isinstance(frame, Frame)
        codes.append(int.from_bytes(frame.data[:2], "big"))

    async with serving(serve) as url:
        socket = await dial(url)
        with pytest.raises(ConnectionLostError):
            await socket.receive()
    assert codes == [1009]


async def test_a_goodbye_without_an_end_is_cut_short() -> None:
    release = asyncio.Event()

    async def serve(peer: Peer) -> None:
        await peer.agree()
        await release.wait()  # reads nothing, closes nothing

    async with serving(serve) as url:
        socket = await dial(url, replace(LONG, close=0.01))
        await socket.close()
        with pytest.raises(ConnectionLostError):
            await socket.receive()
        release.set()


async def test_the_other_side_waits_while_nobody_receives() -> None:
    sent = 0
    stopped = asyncio.Event()

    async def serve(peer: Peer) -> None:
        nonlocal sent
        await peer.agree()
        for _ in range(100_000):
            peer.protocol.send_binary(b"x" * 1000)
            peer.flush()
            try:
                async with asyncio.timeout(0.5):
                    await peer.writer.drain()
            except TimeoutError:
                break
            sent += 1
        stopped.set()
        await peer.writer.drain()

    async with serving(serve) as url:
        socket = await dial(url)
        await stopped.wait()
        assert sent < 100_000
        for _ in range(sent):
            assert len(await socket.receive()) == 1000
        socket.abort()


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno", InvalidStatus),
        (b"SSH-2.0-x\r\n\r\n", InvalidMessage),
        (b"", InvalidMessage),
    ],
)
async def test_a_handshake_that_fails_says_how(answer: bytes, error: type[Exception]) -> None:
    async def serve(peer: Peer) -> None:
        await peer.next()
        peer.writer.write(answer)
        await peer.writer.drain()

    async with serving(serve) as url:
        with pytest.raises(error):
            await dial(url)


async def test_a_lost_connection_sends_nothing_at_once() -> None:
    async def serve(peer: Peer) -> None:
        await peer.agree()

    async with serving(serve) as url:
        socket = await dial(url)
        with pytest.raises(ConnectionLostError):
            await socket.receive()
        with pytest.raises(ConnectionLostError):
            socket.send_at_once([b"x"])
        await socket.close()


async def test_what_cannot_be_sent_at_once_is_not_begun() -> None:
    release = asyncio.Event()

    async def serve(peer: Peer) -> None:
        await peer.agree()
        await release.wait()

    async with serving(serve) as url:
        socket = await dial(url)
        while socket.send_at_once([b"x" * 60_000]):
            pass
        async with asyncio.TaskGroup() as tasks:
            sending = tasks.create_task(socket.send([b"y"]))
            await asyncio.sleep(0)
            assert not socket.send_at_once([b"z"])
            sending.cancel()
        socket.abort()
        release.set()


async def test_a_connection_that_breaks_after_the_answer_was_agreed_on_all_the_same() -> None:
    async def serve(peer: Peer) -> None:
        request = await peer.next()
        assert isinstance(request, Request)
        peer.protocol.send_response(peer.protocol.accept(request))
        peer.protocol.send_binary(b"hello")
        peer.protocol.send_close(4001, "revoked")
        peer.writer.write(b"".join(peer.protocol.data_to_send()))
        peer.writer.write_eof()
        await peer.rest(answers=False)

    async with serving(serve) as url:
        socket = await dial(url)
        assert await socket.receive() == b"hello"
        with pytest.raises(ConnectionLostError) as caught:
            await socket.receive()
    assert (caught.value.clean, caught.value.close_code) == (True, 4001)

"""What every Transport promises: over memory, and over real sockets seen from either side."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from doubles.memory_transport import MemoryTransport
from websockets.asyncio.client import connect

from meshhost.errors import ConnectionLostError, InvalidRequestError, RemoteProtocolError, RoomRefusedError
from meshhost.transport.base import Transport
from meshhost.transport.client_socket import ClientSocket
from meshhost.transport.websocket_client import WebSocketClientProtocol, WebSocketTransport, _proxy
from meshhost.transport.websocket_server import AiohttpTransport, InboundClientProtocol

LARGE = 4 * 1024 * 1024 - 13


@dataclass(slots=True)
class Line:
    """A connection: `near` is the transport under test."""

    near: Transport
    far: Transport
    cut: Callable[[], None]
    send_text: Callable[[], Any]
    stop_reading: Callable[[], None]


class _Server:
    """Accepts one WebSocket and keeps it until told."""

    def __init__(self) -> None:
        self.accepted: asyncio.Queue[tuple[web.WebSocketResponse, web.Request]] = asyncio.Queue()
        self.done = asyncio.Event()

    async def handle(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(max_msg_size=LARGE + 1, compress=False, timeout=1.0)
        await socket.prepare(request)
        self.accepted.put_nowait((socket, request))
        await self.done.wait()
        return socket


@pytest.fixture
async def server() -> AsyncIterator[tuple[_Server, str]]:
    own = _Server()
    app = web.Application()
    app.router.add_get("/room", own.handle)
    async with TestServer(app) as running:
        yield own, str(running.make_url("/room"))
        own.done.set()


@pytest.fixture
async def proxy() -> AsyncIterator[str]:
    """An HTTP proxy that passes on what it gets."""
    writers: list[asyncio.StreamWriter] = []

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        host, _, port = request.split()[1].decode().rpartition(":")
        far_reader, far_writer = await asyncio.open_connection(host, int(port), limit=65536)
        writers.extend((writer, far_writer))
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(copy(reader, far_writer))
            tasks.create_task(copy(far_reader, writer))

    async with await asyncio.start_server(serve, "127.0.0.1", 0, limit=65536) as listening:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        # From Python 3.12 on a server that closes waits for its handlers, and one that writes to a paused side never ends.
        for writer in writers:
            writer.transport.abort()


@pytest.fixture(params=["memory", "client", "server", "client by proxy"])
async def line(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, server: tuple[_Server, str], proxy: str
) -> AsyncIterator[Line]:
    if request.param == "memory":
        near, far = MemoryTransport.pair(send_timeout=0.5)

        async def text() -> None:
            far.send_text("hello")

        yield Line(near, far, near.break_connection, text, far.hold)
        return
    own, url = server
    if request.param == "client by proxy":
        monkeypatch.setattr("meshhost.transport.websocket_client.get_proxy", lambda _: proxy)
        monkeypatch.setattr("websockets.asyncio.client.get_proxy", lambda _: proxy)
    if request.param == "server":
        connection = await connect(f"ws{url.removeprefix('http')}", compression=None, max_size=None, proxy=None)
        client: ClientSocket | WebSocketTransport = WebSocketTransport(connection, send_timeout=0.5)
    else:
        _proxy.cache_clear()
        client = await WebSocketClientProtocol(url=url, token="t", send_timeout=0.5).connect()
        _proxy.cache_clear()
    socket, upgrade = await own.accepted.get()
    assert isinstance(upgrade.transport, asyncio.Transport)
    answering = AiohttpTransport(socket, send_timeout=0.5, connection=upgrade.transport)
    if request.param == "server":
        yield Line(
            answering, client, client.abort, lambda: connection.send("hello"), connection.transport.pause_reading
        )
    else:
        yield Line(client, answering, client.abort, lambda: socket.send_str("hello"), upgrade.transport.pause_reading)
    client.abort()


async def test_packets_arrive_whole_and_in_order(line: Line) -> None:
    packets = [b"", b"1", b"x" * 70_000, bytes(range(256))]
    await line.near.send(packets)
    await line.far.send(iter(packets))
    assert [await line.far.receive() for _ in packets] == packets
    assert [await line.near.receive() for _ in packets] == packets


async def test_what_is_sent_at_once_arrives_in_order_with_the_rest(line: Line) -> None:
    sent = []
    for number in range(20):
        packets = [b"%d" % number, b"x"]
        if number % 3 == 0 or not line.near.send_at_once(packets):  # one kind of transport can only send with a wait
            await line.near.send(packets)
        sent += packets
    assert [await line.far.receive() for _ in sent] == sent


async def test_nothing_is_sent_at_once_to_a_side_that_reads_nothing(line: Line) -> None:
    line.stop_reading()
    async with asyncio.timeout(10):
        while line.near.send_at_once([b"x" * 30_000]):  # noqa: ASYNC110 - until the buffers are full
            await asyncio.sleep(0)
    assert not line.near.send_at_once([b"x"])


async def test_nothing_is_sent_at_once_on_a_line_that_was_closed(line: Line) -> None:
    await line.near.close()
    with pytest.raises(ConnectionLostError):
        await _send_somehow(line.near, [b"x"])


async def _send_somehow(transport: Transport, packets: list[bytes]) -> None:
    if not transport.send_at_once(packets):
        await transport.send(packets)


async def test_the_largest_packet_passes(line: Line) -> None:
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        received = tasks.create_task(line.far.receive())
        await line.near.send([b"x" * LARGE])
        assert len(await received) == LARGE


async def test_messages_of_several_senders_are_not_interleaved(line: Line) -> None:
    async with asyncio.TaskGroup() as tasks:
        for name in (b"a", b"b", b"c"):
            tasks.create_task(line.near.send(name + bytes([number]) for number in range(50)))
    received = [await line.far.receive() for _ in range(150)]
    for start in range(0, 150, 50):
        message = received[start : start + 50]
        assert {packet[:1] for packet in message} == {message[0][:1]}
        assert [packet[1] for packet in message] == list(range(50))


async def test_the_other_side_hears_how_it_was_closed(line: Line) -> None:
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(_end(line.far))
        await line.near.send([b"last words"])
        await line.near.close(4001, "revoked")
    end = waiting.result()
    assert (end.clean, end.close_code) == (True, 4001)


async def test_it_hears_the_code_that_the_other_side_closed_with(line: Line) -> None:
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(_end(line.near))
        await line.far.close(4004)
    end = waiting.result()
    assert (end.clean, end.close_code) == (True, 4004)


async def _end(transport: Transport) -> ConnectionLostError:
    while True:
        try:
            await transport.receive()
        except ConnectionLostError as error:
            return error


@pytest.mark.parametrize("reason", ["x" * 300, "ü" * 100, "é" * 61 + "🎈" * 10], ids=range(3))
async def test_a_long_reason_is_no_obstacle(line: Line, reason: str) -> None:
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(_end(line.far))
        await line.near.close(4001, reason)
    assert (waiting.result().clean, waiting.result().close_code) == (True, 4001)


async def test_closing_twice_is_closing(line: Line) -> None:
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        tasks.create_task(_end(line.far))
        await line.near.close()
        await line.near.close(4001)
        await line.far.close()


async def test_after_closing_nothing_can_be_sent_or_received(line: Line) -> None:
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_end(line.far))
        await line.near.close()
    for transport in (line.near, line.far):
        with pytest.raises(ConnectionLostError):
            await transport.send([b"x"])
        with pytest.raises(ConnectionLostError):
            await transport.receive()


async def test_closing_ends_our_own_receive(line: Line) -> None:
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(_end(line.near))
        tasks.create_task(_end(line.far))
        await asyncio.sleep(0)
        await line.near.close()
    assert waiting.done()


async def test_a_broken_connection_is_not_clean(line: Line) -> None:
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        waiting = [tasks.create_task(_end(transport)) for transport in (line.near, line.far)]
        await asyncio.sleep(0)
        line.cut()
    assert [task.result().clean for task in waiting] == [False, False]
    for transport in (line.near, line.far):
        with pytest.raises(ConnectionLostError):
            await transport.send([b"x"])
        await transport.close()


async def test_a_cancelled_receive_loses_nothing(line: Line) -> None:
    for number in range(20):
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(line.near.receive())
            await asyncio.sleep(0)
            waiting.cancel()
        await line.far.send([bytes([number])])
        assert await line.near.receive() == bytes([number])


async def test_a_text_frame_is_an_error_of_the_other_side(line: Line) -> None:
    await line.send_text()
    with pytest.raises(RemoteProtocolError) as caught:
        await line.near.receive()
    assert caught.value.close_code == 1003


async def test_a_side_that_takes_nothing_is_lost(line: Line) -> None:
    line.stop_reading()

    def endless() -> Iterator[bytes]:
        while True:
            yield b"x" * 1_000_000

    async with asyncio.timeout(20):
        with pytest.raises(ConnectionLostError, match="took no data"):
            await line.near.send(endless())


async def test_an_inbound_connection_is_used_once(server: tuple[_Server, str]) -> None:
    own, url = server
    client = await WebSocketClientProtocol(url=url + "?v=1", token="secret").connect(resume="r1")
    socket, request = await own.accepted.get()
    assert dict(request.query) == {"v": "1"}
    assert request.headers["Meshhost-Resume"] == "r1"
    assert request.headers["Authorization"] == "Bearer secret"
    protocol = InboundClientProtocol(socket, url="ws://h/rooms/r", token="t")
    assert (protocol.url, protocol.token) == ("ws://h/rooms/r", "t")
    transport = await protocol.connect()
    await client.send([b"x"])
    assert await transport.receive() == b"x"
    with pytest.raises(ConnectionLostError) as caught:
        await protocol.connect(resume="x")
    assert caught.value.close_code == 4004
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_end(transport))
        await client.close()


async def test_a_socket_that_was_never_prepared_is_a_lost_connection() -> None:
    transport = AiohttpTransport(web.WebSocketResponse())
    with pytest.raises(ConnectionLostError):
        await transport.send([b"x"])
    await transport.close()


async def test_a_refusal_carries_status_and_text(server: tuple[_Server, str]) -> None:
    _, url = server
    with pytest.raises(RoomRefusedError, match="404") as caught:
        await WebSocketClientProtocol(url=url + "/missing", token="t").connect(resume="x")
    assert caught.value.status == 404


async def test_a_refusal_says_its_reason_and_not_the_json_that_it_came_in() -> None:
    async def refuse(_: web.Request) -> web.Response:
        return web.json_response({"error": "the tenant is suspended: the invoice is open"}, status=403)

    async with TestServer(_app(refuse)) as server:
        with pytest.raises(RoomRefusedError) as caught:
            await WebSocketClientProtocol(url=str(server.make_url("/x")), token="t").connect()
    assert str(caught.value) == (
        "the room server refused the connection (403): the tenant is suspended: the invoice is open"
    )


async def test_a_redirect_does_not_get_the_token() -> None:
    tokens: list[str | None] = []

    async def elsewhere(request: web.Request) -> web.Response:
        tokens.append(request.headers.get("Authorization"))
        return web.Response(status=403)

    async with TestServer(_app(elsewhere)) as target:

        async def redirect(_: web.Request) -> web.Response:
            return web.Response(status=302, headers={"Location": str(target.make_url("/x"))})

        async with TestServer(_app(redirect)) as server:
            with pytest.raises(RoomRefusedError) as caught:
                await WebSocketClientProtocol(url=str(server.make_url("/x")), token="secret").connect()
    assert (caught.value.status, tokens) == (302, [])


def _app(handler: Any) -> web.Application:
    app = web.Application()
    app.router.add_get("/x", handler)
    return app


async def test_a_proxy_that_is_none_is_a_lost_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meshhost.transport.websocket_client.get_proxy", lambda _: "nonsense://x")
    monkeypatch.setattr("websockets.asyncio.client.get_proxy", lambda _: "nonsense://x")
    with pytest.raises(ConnectionLostError):
        await WebSocketClientProtocol(url="ws://room.invalid/x", token="t").connect()


@pytest.mark.parametrize("url", ["", "room", "ftp://h/x", "ws:///x", "http://"])
def test_a_url_must_name_a_host(url: str) -> None:
    with pytest.raises(InvalidRequestError):
        WebSocketClientProtocol(url=url, token="t")


def test_a_protocol_shows_its_url_and_hides_its_token() -> None:
    protocol = WebSocketClientProtocol(url="https://h:1/rooms/r?x=1", token="secret")
    assert protocol.url == "wss://h:1/rooms/r?x=1"
    assert protocol.token == "secret"
    assert "secret" not in repr(protocol)
    protocol.renew("newer")
    assert protocol.token == "newer"


async def test_a_server_that_is_not_one_cannot_be_reached() -> None:
    async def gibberish(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-x\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(gibberish, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        with pytest.raises(ConnectionLostError, match=f"ws://127.0.0.1:{port}:"):
            await WebSocketClientProtocol(url=f"ws://user:password@127.0.0.1:{port}/x", token="t").connect()


def test_a_memory_transport_shows_what_it_holds() -> None:
    near, far = MemoryTransport.pair()
    assert (near.end, repr(far)) == (None, "<MemoryTransport unread=0 end=None>")

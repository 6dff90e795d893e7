"""What arrives on WebSockets, to the gateway and with archives is counted as bytes in flight before it is complete."""

import asyncio
import socket
import tracemalloc
from contextlib import AsyncExitStack, suppress
from typing import Any

import aiohttp
import pytest

from meshhost.edge.limits import EdgeLimits
from meshhost.quotas.in_flight import FREE_BYTES
from meshhost.server.http import bodies
from meshhost.server.http.sockets import MAX_FRAME_BYTES
from meshhost.testing.server import RunningServer
from tests.unit.transport.test_frame_sizes import frame

MEBIBYTE = 1024 * 1024
LARGEST = MAX_FRAME_BYTES - 1
OPERATOR_KEY = "operator-key-of-more-than-thirty-two-characters"


class Raw:
    """A WebSocket without a library, in a room."""

    def __init__(self, server: RunningServer) -> None:
        self.server = server
        self.socket = socket.socket()
        self.socket.setblocking(False)
        self.sent = 0

    async def join(self, *, with_data: bytes = b"") -> bytes:
        """Ask for the upgrade, with more data in the same packet. Returns the head of the answer."""
        loop = asyncio.get_running_loop()
        await loop.sock_connect(self.socket, ("127.0.0.1", self.server.server.port))
        head = (
            f"GET /rooms/room?token={self.server.token('room')} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
            "Connection: upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        await loop.sock_sendall(self.socket, head.encode() + with_data)
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += await loop.sock_recv(self.socket, 4096)
        return answer

    async def send(self, data: bytes) -> None:
        """Send all of it, which may take for ever."""
        await asyncio.get_running_loop().sock_sendall(self.socket, data)

    async def rest(self) -> bytes:
        """What comes until the close frame of the server."""
        found = b""
        async with asyncio.timeout(10):
            while b"\x88" not in found and (data := await asyncio.get_running_loop().sock_recv(self.socket, 4096)):
                found = data
        return found


async def _until(server: RunningServer, in_flight: int) -> None:
    """Wait until so many bytes are in flight."""
    async with asyncio.timeout(20):
        while server.server.parts.in_flight.total != in_flight:  # noqa: ASYNC110 - of another task's doing
            await asyncio.sleep(0.01)


async def test_unfinished_frames_of_many_connections_stay_within_the_budget(serve: Any, stack: AsyncExitStack) -> None:
    server = await stack.enter_async_context(serve(max_in_flight_bytes=9 * MEBIBYTE))
    raws = [Raw(server) for _ in range(30)]
    for raw in raws:
        stack.callback(raw.socket.close)
        assert b" 101 " in await raw.join()
    unfinished = frame(LARGEST)[:-1]
    tracemalloc.start()
    stack.callback(tracemalloc.stop)
    sending = [asyncio.create_task(raw.send(unfinished)) for raw in raws]
    await _until(server, 2 * (LARGEST - FREE_BYTES))
    await asyncio.sleep(0.3)  # what would go on without a bound
    _, peak = tracemalloc.get_traced_memory()
    assert server.server.parts.in_flight.total == 2 * (LARGEST - FREE_BYTES)
    assert peak < 40 * MEBIBYTE  # without a bound, 120
    for task in sending:
        task.cancel()
    await asyncio.gather(*sending, return_exceptions=True)
    for raw in raws:
        raw.socket.close()
    await _until(server, 0)


async def test_an_unfinished_frame_ends_its_connection(serve: Any, stack: AsyncExitStack) -> None:
    edge = EdgeLimits(bytes_per_second=1e9)
    server = await stack.enter_async_context(serve(message_seconds=0.1, edge=edge))
    raw = Raw(server)
    stack.callback(raw.socket.close)
    await raw.join()
    await raw.send(frame(300_000)[:-1])
    end = await raw.rest()
    assert b"not finished in time" in end


@pytest.mark.parametrize("early", [frame(3), b"\r\n\r\n"])
async def test_frames_before_the_answer_to_the_upgrade_are_refused(server: RunningServer, early: bytes) -> None:
    raw = Raw(server)
    assert (await raw.join(with_data=early)).startswith(b"HTTP/1.1 400 ")
    raw.socket.close()


async def test_a_flood_of_pings_ends_its_connection_and_a_neighbour_is_answered(
    server: RunningServer, stack: AsyncExitStack
) -> None:
    neighbour = await stack.enter_async_context(server.client(name="neighbour"))
    raw = Raw(server)
    stack.callback(raw.socket.close)
    await raw.join()
    await raw.send(frame(0, opcode=9) * 100)
    await neighbour.queues.list()
    with suppress(ConnectionError):  # it is not read to its end
        await raw.send(frame(0, opcode=9) * 10_000)
    assert b"too many pings" in await raw.rest()
    await neighbour.queues.list()


async def test_large_frames_are_served_as_small_ones(server: RunningServer, http: aiohttp.ClientSession) -> None:
    async with http.ws_connect(f"{server.url}/rooms/room?token={server.token('room')}", max_msg_size=0) as socket:
        for size in (1, FREE_BYTES + 1, 3 * MEBIBYTE):
            await socket.send_bytes(bytes(size))
        async with asyncio.timeout(10):
            while (await socket.receive()).type is aiohttp.WSMsgType.BINARY:
                pass  # they are no packets, and the last message says so
        assert socket.close_code == 1002
    await _until(server, 0)


async def test_bodies_for_the_gateway_are_in_flight_until_they_are_answered(
    serve: Any, stack: AsyncExitStack, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "_ROOM_SECONDS", 0.05)
    server = await stack.enter_async_context(serve(max_in_flight_bytes=MEBIBYTE))
    head = f"POST /rooms/room/v1/responses HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.token('room')}\r\n"
    first = Raw(server)
    stack.callback(first.socket.close)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(first.socket, ("127.0.0.1", server.server.port))
    await first.send(head.encode() + b"Content-Length: 900000\r\n\r\n")
    await _until(server, 900_000 - FREE_BYTES)
    ask: dict[str, Any] = {"headers": {"Authorization": f"Bearer {server.token('room')}"}, "data": b" " * 900_000}
    async with http.post(f"{server.url}/rooms/room/v1/responses", **ask) as answer:
        assert (answer.status, (await answer.json())["error"]["code"]) == (429, "quota_exceeded")
    first.socket.close()
    await _until(server, 0)
    async with http.post(f"{server.url}/rooms/room/v1/responses", **ask) as answer:
        assert answer.status == 400  # it is read, and no JSON
    chunked = {**ask, "data": _pieces(ask["data"])}
    async with http.post(f"{server.url}/rooms/room/v1/responses", **chunked) as answer:
        assert answer.status == 400


async def _pieces(data: bytes) -> Any:
    for at in range(0, len(data), 50_000):
        yield data[at : at + 50_000]


async def test_archives_are_in_flight_while_they_pass_through(
    serve: Any, stack: AsyncExitStack, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "_ROOM_SECONDS", 0.05)
    server = await stack.enter_async_context(serve(max_in_flight_bytes=3 * MEBIBYTE, operator_key=OPERATOR_KEY))
    url, tenant = f"{server.url}/tenants", server.key.project_id
    headers = {"Authorization": f"Bearer {OPERATOR_KEY}"}
    async with http.post(url, json={"name": "acme"}, headers=headers) as answer:
        assert answer.status == 200
    in_flight = server.server.parts.in_flight
    with_it = in_flight.account(tenant, max_bytes=2 * MEBIBYTE)
    await with_it.reserve(2 * MEBIBYTE)
    for method, path in (("GET", "/acme/archive"), ("PUT", "/other/archive")):
        async with http.request(method, url + path, headers=headers) as answer:
            assert (answer.status, (await answer.json())["quota"]) == (429, "max_in_flight_bytes")
    with_it.close()
    async with http.get(f"{url}/acme/archive", headers=headers) as answer:
        assert answer.status == 200
        archive = await answer.read()
    async with http.put(f"{url}/other/archive", headers=headers, data=archive) as answer:
        assert answer.status == 200
    assert in_flight.total == 0

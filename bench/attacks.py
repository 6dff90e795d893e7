"""Measures what clients that misbehave cost the memory and the event loop of a room server.

A room server in a process of its own. Each attack has a fresh one, and does only what any participant may do: downloads that
are never read, large uploads, messages that are never finished, a header of many megabytes. Meanwhile the memory of the server
is watched, and another client measures how long its own small requests take. `python -m bench.attacks NAME` runs one attack.
"""

import asyncio
import contextlib
import struct
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import psutil

from bench.processes import room_access, room_server
from bench.table import Row, show
from meshhost.protocol.frames import Message, packets
from meshhost.protocol.messages import pack_message
from meshhost.room.client import RoomClient
from meshhost.transport.websocket_client import WebSocketClientProtocol

MIB = 1024 * 1024
DOWNLOADS, FILE_BYTES = 40, 60 * MIB
UPLOAD_BYTES = 900 * MIB
UNFINISHED, UNFINISHED_BYTES = 12, 60 * MIB
HEADER_BYTES = 60 * MIB
FILES = 20_000
BODIES, BODY_BYTES = 1200, 1_000_000
WATCH_SECONDS = 0.01


@dataclass
class Target:
    """A running server, and what was seen of it: memory in bytes, and how long its neighbour waited in seconds."""

    url: str
    api_key: str
    process: psutil.Process
    data: Path
    before: int = 0
    most: int = 0
    waits: list[float] = field(default_factory=list)

    def client(self, room: str = "bench") -> RoomClient:
        """A client that is not connected yet."""
        url, token = room_access(self.url, self.api_key, room)
        return RoomClient(protocol=WebSocketClientProtocol(url=url, token=token))

    @contextlib.asynccontextmanager
    async def socket(self, room: str = "bench") -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        """A connection without a client behind it, which reads only when told to."""
        url, token = room_access(self.url, self.api_key, room)
        headers = {"Authorization": f"Bearer {token}"}
        async with aiohttp.ClientSession() as http, http.ws_connect(url, headers=headers, autoping=False) as socket:
            yield socket

    def watch(self) -> None:
        """Look at the memory now."""
        self.most = max(self.most, self.process.memory_info().rss)


async def downloads_never_read(target: Target) -> None:
    """Ask for a file many times over one connection, and read nothing."""
    async with target.client() as room:
        await room.storage.upload(path="file", data=bytes(FILE_BYTES))
    target.before = target.process.memory_info().rss
    target.most = 0
    async with target.socket() as socket:
        for number in range(DOWNLOADS):
            await send(socket, number, "storage.download", {"path": "file"})
        await asyncio.sleep(8)


async def slow_readers(target: Target) -> None:
    """Fetch a file by its URL many times, and take nothing of it."""
    async with target.client() as room:
        await room.storage.upload(path="file", data=bytes(FILE_BYTES))
        url = urlsplit(await room.storage.download_url(path="file"))
    target.before = target.process.memory_info().rss
    target.most = 0
    connections = [await asyncio.open_connection(url.hostname, url.port, limit=1) for _ in range(DOWNLOADS)]
    for _, writer in connections:
        writer.write(f"GET {url.path} HTTP/1.1\r\nHost: {url.netloc}\r\n\r\n".encode())
    await asyncio.sleep(5)
    for _, writer in connections:
        writer.close()


async def large_upload(target: Target) -> None:
    """Upload one large file in order."""
    async with target.client() as room:
        handle = await room.storage.open(path="file")
        for _ in range(UPLOAD_BYTES // MIB):
            await room.storage.write(handle=handle, data=bytes(MIB))
        began = time.perf_counter()
        await room.storage.close(handle=handle)
        print(f"closing took {time.perf_counter() - began:.2f} s", file=sys.stderr)


async def unfinished_messages(target: Target) -> None:
    """Begin a large message on several connections, and never send its last packet."""
    async with contextlib.AsyncExitStack() as stack:
        sockets = [await stack.enter_async_context(target.socket()) for _ in range(UNFINISHED)]
        message = packets(Message(1, "storage.write", bytes(UNFINISHED_BYTES)))

        async def begin(socket: aiohttp.ClientWebSocketResponse) -> None:
            *all_but_last, _ = message
            for packet in all_but_last:
                await socket.send_bytes(packet)

        with contextlib.suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(20):
                await asyncio.gather(*map(begin, sockets))
                await asyncio.sleep(2)


async def large_header(target: Target) -> None:
    """Send one message whose header is very long."""
    header = b'{"path": [' + b"[]," * (HEADER_BYTES // 3) + b"0]}"
    async with target.socket() as socket:
        for packet in packets(Message(1, "storage.stat", struct.pack(">Q", len(header)) + header)):
            await socket.send_bytes(packet)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(30):
                while b"__response__" not in (await socket.receive()).data:
                    pass
        await asyncio.sleep(1)


async def half_sent_bodies(target: Target) -> None:
    """Send almost all of a body to where anybody may, and to where an API key may, on many connections; then nothing more."""
    address = urlsplit(target.url)
    key = f"Authorization: Bearer {target.api_key}\r\n"
    begun = [("/studio/api/session", ""), ("/rooms/bench/queues/q/replay", key)]
    writers = []
    for number in range(BODIES):
        path, header = begun[number % len(begun)]
        _, writer = await asyncio.open_connection(address.hostname, address.port)
        head = f"POST {path} HTTP/1.1\r\nHost: {address.netloc}\r\n{header}Content-Length: {BODY_BYTES}\r\n\r\n"
        writer.write(head.encode() + bytes(BODY_BYTES - 1))
        writers.append(writer)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(10):
            await asyncio.gather(*(writer.drain() for writer in writers), return_exceptions=True)
    await asyncio.sleep(2)
    for writer in writers:
        writer.close()


async def long_list(target: Target) -> None:
    """List a folder of many files."""
    async with target.client() as room:
        await room.storage.upload(path="many/first", data=b"1")
        [folder] = (target.data / "storage").glob("*/bench/many")
        for number in range(FILES):
            (folder / f"a file with a name of usual length {number}.txt").touch()
        for _ in range(5):
            assert len(await room.storage.list(path="many")) == FILES + 1


async def send(socket: aiohttp.ClientWebSocketResponse, number: int, kind: str, header: dict[str, object]) -> None:
    """Send a whole message."""
    for packet in packets(Message(number, kind, pack_message(header))):
        await socket.send_bytes(packet)


ATTACKS: dict[str, Callable[[Target], Awaitable[None]]] = {
    "downloads": downloads_never_read,
    "readers": slow_readers,
    "upload": large_upload,
    "unfinished": unfinished_messages,
    "header": large_header,
    "bodies": half_sent_bodies,
    "list": long_list,
}


async def _watch(target: Target) -> None:
    while True:
        target.watch()
        await asyncio.sleep(WATCH_SECONDS)


_NEIGHBOUR = """
import asyncio, sys, time
from meshhost.room.client import RoomClient
from meshhost.transport.websocket_client import WebSocketClientProtocol

async def main():
    async with RoomClient(protocol=WebSocketClientProtocol(url=sys.argv[1], token=sys.argv[2])) as room:
        print("ready", flush=True)
        while True:
            began = time.perf_counter()
            await room.queues.list()
            print(time.perf_counter() - began, flush=True)
            await asyncio.sleep(0.001)

asyncio.run(main())
"""


async def _neighbour(target: Target) -> None:
    """Measure small requests of a client in a process of its own, so that the attack's own work does not count."""
    url, token = room_access(target.url, target.api_key, "next-door")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _NEIGHBOUR, url, token, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        async for line in process.stdout:
            if line != b"ready\n":
                target.waits.append(float(line))
    finally:
        process.kill()
        await process.wait()


async def measure(name: str) -> Target:
    """Run one attack on a server of its own."""
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory)
        async with room_server(home) as (url, api_key):
            [process] = [each for each in psutil.Process().children() if "serve" in each.cmdline()]
            target = Target(url, api_key, process, home / "data")
            async with target.client():
                pass
            target.before = process.memory_info().rss
            watchers = [asyncio.create_task(_watch(target)), asyncio.create_task(_neighbour(target))]
            await asyncio.sleep(1)
            try:
                await ATTACKS[name](target)
            finally:
                for watcher in watchers:
                    watcher.cancel()
                await asyncio.gather(*watchers, return_exceptions=True)
            return target


async def main(*names: str) -> None:
    """Measure and print the table."""
    rows: list[Row] = []
    for name in names or ATTACKS:
        target = await measure(name)
        rows.append((f"{name}: memory of the server, MB", target.most / 1e6, target.before / 1e6))
        waits = sorted(target.waits)
        rows.append((f"{name}: longest wait of a neighbour, ms", waits[-1] * 1e3, waits[len(waits) // 2] * 1e3))
    show("Clients that misbehave", ("in the attack", "before, or median"), rows)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

"""Measures bare WebSocket connections: `python connections.py meshhost|websockets|aiohttp URL COUNT`. Prints JSON.

Joins COUNT participants with that library, reads the greeting of each, and does nothing more. The figures are KiB and
milliseconds of CPU per connection. It needs only that library, so that it runs in any environment.
"""

import asyncio
import base64
import gc
import importlib
import json
import resource
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

PARALLEL = 100
# `room_ready` and `connected`.
GREETINGS = 2
HEARTBEAT = 30.0

Join = Callable[[str], Awaitable[object]]


def _encoded(part: dict[str, str]) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")


def _token(identity: str) -> str:
    # The stand-in room checks no signature.
    return f"{_encoded({'alg': 'HS256'})}.{_encoded({'name': identity})}.AAAA"


def _headers(identity: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {_token(identity)}"}


def _by_meshhost(url: str) -> Join:
    # The environment has what meshhost needs, but not always meshhost.
    sys.path.insert(0, str(Path(__file__).parents[2]))
    client: Any = importlib.import_module("meshhost.transport.websocket_client")

    async def join(identity: str) -> object:
        protocol = client.WebSocketClientProtocol(url=url, token=_token(identity), heartbeat=HEARTBEAT)
        connection = await protocol.connect()
        for _ in range(GREETINGS):
            await connection.receive()
        return connection

    return join


def _by_websockets(url: str) -> Join:
    client: Any = importlib.import_module("websockets.asyncio.client")

    async def join(identity: str) -> object:
        connection = await client.connect(
            url, additional_headers=_headers(identity), compression=None, ping_interval=HEARTBEAT
        )
        for _ in range(GREETINGS):
            await connection.recv()
        return connection

    return join


def _by_aiohttp(url: str) -> Join:
    aiohttp: Any = importlib.import_module("aiohttp")
    session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))

    async def join(identity: str) -> object:
        connection = await session.ws_connect(url, headers=_headers(identity), heartbeat=HEARTBEAT)
        for _ in range(GREETINGS):
            await connection.receive()
        return connection

    return join


def _resident() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


async def main(library: str, url: str, count: int) -> None:
    """Measure and print; the connections end with the process."""
    join = {"meshhost": _by_meshhost, "websockets": _by_websockets, "aiohttp": _by_aiohttp}[library](url)
    held = [await join("warm-up")]
    memory, cpu = _resident(), time.process_time()
    async with asyncio.timeout(120):
        for first in range(0, count, PARALLEL):
            numbers = range(first, min(first + PARALLEL, count))
            held += await asyncio.gather(*(join(f"bare-{number}") for number in numbers))
    cpu = time.process_time() - cpu
    kib = (_resident() - memory) / 1024
    print(json.dumps({"kib": kib / count, "cpu_ms": cpu * 1000 / count}), flush=True)


asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))

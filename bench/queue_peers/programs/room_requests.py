"""Requests of a room by our client, one at a time: `python room_requests.py URL TOKEN COUNT` prints each p50 in ms."""

import asyncio
import json
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

from common import PADDING

from meshhost.room.client import RoomClient
from meshhost.transport.websocket_client import WebSocketClientProtocol


async def _p50(count: int, request: Callable[[], Awaitable[Any]]) -> float:
    found = []
    for _ in range(count):
        begun = time.perf_counter()
        await request()
        found.append(time.perf_counter() - begun)
    return statistics.median(found) * 1000


async def main(url: str, token: str, count: int) -> None:
    """Measure all and print."""
    async with RoomClient(protocol=WebSocketClientProtocol(url=url, token=token)) as room:
        figures = {
            "memory": await _p50(count, room.agents.list_toolkits),
            "list": await _p50(count, room.queues.list),
            "send": await _p50(count, lambda: room.queues.send(name="lone", message={"padding": PADDING})),
        }
    print(json.dumps(figures))


asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))

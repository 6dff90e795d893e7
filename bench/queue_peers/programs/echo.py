"""A WebSocket echo over loopback: `python echo.py serve PORT`, and `python echo.py measure PORT COUNT`, which prints p50."""

import asyncio
import json
import statistics
import sys
import time

from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

_BODY = b"x" * 300


async def _echo(connection: ServerConnection) -> None:
    async for message in connection:
        await connection.send(message)


async def _serve(port: int) -> None:
    async with serve(_echo, "127.0.0.1", port, compression=None) as server:
        print("ready", flush=True)
        await server.serve_forever()


async def _measure(port: int, count: int) -> None:
    found = []
    async with connect(f"ws://127.0.0.1:{port}", compression=None) as connection:
        for _ in range(count):
            begun = time.perf_counter()
            await connection.send(_BODY)
            await connection.recv()
            found.append(time.perf_counter() - begun)
    print(json.dumps({"echo": statistics.median(found) * 1000}))


if sys.argv[1] == "serve":
    asyncio.run(_serve(int(sys.argv[2])))
else:
    asyncio.run(_measure(int(sys.argv[2]), int(sys.argv[3])))

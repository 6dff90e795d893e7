"""Does the same queue work with either package and prints its figures as JSON.

`python queue_client.py meshhost|meshagent URL TOKEN [send]`: with `send` only the sends are measured. It imports one of the two
packages by name, so that it runs in an environment without the other. Rates are per second, latencies in milliseconds.
"""

import asyncio
import importlib
import json
import statistics
import sys
import time
from typing import Any

package, url, token = sys.argv[1:4]
is_send_only = "send" in sys.argv[4:]
api: Any = importlib.import_module(f"{package}.api")

ALONE = 500
TOGETHER = 4000
PARALLEL = 64
LATENCIES = 500
BODY = {"instructions": "save a poem about ai to poem.txt", "padding": "x" * 120}


def connect() -> Any:
    """Return a client of the room."""
    return api.RoomClient(protocol=api.WebSocketClientProtocol(url=url, token=token))


async def send_alone(room: Any) -> float:
    """Send one message after the other."""
    begun = time.perf_counter()
    for _ in range(ALONE):
        await room.queues.send(name="alone", message=BODY)
    return ALONE / (time.perf_counter() - begun)


async def send_together(room: Any) -> float:
    """Send PARALLEL messages at a time."""
    gate = asyncio.Semaphore(PARALLEL)

    async def one() -> None:
        async with gate:
            await room.queues.send(name="together", message=BODY)

    begun = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(TOGETHER)))
    return TOGETHER / (time.perf_counter() - begun)


async def receive(room: Any) -> float:
    """Receive what was sent, one after the other, without leases: the next receive settles the message before."""
    begun = time.perf_counter()
    for _ in range(ALONE):
        assert await room.queues.receive(name="together", create=True, wait=True) is not None
    return ALONE / (time.perf_counter() - begun)


async def lease_and_ack(room: Any) -> float:
    """Receive what was sent with a lease and an ack for each message."""
    begun = time.perf_counter()
    for _ in range(ALONE):
        message = await room.queues.lease(name="together", seconds=30)
        await message.ack()
    return ALONE / (time.perf_counter() - begun)


async def latencies(sender: Any, receiver: Any) -> list[float]:
    """Milliseconds from before each send until a receiver that was already waiting has the message."""
    found = []
    for number in range(LATENCIES):
        parked = asyncio.ensure_future(receiver.queues.receive(name="latency", create=True, wait=True))
        await asyncio.sleep(0.002)
        begun = time.perf_counter()
        await sender.queues.send(name="latency", message={"number": number})
        assert (await parked)["number"] == number
        found.append((time.perf_counter() - begun) * 1000)
    return found


async def main() -> None:
    """Measure all and print."""
    async with connect() as first, connect() as second:
        figures: dict[str, float] = {"alone": await send_alone(first), "together": await send_together(first)}
        if not is_send_only:
            figures["receive"] = await receive(first)
            if package == "meshhost":
                figures["lease"] = await lease_and_ack(first)
            found = await latencies(first, second)
            figures["p50"], figures["p99"] = statistics.median(found), statistics.quantiles(found, n=100)[98]
    print(json.dumps(figures))


asyncio.run(main())

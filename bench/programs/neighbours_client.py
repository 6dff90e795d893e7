"""The two tenants of `bench/neighbours.py`: `measure - URL TOKEN` prints times as JSON, `flood KIND URL TOKEN` floods.

A flood prints `ready`, runs until its standard input ends, and prints how many operations per second it made. Whatever the
server answers counts: a flood does not wait when it is refused.
"""

import asyncio
import contextlib
import json
import os
import statistics
import sys
import time
import uuid
from collections.abc import Awaitable, Callable

import aiohttp

from meshhost.api import RoomClient, RoomException, WebSocketClientProtocol
from meshhost.tools.remote import RemoteToolkit
from meshhost.tools.tool import Tool

role, kind, url, token = sys.argv[1:5]

SAMPLES = 800
PAUSE_SECONDS = 0.004
PARALLEL = 16
MEBIBYTE = bytes(1024 * 1024)
BASE = f"http{url.removeprefix('ws')}"


class Echo(Tool):
    """Answers what it is asked."""

    def __init__(self) -> None:
        super().__init__(name="echo", title="Echo", description="echoes", input_schema={"type": "object"})

    async def execute(self, context: object, **arguments: object) -> object:
        """The arguments."""
        return arguments


def connect() -> RoomClient:
    """A client of the room."""
    return RoomClient(protocol=WebSocketClientProtocol(url=url, token=token))


async def times_of(what: str, operation: Callable[[], Awaitable[object]]) -> dict[str, float]:
    """The median and the p99 of an operation in ms, one at a time."""
    found = []
    for _ in range(SAMPLES):
        begun = time.perf_counter()
        await operation()
        found.append(time.perf_counter() - begun)
        await asyncio.sleep(PAUSE_SECONDS)
    hundredths = statistics.quantiles(found, n=100)
    return {f"{what}_p50": hundredths[49] * 1000, f"{what}_p99": hundredths[98] * 1000}


async def measure() -> None:
    """Send messages and call a tool of another participant of the same tenant."""
    async with connect() as provider, connect() as room:
        toolkit = RemoteToolkit(name="kit", title="Kit", tools=[Echo()], public=True)
        await toolkit.start(room=provider)
        call = await times_of("call", lambda: room.agents.invoke_tool(toolkit="kit", tool="echo", arguments={}))
        message = {"text": "x" * 200}
        send = await times_of("send", lambda: room.queues.send(name=f"q-{os.getpid()}", message=message))
        await toolkit.stop()
    print(json.dumps(call | send))


async def connections() -> None:
    """Join and leave."""
    with contextlib.suppress(RoomException):
        async with connect():
            pass


async def messages(room: RoomClient) -> None:
    """Send a message."""
    await room.queues.send(name="flood", message={"text": "x" * 1000})


async def uploads(room: RoomClient) -> None:
    """Store a file."""
    await room.storage.upload(path=f"up/{uuid.uuid4().hex[:2]}", data=MEBIBYTE, overwrite=True)


async def downloads(room: RoomClient) -> None:
    """Read a file."""
    await room.storage.download(path="file")


async def tokens(http: aiohttp.ClientSession) -> None:
    """Show a token of nobody."""
    async with http.get(BASE, headers={"Authorization": f"Bearer ma-{uuid.uuid4().hex}.x.y"}) as answer:
        await answer.read()


def yield_to_others() -> None:
    """Run only while nobody else wants the CPU.

    `nice` is not enough: Linux lets the nicest process end its slice of some 4 ms before a waking one gets the CPU, and with
    two cores the server and the measuring client would wait for that.
    """
    if sys.platform == "linux":
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    else:
        os.nice(19)


async def flood() -> None:
    """Run the flood of this kind, or all of them, until the standard input ends."""
    yield_to_others()
    count = 0
    async with contextlib.AsyncExitStack() as stack:
        http = await stack.enter_async_context(aiohttp.ClientSession())
        rooms = [await stack.enter_async_context(connect()) for _ in range(PARALLEL)]
        with contextlib.suppress(RoomException):
            await rooms[0].storage.upload(path="file", data=MEBIBYTE, overwrite=True)
        kinds: dict[str, list[Callable[[], Awaitable[None]]]] = {
            "connections": [connections] * PARALLEL,
            "messages": [lambda room=room: messages(room) for room in rooms for _ in range(8)],  # type: ignore[misc]
            "uploads": [lambda room=room: uploads(room) for room in rooms],  # type: ignore[misc]
            "downloads": [lambda room=room: downloads(room) for room in rooms],  # type: ignore[misc]
            "tokens": [lambda: tokens(http)] * PARALLEL,
        }

        async def repeat(operation: Callable[[], Awaitable[None]]) -> None:
            nonlocal count
            while True:
                with contextlib.suppress(RoomException, aiohttp.ClientError, OSError):
                    await operation()
                count += 1
                await asyncio.sleep(0)

        chosen = list(kinds.values()) if kind == "all" else [kinds[kind]]
        tasks = [asyncio.create_task(repeat(operation)) for operations in chosen for operation in operations]
        print("ready", flush=True)
        begun = time.perf_counter()
        await asyncio.to_thread(sys.stdin.read)
        seconds = time.perf_counter() - begun
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        print(json.dumps({"per_second": count / seconds}), flush=True)
        os._exit(0)  # leaving in order takes requests that may be refused


asyncio.run(measure() if role == "measure" else flood())

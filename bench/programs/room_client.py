"""Does the same work in a room with either package and prints its figures as JSON.

`python room_client.py meshhost|meshagent provide|measure|measure-calls URL TOKEN`: `provide` offers a tool until its standard
input ends; `measure` needs such a provider in the room and measures tool calls, files, documents and broadcasts,
`measure-calls` only the tool calls. It imports one of the two packages by name, so that it runs in an environment without the
other. Rates are per second, latencies in milliseconds, throughput in MB (10^6 bytes) per second.
"""

import asyncio
import importlib
import json
import statistics
import sys
import time
from contextlib import AsyncExitStack
from typing import Any

package, role, url, token = sys.argv[1:5]
api: Any = importlib.import_module(f"{package}.api")
tools: Any = importlib.import_module(f"{package}.tools")

CALLS_ALONE = 500
CALLS_TOGETHER = 2000
PARALLEL = 64
LISTENERS = 100
BROADCASTS_ALONE = 50
BROADCASTS_TOGETHER = 100
BROADCASTERS = 8
EDITORS = 10
EDITS_ALONE = 100
EDITS_TOGETHER = 30
MEBIBYTES = 32
CHUNK = 1024 * 1024

SCHEMA = {
    "$root_tag_ref": "#/$defs/page",
    "$defs": {
        "page": {
            "properties": {
                "page": {"properties": {"notes": {"type": "array", "items": {"anyOf": [{"$ref": "#/$defs/note"}]}}}}
            }
        },
        "note": {"properties": {"note": {"properties": {"body": {"type": "string"}}}}},
    },
}


class Add(tools.Tool):  # type: ignore[misc]
    """Adds two numbers."""

    def __init__(self) -> None:
        number = {"type": "integer"}
        schema = {"type": "object", "required": ["a", "b"], "properties": {"a": number, "b": number}}
        super().__init__(name="add", title="Add", description="adds two numbers", input_schema=schema)

    async def execute(self, context: Any, *, a: int, b: int) -> Any:
        """Return the sum."""
        return {"sum": a + b}


def connect() -> Any:
    """Return a client of the room."""
    return api.RoomClient(protocol=api.WebSocketClientProtocol(url=url, token=token))


def percentiles(what: str, found: list[float]) -> dict[str, float]:
    """Return p50 and p99 of latencies in seconds."""
    return {
        f"{what}_p50": statistics.median(found) * 1000,
        f"{what}_p99": statistics.quantiles(found, n=100)[98] * 1000,
    }


async def provide() -> None:
    """Offer the tool."""
    async with connect() as room:
        toolkit = tools.RemoteToolkit(name="math", title="Math", tools=[Add()], public=True)
        await toolkit.start(room=room)
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)
        await toolkit.stop()


async def call_tools() -> dict[str, float]:
    """Calls of the provider's tool, one by one and many at a time."""
    async with connect() as room:

        async def call(number: int) -> None:
            answer = await room.agents.invoke_tool(toolkit="math", tool="add", arguments={"a": number, "b": 1})
            assert answer.json["sum"] == number + 1

        alone = []
        for number in range(CALLS_ALONE):
            begun = time.perf_counter()
            await call(number)
            alone.append(time.perf_counter() - begun)
        gate = asyncio.Semaphore(PARALLEL)

        async def gated(number: int) -> None:
            async with gate:
                await call(number)

        begun = time.perf_counter()
        await asyncio.gather(*(gated(number) for number in range(CALLS_TOGETHER)))
        together = CALLS_TOGETHER / (time.perf_counter() - begun)
    return {"calls": CALLS_ALONE / sum(alone), **percentiles("call", alone), "calls_together": together}


class Arrivals:
    """Counts what arrives, with the seconds it took, until `expected` is reached."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._expected = 0
        self._all = asyncio.Event()

    def expect(self, more: int) -> None:
        """Wait for this many more."""
        self._expected += more
        self._all.clear()

    def add(self, seconds: float) -> None:
        """Record an arrival."""
        self.seconds.append(seconds)
        if len(self.seconds) >= self._expected:
            self._all.set()

    async def wait(self) -> None:
        """Return when all that were expected have arrived."""
        async with asyncio.timeout(120):
            await self._all.wait()


async def broadcast() -> dict[str, float]:
    """Broadcast from one sender to many listeners, all in this process."""
    async with AsyncExitStack() as stack:
        sender = await stack.enter_async_context(connect())
        arrivals = Arrivals()

        def on_message(message: Any) -> None:
            if message.type == "bench":
                arrivals.add(time.perf_counter() - message.message["at"])

        for _ in range(LISTENERS):
            listener = await stack.enter_async_context(connect())
            listener.messaging.on("message", on_message)
            await listener.messaging.enable()

        async def send() -> None:
            await sender.messaging.broadcast_message(
                type="bench", message={"at": time.perf_counter(), "text": "x" * 100}
            )

        for _ in range(BROADCASTS_ALONE):
            arrivals.expect(LISTENERS)
            await send()
            await arrivals.wait()
        alone, arrivals.seconds = arrivals.seconds, []
        together = Arrivals()
        arrivals = together
        together.expect(LISTENERS * BROADCASTS_TOGETHER)
        gate = asyncio.Semaphore(BROADCASTERS)

        async def gated() -> None:
            async with gate:
                await send()

        begun = time.perf_counter()
        await asyncio.gather(*(gated() for _ in range(BROADCASTS_TOGETHER)))
        await together.wait()
        rate = LISTENERS * BROADCASTS_TOGETHER / (time.perf_counter() - begun)
    return {"broadcast": rate, **percentiles("broadcast", alone)}


async def write_file(room: Any, path: str, data: bytes) -> None:
    """Write a whole file, in slices."""
    handle = await room.storage.open(path=path, overwrite=True)
    for start in range(0, len(data), CHUNK):
        await room.storage.write(handle=handle, data=data[start : start + CHUNK])
    await room.storage.close(handle=handle)


async def edit() -> dict[str, float]:
    """Edit one document from several clients in this process: an edit is done when all of them have it."""
    async with AsyncExitStack() as stack:
        rooms = [await stack.enter_async_context(connect()) for _ in range(EDITORS)]
        await write_file(rooms[0], ".schemas/page.json", json.dumps(SCHEMA).encode())
        documents = [await room.sync.open(path="bench.page") for room in rooms]
        arrivals = Arrivals()
        sent = 0.0

        def on_inserted(_: Any) -> None:
            arrivals.add(time.perf_counter() - sent)

        for document in documents:
            document.on("inserted")(on_inserted)

        def insert(editor: int, number: int) -> None:
            documents[editor].root.append_child("note", {"body": f"{editor}-{number}"})

        for number in range(EDITS_ALONE):
            arrivals.expect(EDITORS)
            sent = time.perf_counter()
            insert(0, -1 - number)
            await arrivals.wait()
        # The last to see it counts.
        alone = [max(arrivals.seconds[at : at + EDITORS]) for at in range(0, len(arrivals.seconds), EDITORS)]
        arrivals.expect(EDITORS * EDITORS * EDITS_TOGETHER)
        begun = time.perf_counter()
        for number in range(EDITS_TOGETHER):
            for editor in range(EDITORS):
                insert(editor, number)
                await asyncio.sleep(0)
        await arrivals.wait()
        rate = EDITORS * EDITS_TOGETHER / (time.perf_counter() - begun)
    return {"edits": rate, **percentiles("edit", alone)}


async def transfer() -> dict[str, float]:
    """Upload a large file and download it again."""
    data = bytes(range(256)) * (MEBIBYTES * 4096)
    async with connect() as room:
        begun = time.perf_counter()
        await write_file(room, "large.bin", data)
        written = time.perf_counter()
        file = await room.storage.download(path="large.bin")
        read = time.perf_counter()
        assert file.data == data
    size = len(data) / 1e6
    return {"upload": size / (written - begun), "download": size / (read - written)}


async def measure() -> None:
    """Measure what the role asks for, and print it."""
    figures: dict[str, float] = {}
    for part in (call_tools,) if role == "measure-calls" else (call_tools, transfer, edit, broadcast):
        figures |= await part()
    print(json.dumps(figures), flush=True)


asyncio.run(provide() if role == "provide" else measure())

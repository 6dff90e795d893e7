"""Measures searches of a room's table of a million rows with vectors, and what one tenant's heavy queries cost another tenant.

A room server in a process of its own, with the limits that it has without a configuration. One tenant fills a table through
the wire (a million rows of 128 numbers in clusters, a text, a number), makes an index and searches: by vector, by vector and
filter, by text. How good the index is says recall: the share of the ten nearest rows, computed here, that are found. Then
another tenant searches its own table of 20,000 rows while the first one scans the million, eight queries at once. The aims:
p50 under 50 ms, and the other tenant's p99 at most three times what it is alone. Run it on a machine that does nothing else.
"""

import asyncio
import contextlib
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np

from bench.neighbours import OPERATOR_KEY, _tenant
from bench.processes import room_access, room_server
from meshhost.room.client import RoomClient
from meshhost.room.services.tables.data_types import FloatDataType, IntDataType, TextDataType, VectorDataType
from meshhost.transport.websocket_client import WebSocketClientProtocol

ROWS, OTHER_ROWS = 1_000_000, 20_000
NUMBERS, CLUSTERS = 128, 2_000
BATCH = 4_000
SEARCHES, CHECKED = 500, 100
SECONDS = 15.0
TURNS = 3
SCANS = 8
WORDS = [
    "ash",
    "birch",
    "cedar",
    "elm",
    "fir",
    "hazel",
    "larch",
    "maple",
    "oak",
    "pine",
    "rowan",
    "spruce",
    "willow",
    "yew",
]
SCHEMA = {
    "id": IntDataType(),
    "text": TextDataType(),
    "near": VectorDataType(size=NUMBERS, element_type=FloatDataType()),
}


@asynccontextmanager
async def _joined(access: tuple[str, str]) -> AsyncIterator[RoomClient]:
    url, token = access
    async with RoomClient(protocol=WebSocketClientProtocol(url=url, token=token)) as room:
        yield room


def _vectors(rows: int, generator: np.random.Generator) -> Any:
    centres = np.random.default_rng(1).normal(size=(CLUSTERS, NUMBERS))
    vectors = centres[generator.integers(CLUSTERS, size=rows)] + 0.35 * generator.normal(size=(rows, NUMBERS))
    return np.round(vectors, 2).astype(np.float32)


async def _fill(room: RoomClient, vectors: Any) -> None:
    await room.database.create_table_with_schema(name="t", schema=SCHEMA)
    for start in range(0, len(vectors), BATCH):
        rows = [
            {"id": start + number, "text": _text(start + number), "near": [round(each, 2) for each in vector]}
            for number, vector in enumerate(vectors[start : start + BATCH].tolist())
        ]
        await room.database.insert(table="t", records=rows)


def _text(number: int) -> str:
    return f"{WORDS[number % 14]} {WORDS[number // 14 % 14]} {WORDS[number // 196 % 14]} n{number % 5000}"


async def _times(search: Callable[[int], Coroutine[Any, Any, Any]], times: int) -> tuple[float, float]:
    """The p50 and p99 of so many searches one after the other, in ms, after a few that are not counted."""
    found = []
    for number in range(times + 10):
        began = time.perf_counter()
        await search(number)
        found.append((time.perf_counter() - began) * 1000)
    return _percentiles(found[10:])


def _percentiles(found: list[float]) -> tuple[float, float]:
    cuts = statistics.quantiles(found, n=100)
    return cuts[49], cuts[98]


async def _recall(room: RoomClient, vectors: Any, queries: Any) -> float:
    hits = 0
    for query in queries:
        exact = set(np.argpartition(((vectors - query) ** 2).sum(axis=1), 10)[:10].tolist())
        found = await room.database.search(table="t", vector=query.tolist(), limit=10, select=["id"])
        hits += len(exact & {row["id"] for row in found})
    return hits / (10 * len(queries))


async def _measured(name: str, doing: Coroutine[Any, Any, Any]) -> None:
    began = time.perf_counter()
    await doing
    print(f"{name}: {time.perf_counter() - began:.1f} s", flush=True)


async def _searches(room: RoomClient, queries: Any) -> None:
    database = room.database

    async def by_vector(number: int) -> None:
        await database.search(table="t", vector=queries[number].tolist(), limit=10, select=["id", "text"])

    async def by_both(number: int) -> None:
        await database.search(
            table="t", vector=queries[number].tolist(), where=f"id > {number * 1000}", limit=10, select=["id"]
        )

    async def by_text(number: int) -> None:
        await database.search(table="t", text=f"n{number} willow", limit=10, select=["id", "text"])

    async def by_id(number: int) -> None:
        await database.search(table="t", where=f"id = {number * 777}", select=["id", "text"])

    for name, search in (("vector", by_vector), ("vector and filter", by_both), ("text", by_text), ("id", by_id)):
        p50, p99 = await _times(search, SEARCHES)
        print(f"search by {name}: p50 {p50:.1f} ms, p99 {p99:.1f} ms", flush=True)


async def _beside(heavy: RoomClient, other: RoomClient, queries: Any) -> None:
    async def search(number: int) -> None:
        query = queries[number % len(queries)].tolist()
        await other.database.search(table="t", vector=query, limit=10, select=["id", "text"])

    async def scan(number: int) -> None:
        while True:
            where = f"regexp_like(text, '(ash|elm|yew).*n[0-9]*{number}[0-9]$') AND length(text) > {number}"
            with contextlib.suppress(Exception):  # a time-out is no reason to stop
                await heavy.database.search(table="t", where=where, limit=5, offset=5_000_000, select=["id"])
            counts[number] += 1

    async def for_seconds() -> tuple[float, float]:
        found, end = [], time.perf_counter() + SECONDS
        while time.perf_counter() < end:
            began = time.perf_counter()
            await search(len(found))
            found.append((time.perf_counter() - began) * 1000)
            await asyncio.sleep(0.01)
        return _percentiles(found)

    counts = [0] * SCANS
    await _times(search, 100)
    for turn in range(TURNS):
        alone = await for_seconds()
        async with asyncio.TaskGroup() as tasks:
            scans = [tasks.create_task(scan(number)) for number in range(SCANS)]
            await asyncio.sleep(2)
            beside = await for_seconds()
            for each in scans:
                each.cancel()
        print(f"another tenant, turn {turn + 1}: alone p50 {alone[0]:.1f} ms, p99 {alone[1]:.1f} ms", flush=True)
        print(
            f"  beside scans: p50 {beside[0]:.1f} ms, p99 {beside[1]:.1f} ms,"
            f" {beside[1] / alone[1]:.2f} times; {sum(counts)} scans"
        )
        await asyncio.sleep(3)


async def main(rows: int = ROWS) -> None:
    """Measure and print."""
    vectors, queries = _vectors(rows, np.random.default_rng(2)), _vectors(SEARCHES + 100, np.random.default_rng(3))
    with tempfile.TemporaryDirectory() as directory:
        environment = {"MESHHOST_OPERATOR_KEY": OPERATOR_KEY}
        async with room_server(Path(directory), environment=environment) as (url, _):
            own = room_access(url, await _tenant(url, "own"), "room")
            theirs = room_access(url, await _tenant(url, "theirs"), "room")
            async with _joined(own) as room, _joined(theirs) as other:
                await _measured(f"insert {rows:,} rows", _fill(room, vectors))
                await _measured("compact", room.database.optimize(table="t"))
                await _measured("index of vectors", room.database.create_vector_index(table="t", column="near"))
                await _measured("index of texts", room.database.create_full_text_search_index(table="t", column="text"))
                await _measured("index of numbers", room.database.create_scalar_index(table="t", column="id"))
                await _searches(room, queries)
                print(f"recall of ten: {await _recall(room, vectors, queries[:CHECKED]):.3f}", flush=True)
                await _fill(other, vectors[:OTHER_ROWS])
                await other.database.create_vector_index(table="t", column="near")
                await _beside(room, other, queries)


if __name__ == "__main__":
    asyncio.run(main())

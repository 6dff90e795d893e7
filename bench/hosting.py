"""Call to agent started, starts per second and memory per idle agent: our ServiceHost and the MeshAgent SDK's.

Both hosts are processes of their own, run the same program, and join the same stand-in room in this process.
"""

import asyncio
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import psutil

from bench.sdk import SDK_VERSION, sdk_python
from bench.stand_in import StandInRoom
from bench.table import Row, show
from meshhost.identity.tokens import ParticipantToken

ONE_BY_ONE = 100
TOGETHER = 300
PARALLEL = 50
PROGRAM = Path(__file__).with_name("host_program.py")


@dataclass
class Figures:
    """Latencies in milliseconds, rates per second, memory in KiB."""

    single_p50: float
    single_p99: float
    starts_per_second: float
    kib_per_agent: float


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _call(room_url: str, identity: str) -> dict[str, object]:
    token = ParticipantToken(name=identity)
    token.add_room_grant("bench")
    token.add_role_grant("agent")
    data = {
        "room_name": "bench",
        "room_url": f"{room_url}/rooms/bench",
        "token": token.to_jwt(token="bench-secret-of-more-than-32-bytes!"),
        "arguments": {},
    }
    return {"event": "room.call", "data": data}


@asynccontextmanager
async def _running(package: str, python: str, room: StandInRoom) -> AsyncIterator[tuple[subprocess.Popen[bytes], str]]:
    port = _free_port()
    environment = os.environ | {"MESHHOST_ALLOWED_ROOM_URLS": room.url, "MESHHOST_MAX_AGENTS": "5000"}
    process = subprocess.Popen([python, str(PROGRAM), package, str(port)], env=environment)  # noqa: ASYNC220 - a bench
    try:
        url = f"http://127.0.0.1:{port}"
        async with aiohttp.ClientSession() as session, asyncio.timeout(60):
            while True:
                try:
                    async with session.get(url):
                        break
                except aiohttp.ClientError:
                    await asyncio.sleep(0.05)
        yield process, url
    finally:
        process.kill()
        process.wait()


async def _measure(package: str, python: str) -> Figures:
    async with (
        StandInRoom() as room,
        aiohttp.ClientSession() as session,
        _running(package, python, room) as (host, url),
    ):

        async def start_one(identity: str) -> float:
            body = _call(room.url, identity)
            begun = time.perf_counter()
            async with session.post(f"{url}/idle", json=body) as answer:
                answer.raise_for_status()
            return (await room.wait_started(identity) - begun) * 1000

        await start_one("warm-up")
        before = psutil.Process(host.pid).memory_info().rss
        single = [await start_one(f"one-{number}") for number in range(ONE_BY_ONE)]
        gate = asyncio.Semaphore(PARALLEL)

        async def gated(identity: str) -> None:
            async with gate:
                await start_one(identity)

        begun = time.perf_counter()
        await asyncio.gather(*(gated(f"many-{number}") for number in range(TOGETHER)))
        elapsed = time.perf_counter() - begun
        after = psutil.Process(host.pid).memory_info().rss
        cuts = statistics.quantiles(single, n=100)
        agents = ONE_BY_ONE + TOGETHER
        return Figures(statistics.median(single), cuts[98], TOGETHER / elapsed, (after - before) / 1024 / agents)


async def main() -> None:
    """Measure both and print the table."""
    ours = await _measure("meshhost", sys.executable)
    python = sdk_python()
    theirs = None if python is None else await _measure("meshagent", str(python))
    rows: list[Row] = [
        ("call to agent started, one at a time, p50 ms", ours.single_p50, theirs and theirs.single_p50),
        ("call to agent started, one at a time, p99 ms", ours.single_p99, theirs and theirs.single_p99),
        (f"starts per second, {PARALLEL} at a time", ours.starts_per_second, theirs and theirs.starts_per_second),
        ("memory per idle agent, KiB", ours.kib_per_agent, theirs and theirs.kib_per_agent),
    ]
    note = "" if theirs else "no Python 3.13 here: the SDK was not measured"
    show("Service host", ("meshhost", f"MeshAgent SDK {SDK_VERSION}"), rows, note=note)


if __name__ == "__main__":
    asyncio.run(main())

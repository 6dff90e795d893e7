"""Call to agent started, starts per second, memory per idle agent and time to stop: our ServiceHost and the MeshAgent SDK's.
Then what it takes to give each agent a process of its own, which only ours can.

All hosts are processes of their own, run the same program, and join the same stand-in room in this process.
"""

import asyncio
import signal
import statistics
import sys
import time
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import psutil

from bench.processes import free_port, running, wait_answers
from bench.sdk import SDK_VERSION, sdk_python
from bench.stand_in import StandInRoom
from bench.table import Row, show
from meshhost.identity.tokens import ParticipantToken

ONE_BY_ONE = 100
TOGETHER = 600
PARALLEL = 200
STOPPED = 200
STOP_SECONDS = 60.0
ISOLATED = 20
WARM = 5
KEY = "bench-secret-of-more-than-32-bytes!"
PROGRAM = Path(__file__).with_name("host_program.py")


@dataclass
class Figures:
    """Latencies in milliseconds, rates per second, memory in KiB; `stop_seconds` is None when it had to be killed."""

    single_p50: float
    single_p99: float
    many_p50: float
    many_p99: float
    starts_per_second: float
    kib_per_agent: float
    stop_seconds: float | None


@dataclass
class Isolated:
    """Starts of agents in processes, in milliseconds, and their memory in MiB."""

    cold: list[float]
    warm: list[float]
    resident: float
    unshared: float


class BenchedHost:
    """A host that runs, and the stand-in room it joins."""

    def __init__(self, process: Process, url: str, room: StandInRoom, session: aiohttp.ClientSession) -> None:
        self.process = process
        self.url = url
        self.room = room
        self._session = session
        self.refusals = 0

    @property
    def resident(self) -> int:
        """The memory of its process in bytes."""
        return int(psutil.Process(self.process.pid).memory_info().rss)

    async def start(self, identity: str, *, tenant: str | None = None) -> float:
        """Call an agent; returns the milliseconds until it had started. A refusal for load is tried again."""
        body = _call(self.room.url, identity, tenant)
        begun = time.perf_counter()
        async with asyncio.timeout(120):
            while True:
                async with self._session.post(f"{self.url}/idle", json=body) as answer:
                    if answer.status not in (429, 503):
                        answer.raise_for_status()
                        break
                self.refusals += 1
                await asyncio.sleep(0.1)
        return (await self.room.wait_started(identity) - begun) * 1000

    async def start_many(self, identities: list[str], *, tenants: int = 0) -> tuple[list[float], float]:
        """Call them, PARALLEL at a time; returns each one's milliseconds, and the seconds that all took."""
        gate = asyncio.Semaphore(PARALLEL)

        async def gated(number: int, identity: str) -> float:
            async with gate:
                return await self.start(identity, tenant=f"tenant-{number % tenants}" if tenants else None)

        begun = time.perf_counter()
        found = await asyncio.gather(*(gated(*each) for each in enumerate(identities)))
        return list(found), time.perf_counter() - begun

    async def wait_metric(self, line: str) -> None:
        """Return when its metrics have this line."""
        async with asyncio.timeout(60):
            while True:
                if line in await self._metrics():
                    return
                await asyncio.sleep(0.05)

    async def _metrics(self) -> str:
        async with self._session.get(f"{self.url}/metrics") as answer:
            return await answer.text()


def _call(room_url: str, identity: str, tenant: str | None) -> dict[str, object]:
    token = ParticipantToken(name=identity, project_id=tenant)
    token.add_room_grant("bench")
    token.add_role_grant("agent")
    data = {
        "room_name": "bench",
        "room_url": f"{room_url}/rooms/bench",
        "token": token.to_jwt(token=KEY),
        "arguments": {},
    }
    return {"event": "room.call", "data": data}


@asynccontextmanager
async def benched_host(
    package: str, python: str, *options: str, environment: dict[str, str] | None = None
) -> AsyncIterator[BenchedHost]:
    """A host of this package, for as long as this is open."""
    port = free_port()
    async with StandInRoom() as room:
        settings = {"MESHHOST_ALLOWED_ROOM_URLS": room.url, "MESHHOST_MAX_AGENTS": "20000", **(environment or {})}
        command = [python, PROGRAM, package, port, *options]
        async with (
            running(*command, environment=settings, stdout=DEVNULL, stderr=DEVNULL) as process,
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
        ):
            await wait_answers(f"http://127.0.0.1:{port}")
            yield BenchedHost(process, f"http://127.0.0.1:{port}", room, session)


async def _measure(package: str, python: str) -> Figures:
    async with benched_host(package, python) as host:
        await host.start("warm-up")
        before = host.resident
        single = [await host.start(f"one-{number}") for number in range(ONE_BY_ONE)]
        many, elapsed = await host.start_many([f"many-{number}" for number in range(TOGETHER)])
        kib = (host.resident - before) / 1024 / (ONE_BY_ONE + TOGETHER)
    stop = await _stop_seconds(package, python)
    return Figures(_p50(single), _p99(single), _p50(many), _p99(many), TOGETHER / elapsed, kib, stop)


async def _stop_seconds(package: str, python: str) -> float | None:
    """From SIGTERM to the end of the process."""
    async with benched_host(package, python) as host:
        await host.start_many([f"stopped-{number}" for number in range(STOPPED)])
        begun = time.perf_counter()
        host.process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await host.process.wait()
        except TimeoutError:
            host.process.kill()
            return None
        return time.perf_counter() - begun


async def _measure_isolated() -> Isolated:
    resident: list[float] = []
    unshared: list[float] = []

    async def starts(pool: int) -> list[float]:
        environment = {"MESHHOST_PROCESS_POOL": str(pool)}
        async with benched_host("meshhost", sys.executable, "process", environment=environment) as host:
            found = []
            for number in range(ISOLATED):
                await host.wait_metric(f'meshhost_processes{{use="idle"}} {float(pool)}' if pool else "")
                found.append(await host.start(f"isolated-{number}"))
            for child in psutil.Process(host.process.pid).children():
                memory = child.memory_full_info()
                resident.append(memory.rss / 2**20)
                unshared.append(memory.uss / 2**20)
        return found

    cold, warm = await starts(0), await starts(WARM)
    return Isolated(cold, warm, statistics.median(resident), statistics.median(unshared))


def _p50(found: list[float]) -> float:
    return statistics.median(found)


def _p99(found: list[float]) -> float:
    return statistics.quantiles(found, n=100, method="inclusive")[98]


async def main() -> None:
    """Measure both, then isolation, and print the tables."""
    ours = await _measure("meshhost", sys.executable)
    python = sdk_python()
    theirs = None if python is None else await _measure("meshagent", str(python))
    texts = {
        "single_p50": "call to agent started, one at a time, p50 ms",
        "single_p99": "call to agent started, one at a time, p99 ms",
        "many_p50": f"call to agent started, {PARALLEL} at a time, p50 ms",
        "many_p99": f"call to agent started, {PARALLEL} at a time, p99 ms",
        "starts_per_second": f"starts per second, {PARALLEL} at a time",
        "kib_per_agent": "memory per idle agent, KiB",
        "stop_seconds": f"SIGTERM to exit with {STOPPED} agents, seconds",
    }
    rows: list[Row] = [(text, getattr(ours, name), getattr(theirs, name, None)) for name, text in texts.items()]
    note = "" if theirs else "no Python 3.13 here: the SDK was not measured"
    if theirs and theirs.stop_seconds is None:
        note = f"the SDK's host was killed {STOP_SECONDS:g} s after SIGTERM"
    show("Service host", ("meshhost", f"MeshAgent SDK {SDK_VERSION}"), rows, note=note)
    isolated = await _measure_isolated()
    rows = [
        ("call to agent started, p50 ms", _p50(isolated.warm), _p50(isolated.cold)),
        ("call to agent started, p99 ms", _p99(isolated.warm), _p99(isolated.cold)),
    ]
    note = f"{isolated.resident:.1f} MiB resident per process, {isolated.unshared:.1f} MiB of them unshared"
    show("Agents in processes of their own", ("warm", "cold"), rows, note=note)


if __name__ == "__main__":
    asyncio.run(main())

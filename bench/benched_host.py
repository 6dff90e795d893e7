"""A service host as a process, ready to be measured: its calls, its CPU time and its memory.

Used by the benchmarks of hosts, the soak, the comparison and the fuzz run. The caller and the stand-in room are in this
process.
"""

import asyncio
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import psutil

from bench.processes import free_port, running, wait_answers
from bench.stand_in.caller import Call, StandInCaller
from bench.stand_in.linked_room import LinkedCall, StandInLinkedRoom
from bench.stand_in.room import StandInRoom

__all__ = ["PARALLEL", "BenchedHost", "LinkedHost", "benched_host", "linked_host"]

PARALLEL = 200
"""How many calls are made at a time."""

PROGRAM = Path(__file__).parent / "programs" / "host.py"


class _Measured:
    """A running host, as a process."""

    def __init__(self, process: Process) -> None:
        self.process = process

    @property
    def resident(self) -> int:
        """The memory of its process in bytes."""
        return int(psutil.Process(self.process.pid).memory_info().rss)

    @property
    def cpu_seconds(self) -> float:
        """The CPU seconds that its process has used."""
        times = psutil.Process(self.process.pid).cpu_times()
        return float(times.user + times.system)


class LinkedHost(_Measured):
    """A running host that dialled in, and the stand-in for its room server. Its calls are made as those of `BenchedHost`."""

    def __init__(self, process: Process, room: StandInLinkedRoom) -> None:
        super().__init__(process)
        self.room = room

    async def connect(self) -> None:
        """Wait until it has dialled in."""
        await self.room.wait_linked()

    async def start(self, identity: str) -> float:
        """Call an agent; returns the milliseconds until it had started."""
        found, _ = await self.room.start(self.prepare_many([identity]), parallel=1)
        return found[0]

    def prepare_many(self, identities: list[str]) -> list[LinkedCall]:
        """Prepare calls for `start_prepared`."""
        return [self.room.prepare(number, identity) for number, identity in enumerate(identities)]

    async def start_prepared(self, calls: list[LinkedCall]) -> tuple[list[float], float]:
        """Make the calls, PARALLEL at a time; returns the milliseconds of each start, and the seconds of all."""
        return await self.room.start(calls, parallel=PARALLEL)

    async def start_many(self, identities: list[str]) -> tuple[list[float], float]:
        """Prepare and make calls; returns as `start_prepared` does."""
        return await self.start_prepared(self.prepare_many(identities))


class BenchedHost(_Measured):
    """A running host, and the stand-in room that its agents join."""

    def __init__(self, process: Process, url: str, room: StandInRoom, session: aiohttp.ClientSession) -> None:
        super().__init__(process)
        self.url = url
        self.room = room
        self._session = session
        self._caller = StandInCaller(url, room)

    @property
    def refusals(self) -> int:
        """How many calls were refused for load, and made again."""
        return self._caller.refusals

    async def connect(self) -> None:
        """Open the connections of the caller, so that they are not part of what is measured."""
        await self._caller.connect(PARALLEL)

    def disconnect(self) -> None:
        """Close the connections of the caller."""
        self._caller.close()

    async def start(self, identity: str, *, tenant: str | None = None) -> float:
        """Call an agent; returns the milliseconds until it had started. A refusal for load is tried again."""
        found, _ = await self._caller.start([self._caller.prepare(identity, tenant=tenant)], parallel=1)
        return found[0]

    def prepare_many(self, identities: list[str], *, tenants: int = 0) -> list[Call]:
        """Prepare calls for `start_prepared`, of this many tenants in turn (0: all of the host's own)."""
        named = (f"tenant-{number % tenants}" if tenants else None for number in range(len(identities)))
        return [
            self._caller.prepare(identity, tenant=tenant) for identity, tenant in zip(identities, named, strict=True)
        ]

    async def start_prepared(self, calls: list[Call]) -> tuple[list[float], float]:
        """Make the calls, PARALLEL at a time; returns the milliseconds of each start, and the seconds of all."""
        return await self._caller.start(calls, parallel=PARALLEL)

    async def start_many(self, identities: list[str], *, tenants: int = 0) -> tuple[list[float], float]:
        """Prepare and make calls; returns as `start_prepared` does."""
        return await self.start_prepared(self.prepare_many(identities, tenants=tenants))

    async def wait_metric(self, line: str) -> None:
        """Wait until its metrics have this line. Raises TimeoutError."""
        async with asyncio.timeout(60):
            while True:
                if line in await self._metrics():
                    return
                await asyncio.sleep(0.05)

    async def _metrics(self) -> str:
        async with self._session.get(f"{self.url}/metrics") as answer:
            return await answer.text()


@asynccontextmanager
async def benched_host(
    package: str, python: str, *options: str, environment: Mapping[str, str | None] | None = None
) -> AsyncIterator[BenchedHost]:
    """Run a host of this package (`programs/host.py`) with this interpreter, until the block is left.

    `environment` is added to its own; None unsets a variable.
    """
    port = free_port()
    async with StandInRoom() as room:
        settings: dict[str, str | None] = {
            "MESHHOST_ALLOWED_ROOM_URLS": room.url,
            "MESHHOST_MAX_AGENTS": "20000",
            **(environment or {}),
        }
        command = [python, PROGRAM, package, port, *options]
        async with (
            running(*command, environment=settings, stdout=DEVNULL, stderr=DEVNULL) as process,
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
        ):
            await wait_answers(f"http://127.0.0.1:{port}")
            host = BenchedHost(process, f"http://127.0.0.1:{port}", room, session)
            try:
                yield host
            finally:
                host.disconnect()


@asynccontextmanager
async def linked_host(python: str, *, environment: Mapping[str, str | None] | None = None) -> AsyncIterator[LinkedHost]:
    """Run a host of ours with this interpreter that dials in, until the block is left. It listens as well, for its metrics."""
    async with StandInLinkedRoom() as room:
        settings: dict[str, str | None] = {
            "MESHHOST_ROOM_SERVER": room.url,
            "MESHHOST_API_KEY": "ma-bench",
            "MESHHOST_MAX_AGENTS": "20000",
            **(environment or {}),
        }
        command = [python, PROGRAM, "meshhost", free_port()]
        async with running(*command, environment=settings, stdout=DEVNULL, stderr=DEVNULL) as process:
            await room.wait_linked()
            yield LinkedHost(process, room)

"""Measures many idle agents in one host, and what a start and stop leaves behind: `python -m bench soak`. Takes minutes.

10,000 agents of 50 tenants start and stay. Then agents start and are dismissed one after the other, ROUNDS times 1,000. The
memory that the first rounds add is that of histories of bounded length, and of the allocator; the last round should add none.
There are fewer agents when the limit of open files requires it: each agent takes one file in the host, and one in this process.
"""

import asyncio
import sys
import time

from bench.benched_host import BenchedHost, benched_host
from bench.processes import raise_file_limit
from bench.table import Row, show

AGENTS = 10_000
TENANTS = 50
CYCLES = 1_000
ROUNDS = 6
BATCH = 2_000
# Files that are open besides the agents' connections.
OTHER_FILES = 600


def _raise_file_limit() -> int:
    """Raise the limit of open files, also for processes started here; returns how many agents it allows."""
    return min(AGENTS, raise_file_limit(AGENTS + OTHER_FILES) - OTHER_FILES)


async def _settled(host: BenchedHost) -> float:
    """Return the memory of the host in MiB, after a pause."""
    await asyncio.sleep(2.0)
    return host.resident / 2**20


async def _cycle(host: BenchedHost) -> float:
    """Start and dismiss CYCLES agents; returns the seconds of one start and stop."""
    begun = time.perf_counter()
    for number in range(CYCLES):
        identity = f"cycle-{number}"
        await host.start(identity, tenant=f"tenant-{number % TENANTS}")
        await host.room.dismiss(identity)
        host.room.forget(identity)
    return (time.perf_counter() - begun) / CYCLES


async def main() -> None:
    """Soak, and print the table."""
    agents = _raise_file_limit()
    async with benched_host("meshhost", sys.executable) as host:
        await host.start("warm-up")
        await host.connect()
        empty = await _settled(host)
        seconds = 0.0
        for first in range(0, agents, BATCH):
            identities = [f"idle-{number}" for number in range(first, min(first + BATCH, agents))]
            _, elapsed = await host.start_many(identities, tenants=TENANTS)
            seconds += elapsed
            print(f"{host.room.present:,} agents after {seconds:.0f} s, {host.refusals:,} refusals", file=sys.stderr)
        full = await _settled(host)
        after: list[float] = []
        cycle = 0.0
        for _ in range(ROUNDS):
            cycle = await _cycle(host)
            after.append(await _settled(host))
            print(f"{after[-1]:.1f} MiB after {len(after) * CYCLES:,} starts and stops more", file=sys.stderr)
        lost = agents + 1 - host.room.present
    rows: list[Row] = [
        ("starts per second", agents / seconds),
        ("memory of the host without agents, MiB", empty),
        (f"memory with {agents:,} agents, MiB", full),
        ("memory per agent, KiB", (full - empty) * 1024 / agents),
        (f"memory after {CYCLES:,} starts and stops more, MiB", after[0]),
        (f"memory after {ROUNDS * CYCLES:,}, MiB", after[-1]),
        (f"kept for each of the last {CYCLES:,}, KiB", (after[-1] - after[-2]) * 1024 / CYCLES),
        ("one start and stop, ms", cycle * 1000),
        ("agents lost", float(lost)),
    ]
    note = "" if agents == AGENTS else f"the limit of open files allows {agents:,} agents"
    show(f"{agents:,} idle agents of {TENANTS} tenants in one host", ("meshhost",), rows, note=note)


if __name__ == "__main__":
    asyncio.run(main())

"""Attacks a host for a while: `python -m bench fuzz [seconds] [--seed N]`. Fails when the host breaks a rule.

Not a benchmark. The host is a process of its own, with a webhook secret. Callers send good and bad calls over many connections
at once (`callers`); meanwhile it is checked that the host answers and has one agent per key. At the end its agents, memory,
open files, threads and child processes are compared with those before.
"""

import asyncio
import statistics
import sys
import time
from collections import Counter
from dataclasses import dataclass

import aiohttp
import psutil
from rich.console import Console
from rich.table import Table

from bench.benched_host import BenchedHost, benched_host
from bench.fuzz.callers import KEYS, SECRET, SOCKETS_TENANT, Caller, Findings, Key, RawCaller

__all__ = ["SEED", "main"]

SECONDS = 60.0
SEED = 20_261_123
CALLERS = 8
RAW_CALLERS = 4
MAY_GROW_MIB = 24.0
# The host remembers each accepted signature for ten minutes.
MIB_PER_SIGNATURE = 250 / 2**20
SETTLE_SECONDS = 30.0


@dataclass(frozen=True)
class Vitals:
    """What the process of a host uses: memory in MiB, open files, threads, children."""

    mib: float
    files: int
    threads: int
    children: int


def _vitals(host: BenchedHost) -> Vitals:
    process = psutil.Process(host.process.pid)
    children = len(process.children(recursive=True))
    return Vitals(host.resident / 2**20, process.num_fds(), process.num_threads(), children)


async def _agents(host: BenchedHost) -> Counter[Key]:
    """Count the live agents of each key, without those that were called by a raw socket. One of each is right."""
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as http,
        http.get(f"{host.url}/agents?limit=10000", timeout=aiohttp.ClientTimeout(30)) as answer,
    ):
        agents = (await answer.json())["agents"]
    return Counter(
        (one["tenant"], one["room"], one["identity"])
        for one in agents
        if one["state"] not in ("stopped", "failed") and not one["tenant"].startswith(SOCKETS_TENANT)
    )


async def _watch(host: BenchedHost, found: Findings, until: float) -> None:
    """Check once a second that no key has two agents, and that the host answers."""
    while time.monotonic() < until:
        try:
            for key, number in (await _agents(host)).items():
                if number > 1:
                    found.blame(f"{number} agents of {key}")
        except (aiohttp.ClientError, TimeoutError) as error:
            found.blame(f"the host does not answer: {type(error).__name__}")
        await asyncio.sleep(1.0)


async def _start_all(host: BenchedHost, found: Findings, seed: int) -> None:
    """Start all agents, so that the memory before is that of a host with all of them."""
    caller = Caller(host, found, "first", seed)
    async with aiohttp.ClientSession() as http:
        for key in KEYS:
            while await caller.send(http, caller.make_call(key)) != 200:  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.2)
            await host.room.wait_started(key[2])


async def _settled(host: BenchedHost, before: Vitals) -> Vitals:
    """Return the vitals once the remaining connections are closed, or after SETTLE_SECONDS."""
    end = time.monotonic() + SETTLE_SECONDS
    while (vitals := _vitals(host)).files > before.files and time.monotonic() < end:  # noqa: ASYNC110 - another process
        await asyncio.sleep(0.2)
    return vitals


async def _answers(host: BenchedHost, found: Findings, seed: int) -> bool:
    caller = Caller(host, found, "last", seed)
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(30)) as http:
        return await caller.send(http, caller.make_call(KEYS[0])) == 200


async def _under_fire(host: BenchedHost, found: Findings, seconds: float, seed: int) -> None:
    until = time.monotonic() + seconds
    callers: list[Caller | RawCaller] = [
        *(Caller(host, found, f"caller {number}", seed) for number in range(CALLERS)),
        *(RawCaller(host, found, f"raw-{number}", seed) for number in range(RAW_CALLERS)),
    ]
    async with asyncio.TaskGroup() as tasks:
        for one in callers:
            tasks.create_task(one.fire(until))
        tasks.create_task(_watch(host, found, until))


def _judge(found: Findings, before: Vitals, after: Vitals, agents: Counter[Key]) -> None:
    if agents != Counter(found.started):
        twice = {key for key, number in agents.items() if number > 1}
        found.blame(f"agents: {len(found.started - set(agents))} gone, {len(twice)} twice, {len(agents)} in all")
    grown = after.mib - before.mib
    if grown > (most := MAY_GROW_MIB + found.signatures * MIB_PER_SIGNATURE):
        found.blame(f"memory grew by {grown:.0f} MiB, more than {most:.0f}")
    if after.files > before.files:
        found.blame(f"{after.files - before.files} files stayed open")
    if after.threads > before.threads or after.children > before.children:
        found.blame("threads or processes are left")


def _show(found: Findings, before: Vitals, after: Vitals, agents: Counter[Key], *, answers: bool, title: str) -> None:
    table = Table(title=title, title_justify="left")
    for column in ("", "found", "expected"):
        table.add_column(column, justify="left" if not column else "right")
    for status, number in sorted(found.statuses.items()):
        table.add_row(f"answered {status}", f"{number:,}", "")
    table.add_row("calls in all", f"{sum(found.statuses.values()):,}", "")
    table.add_section()
    table.add_row("agents alive", f"{agents.total():,}", f"{len(found.started):,}")
    grown = f"< {before.mib + MAY_GROW_MIB + found.signatures * MIB_PER_SIGNATURE:.1f}"
    table.add_row("memory before, MiB", f"{before.mib:.1f}", "")
    table.add_row("memory after, MiB", f"{after.mib:.1f}", grown)
    table.add_row("open files before", str(before.files), "")
    table.add_row("open files after", str(after.files), f"{before.files}")
    table.add_row("threads after", str(after.threads), f"<= {before.threads}")
    if len(found.latencies) > 1:
        p99 = statistics.quantiles(found.latencies, n=100, method="inclusive")[98]
        table.add_row("good call meanwhile, p99 ms", f"{p99:.0f}", "")
    table.add_row("host answers", "yes" if answers else "no", "yes")
    console = Console(width=110)
    console.print(table)
    for problem in found.problems:
        console.print(f"BROKEN: {problem}", soft_wrap=True, markup=False, highlight=False)


async def main(seconds: float = SECONDS, *, seed: int = SEED) -> None:
    """Attack a host for this many seconds and print the findings. Raises SystemExit(1) when a rule was broken."""
    print(f"seed {seed}, {seconds:g} s, {CALLERS} callers, {RAW_CALLERS} sockets at a time", file=sys.stderr)
    found = Findings()
    async with benched_host("meshhost", sys.executable, environment={"MESHHOST_WEBHOOK_SECRET": SECRET}) as host:
        await _start_all(host, found, seed)
        # What aiohttp and the JSON parsers allocate only once is not a leak.
        await _under_fire(host, found, min(5.0, seconds / 4), seed + 1)
        await asyncio.sleep(3.0)
        before = _vitals(host)
        found.signatures = 0
        await _under_fire(host, found, seconds, seed)
        answers = await _answers(host, found, seed)
        after, agents = await _settled(host, before), await _agents(host)
        _judge(found, before, after, agents)
    _show(found, before, after, agents, answers=answers, title=f"Calls under fire for {seconds:g} s, seed {seed}")
    if found.problems or not answers:
        raise SystemExit(1)

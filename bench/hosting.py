"""Measures service hosts: ours and the MeshAgent SDK's, then processes of agents: ours and LiveKit Agents'.

For hosts: the time from a call to the started agent, starts per second, memory per idle agent, and the time to stop. All hosts
are processes of their own, run the same program (`programs/host.py`), and their agents join the same stand-in room, which is in
this process. Ours runs on this Python, and on the SDK's too. They take turns, ROUNDS times; each figure is the median of its
rounds. Other programs of the machine disturb what the clock measures, but CPU time per start hardly.

For processes: the time of a start from the pool (warm) and without one (cold), and the memory of an idle process. Below the
tables each aim is stated, with whether it was met and what explains the figure.
"""

import asyncio
import gc
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import psutil

from bench import livekit
from bench.benched_host import PARALLEL, BenchedHost, LinkedHost, benched_host, linked_host
from bench.processes import figures_of
from bench.sdk import CHECKOUT, SDK_VERSION, meshhost_python313, python_version, sdk_python
from bench.stand_in.room import StandInRoom
from bench.table import Row, show

ONE_BY_ONE = 100
TOGETHER = 600
ROUNDS = 3
STOPPED = 200
STOP_SECONDS = 60.0
ISOLATED = 20
WARM = 5
CONNECTIONS_PROGRAM = Path(__file__).parent / "programs" / "connections.py"
STARTS_AIM = 3.0
MEMORY_AIM = 1 / 3
LINKED_MEMORY_AIM = 1 / 5
REJOINING = 1000
REJOIN_AIM_SECONDS = 1.0
WARM_AIM_MS = 50.0


@dataclass
class Figures:
    """Latencies and CPU per start in milliseconds, rates per second, memory in KiB.

    `host_cpu` is that of the host, `bench_cpu` that of this process, which has the caller and the room; `other_cores` is how
    many cores other programs kept busy meanwhile. `connection_kib` and `connection_cpu` are those of a bare WebSocket
    connection of the same library. `stop_seconds` is None when the host had to be killed.
    """

    single_p50: float
    single_p99: float
    many_p50: float
    many_p99: float
    starts_per_second: float
    host_cpu: float
    bench_cpu: float
    other_cores: float
    kib_per_agent: float
    connection_kib: float
    connection_cpu: float
    stop_seconds: float | None = None

    @property
    def starts_per_core(self) -> float:
        """How many starts per second keep one core busy with the host."""
        return 1000 / self.host_cpu


@dataclass
class Subject:
    """A host to measure: its column, its package, the interpreter, and the library of its connections to rooms.

    One that `dials_in` has a single connection, over which it is called and its agents take part.
    """

    column: str
    package: str
    python: str
    library: str
    environment: dict[str, str]
    dials_in: bool = False

    def host(self) -> AbstractAsyncContextManager[BenchedHost | LinkedHost]:
        """The host, as a process."""
        if self.dials_in:
            return linked_host(self.python, environment=self.environment)
        return benched_host(self.package, self.python, environment=self.environment)


@dataclass
class Isolated:
    """Starts of agents in processes, in milliseconds, and the memory of an idle process in MiB."""

    cold: list[float]
    warm: list[float]
    memory: dict[str, float]


def _machine_seconds() -> float:
    """Return the CPU time that all programs of this machine have used."""
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Turn off garbage collection in this process inside the block: it would pause the caller and the room."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


def _subjects() -> tuple[list[Subject], str]:
    """Return the hosts that can be measured here, ours first, and the reasons why others cannot."""
    here = f"meshhost\nPython {python_version(sys.executable)}"
    subjects = [
        Subject(here, "meshhost", sys.executable, "meshhost", {}),
        Subject(f"{here}\nby link", "meshhost", sys.executable, "meshhost", {}, dials_in=True),
    ]
    try:
        ours, theirs = meshhost_python313(), sdk_python()
    except (OSError, subprocess.SubprocessError) as error:
        return subjects, f"the environments with Python 3.13 could not be made ({type(error).__name__})"
    if ours is None or theirs is None:
        return subjects, "no Python 3.13 here: the SDK was not measured"
    checkout = {"PYTHONPATH": str(CHECKOUT)}
    column = f"meshhost\nPython {python_version(ours)}"
    subjects.append(Subject(column, "meshhost", str(ours), "meshhost", checkout))
    subjects.append(Subject(f"{column}\nby link", "meshhost", str(ours), "meshhost", checkout, dials_in=True))
    column = f"MeshAgent SDK {SDK_VERSION}\nPython {python_version(theirs)}"
    subjects.append(Subject(column, "meshagent", str(theirs), "aiohttp", {}))
    return subjects, ""


async def _measure(subject: Subject) -> Figures:
    async with subject.host() as host:
        await host.start("warm-up")
        await host.connect()
        calls: Any = host.prepare_many([f"many-{number}" for number in range(TOGETHER)])
        with _no_collection():
            before = host.resident
            single = [await host.start(f"one-{number}") for number in range(ONE_BY_ONE)]
            before_many = host.cpu_seconds, time.process_time(), _machine_seconds()
            many, elapsed = await host.start_prepared(calls)
            after_many = host.cpu_seconds, time.process_time(), _machine_seconds()
        host_cpu, bench_cpu, machine_cpu = (after - then for after, then in zip(after_many, before_many, strict=True))
        kib = (host.resident - before) / 1024 / (ONE_BY_ONE + TOGETHER)
    connection = await _connections(subject.python, subject.library)
    return Figures(
        single_p50=_p50(single),
        single_p99=_p99(single),
        many_p50=_p50(many),
        many_p99=_p99(many),
        starts_per_second=TOGETHER / elapsed,
        host_cpu=host_cpu * 1000 / TOGETHER,
        bench_cpu=bench_cpu * 1000 / TOGETHER,
        other_cores=max(machine_cpu - host_cpu - bench_cpu, 0) / elapsed,
        kib_per_agent=kib,
        connection_kib=connection["kib"],
        connection_cpu=connection["cpu_ms"],
    )


def _median(rounds: list[Figures]) -> Figures:
    return Figures(*(statistics.median(found) for found in zip(*(astuple(each)[:-1] for each in rounds), strict=True)))


async def _connections(python: str, library: str) -> dict[str, float]:
    """Measure what as many bare WebSocket connections take."""
    async with StandInRoom() as room:
        count = ONE_BY_ONE + TOGETHER
        return await figures_of(python, CONNECTIONS_PROGRAM, library, f"{room.url}/rooms/bench", count)


async def _stop_seconds(subject: Subject) -> float | None:
    """Return the seconds from SIGTERM to the exit of the process; None when it had to be killed."""
    async with subject.host() as host:
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
    memory: dict[str, float] = {}

    async def starts(pool: int) -> list[float]:
        environment = {"MESHHOST_PROCESS_POOL": str(pool)}
        async with benched_host("meshhost", sys.executable, "process", environment=environment) as host:
            await host.wait_metric(_idle_line(pool))
            memory.update(_memory_of_children(host.process.pid))
            # The first start is not counted, since LiveKit's first one also boots its fork server.
            await host.start("warm-up")
            found = []
            for number in range(ISOLATED):
                await host.wait_metric(_idle_line(pool))
                found.append(await host.start(f"isolated-{number}"))
        return found

    cold, warm = await starts(0), await starts(WARM)
    return Isolated(cold, warm, memory)


def _idle_line(pool: int) -> str:
    return f'meshhost_processes{{use="idle"}} {float(pool)}' if pool else ""


def _memory_of_children(pid: int) -> dict[str, float]:
    """Return the median memory of its child processes in MiB, by kind; empty when it has none."""
    found = [child.memory_full_info() for child in psutil.Process(pid).children()]
    if not found:
        return {}
    return {kind: statistics.median(getattr(each, kind) for each in found) / 2**20 for kind in ("rss", "uss", "pss")}


def _p50(found: list[float]) -> float:
    return statistics.median(found)


def _p99(found: list[float]) -> float:
    return statistics.quantiles(found, n=100, method="inclusive")[98]


def _verdict(met: bool) -> str:
    return "met" if met else "missed"


def _starts_remark(column: str, ours: Figures, theirs: Figures) -> str:
    """Return whether this column met the aim for starts, and what takes the time."""
    ratio, aim = ours.starts_per_second / theirs.starts_per_second, STARTS_AIM * theirs.starts_per_second
    per_core = ours.starts_per_core / theirs.starts_per_core
    share = ours.starts_per_second / 10
    return (
        f"aim, starts per second {STARTS_AIM:g} times the SDK's, {column}: {_verdict(ratio >= STARTS_AIM)} with {ratio:.2f} "
        f"by the clock, {per_core:.2f} by the host's CPU. A start takes {ours.host_cpu:.2f} ms of it (SDK: "
        f"{theirs.host_cpu:.2f}), of which a bare connection takes {ours.connection_cpu:.2f} ({theirs.connection_cpu:.2f}): "
        f"one process can start {ours.starts_per_core:,.0f} per second at most ({theirs.starts_per_core:,.0f}). Caller and "
        f"room, in the benchmark's own process, take {ours.bench_cpu:.2f} ms: no host can show more than "
        f"{1000 / ours.bench_cpu:,.0f} per second here; the aim is {aim:,.0f}. The host was busy "
        f"{ours.host_cpu * share:.0f} % of the time, the benchmark {ours.bench_cpu * share:.0f} %, and other programs took "
        f"{ours.other_cores:.1f} of {psutil.cpu_count()} cores ({theirs.other_cores:.1f} in the SDK's turns)."
    )


def _memory_remark(column: str, ours: Figures, theirs: Figures) -> str:
    """Return whether this column met the aim for memory, and how much of it the connection takes."""
    ratio, aim = ours.kib_per_agent / theirs.kib_per_agent, MEMORY_AIM * theirs.kib_per_agent
    return (
        f"aim, memory per idle agent a third of the SDK's, {column}: {_verdict(ratio <= MEMORY_AIM)} with {ratio:.2f}. "
        f"Of {ours.kib_per_agent:.0f} KiB a bare WebSocket connection takes {ours.connection_kib:.0f}, "
        f"of the SDK's {theirs.kib_per_agent:.0f} KiB {theirs.connection_kib:.0f} (aiohttp); the aim is {aim:.0f}, "
        f"so it leaves {aim - ours.connection_kib:.0f} for the agent itself."
    )


def _linked_remark(column: str, ours: Figures, theirs: Figures) -> str:
    """Return whether this column, whose host dials in, met the aims for latency and memory."""
    memory, latency = ours.kib_per_agent / theirs.kib_per_agent, ours.many_p99 / theirs.many_p99
    return (
        f"aims of the link, {column}: memory per idle agent a fifth of the SDK's {_verdict(memory <= LINKED_MEMORY_AIM)} "
        f"with {memory:.2f}; p99 of call to started, {PARALLEL} at a time, half of the SDK's {_verdict(latency <= 0.5)} with "
        f"{latency:.2f}. The figures of a bare connection are of the same program without a link: an agent has none here."
    )


async def _rejoin_remark() -> str:
    """Measure how long it takes until REJOINING agents are back after the loss of their link, and return it in words."""
    async with linked_host(sys.executable) as host:
        await host.start_many([f"agent-{number}" for number in range(REJOINING)])
        resumed = await host.room.rejoin(resumed=True)
        anew = await host.room.rejoin(resumed=False)
    return (
        f"aim, {REJOINING} agents back under {REJOIN_AIM_SECONDS:g} s: {_verdict(resumed < REJOIN_AIM_SECONDS)} with "
        f"{resumed:.2f} s when the link goes on where it was; when the server has forgotten it, as after a restart, "
        f"{_verdict(anew < REJOIN_AIM_SECONDS)} with {anew:.2f} s until each has joined again over a new link."
    )


def _warm_remark(isolated: Isolated) -> str:
    """Return whether the aim for warm starts was met, and what happened during the slowest one."""
    p99 = _p99(isolated.warm)
    text = f"aim, warm process start p99 under {WARM_AIM_MS:g} ms: {_verdict(p99 < WARM_AIM_MS)} with {p99:.1f} ms."
    if p99 < WARM_AIM_MS:
        return text
    slowest = max(isolated.warm)
    return (
        f"{text} Half of the starts took at most {_p50(isolated.warm):.1f} ms; the slowest, number "
        f"{isolated.warm.index(slowest) + 1} of {ISOLATED}, took {slowest:.1f} ms while the pool booted the next process "
        f"(a cold start takes {_p50(isolated.cold):.0f} ms) on {psutil.cpu_count()} cores."
    )


async def _compare_hosts() -> Figures:
    """Measure the hosts and print the table; returns our own figures on this Python."""
    subjects, missing = await asyncio.to_thread(_subjects)
    rounds = [[await _measure(subject) for subject in subjects] for _ in range(ROUNDS)]
    found = [_median(list(each)) for each in zip(*rounds, strict=True)]
    for subject, figures in zip(subjects, found, strict=True):
        figures.stop_seconds = await _stop_seconds(subject)
    texts = {
        "single_p50": "call to agent started, one at a time, p50 ms",
        "single_p99": "call to agent started, one at a time, p99 ms",
        "many_p50": f"call to agent started, {PARALLEL} at a time, p50 ms",
        "many_p99": f"call to agent started, {PARALLEL} at a time, p99 ms",
        "starts_per_second": f"starts per second, {PARALLEL} at a time",
        "starts_per_core": "starts per second of one core of the host",
        "host_cpu": "CPU of the host process per start, ms",
        "bench_cpu": "CPU of caller and room per start, ms",
        "kib_per_agent": "memory per idle agent, KiB",
        "connection_kib": "memory per bare WebSocket connection, KiB",
        "connection_cpu": "CPU per bare WebSocket connection, ms",
        "stop_seconds": f"SIGTERM to exit with {STOPPED} agents, seconds",
    }
    rows: list[Row] = [(text, *(getattr(each, name) for each in found)) for name, text in texts.items()]
    remarks = [missing] if missing else []
    plain = await _connections(sys.executable, "websockets")
    remarks.append(
        f"A bare connection of the websockets library takes {plain['kib']:.2f} KiB and {plain['cpu_ms']:.2f} ms of CPU "
        f"on this Python; ours are made by meshhost.transport, and the SDK's by aiohttp."
    )
    if not missing:
        *ours, theirs = found
        if theirs.stop_seconds is None:
            remarks.append(f"the SDK's host was killed {STOP_SECONDS:g} s after SIGTERM")
        for remark in (_starts_remark, _memory_remark):
            named = zip(subjects, ours, strict=False)
            remarks += [remark(subject.column.replace("\n", ", "), each, theirs) for subject, each in named]
        linked = [(subject, each) for subject, each in zip(subjects, ours, strict=False) if subject.dials_in]
        remarks += [_linked_remark(subject.column.replace("\n", ", "), each, theirs) for subject, each in linked]
    remarks.append(await _rejoin_remark())
    show("Service host", [subject.column for subject in subjects], rows, remarks=remarks)
    return found[0]


async def _compare_isolation(single_p50: float) -> None:
    """Measure agents in processes of their own and print the table. `single_p50` is what a start takes without one."""
    isolated = await _measure_isolated()
    columns = [f"meshhost\nPython {python_version(sys.executable)}"]
    theirs = await livekit.measure(idle=WARM, starts=ISOLATED)
    if isinstance(theirs, str):
        remarks, theirs = [theirs], []
    else:
        name = f"LiveKit Agents {livekit.LIVEKIT_VERSION}"
        columns += [f"{name}\nPython {theirs[0].python}", f"{name}\nno speech models"]
        remarks = _livekit_remarks(theirs, single_p50, _p50(isolated.warm) - single_p50)
    rows = [
        _row("warm start, p50 ms", _p50(isolated.warm), *(pool.warm["p50"] for pool in theirs)),
        _row("warm start, p99 ms", _p99(isolated.warm), *(pool.warm["p99"] for pool in theirs)),
        _row("cold start, p50 ms", _p50(isolated.cold), *(pool.cold["p50"] for pool in theirs)),
        _row("cold start, p99 ms", _p99(isolated.cold), *(pool.cold["p99"] for pool in theirs)),
    ]
    for kind, text in {"rss": "RSS", "pss": "PSS", "uss": "USS"}.items():
        figures = (isolated.memory.get(kind), *(pool.warm.get(kind) for pool in theirs))
        rows.append(_row(f"{text} of an idle process, MiB", *figures))
    show("Agents in processes of their own", columns, rows, remarks=[*remarks, _warm_remark(isolated)])


def _row(text: str, *figures: float | None) -> Row:
    return (text, *figures)


def _livekit_remarks(pools: list[livekit.Pool], single_p50: float, added: float) -> list[str]:
    with_models, without = pools
    what = (
        f"The two are not quite the same: ours is from the HTTP call until the agent has joined the room and has reported "
        f"({single_p50:.1f} ms without a process of its own, so that adds {added:.1f}), LiveKit's from launch_job until the "
        f"entrypoint runs, without a server or a room."
    )
    fork = (
        f"Both fork from a process that has imported the program, started before the clock. LiveKit's takes "
        f"{with_models.warm.get('fork_server', 0):.0f} MiB ({without.warm.get('fork_server', 0):.0f} without speech models), "
        f"and {with_models.cold['first'] / 1000:.1f} s once."
    )
    return [what, fork]


async def main() -> None:
    """Measure hosts, then isolation, and print the tables."""
    ours = await _compare_hosts()
    await _compare_isolation(ours.single_p50)


if __name__ == "__main__":
    asyncio.run(main())

"""Call to agent started, starts per second, memory per idle agent and time to stop: our ServiceHost and the MeshAgent SDK's.
Then what it takes to give each agent a process of its own, which the SDK cannot: ours and LiveKit Agents' process pool.

All hosts are processes of their own, run the same program, and join the same stand-in room in this process. Ours runs on this
Python, and on the SDK's too. They take turns, ROUNDS times; each figure is the median of its rounds. Other programs disturb
what the clock measures, and CPU per start much less: the starts of one core are made of that. Below the tables stand our aims:
which were missed, and what of it was measured.
"""

import asyncio
import gc
import signal
import statistics
import subprocess
import sys
import time
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path

import aiohttp
import psutil

from bench import livekit
from bench.processes import figures_of, free_port, running, wait_answers
from bench.sdk import CHECKOUT, SDK_VERSION, meshhost_python313, python_version, sdk_python
from bench.stand_in import Call, StandInCaller, StandInRoom
from bench.table import Row, show

ONE_BY_ONE = 100
TOGETHER = 600
ROUNDS = 3
PARALLEL = 200
STOPPED = 200
STOP_SECONDS = 60.0
ISOLATED = 20
WARM = 5
PROGRAM = Path(__file__).with_name("host_program.py")
CONNECTIONS_PROGRAM = Path(__file__).with_name("connections_program.py")
STARTS_AIM = 3.0
MEMORY_AIM = 1 / 3
WARM_AIM_MS = 50.0


@dataclass
class Figures:
    """Latencies and CPU per start in milliseconds, rates per second, memory in KiB.

    `host_cpu` is the host's, `bench_cpu` that of this process: the caller and the room; `other_cores` is how many cores other
    programs kept busy meanwhile. `connection_kib` and `connection_cpu` are those of a bare WebSocket connection as it makes
    them. `stop_seconds` is None when it had to be killed.
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
        """How many starts per second would keep one core busy with the host."""
        return 1000 / self.host_cpu


@dataclass
class Subject:
    """A host to measure: its column, its package, the interpreter, and what connects it to rooms."""

    column: str
    package: str
    python: str
    library: str
    environment: dict[str, str]


@dataclass
class Isolated:
    """Starts of agents in processes, in milliseconds, and the memory of an idle process in MiB."""

    cold: list[float]
    warm: list[float]
    memory: dict[str, float]


class BenchedHost:
    """A host that runs, and the stand-in room it joins."""

    def __init__(self, process: Process, url: str, room: StandInRoom, session: aiohttp.ClientSession) -> None:
        self.process = process
        self.url = url
        self.room = room
        self._session = session
        self._caller = StandInCaller(url, room)

    @property
    def resident(self) -> int:
        """The memory of its process in bytes."""
        return int(psutil.Process(self.process.pid).memory_info().rss)

    @property
    def cpu_seconds(self) -> float:
        """The CPU time that its process has taken."""
        times = psutil.Process(self.process.pid).cpu_times()
        return float(times.user + times.system)

    @property
    def refusals(self) -> int:
        """How many calls were refused for load, and made again."""
        return self._caller.refusals

    async def connect(self) -> None:
        """Open the callers' connections, so that they are no part of what is measured afterwards."""
        await self._caller.connect(PARALLEL)

    def disconnect(self) -> None:
        """Close them."""
        self._caller.close()

    async def start(self, identity: str, *, tenant: str | None = None) -> float:
        """Call an agent; returns the milliseconds until it had started. A refusal for load is tried again."""
        found, _ = await self._caller.start([self._caller.prepare(identity, tenant=tenant)], parallel=1)
        return found[0]

    def prepare_many(self, identities: list[str], *, tenants: int = 0) -> list[Call]:
        """Calls for `start_prepared`, of so many tenants in turn."""
        named = (f"tenant-{number % tenants}" if tenants else None for number in range(len(identities)))
        return [
            self._caller.prepare(identity, tenant=tenant) for identity, tenant in zip(identities, named, strict=True)
        ]

    async def start_prepared(self, calls: list[Call]) -> tuple[list[float], float]:
        """Call them, PARALLEL at a time; returns each one's milliseconds, and the seconds that all took."""
        return await self._caller.start(calls, parallel=PARALLEL)

    async def start_many(self, identities: list[str], *, tenants: int = 0) -> tuple[list[float], float]:
        """Prepare and call them; returns as `start_prepared` does."""
        return await self.start_prepared(self.prepare_many(identities, tenants=tenants))

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
            host = BenchedHost(process, f"http://127.0.0.1:{port}", room, session)
            try:
                yield host
            finally:
                host.disconnect()


def _machine_seconds() -> float:
    """The CPU time that all programs of this machine have taken."""
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system)


@contextmanager
def _no_collection() -> Iterator[None]:
    """No garbage collection in this process meanwhile: it would stop caller and room, at moments that are not the host's."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


def _subjects() -> tuple[list[Subject], str]:
    """Those that can be measured here, ours first, and what is to be said about the others."""
    here = f"meshhost\nPython {python_version(sys.executable)}"
    subjects = [Subject(here, "meshhost", sys.executable, "meshhost", {})]
    try:
        ours, theirs = meshhost_python313(), sdk_python()
    except (OSError, subprocess.SubprocessError) as error:
        return subjects, f"the environments with Python 3.13 could not be made ({type(error).__name__})"
    if ours is None or theirs is None:
        return subjects, "no Python 3.13 here: the SDK was not measured"
    checkout = {"PYTHONPATH": str(CHECKOUT)}
    column = f"meshhost\nPython {python_version(ours)}"
    subjects.append(Subject(column, "meshhost", str(ours), "meshhost", checkout))
    column = f"MeshAgent SDK {SDK_VERSION}\nPython {python_version(theirs)}"
    subjects.append(Subject(column, "meshagent", str(theirs), "aiohttp", {}))
    return subjects, ""


async def _measure(subject: Subject) -> Figures:
    async with benched_host(subject.package, subject.python, environment=subject.environment) as host:
        await host.start("warm-up")
        await host.connect()
        calls = host.prepare_many([f"many-{number}" for number in range(TOGETHER)])
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
    """What as many WebSocket connections take by themselves."""
    async with StandInRoom() as room:
        count = ONE_BY_ONE + TOGETHER
        return await figures_of(python, CONNECTIONS_PROGRAM, library, f"{room.url}/rooms/bench", count)


async def _stop_seconds(subject: Subject) -> float | None:
    """From SIGTERM to the end of the process."""
    async with benched_host(subject.package, subject.python, environment=subject.environment) as host:
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
            # The first one is not counted, as LiveKit's also boots its fork server.
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
    """The medians of what its child processes take, in MiB; nothing when it has none."""
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
    """Whether this column met the aim, and what it was that took the time."""
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
    """Whether this column met the aim, and what of it the connection takes."""
    ratio, aim = ours.kib_per_agent / theirs.kib_per_agent, MEMORY_AIM * theirs.kib_per_agent
    return (
        f"aim, memory per idle agent a third of the SDK's, {column}: {_verdict(ratio <= MEMORY_AIM)} with {ratio:.2f}. "
        f"Of {ours.kib_per_agent:.0f} KiB a bare WebSocket connection takes {ours.connection_kib:.0f}, "
        f"of the SDK's {theirs.kib_per_agent:.0f} KiB {theirs.connection_kib:.0f} (aiohttp); the aim is {aim:.0f}, "
        f"so it leaves {aim - ours.connection_kib:.0f} for the agent itself."
    )


def _warm_remark(isolated: Isolated) -> str:
    """Whether the aim was met, and what the slowest start had beside it."""
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
    roads = (
        f"Not the same road: ours is from the HTTP call until the agent has joined the room and spoken ({single_p50:.1f} ms "
        f"without a process of its own, so that adds {added:.1f}), LiveKit's from launch_job until the entrypoint runs, "
        f"without a server or a room."
    )
    fork = (
        f"Both fork from a process that has imported the program, started before the clock. LiveKit's takes "
        f"{with_models.warm.get('fork_server', 0):.0f} MiB ({without.warm.get('fork_server', 0):.0f} without speech models), "
        f"and {with_models.cold['first'] / 1000:.1f} s once."
    )
    return [roads, fork]


async def main() -> None:
    """Measure hosts, then isolation, and print the tables."""
    ours = await _compare_hosts()
    await _compare_isolation(ours.single_p50)


if __name__ == "__main__":
    asyncio.run(main())

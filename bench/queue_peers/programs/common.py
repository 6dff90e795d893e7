"""What every contender's program does alike: sends by callers, works on jobs, and prints its figures as one line of JSON.

A program defines a contender, a class with the methods of `Contender` below, and ends with `run(ThatClass)`. It is started as
`python PROGRAM send|work OPTIONS`, where the options are JSON (`Options`). A contender whose library blocks sets `is_threaded`:
its methods are then plain functions, and a caller is a thread instead of a task.

CPU time is read from the operating system: this process's own, and that of the server's processes with all their children.
Latency is measured from before a send until the job begins, on the monotonic clock, which all processes of a machine share.
"""

import asyncio
import json
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, Protocol

# With the time of sending, some 210 bytes of JSON.
PADDING = "x" * 170
_TICKS = os.sysconf("SC_CLK_TCK")
# Messages that are sent first, so that connections and pools are warm; jobs do not count them.
WARM_UP = 100
# That the acks of the last jobs may take.
_LAST_ACK_SECONDS = 0.2


@dataclass(frozen=True)
class Options:
    """What to do. `address` says where the broker is; `pace` is how many seconds a caller pauses after each send."""

    address: dict[str, Any]
    count: int
    server_pids: list[int] = field(default_factory=list)
    callers: int = 1
    batch: int = 1
    pace: float = 0.0
    concurrency: int = 1
    is_worker: bool = False


class Contender(Protocol):
    """A queue. All methods are coroutines, or plain functions when `is_threaded`."""

    is_threaded: bool

    def __init__(self, options: Options, job: Callable[[float], None]) -> None: ...

    def open(self) -> Any:
        """Connect; make what has to exist."""

    def close(self) -> Any:
        """Disconnect."""

    def send(self, body: dict[str, Any]) -> Any:
        """Return when the message is on disk."""

    def send_many(self, bodies: Sequence[dict[str, Any]]) -> Any:
        """Return when all of them are; only of contenders with batches, none of which is threaded."""

    def work(self, is_done: threading.Event) -> Any:
        """Call the job with the time of sending of each message, `concurrency` at once, and ack it then.

        Threaded: return soon after `is_done` is set. Otherwise: until cancelled.
        """


def _of_process(pid: int) -> float:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0.0
    # utime, stime, and those of children that have ended.
    return sum(map(int, text.rpartition(")")[2].split()[11:15])) / _TICKS


def tree(pid: int) -> Iterator[int]:
    """This process and its descendants."""
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found = children.read_text().split()
        except OSError:
            continue
        for child in found:
            yield from tree(int(child))


def cpu_of(pids: Sequence[int]) -> float:
    """Seconds of CPU that these processes have used, with their descendants."""
    return sum(_of_process(each) for pid in pids for each in tree(pid))


def memory_of(pids: Sequence[int]) -> float:
    """MB that these processes take with their descendants; what they share is counted once."""
    total = 0
    for each in [each for pid in pids for each in tree(pid)]:
        try:
            lines = Path(f"/proc/{each}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total * 1024 / 1e6


class _Meter:
    """Wall time and CPU between `begin` and `end`."""

    def __init__(self, pids: Sequence[int]) -> None:
        self._pids = pids

    def begin(self) -> None:
        self._begun = (time.perf_counter(), time.process_time(), cpu_of(self._pids))

    def figures(self, count: int, who: str) -> dict[str, float]:
        now = (time.perf_counter(), time.process_time(), cpu_of(self._pids))
        seconds, own, server = (after - before for after, before in zip(now, self._begun, strict=True))
        return {
            "per_second": count / seconds,
            f"{who}_us": own / count * 1e6,
            "server_us": server / count * 1e6,
            f"{who}_mb": memory_of([os.getpid()]),
            "server_mb": memory_of(self._pids),
        }


class _Jobs:
    """Counts jobs from the first to the last expected one."""

    def __init__(self, options: Options) -> None:
        self._expected = options.count
        self._meter = _Meter(options.server_pids)
        self._lock = threading.Lock()
        self._latencies: list[float] = []
        self.done = threading.Event()
        self.figures: dict[str, float] = {}

    def job(self, sent: float) -> None:
        """What a worker does for each message: nothing."""
        now = time.monotonic()
        if not sent:
            return
        with self._lock:
            found = self._latencies
            found.append(now - sent)
            if len(found) == 1:
                self._meter.begin()
            elif len(found) == self._expected:
                self.figures = self._meter.figures(len(found) - 1, "worker")
                self.figures["p50"] = statistics.median(found) * 1000
                self.figures["p99"] = statistics.quantiles(found, n=100)[98] * 1000
                self.done.set()


def _body(*, is_counted: bool = True) -> dict[str, Any]:
    return {"sent": time.monotonic() if is_counted else 0.0, "padding": PADDING}


async def _send_in_tasks(contender: Any, options: Options, meter: _Meter) -> None:
    warm = iter(range(WARM_UP if options.callers > 1 else 10))
    batches = iter([min(options.batch, options.count - sent) for sent in range(0, options.count, options.batch)])

    async def warm_up() -> None:
        for _ in warm:
            await contender.send(_body(is_counted=False))

    async def caller() -> None:
        for size in batches:
            await (
                contender.send(_body()) if options.batch == 1 else contender.send_many([_body() for _ in range(size)])
            )
            if options.pace:
                await asyncio.sleep(options.pace)

    await contender.open()
    await asyncio.gather(*(warm_up() for _ in range(options.callers)))
    meter.begin()
    await asyncio.gather(*(caller() for _ in range(options.callers)))


def _send_in_threads(contender: Any, options: Options, meter: _Meter) -> None:
    numbers = iter(range(options.count))

    def warm_up(_: int) -> None:
        for _ in range(max(WARM_UP // options.callers, 1)):
            contender.send(_body(is_counted=False))

    def caller(_: int) -> None:
        for _ in numbers:
            contender.send(_body())
            if options.pace:
                time.sleep(options.pace)

    contender.open()
    with ThreadPoolExecutor(options.callers) as threads:
        # The list has an error of a thread raised here.
        list(threads.map(warm_up, range(options.callers)))
        meter.begin()
        list(threads.map(caller, range(options.callers)))


def _send(kind: type[Contender], options: Options) -> dict[str, float]:
    meter = _Meter(options.server_pids)
    contender: Any = kind(options, lambda _: None)
    if kind.is_threaded:
        _send_in_threads(contender, options, meter)
        figures = meter.figures(options.count, "sender")
        contender.close()
        return figures

    async def send() -> dict[str, float]:
        await _send_in_tasks(contender, options, meter)
        figures = meter.figures(options.count, "sender")
        await contender.close()
        return figures

    return asyncio.run(send())


def _work(kind: type[Contender], options: Options) -> None:
    jobs = _Jobs(options)
    contender: Any = kind(options, jobs.job)

    async def work() -> None:
        await contender.open()
        print("ready", flush=True)
        await contender.work(jobs.done)

    def finish() -> None:
        jobs.done.wait()
        time.sleep(_LAST_ACK_SECONDS)
        _finish(jobs.figures)

    # Not every library can be stopped: the process ends beside it.
    finishing = threading.Thread(target=finish, daemon=True)
    finishing.start()
    if kind.is_threaded:
        contender.open()
        print("ready", flush=True)
        contender.work(jobs.done)
    else:
        asyncio.run(work())
    finishing.join()


def _finish(figures: dict[str, float]) -> NoReturn:
    """Print the figures, and exit without waiting for the library's threads."""
    print(json.dumps(figures), flush=True)
    os._exit(0)


def run(kind: type[Contender]) -> None:
    """Do what the arguments of this program say, print the figures, and exit."""
    role = sys.argv[1]
    options = Options(**json.loads(sys.argv[2]), is_worker=role == "work")
    if role == "send":
        _finish(_send(kind, options))
    _work(kind, options)

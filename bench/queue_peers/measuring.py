"""Runs the programs of a contender against its broker, one figure after the other, with the broker started anew each round.

A figure is measured by one process that sends, or by one that works; never by both at once, except for the latency at low load,
where one waits and the other sends a message every few ten milliseconds. Server and worker are separate processes always.
"""

import asyncio
import json
import statistics
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from bench.processes import figures_of, running
from bench.queue_peers.brokers import Started
from bench.queue_peers.contenders import PROGRAMS, Available, Contender

Figures = dict[str, float]

SECONDS = 600.0
PACE = 0.02
BATCH = 100
CALLERS = 100
CONCURRENCY = 100


@dataclass(frozen=True)
class Sizes:
    """How many messages each figure is measured with."""

    alone: int = 500
    together: int = 5000
    batched: int = 10_000
    drained: int = 5000
    latencies: int = 200

    def of(self, most_per_second: int) -> "Sizes":
        """For a contender of which no more per second are expected: as many as take it about four seconds."""
        most = most_per_second * 4 // CALLERS * CALLERS
        found = (min(each, most) for each in (self.alone, self.together, self.batched, self.drained))
        return Sizes(*found, latencies=self.latencies)


class Runner:
    """Runs programs of one contender against its broker."""

    def __init__(self, contender: Contender, python: str, broker: Started) -> None:
        self._contender = contender
        self._python = python
        self.broker = broker

    def at(self, address: dict[str, Any]) -> "Runner":
        """The same for another address of this broker."""
        return Runner(self._contender, self._python, Started(address, self.broker.pids))

    def _command(self, role: str, **options: Any) -> list[object]:
        given = {"address": self.broker.address, "server_pids": self.broker.pids, **options}
        return [self._python, PROGRAMS / self._contender.program, role, json.dumps(given)]

    async def send(self, **options: Any) -> Figures:
        """Send messages; the figures of the sender."""
        return await figures_of(*self._command("send", **options), seconds=SECONDS)

    @asynccontextmanager
    async def worker(self, **options: Any) -> AsyncIterator[Callable[[], Awaitable[Figures]]]:
        """A worker that is ready; call what it gives to await its figures."""
        async with running(*self._command("work", **options), stdout=PIPE, stderr=PIPE) as process:

            async def figures() -> Figures:
                async with asyncio.timeout(SECONDS):
                    output, errors = await process.communicate()
                return _read(process, output, errors, self._contender.name)

            assert process.stdout is not None
            async with asyncio.timeout(60):
                await process.stdout.readline()
            yield figures

    async def work(self, **options: Any) -> Figures:
        """Work on what is queued; the figures of the worker."""
        async with self.worker(**options) as figures:
            return await figures()

    async def latency(self, count: int) -> Figures:
        """From send to begin of the job at low load, with a worker of its own; nothing must be left in the queue."""
        async with self.worker(count=count, concurrency=10) as figures:
            await asyncio.sleep(0.5)
            await self.send(count=count, pace=PACE)
            return await figures()


def _read(process: Process, output: bytes, errors: bytes, name: str) -> Figures:
    if process.returncode or not output.strip():
        raise RuntimeError(f"the worker of {name} failed: {errors.decode(errors='replace')[-2000:]}")
    return cast(Figures, json.loads(output.decode().splitlines()[-1]))


@asynccontextmanager
async def against(contender: Contender, python: str) -> AsyncIterator[Runner]:
    """A fresh broker for this contender."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        async with contender.broker(Path(home)) as broker:
            yield Runner(contender, python, broker)


async def measure(contender: Contender, python: str, sizes: Sizes) -> Figures:
    """All figures of a contender, once."""
    sizes = sizes.of(contender.most_per_second)
    found: Figures = {}
    async with against(contender, python) as runner:
        _add(found, "alone", await runner.send(count=sizes.alone))
        _add(found, "together", await runner.send(count=sizes.together, callers=CALLERS))
        sent = sizes.alone + sizes.together
        if contender.has_batches:
            _add(found, "batched", await runner.send(count=sizes.batched, batch=BATCH))
            sent += sizes.batched
        one, many = min(sizes.drained // 5, sent // 3), min(sizes.drained, sent // 3)
        _add(found, "drain_1", await runner.work(count=one, concurrency=1))
        _add(found, "drain_100", await runner.work(count=many, concurrency=CONCURRENCY))
    # On a broker of its own: nothing is left in the queue.
    async with against(contender, python) as runner:
        _add(found, "latency", await runner.latency(sizes.latencies))
    return found


def _add(found: Figures, what: str, figures: Figures) -> None:
    found.update({f"{what}_{name}": value for name, value in figures.items()})


def say(text: str) -> None:
    """Tell on stderr what is measured now."""
    print(text, file=sys.stderr, flush=True)


async def compare(those: Available, sizes: Sizes, *, rounds: int) -> tuple[dict[str, Figures], list[str]]:
    """The median of each figure of each contender over the rounds, in which they take turns; and what failed."""
    found: dict[str, dict[str, list[float]]] = {each.name: defaultdict(list) for each in those.contenders}
    failed: list[str] = []
    for number in range(rounds):
        for contender in those.contenders:
            say(f"round {number + 1} of {rounds}: {contender.name}")
            try:
                figures = await measure(contender, those.python_of(contender), sizes)
            except (RuntimeError, TimeoutError, OSError) as error:
                failed.append(f"{contender.name}, round {number + 1}: {type(error).__name__}: {error}")
                continue
            for name, value in figures.items():
                found[contender.name][name].append(value)
    return {name: _medians(figures) for name, figures in found.items()}, failed


def _medians(figures: dict[str, list[float]]) -> Figures:
    return {name: statistics.median(values) for name, values in figures.items()}


def best(found: dict[str, Figures], names: Sequence[str], figure: str, *, more_is_better: bool = True) -> float | None:
    """The best of this figure among these contenders; None when none has it."""
    values = [found[name][figure] for name in names if figure in found.get(name, {})]
    return (max if more_is_better else min)(values, default=None)

"""Compares two checkouts of meshhost on one machine: `python -m bench compare BASE_DIR`.

Answers one question: is anything slower or larger than before? BASE_DIR is another checkout, with its own `.venv`. The two take
turns, A B A B, in each part of each round, so that other load of the machine affects both alike. Each figure is the median of
its rounds; the smallest and largest round are printed below, and a difference within that spread is called noise.

Only what is under test differs between the two turns. The room server, the service host and the command line run from their own
checkout, with its interpreter (`Checkout.environment`); so do the clients (`programs/queue_client.py` and `room_client.py`),
which import only `meshhost.api` and `meshhost.tools`. The program files, the callers of the host and the stand-in room are
those of this checkout in both turns. Nothing here depends on how modules inside of `meshhost` are laid out.
"""

import asyncio
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from asyncio.subprocess import DEVNULL, PIPE
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.benched_host import PARALLEL, benched_host
from bench.processes import figures_of, room_access, room_server, running
from bench.table import Row, show

ROUNDS = 3
STARTS = 600
HELPS = 7
PROGRAMS = Path(__file__).parent / "programs"

Rounds = dict[str, list[float]]
"""The figures of all rounds of one checkout, by name."""

FIGURES = {
    "alone": ("durable sends per second, 1 caller", 1),
    "together": ("durable sends per second, 64 callers", 1),
    "call_p50": ("tool call, p50 ms", -1),
    "starts": (f"agent starts per second, {PARALLEL} at a time", 1),
    "cpu": ("CPU of the host per agent start, ms", -1),
    "kib": (f"memory per idle agent of {STARTS}, KiB", -1),
    "more_kib": (f"memory per idle agent of {STARTS} more, KiB", -1),
    "help": ("meshhost --help, ms", -1),
    "help_cpu": ("CPU of meshhost --help, ms", -1),
}
"""What is measured: its text, and 1 where more is better, -1 where less is."""


@dataclass(frozen=True, slots=True)
class Checkout:
    """A working copy of the repository, with the environment `.venv` in it."""

    root: Path

    @property
    def python(self) -> str:
        """Its interpreter."""
        return str(self.root / ".venv" / "bin" / "python")

    @property
    def environment(self) -> dict[str, str | None]:
        """What makes its interpreter import its own `meshhost`, whatever is installed."""
        return {"PYTHONPATH": str(self.root)}

    def check(self) -> None:
        """Raise SystemExit, with the reason, when it cannot be measured."""
        if not Path(self.python).exists():
            raise SystemExit(f"{self.root} has no .venv/bin/python: run `make bench` or `make test` there first")
        program = "import meshhost, pathlib; print(pathlib.Path(meshhost.__file__).parents[1])"
        found = subprocess.run(
            [self.python, "-c", program],
            cwd=self.root,
            env={**os.environ, "PYTHONPATH": str(self.root)},
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )
        if found.returncode or Path(found.stdout.strip()) != self.root:
            raise SystemExit(f"{self.python} does not import the meshhost of {self.root}: {found.stderr[-500:]}")


async def _rooms(checkout: Checkout) -> dict[str, float]:
    """Sends and tool calls through the checkout's room server."""
    python, environment = checkout.python, checkout.environment
    with tempfile.TemporaryDirectory() as home:
        async with room_server(Path(home), python=python, environment=environment) as (url, api_key):
            access = room_access(url, api_key, "bench")
            sends = await figures_of(
                python,
                PROGRAMS / "queue_client.py",
                "meshhost",
                *access,
                "send",
                environment=environment,
                cwd=checkout.root,
            )
            client = [python, PROGRAMS / "room_client.py", "meshhost"]
            async with running(
                *client,
                "provide",
                *access,
                environment=environment,
                cwd=checkout.root,
                stdin=PIPE,
                stdout=PIPE,
                stderr=DEVNULL,
            ) as provider:
                assert provider.stdout is not None
                async with asyncio.timeout(60):
                    if await provider.stdout.readline() != b"ready\n":
                        raise RuntimeError(f"the tool provider of {checkout.root} did not start")
                calls = await figures_of(*client, "measure-calls", *access, environment=environment, cwd=checkout.root)
    return {"alone": sends["alone"], "together": sends["together"], "call_p50": calls["call_p50"]}


async def _hosts(checkout: Checkout) -> dict[str, float]:
    """Starts of agents by the checkout's service host, and what they take when they are idle."""
    async with benched_host("meshhost", checkout.python, environment=checkout.environment) as host:
        await host.start("warm-up")
        await host.connect()
        calls = host.prepare_many([f"agent-{number}" for number in range(STARTS)])
        memory, cpu = host.resident, host.cpu_seconds
        _, elapsed = await host.start_prepared(calls)
        found = {
            "starts": STARTS / elapsed,
            "cpu": (host.cpu_seconds - cpu) * 1000 / STARTS,
            "kib": (host.resident - memory) / 1024 / STARTS,
        }
        # The first agents also pay for what is allocated once, and for how full the allocator's last block was.
        memory = host.resident
        await host.start_many([f"more-{number}" for number in range(STARTS)])
        return {**found, "more_kib": (host.resident - memory) / 1024 / STARTS}


async def _help(checkout: Checkout) -> dict[str, float]:
    """Return the median time of `meshhost --help` from its start to its exit, and its median CPU time."""
    return await asyncio.to_thread(_measure_help, checkout)


def _measure_help(checkout: Checkout) -> dict[str, float]:
    took, used = [], []
    for _ in range(HELPS):
        begun, cpu = time.perf_counter(), _children_seconds()
        subprocess.run(
            [checkout.python, "-m", "meshhost.cli.main", "--help"],
            cwd=checkout.root,
            env={**os.environ, "PYTHONPATH": str(checkout.root)},
            stdout=subprocess.DEVNULL,
            check=True,
            timeout=60,
        )
        took.append((time.perf_counter() - begun) * 1000)
        used.append((_children_seconds() - cpu) * 1000)
    return {"help": statistics.median(took), "help_cpu": statistics.median(used)}


def _children_seconds() -> float:
    """Return the CPU time of all child processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


async def main(base: Path, *, rounds: int = ROUNDS) -> None:
    """Measure this checkout and the one at `base`, an absolute path, in turns, and print the table.

    Raises SystemExit when one of them cannot be run.
    """
    checkouts = [Checkout(base), Checkout(Path(__file__).parents[1])]
    for checkout in checkouts:
        checkout.check()
    found: list[Rounds] = [defaultdict(list), defaultdict(list)]
    for number in range(rounds):
        for part in (_rooms, _hosts, _help):
            for checkout, measured in zip(checkouts, found, strict=True):
                print(f"round {number + 1} of {rounds}: {checkout.root}", file=sys.stderr, flush=True)
                for name, figure in (await part(checkout)).items():
                    measured[name].append(figure)
    _print(checkouts[0], *found)


def _print(checkout: Checkout, base: Rounds, here: Rounds) -> None:
    rows: list[Row] = []
    remarks = []
    for name, (text, direction) in FIGURES.items():
        ours, theirs = here[name], base[name]
        rows.append((text, statistics.median(ours), statistics.median(theirs)))
        remarks.append(f"{text}: rounds {_span(ours)}, base {_span(theirs)}; {_verdict(ours, theirs, direction)}")
    note = f"base: {checkout.root}; medians of {len(here['help'])} rounds in turns"
    show("This checkout and the base", ("this checkout", "base"), rows, note=note, remarks=remarks)


def _span(found: Sequence[float]) -> str:
    return f"{min(found):,.2f} to {max(found):,.2f}"


def _verdict(ours: Sequence[float], theirs: Sequence[float], direction: int) -> str:
    """Return whether the medians differ by more than the rounds of one side do."""
    if len(ours) < 2:
        return "one round cannot tell noise"
    noise = max(max(found) - min(found) for found in (ours, theirs))
    gain = (statistics.median(ours) - statistics.median(theirs)) * direction
    if abs(gain) <= noise:
        return "no difference beyond noise"
    return "better" if gain > 0 else "worse"

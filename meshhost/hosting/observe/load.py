"""How loaded this machine or container is: event loop, CPU, memory, number of agents.

`Tenancy` samples it about once a second and refuses new starts while one part is full; /readyz and /metrics show it, for load
balancers and autoscalers. Inside a cgroup (version 2) the limits of the cgroup count, otherwise those of the machine. What
cannot be read counts as not loaded: missing files must never refuse a call. The directories are arguments, for tests.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from meshhost.clock import Clock
from meshhost.errors import CallRefusedError, SettingsError
from meshhost.hosting.refusals import RETRY_OVERLOADED_SECONDS

__all__ = [
    "Load",
    "LoadLimits",
    "LoadMeter",
    "cgroup_directories",
    "cpu_limit",
    "cpu_seconds",
    "load_per_core",
    "memory_fraction",
]

_NAMES = {"lag": "the event loop is late", "cpu": "CPU", "memory": "memory", "agents": "agents"}
# A single late beat is forgotten within a second: there are ten beats per second.
_LAG_DECAY = 0.9
# Weight of a new CPU sample against the earlier ones: a burst of starts is not an overload.
_CPU_SHARE = 0.2


@dataclass(frozen=True, slots=True)
class LoadLimits:
    """What counts as full load.

    `lag` of the event loop is in seconds, `cpu` and `memory` are parts of the limit; `per_core` is the load average per core,
    used where the CPU has no limit.
    """

    lag: float = 1.0
    cpu: float = 0.98
    memory: float = 0.95
    per_core: float = 8.0

    def __post_init__(self) -> None:
        for name in ("lag", "cpu", "memory", "per_core"):
            if not getattr(self, name) > 0:
                raise SettingsError(f"load limit {name} must be more than 0")


@dataclass(frozen=True, slots=True)
class Load:
    """Each as a part of its limit: 1 is full load, more than 1 is possible."""

    lag: float = 0.0
    cpu: float = 0.0
    memory: float = 0.0
    agents: float = 0.0

    @property
    def value(self) -> float:
        """The highest part, from 0 to 1. For autoscalers."""
        return min(1.0, max(self.lag, self.cpu, self.memory, self.agents))

    @property
    def reasons(self) -> tuple[str, ...]:
        """Those of `lag`, `cpu`, `memory`, `agents` that are full."""
        return tuple(name for name in _NAMES if getattr(self, name) >= 1)

    def as_json(self) -> dict[str, float]:
        """All parts, rounded."""
        return {name: round(getattr(self, name), 3) for name in _NAMES}


class LoadMeter:
    """Measures the load.

    `live` returns the number of live agents. The owner calls `sample` about once a second, and `observe_lag` for each measured
    lag of the loop.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        live: Callable[[], int],
        max_agents: int,
        limits: LoadLimits | None = None,
        cgroup: Path = Path("/sys/fs/cgroup"),
        proc: Path = Path("/proc"),
    ) -> None:
        self._clock = clock
        self._live = live
        self._max_agents = max_agents
        self._limits = limits if limits is not None else LoadLimits()
        self._proc = proc
        self._directories = cgroup_directories(cgroup, proc)
        self._lag = 0.0
        self._cpu = 0.0
        self._memory = 0.0
        self._used: tuple[float, float] | None = None

    @property
    def load(self) -> Load:
        """The last measurement, with the number of agents as of now."""
        return Load(
            lag=self._lag / self._limits.lag,
            cpu=self._cpu,
            memory=self._memory / self._limits.memory,
            agents=self._live() / self._max_agents,
        )

    def check(self) -> None:
        """Raises CallRefusedError (503) naming what is full. The number of agents is checked by `HostedAgents`."""
        load = self.load
        full = [f"{_NAMES[name]} ({getattr(load, name):.0%} of the limit)" for name in load.reasons if name != "agents"]
        if full:
            text = f"this host is overloaded: {', '.join(full)}"
            raise CallRefusedError(text, status=503, retry_after=RETRY_OVERLOADED_SECONDS)

    def observe_lag(self, seconds: float) -> None:
        """The loop was late by this much."""
        self._lag = max(seconds, self._lag * _LAG_DECAY)

    def sample(self) -> None:
        """Measure CPU and memory."""
        self._memory = memory_fraction(self._directories, self._proc)
        cpu = self._cpu_now()
        if cpu is not None:
            self._cpu = self._cpu + (cpu - self._cpu) * _CPU_SHARE

    def _cpu_now(self) -> float | None:
        """The CPU use since the last call, as a part of its limit; None on the first call."""
        limit = cpu_limit(self._directories)
        if limit is None:
            return load_per_core(self._proc, os.cpu_count() or 1) / self._limits.per_core
        directory, cores = limit
        used = cpu_seconds(directory)
        if used is None:
            return None
        now, before = self._clock.monotonic(), self._used
        self._used = now, used
        if before is None or now <= before[0]:
            return None
        return max(0.0, used - before[1]) / (now - before[0]) / cores / self._limits.cpu


def cgroup_directories(root: Path, proc: Path) -> tuple[Path, ...]:
    """The cgroup of this process under `root` (version 2) and those above it, innermost first. At least the root."""
    directories = [root]
    for line in _text(proc / "self" / "cgroup").splitlines():
        number, _, path = line.partition("::")
        parts = [part for part in path.split("/") if part]
        if number == "0" and ".." not in parts:
            for end in range(1, len(parts) + 1):
                directories.insert(0, root.joinpath(*parts[:end]))
    return tuple(directory for directory in directories if directory == root or directory.is_dir())


def cpu_limit(directories: tuple[Path, ...]) -> tuple[Path, float] | None:
    """The tightest CPU limit: its cgroup, and the number of cores. None without a limit."""
    limits = []
    for directory in directories:
        quota, _, period = _text(directory / "cpu.max").strip().partition(" ")
        if quota.isdecimal() and period.isdecimal() and int(quota) and int(period):
            limits.append((directory, int(quota) / int(period)))
    return min(limits, key=lambda limit: limit[1], default=None)


def cpu_seconds(directory: Path) -> float | None:
    """The CPU time used by a cgroup; None when not known."""
    used = _fields(directory / "cpu.stat").get("usage_usec")
    return None if used is None else used / 1e6


def load_per_core(proc: Path, cores: int) -> float:
    """The machine's load average of the last minute, per core; 0 when not known."""
    try:
        return float(_text(proc / "loadavg").split()[0]) / cores
    except (IndexError, ValueError):
        return 0.0


def memory_fraction(directories: tuple[Path, ...], proc: Path) -> float:
    """The part of the memory in use: of the fullest cgroup, or without limits of the machine; 0 when not known."""
    cgroups = [part for directory in directories if (part := _cgroup_memory(directory)) is not None]
    return max(cgroups) if cgroups else _machine_memory(proc)


def _cgroup_memory(directory: Path) -> float | None:
    most, current = (_text(directory / name).strip() for name in ("memory.max", "memory.current"))
    if not most.isdecimal() or not current.isdecimal() or not int(most):
        return None
    # Cached files can be dropped at any time, so they do not count as used.
    cached = _fields(directory / "memory.stat").get("inactive_file", 0)
    return max(0, int(current) - cached) / int(most)


def _machine_memory(proc: Path) -> float:
    fields = _fields(proc / "meminfo")
    total, available = fields.get("MemTotal:", 0), fields.get("MemAvailable:")
    return 0.0 if not total or available is None else 1 - available / total


def _fields(path: Path) -> dict[str, int]:
    """The lines `name number …` of a file."""
    fields = {}
    for line in _text(path).splitlines():
        name, _, rest = line.partition(" ")
        number = rest.strip().partition(" ")[0]
        if number.isdecimal():
            fields[name] = int(number)
    return fields


def _text(path: Path) -> str:
    """The text of the file, or "" when it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""

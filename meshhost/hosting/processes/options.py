"""How a host keeps the processes of its agents, and which program they run.

Plain values: `HostOptions` makes them from arguments or settings, and the pool, the watch and the template read them. Times are
in seconds, sizes in MB.
"""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from meshhost.errors import SettingsError
from meshhost.hosting.processes.interpreter import User
from meshhost.hosting.processes.process import ABORT_SECONDS
from meshhost.hosting.processes.template import FORK_SECONDS

__all__ = ["ProcessOptions", "ProcessStart", "Program"]

ProcessStart = Literal["auto", "fork", "boot"]


@dataclass(frozen=True, slots=True)
class Program:
    """The program that a child runs again: a file, or with `is_module` the name of a module."""

    name: str
    is_module: bool

    @classmethod
    def running(cls) -> "Program":
        """The program that runs in this process. Raises SettingsError when it did not come from a file or module."""
        main = sys.modules.get("__main__")
        spec = getattr(main, "__spec__", None)
        if spec is not None:
            return cls(spec.name.removesuffix(".__main__"), is_module=True)
        file = getattr(main, "__file__", None)
        if file is None or not Path(file).is_file():
            raise SettingsError(
                "isolation 'process' runs the program again: it must be a file, or a module run with -m"
            )
        return cls(str(Path(file).resolve()), is_module=False)


@dataclass(frozen=True, slots=True)
class ProcessOptions:
    """How processes are kept; times in seconds.

    `size` idle processes wait for a call, at most `max_running` run agents, and at most `concurrency` boot at once, each for at
    most `boot_seconds`. A process whose event loop does not answer for `stuck_seconds`, or that uses more than `memory_mb`
    megabytes (None: no limit), is killed; they are looked at every `look_seconds`. An agent that is aborted may take
    `abort_seconds` to leave before its process is killed. A template that takes over `fork_seconds` to fork is replaced.
    `program` is what they run (None: the program that runs here), as the user `isolation_uid` (None: as the host does), which
    needs a host of root. `start` is how they are made: forked from a template (`fork`), booted one by one (`boot`), or forked
    where that is safe (`auto`).
    """

    size: int = 1
    memory_mb: int | None = None
    stuck_seconds: float = 30.0
    boot_seconds: float = 60.0
    max_running: int = 100
    concurrency: int = min(os.cpu_count() or 1, 4)
    program: Program | None = None
    start: ProcessStart = "auto"
    isolation_uid: int | None = None
    look_seconds: float = 1.0
    abort_seconds: float = ABORT_SECONDS
    fork_seconds: float = FORK_SECONDS

    @property
    def user(self) -> User | None:
        """The user of the processes; None: that of the host."""
        return None if self.isolation_uid is None else User.of(self.isolation_uid)

    def __post_init__(self) -> None:
        if self.size < 0 or self.concurrency < 1:
            raise SettingsError("process pool: expected a size of 0 or more, and a concurrency of 1 or more")
        if self.memory_mb is not None and self.memory_mb <= 0:
            raise SettingsError("process memory: expected megabytes, more than 0")
        if (
            min(self.stuck_seconds, self.boot_seconds, self.look_seconds, self.fork_seconds) <= 0
            or self.abort_seconds < 0
        ):
            raise SettingsError("process times: expected seconds, more than 0")
        uid: Any = self.isolation_uid
        if uid is not None and (not isinstance(uid, int) or isinstance(uid, bool) or uid <= 0):
            raise SettingsError(f"isolation_uid: expected the number of a user other than root, not {uid!r}")
        if self.start not in ("auto", "fork", "boot"):
            raise SettingsError("process start: expected auto, fork or boot")

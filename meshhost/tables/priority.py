"""The priority of a worker process among the processes of this machine: light work first.

A process whose request computes for long gets a lower priority until that has ended, so that short requests of other tenants,
which the system would otherwise make share the processors with it, are computed at once. On Linux a priority belongs to a
thread, so all threads of the process are changed. Raising it again needs a right that a server usually has only in a
container or as root; without it the process stays behind until it ends, which it does when it is idle.
"""

import contextlib
import os
from pathlib import Path

__all__ = ["HEAVY", "USUAL", "set_priority"]

USUAL, HEAVY = 5, 19
"""Nice values of worker processes; the room server's own is 0."""


def set_priority(pid: int, value: int) -> None:
    """Set the nice value of each thread of a process. Does nothing for one that is gone, and where it is not permitted."""
    tasks = Path(f"/proc/{pid}/task")
    try:
        threads = [int(path.name) for path in tasks.iterdir()]
    except OSError:
        threads = [pid]
    for thread in threads:
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, thread, value)

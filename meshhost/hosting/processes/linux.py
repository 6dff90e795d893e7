"""System calls about parents, children and process groups that Python does not wrap, or wraps only in part.

Used by both sides: the host adopts forked processes (`adoption`), reads their memory and ends their groups; a template ends
with its parent. All of it is Linux only; what a system lacks raises OSError, or is skipped where the docstring says so.
"""

import contextlib
import ctypes
import os
import resource
import signal
import threading
from pathlib import Path

__all__ = [
    "Adoption",
    "adoption",
    "end_with_parent",
    "kill_group",
    "memory_of",
    "reap_group",
    "signal_when_parent_ends",
    "subreaper",
]

# From <linux/prctl.h>.
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_PR_GET_CHILD_SUBREAPER = 37


def signal_when_parent_ends(number: signal.Signals) -> None:
    """Send this process the signal when the thread that started it ends. Has no effect on systems without that."""
    with contextlib.suppress(OSError, AttributeError):
        _prctl(_PR_SET_PDEATHSIG, int(number))


def end_with_parent() -> None:
    """Kill this process when the thread that started it ends; at once when the parent has ended already."""
    parent = os.getppid()
    signal_when_parent_ends(signal.SIGKILL)
    # The parent may have ended before the line above, which then has no effect.
    if os.getppid() != parent:
        os._exit(1)


def memory_of(pid: int) -> int:
    """The resident memory of a process in bytes; 0 when there is no such process."""
    try:
        pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    except (OSError, IndexError):
        return 0
    return int(pages) * resource.getpagesize()


def kill_group(pid: int) -> None:
    """Kill the process group of this leader. The leader must not have been waited for: its number could be another's."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def reap_group(pid: int) -> None:
    """Wait for those of an ended leader's group that have become children of this process; never blocks."""
    # Orphans become our children only while adoption is on; otherwise init adopts and reaps them.
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-pid, os.WNOHANG)[0]:
            pass


class Adoption:
    """While at least one user has entered, orphans among the descendants of this process become its children.

    Linux calls this a child subreaper. Thread-safe.
    """

    def __init__(self) -> None:
        self._users = 0
        self._before = 0
        self._lock = threading.Lock()

    def is_possible(self) -> bool:
        """Whether the system supports it."""
        try:
            self.enter()
        except OSError:
            return False
        self.leave()
        return True

    def enter(self) -> None:
        """Keep it on until the matching `leave`. Raises OSError when the system does not support it."""
        with self._lock:
            if self._users == 0:
                # The program may have set this for itself: the last user restores what was there.
                self._before = subreaper()
                _prctl(_PR_SET_CHILD_SUBREAPER, 1)
            self._users += 1

    def leave(self) -> None:
        """Undo one `enter`."""
        with self._lock:
            self._users -= 1
            if self._users == 0:
                _prctl(_PR_SET_CHILD_SUBREAPER, self._before)


adoption = Adoption()
"""The one of this process: being a subreaper is an attribute of the whole process."""


def subreaper() -> int:
    """1 when this process adopts the orphans among its descendants, else 0. Raises OSError where that is unknown."""
    found = ctypes.c_int()
    _prctl(_PR_GET_CHILD_SUBREAPER, ctypes.addressof(found))
    return found.value


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    zero = ctypes.c_ulong(0)
    if libc.prctl(ctypes.c_int(option), ctypes.c_ulong(value), zero, zero, zero) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))

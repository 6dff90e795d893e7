"""What Linux offers for the relation of parents and children (`prctl`), which Python does not wrap."""

import contextlib
import ctypes
import os
import signal
import threading

__all__ = ["Adoption", "adoption", "end_with_parent"]

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_PR_GET_CHILD_SUBREAPER = 37


def end_with_parent() -> None:
    """Have this process killed when the thread that started it ends. Nothing where the system cannot."""
    parent = os.getppid()
    with contextlib.suppress(OSError):
        _prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != parent:  # it was gone before
        os._exit(1)


class Adoption:
    """While it is on, orphans among this process's descendants become its children. Users of it may overlap."""

    def __init__(self) -> None:
        self._users = 0
        self._before = 0
        self._lock = threading.Lock()

    def is_possible(self) -> bool:
        """Whether the system can do that."""
        try:
            self.enter()
        except OSError:
            return False
        self.leave()
        return True

    def enter(self) -> None:
        """Be on until the matching `leave`. Raises OSError when the system cannot."""
        with self._lock:
            if self._users == 0:
                # The program may want it for itself, at all times.
                self._before = _subreaper()
                _prctl(_PR_SET_CHILD_SUBREAPER, 1)
            self._users += 1

    def leave(self) -> None:
        """One user less."""
        with self._lock:
            self._users -= 1
            if self._users == 0:
                _prctl(_PR_SET_CHILD_SUBREAPER, self._before)


adoption = Adoption()
"""Of this process, which has one such attribute."""


def _subreaper() -> int:
    found = ctypes.c_int()
    _prctl(_PR_GET_CHILD_SUBREAPER, ctypes.addressof(found))
    return found.value


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    zero = ctypes.c_ulong(0)
    if libc.prctl(ctypes.c_int(option), ctypes.c_ulong(value), zero, zero, zero) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))

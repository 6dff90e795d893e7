"""Ends this process when it needs more memory than it may: what it asks of the machine must not cost other tenants theirs.

A thread looks at the resident memory many times a second, also while LanceDB computes, which holds no lock of the interpreter.
The exit status tells the server why.
"""

import os
import threading
import time
from pathlib import Path

__all__ = ["OUT_OF_MEMORY", "watch_memory"]

OUT_OF_MEMORY = 87
"""The exit status of a process that needed too much memory."""
_LOOK_SECONDS = 0.02
_STATM = Path("/proc/self/statm")


def watch_memory(limit_bytes: int) -> None:
    """Begin to watch. Without /proc (not on Linux) nothing is watched."""
    if _STATM.exists():
        threading.Thread(target=_watch, args=(limit_bytes,), name="memory", daemon=True).start()


def _watch(limit_bytes: int) -> None:
    page = os.sysconf("SC_PAGE_SIZE")
    with _STATM.open("rb", buffering=0) as file:
        while True:
            file.seek(0)
            _, resident, shared, *_ = file.read(256).split()
            if (int(resident) - int(shared)) * page > limit_bytes:
                os._exit(OUT_OF_MEMORY)
            time.sleep(_LOOK_SECONDS)

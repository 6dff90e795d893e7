"""Threads that outlive the agents that started them: found, waited for, named, and left behind.

A thread cannot be ended from outside. `asyncio.run` waits for the threads of `asyncio.to_thread`, and the interpreter for all
that are no daemons, both without a limit: a host whose agents have left by the deadline would stay for as long as a library of
theirs blocks. So a host that was asked to stop, and an agent's process whose agent has ended, call `threads_end` at the very
end, when all else has stopped; if threads are left then, `leave` ends the process without them.

A thread of an executor that waits for work ends with the interpreter at once and does not count.
"""

import asyncio
import logging
import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

__all__ = ["busy_threads", "leave", "threads_end"]

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 0.05
_MAX_NAMED = 20
_MAX_CALLS = 4
# Where idle workers of `concurrent.futures` are: in the function of this name in this file, and nowhere deeper.
_EXECUTOR = (str(Path("concurrent") / "futures" / "thread.py"), "_worker")


def busy_threads() -> list[threading.Thread]:
    """The threads that the interpreter would wait for: no daemons, and not only waiting for work."""
    frames = sys._current_frames()  # noqa: SLF001 - documented, in spite of its name
    own = {threading.main_thread(), threading.current_thread()}
    return [
        thread
        for thread in threading.enumerate()
        if thread not in own and not thread.daemon and not _is_idle_worker(frames.get(thread.ident or 0))
    ]


async def threads_end(seconds: float) -> bool:
    """Wait for the threads for at most `seconds`; those that are left are logged. Returns whether none is left."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    if (busy := busy_threads()) and seconds > 0:
        fields = {"threads": described(busy), "seconds": round(seconds, 1)}
        logger.info("threads that agents started still run", extra=fields)
    while busy and (left := end - loop.time()) > 0:
        await asyncio.sleep(min(_LOOK_SECONDS, left))
        busy = busy_threads()
    if busy:
        # Nothing more can be done about them, but their owners learn which code does not come to its end.
        logger.warning("threads did not end in time: the process ends without them", extra={"threads": described(busy)})
    return not busy


def described(threads: Sequence[threading.Thread]) -> list[str]:
    """Each thread by its name, with the innermost calls of its stack; at most 20 of them."""
    frames = sys._current_frames()  # noqa: SLF001 - documented, in spite of its name
    texts = [f"{thread.name}: {_top(frames.get(thread.ident or 0))}" for thread in threads[:_MAX_NAMED]]
    return texts if len(threads) <= _MAX_NAMED else [*texts, f"{len(threads) - _MAX_NAMED} more"]


def leave(code: int = 0) -> NoReturn:
    """End the process at once: what was logged and printed is written, nothing is unwound and no thread waited for."""
    try:
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    except Exception:  # noqa: BLE001, S110 - a closed stream or a broken handler must not keep the process
        pass
    finally:
        os._exit(code)


def _is_idle_worker(frame: FrameType | None) -> bool:
    file, function = _EXECUTOR
    return frame is not None and frame.f_code.co_name == function and frame.f_code.co_filename.endswith(file)


def _top(frame: FrameType | None) -> str:
    """The innermost calls, the innermost first."""
    found: list[str] = []
    while frame is not None and len(found) < _MAX_CALLS:
        found.append(_place(frame))
        frame = frame.f_back
    return " < ".join(found) or "(no stack)"


def _place(frame: FrameType) -> str:
    return f"{frame.f_code.co_name} ({Path(frame.f_code.co_filename).name}:{frame.f_lineno})"

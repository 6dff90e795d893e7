"""Ends child processes that were started with asyncio: in order where they listen, and by force in any case.

A child of ours ends when its standard input does. `end` closes that, gives it some seconds, and kills what is left; it returns
when the process is gone, also when it is cancelled meanwhile, so that no child outlives its owner. Used by what owns a process
of its own: the local model, the built-in agents, the converter of documents.
"""

import asyncio
import contextlib
import os
import signal
from asyncio.subprocess import Process

__all__ = ["end", "kill"]


def kill(process: Process, *, group: bool = False) -> None:
    """Kill a child; with `group` also all that it started, where it leads a group (`start_new_session`). Idempotent."""
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        if group:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()


async def end(process: Process, *, seconds: float) -> None:
    """Close the input of a child, and kill it when it has not ended within so many seconds. It is gone afterwards."""
    if process.stdin is not None:
        process.stdin.close()
    try:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await process.wait()
    finally:
        kill(process)
        await process.wait()

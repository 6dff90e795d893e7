"""A child process is gone when its owner ends it, whether it listens, does not, or has started others."""

import asyncio
import sys
from asyncio.subprocess import PIPE, Process

import pytest

from meshhost.child_process.ending import end, kill


async def child(program: str) -> Process:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdin=PIPE, stdout=PIPE, start_new_session=True
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"up\n"
    return process


LISTENS = "print('up', flush=True); import sys; sys.stdin.read(); sys.exit(7)"
DEAF = "print('up', flush=True); import time; time.sleep(600)"


async def test_a_child_that_listens_ends_by_itself() -> None:
    process = await child(LISTENS)
    await end(process, seconds=60)
    assert process.returncode == 7
    kill(process)  # it is gone: nothing more to do


async def test_a_child_that_does_not_is_killed() -> None:
    process = await child(DEAF)
    await end(process, seconds=0.05)
    assert process.returncode == -9


async def test_it_is_gone_also_when_its_end_is_cancelled() -> None:
    process = await child(DEAF)
    ending = asyncio.create_task(end(process, seconds=600))
    await asyncio.sleep(0)
    ending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ending
    assert process.returncode == -9


async def test_what_a_child_has_started_is_killed_with_it() -> None:
    # The pipe that both hold ends when both are gone.
    process = await child(f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {DEAF!r}]).wait()")
    kill(process, group=True)
    assert process.stdout is not None
    async with asyncio.timeout(30):
        assert await process.stdout.read() == b""
        await process.wait()

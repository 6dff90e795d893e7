"""A worker process as the server sees it, before there is one."""

import asyncio

import pytest

from meshhost.tables.process import WorkerGoneError, WorkerProcess
from meshhost.tasks import TaskOwner


async def test_who_waits_for_a_process_that_is_ended_before_it_started_is_told_at_once() -> None:
    tasks = TaskOwner("tables")
    process = WorkerProcess({}, {}, tasks)
    asked = asyncio.ensure_future(process.call("list", {"room": "lobby"}, b"", seconds=30, is_read=True))
    await asyncio.sleep(0)
    process.kill()
    async with asyncio.timeout(5):
        with pytest.raises(WorkerGoneError):
            await asked
    assert process.is_gone
    async with asyncio.timeout(5):
        await tasks.wait()

"""Measures starts of jobs in LiveKit Agents' process pool: `python livekit_pool.py IDLE STARTS preload|bare`. Prints JSON.

IDLE processes wait for a job (0: each start boots one); `bare` omits the speech models that its fork server loads by default.
The pool is made as LiveKit's worker makes it. Nothing is connected: a job has started when its entrypoint runs. Latencies are
in milliseconds, the memory of an idle process in MiB; `fork_server` is the memory of the process that the others are forked
from.
"""

import asyncio
import importlib
import json
import logging
import multiprocessing
import os
import socket
import statistics
import sys
import tempfile
import time
from typing import Any

MIB = 2**20


async def entrypoint(context: Any) -> None:
    """The agent: reports its start, then stays, since its job has no end."""
    now = time.monotonic_ns()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.sendto(str(now).encode(), context.job.metadata)


def initialize(_process: Any) -> None:
    """Nothing to prepare."""


def _pool(idle: int) -> Any:
    job = importlib.import_module("livekit.agents.job")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["livekit.agents.ipc._preload", "livekit.agents.ipc._preload_freeze"])
    return importlib.import_module("livekit.agents.ipc.proc_pool").ProcPool(
        initialize_process_fnc=initialize,
        job_entrypoint_fnc=entrypoint,
        session_end_fnc=None,
        simulation_end_fnc=None,
        num_idle_processes=idle,
        initialize_timeout=60.0,
        close_timeout=10.0,
        session_end_timeout=10.0,
        inference_executor=None,
        job_executor_type=job.JobExecutorType.PROCESS,
        mp_ctx=context,
        memory_warn_mb=0,
        memory_limit_mb=0,
        http_proxy=None,
        loop=asyncio.get_running_loop(),
    )


def _job(number: int, told: str) -> Any:
    job = importlib.import_module("livekit.agents.job")
    agent: Any = importlib.import_module("livekit.protocol.agent")
    models: Any = importlib.import_module("livekit.protocol.models")
    name = f"bench-{number}"
    return job.RunningJobInfo(
        accept_arguments=job.JobAcceptArguments(name=name, identity=name, metadata=""),
        job=agent.Job(id=name, room=models.Room(name=name, sid=name), metadata=told),
        url="ws://127.0.0.1:9",
        token="",
        worker_id="bench",
        fake_job=False,
    )


async def _start(pool: Any, number: int, inbox: socket.socket) -> float:
    """Launch a job; returns the milliseconds until its entrypoint ran."""
    info = _job(number, inbox.getsockname())
    begun = time.monotonic_ns()
    async with asyncio.timeout(60):
        await pool.launch_job(info)
        ran = int(await asyncio.get_running_loop().sock_recv(inbox, 64))
    return (ran - begun) / 1e6


async def _wait_idle(pool: Any, idle: int) -> None:
    async with asyncio.timeout(60):
        while _idle(pool) < idle:  # noqa: ASYNC110 - it is the pool that changes, and it tells too early
            await asyncio.sleep(0.05)
    # One that has just become ready is not waiting yet.
    await asyncio.sleep(0.05)


def _idle(pool: Any) -> int:
    # No public name tells which processes have been initialized.
    return int(pool._warmed_proc_queue.qsize())


def _memory(pool: Any) -> dict[str, float]:
    psutil: Any = importlib.import_module("psutil")
    found = [psutil.Process(each.pid) for each in pool.processes]
    memory = [process.memory_full_info() for process in found]
    if not memory:
        return {}
    figures = {kind: statistics.median(getattr(each, kind) for each in memory) / MIB for kind in ("rss", "uss", "pss")}
    return {**figures, "fork_server": found[0].parent().memory_full_info().rss / MIB}


async def main(idle: int, starts: int) -> None:
    """Measure and print."""
    pool = _pool(idle)
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as inbox:
        inbox.bind(f"{folder}/inbox")
        inbox.setblocking(False)
        await pool.start()
        await _wait_idle(pool, idle)
        memory = _memory(pool)
        # The first start also boots the fork server, when the pool has not.
        first = await _start(pool, 0, inbox)
        found = []
        for number in range(1, starts + 1):
            await _wait_idle(pool, idle)
            found.append(await _start(pool, number, inbox))
        await asyncio.gather(*(process.kill() for process in pool.processes))
        await pool.aclose()
    p99 = statistics.quantiles(found, n=100, method="inclusive")[98]
    print(json.dumps({"p50": statistics.median(found), "p99": p99, "first": first, **memory}))


if __name__ == "__main__":
    if sys.argv[3] == "bare":
        os.environ["LIVEKIT_AGENTS_PRELOAD_LOCAL_INFERENCE"] = "0"
    logging.disable(logging.CRITICAL)
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))

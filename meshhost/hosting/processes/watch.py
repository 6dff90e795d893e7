"""Looks at the processes that run agents, once per period: is the event loop alive, how much memory is in use.

`ProcessPool` calls `look` every `look_seconds`. A process over its own memory limit, or one whose event loop has not answered
pings for `stuck_seconds`, is killed; which tenants are over their quota is decided by `judge`, which the host gives. A kill
only ends the process: whether its agent is started again is the decision of the supervisor.
"""

import logging
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping
from typing import Any

from meshhost.hosting.agents.process_memory import MEGABYTE, ProcessMemory
from meshhost.hosting.processes.options import ProcessOptions
from meshhost.hosting.processes.process import AgentProcess

__all__ = ["Judge", "ProcessWatch"]

logger = logging.getLogger(__name__)

# A warning is logged from this share of the limit on.
_WARN_SHARE = 0.8

Judge = Callable[[Iterable[ProcessMemory]], Mapping[str, str]]
"""Gets the memory of all processes that run agents; returns by spawn id which of them to kill, and why."""


class ProcessWatch:
    """`spawn(work, name)` runs work in the background: a process that is stuck is asked for its stack before it is killed."""

    def __init__(
        self, options: ProcessOptions, judge: Judge, spawn: Callable[[Coroutine[Any, Any, None], str], None]
    ) -> None:
        self._options = options
        self._judge = judge
        self._spawn = spawn
        self._warned: set[int] = set()

    def look(self, running: Collection[AgentProcess]) -> None:
        """Look at these once, and kill those that break a limit."""
        sizes = [process.memory() for process in running]
        for process, used in zip(running, sizes, strict=True):
            self._check_memory(process, used)
            self._check_answers(process)
        # After the checks above, so that the judge knows which of them are ending already.
        found = [
            ProcessMemory(process.spawn_id, used, is_ending=process.is_killed)
            for process, used in zip(running, sizes, strict=True)
        ]
        verdicts = self._judge(found)
        for process in running:
            if (reason := verdicts.get(process.spawn_id)) is not None:
                process.kill(reason)

    def forget(self, process: AgentProcess) -> None:
        """It is gone. Its number may be given to another process."""
        self._warned.discard(process.pid)

    def _check_answers(self, process: AgentProcess) -> None:
        if not process.has_started:
            return  # a constructor may block for long; the start timeout bounds that
        # Counted in pings and not by the clock: a host that was blocked itself has sent none meanwhile.
        if process.ping() == max(round(self._options.stuck_seconds / self._options.look_seconds), 1):
            self._spawn(self._kill_stuck(process), "kill stuck")

    def _check_memory(self, process: AgentProcess, used_bytes: int) -> None:
        limit = self._options.memory_mb
        if limit is None:
            return
        used = used_bytes / MEGABYTE
        fields = {"pid": process.pid, "used_mb": round(used), "limit_mb": limit}
        if used > limit:
            logger.error("agent's process is over its memory limit", extra=fields)
            process.kill(f"the agent's process was over its memory limit: it used {used:.0f} MB of {limit} MB")
        elif used > limit * _WARN_SHARE and process.pid not in self._warned:
            self._warned.add(process.pid)
            logger.warning("agent's process is near its memory limit", extra=fields)

    async def _kill_stuck(self, process: AgentProcess) -> None:
        stack = await process.stack()
        logger.error("agent's process is stuck and is killed", extra={"pid": process.pid, "stack": stack})
        seconds = self._options.stuck_seconds
        process.kill(f"the agent's process was stuck: its event loop did not answer for {seconds:g} s\n{stack}")

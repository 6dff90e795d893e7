"""A pool of processes that have imported the program and wait for a call.

Booting a process takes as long as the program's imports, so some are made ready ahead of time; where that is safe they are
forked from a template, which has imported the program already (`template`). One process runs one agent, once: `acquire` takes
one out of the pool, `release` ends it. Used by `supervised` for each agent, and opened and closed by the host.

Concurrency: one task (`watch`) looks at all processes every `look_seconds`; one task per process that boots (`boot`), at most
`concurrency` of them; one that keeps the template (`template`). All are owned by the pool and cancelled by `close`. Callers
that find no idle process queue as futures in `_waiters`, and processes that become ready are handed to them in order.

Invariants: a process is either idle, in `_running`, or owned by the task that boots or disposes of it, so none is lost when a
caller is cancelled; and a failed boot is reported to exactly one waiting caller.
"""

import asyncio
import contextvars
import logging
import os
import statistics
import sys
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from meshhost.errors import MeshhostError, SettingsError
from meshhost.hosting.agents.process_memory import MEGABYTE, ProcessMemory
from meshhost.hosting.processes.interpreter import boot_as
from meshhost.hosting.processes.messages import Boot
from meshhost.hosting.processes.options import ProcessOptions, Program
from meshhost.hosting.processes.process import EXIT_SECONDS, AgentProcess
from meshhost.hosting.processes.template import Templates
from meshhost.hosting.processes.watch import Judge, ProcessWatch
from meshhost.tasks import TaskOwner, uninterrupted

__all__ = ["ProcessPool"]

logger = logging.getLogger(__name__)

_FIRST_DELAY = 0.5
_MAX_DELAY = 30.0
# About the size of an interpreter that has imported this package and little else.
_UNMEASURED_BYTES = 64 * MEGABYTE
_REMEMBERED_SIZES = 9
# What killing and reaping a process may take beyond its abort and exit times.
_RELEASE_MARGIN = 10.0


class ProcessPool:
    """The processes of one host.

    `paths` returns the paths that the program must bind; `observe` gets (warm, seconds) of each `acquire`; `judge` decides by
    the memory of all running processes which of them are killed.
    """

    def __init__(
        self,
        options: ProcessOptions,
        *,
        paths: Callable[[], Sequence[str]],
        observe: Callable[[bool, float], None] = lambda _warm, _seconds: None,
        judge: Judge = lambda _: {},
    ) -> None:
        self.options = options
        self._paths = paths
        self._observe = observe
        self.judge: Judge = judge
        self._sizes: deque[int] = deque(maxlen=_REMEMBERED_SIZES)
        self._program: Program | None = options.program
        self._templates: Templates | None = None
        if options.start != "boot":
            self._templates = Templates(
                self._boot_message,
                seconds=options.boot_seconds,
                is_must=options.start == "fork",
                fork_seconds=options.fork_seconds,
                user=options.user,
            )
        self._begin = boot_as(options.user)
        self._tasks = TaskOwner("process pool")
        self._watch = ProcessWatch(options, self._judged, self._spawn)
        self._idle: deque[AgentProcess] = deque()
        self._running: set[AgentProcess] = set()
        self._booting = 0
        self._waiters: deque[asyncio.Future[AgentProcess]] = deque()
        self._failures = 0
        self._has_booted = asyncio.Event()
        self.boot_error: Exception | None = None
        self._not_before = 0.0
        self._is_open = False

    def __repr__(self) -> str:
        return f"<ProcessPool idle={len(self._idle)} running={len(self._running)} booting={self._booting}>"

    @property
    def idle(self) -> tuple[AgentProcess, ...]:
        """The processes that wait for a call."""
        return tuple(self._idle)

    @property
    def running(self) -> tuple[AgentProcess, ...]:
        """The processes that run an agent."""
        return tuple(self._running)

    @property
    def template(self) -> AgentProcess | None:
        """The process that others are forked from; None when there is none now."""
        return None if self._templates is None else self._templates.process

    @property
    def has_booted(self) -> bool:
        """Whether a process was ready since the pool was opened. While it is False, `boot_error` is the latest failure."""
        return self._has_booted.is_set()

    async def wait_booted(self) -> None:
        """Wait until the first process is ready; may wait forever."""
        await self._has_booted.wait()

    def expected_memory(self) -> int:
        """How many bytes a process uses before it runs an agent: the median of the latest boots, a guess before the first."""
        return round(statistics.median(self._sizes)) if self._sizes else _UNMEASURED_BYTES

    def check_program(self) -> None:
        """Raises SettingsError when this program cannot be run again in a child."""
        self._program = self._program or Program.running()
        if not hasattr(os, "pidfd_open"):
            raise SettingsError("isolation 'process' needs Linux")
        # Checked here and not in the options, which are made in the processes of that user too.
        if (uid := self.options.isolation_uid) is not None and os.geteuid() != 0:
            raise SettingsError(f"isolation_uid: only a host that runs as root can start processes of user {uid}")

    def open(self) -> None:
        """Begin to boot idle processes; returns at once. Idempotent. Raises SettingsError as `check_program`."""
        self.check_program()
        if not self._is_open:
            self._is_open = True
            self._has_booted.clear()
            self._spawn(self._look_periodically(), "watch")
            self._top_up()
            self._keep_template()

    async def close(self) -> None:
        """End the idle processes and boot no more. Processes that run an agent are ended by `release`."""
        self._is_open = False
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_exception(MeshhostError("the host is stopping and starts no more processes"))
        await self._tasks.stop()
        for process in self._idle:
            process.kill("the host stopped")
        if self._templates is not None:
            await self._templates.close()
        # One by one, and only then removed: a cancellation leaves the rest for another `close`.
        while self._idle:
            await self._idle[0].dispose()
            self._idle.popleft()

    async def acquire(self) -> AgentProcess:
        """Take a process that is ready: an idle one, or the next to boot. Raises what its boot raised, or MeshhostError."""
        self.open()
        began = time.monotonic()
        process = self._take_idle()
        is_warm = process is not None
        if process is None:
            process = await self._next_booted()
        self._running.add(process)
        self._observe(is_warm, time.monotonic() - began)
        self._top_up()
        return process

    async def release(self, process: AgentProcess) -> None:
        """End a process that was acquired; returns when it is gone. Bounded; a cancellation does not cut it short."""
        abort_seconds = self.options.abort_seconds
        try:
            await uninterrupted(
                process.end(abort_seconds=abort_seconds), timeout=abort_seconds + EXIT_SECONDS + _RELEASE_MARGIN
            )
        finally:
            self._running.discard(process)
            self._watch.forget(process)

    def _take_idle(self) -> AgentProcess | None:
        while self._idle:
            process = self._idle.popleft()
            if process.is_alive:
                return process
            self._drop_ended(process)
        return None

    async def _next_booted(self) -> AgentProcess:
        waiter: asyncio.Future[AgentProcess] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        self._top_up()
        # A boot that fails is reported to the waiter; this timeout is for a caller whose turn does not come.
        seconds = self.options.boot_seconds * 2
        is_taken = False
        try:
            async with asyncio.timeout(seconds):
                process = await waiter
                is_taken = True
        except TimeoutError:
            raise MeshhostError(f"no process for the agent became ready within {seconds:g} s: {self!r}") from None
        finally:
            if not is_taken:
                self._withdraw(waiter)
        return process

    def _withdraw(self, waiter: asyncio.Future[AgentProcess]) -> None:
        """The caller of this waiter was cancelled or timed out."""
        if waiter in self._waiters:
            self._waiters.remove(waiter)
        # A process may have been given to it in the same turn of the event loop: it goes to the next caller.
        if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
            self._give(waiter.result())

    def _top_up(self) -> None:
        """Boot as many processes as are wanted and may boot now."""
        wanted = len(self._waiters) + (self.options.size if time.monotonic() >= self._not_before else 0)
        while self._is_open and self._booting < self.options.concurrency and self._booting + len(self._idle) < wanted:
            self._booting += 1
            self._spawn(self._boot(), "boot")

    async def _boot(self) -> None:
        began = time.monotonic()
        try:
            process = await self._launch()
        except Exception as error:  # noqa: BLE001 - what the program raised in the child is reported to a caller
            self._boot_failed(error, time.monotonic() - began)
        else:
            self._failures, self._not_before, self.boot_error = 0, 0.0, None
            self._has_booted.set()
            if size := process.memory():
                self._sizes.append(size)
            self._give(process)
        finally:
            self._booting -= 1
            self._top_up()

    async def _launch(self) -> AgentProcess:
        boot = self._boot_message()
        process = None if self._templates is None else await self._templates.launch(boot)
        if process is None:
            process = await AgentProcess.launch(boot, self._begin)
        await process.ready_within(self.options.boot_seconds)
        return process

    def _keep_template(self) -> None:
        # While a process boots, that boot starts the template itself and reports why it failed.
        is_due = self._booting == 0 and time.monotonic() >= self._not_before
        if self._templates is not None and is_due and self._templates.is_wanted:
            self._spawn(self._start_template(self._templates), "template")

    async def _start_template(self, templates: Templates) -> None:
        began = time.monotonic()
        try:
            await templates.ready()
        except Exception as error:  # noqa: BLE001 - whatever the program raised
            if self._booting == 0:
                self._boot_failed(error, time.monotonic() - began)

    def _boot_message(self) -> Boot:
        program = self._program or Program.running()
        directory = [] if program.is_module else [str(Path(program.name).parent)]
        return Boot(
            program=program.name,
            is_module=program.is_module,
            argv=[program.name, *sys.argv[1:]] if self.options.program is None else [program.name],
            path=directory + [entry for entry in sys.path if entry not in directory],
            paths=list(self._paths()),
            log_level=logging.getLogger().level,
            # Longer than the host waits: the child ends itself only when there is no host left that would kill it.
            silence_seconds=self.options.stuck_seconds * 2 + 10.0,
        )

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        # In an empty context: a process may be booted while an agent is started, but what it logs is not about that agent.
        contextvars.Context().run(partial(self._tasks.spawn, work, name=name))

    def _give(self, process: AgentProcess) -> None:
        """Hand a ready process to the first caller that waits, else keep it idle."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(process)
                return
        if self._is_open:
            self._idle.append(process)
        else:
            self._spawn(process.dispose(), "dispose")

    def _boot_failed(self, error: Exception, took: float) -> None:
        # The delay grows with the time that a failure takes, so that boots which fail late do not keep a core busy.
        delay = min(max(_FIRST_DELAY, took) * 2**self._failures, max(_MAX_DELAY, 4 * took))
        self.boot_error = error
        self._failures = min(self._failures + 1, 16)
        self._not_before = time.monotonic() + delay
        logger.error("process for agents could not be started", exc_info=error, extra={"retry_in": delay})
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_exception(error)
                return

    def _drop_ended(self, process: AgentProcess) -> None:
        logger.warning("idle process for agents ended", extra={"pid": process.pid, "ended": process.exit_text})
        self._spawn(process.dispose(), "dispose")

    def _judged(self, found: Iterable[ProcessMemory]) -> Mapping[str, str]:
        # Looked up at each call: the host sets `judge` after it has made the tenancy, which needs this pool.
        return self.judge(found)

    async def _look_periodically(self) -> None:
        while True:
            await asyncio.sleep(self.options.look_seconds)
            for process in [process for process in self._idle if not process.is_alive]:
                self._idle.remove(process)
                self._drop_ended(process)
            self._watch.look(tuple(self._running))
            self._top_up()
            self._keep_template()

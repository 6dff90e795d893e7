"""Agents in processes of their own: a pool of processes that have imported the program and wait for a call.

One process runs one agent, once. Booting one takes as long as the program's imports; where that is safe they are forked from a
template instead, which has done it (`process_template`). The pool has some ready ahead of time. Each second it looks at those
that run: does the event loop answer, how much memory is in use.
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
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from opentelemetry import propagate

from meshhost.errors import MeshhostError, SettingsError
from meshhost.hosting.agents.assignment import Assignment, CallRequest
from meshhost.hosting.agents.process_memory import MEGABYTE, ProcessMemory
from meshhost.hosting.processes.messages import Assign, Boot, Call, Drain, Renew
from meshhost.hosting.processes.process import ABORT_SECONDS, EXIT_SECONDS, AgentProcess
from meshhost.hosting.processes.template import Templates
from meshhost.logs import current_log_context
from meshhost.supervision.isolation import Child, ChildContext, TaskChild
from meshhost.tasks import TaskOwner, first_of, uninterrupted
from meshhost.usage import current_sink

__all__ = ["ProcessOptions", "ProcessPool", "ProcessStart", "Program", "process_child"]

logger = logging.getLogger(__name__)

ProcessStart = Literal["auto", "fork", "boot"]

_LOOK_SECONDS = 1.0
_FIRST_DELAY = 0.5
_MAX_DELAY = 30.0
_WARN_SHARE = 0.8
# An interpreter that has imported this package and next to nothing else.
_UNMEASURED_BYTES = 64 * MEGABYTE
_REMEMBERED_SIZES = 9


@dataclass(frozen=True, slots=True)
class Program:
    """The program that a child runs again: a file, or with `is_module` the name of a module."""

    name: str
    is_module: bool

    @classmethod
    def running(cls) -> "Program":
        """The one that runs here. Raises SettingsError when it did not come from a file or module."""
        main = sys.modules.get("__main__")
        spec = getattr(main, "__spec__", None)
        if spec is not None:
            return cls(spec.name.removesuffix(".__main__"), is_module=True)
        file = getattr(main, "__file__", None)
        if file is None or not Path(file).is_file():
            raise SettingsError(
                "isolation 'process' runs the program again: it must be a file, or a module run with -m"
            )
        return cls(str(Path(file).resolve()), is_module=False)


@dataclass(frozen=True, slots=True)
class ProcessOptions:
    """How processes are kept; times in seconds.

    `size` idle ones wait for a call, at most `max_running` run agents, and at most `concurrency` boot at once, each for at
    most `boot_seconds`. A process whose event loop does not answer for `stuck_seconds`, or that uses more than `memory_mb`
    megabytes (None: no limit), is killed. `program` is what they run, when it is not the one that runs here. `start` is how
    they come to be: forked from a template (`fork`), booted each by itself (`boot`), or forked where that is safe (`auto`).
    """

    size: int = 1
    memory_mb: int | None = None
    stuck_seconds: float = 30.0
    boot_seconds: float = 60.0
    max_running: int = 100
    concurrency: int = min(os.cpu_count() or 1, 4)
    program: Program | None = None
    start: ProcessStart = "auto"

    def __post_init__(self) -> None:
        if self.size < 0 or self.concurrency < 1:
            raise SettingsError("process pool: expected a size of 0 or more, and a concurrency of 1 or more")
        if self.memory_mb is not None and self.memory_mb <= 0:
            raise SettingsError("process memory: expected megabytes, more than 0")
        if not (self.stuck_seconds > 0 and self.boot_seconds > 0):
            raise SettingsError("process times: expected seconds, more than 0")
        if self.start not in ("auto", "fork", "boot"):
            raise SettingsError("process start: expected auto, fork or boot")


class ProcessPool:
    """Processes of one host. `paths` tells which paths the program must bind; `observe` gets (warm, seconds) of each start.

    `judge` gets the memory of all that run agents, each second, and returns by spawn id whose process ends, and why.
    """

    def __init__(
        self,
        options: ProcessOptions,
        *,
        paths: Callable[[], Sequence[str]],
        observe: Callable[[bool, float], None] = lambda _warm, _seconds: None,
        judge: Callable[[Iterable[ProcessMemory]], Mapping[str, str]] = lambda _: {},
    ) -> None:
        self.options = options
        self._paths = paths
        self._observe = observe
        self.judge = judge
        self._sizes: deque[int] = deque(maxlen=_REMEMBERED_SIZES)
        self._program: Program | None = options.program
        self._templates: Templates | None = None
        if options.start != "boot":
            self._templates = Templates(
                self._boot_message, seconds=options.boot_seconds, is_must=options.start == "fork"
            )
        self._tasks = TaskOwner("process pool")
        self._idle: deque[AgentProcess] = deque()
        self._running: set[AgentProcess] = set()
        self._booting = 0
        self._waiters: deque[asyncio.Future[AgentProcess]] = deque()
        self._failures = 0
        self._has_booted = asyncio.Event()
        self.boot_error: Exception | None = None
        self._not_before = 0.0
        self._warned: set[int] = set()
        self._is_open = False

    def __repr__(self) -> str:
        return f"<ProcessPool idle={len(self._idle)} running={len(self._running)} booting={self._booting}>"

    @property
    def idle(self) -> tuple[AgentProcess, ...]:
        """Those that wait for a call."""
        return tuple(self._idle)

    @property
    def running(self) -> tuple[AgentProcess, ...]:
        """Those that run an agent."""
        return tuple(self._running)

    @property
    def template(self) -> AgentProcess | None:
        """The process that others are forked from, when there is one."""
        return None if self._templates is None else self._templates.process

    @property
    def has_booted(self) -> bool:
        """Whether a process was ready since the pool was opened. Why not yet is the latest `boot_error`, None before one."""
        return self._has_booted.is_set()

    async def wait_booted(self) -> None:
        """Return when the first process has been ready."""
        await self._has_booted.wait()

    def expected_memory(self) -> int:
        """What a process takes before it runs an agent, in bytes: as the last that booted did, a guess before the first."""
        return round(statistics.median(self._sizes)) if self._sizes else _UNMEASURED_BYTES

    def check_program(self) -> None:
        """Raises SettingsError when this program cannot be run again in a child."""
        self._program = self._program or Program.running()
        if not hasattr(os, "pidfd_open"):
            raise SettingsError("isolation 'process' needs Linux")

    def open(self) -> None:
        """Begin to fill; returns at once. Again is no news. Raises SettingsError as `check_program`."""
        self.check_program()
        if not self._is_open:
            self._is_open = True
            self._has_booted.clear()
            self._spawn(self._watch(), "watch")
            self._top_up()
            self._keep_template()

    async def close(self) -> None:
        """End the idle processes and boot no more. Those that run an agent are ended by who runs them."""
        self._is_open = False
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_exception(MeshhostError("the host is stopping and starts no process"))
        await self._tasks.stop()
        for process in self._idle:
            process.kill("the host stopped")
        if self._templates is not None:
            await self._templates.close()
        while self._idle:
            await self._idle[0].dispose()
            self._idle.popleft()

    async def acquire(self) -> AgentProcess:
        """A process that is ready: an idle one, or the next to boot. Raises what it failed with, or MeshhostError."""
        self.open()
        began = time.monotonic()
        process = self._take_idle()
        is_warm = process is not None
        if process is None:
            process = await self._booted()
        self._running.add(process)
        self._observe(is_warm, time.monotonic() - began)
        self._top_up()
        return process

    async def release(self, process: AgentProcess) -> None:
        """End a process that was acquired; returns when it is gone. Bounded; not cut short by a cancellation."""
        try:
            await uninterrupted(process.end(), timeout=ABORT_SECONDS + EXIT_SECONDS + 10.0)
        finally:
            self._running.discard(process)
            self._warned.discard(process.pid)

    def _take_idle(self) -> AgentProcess | None:
        while self._idle:
            process = self._idle.popleft()
            if process.is_alive:
                return process
            self._lost(process)
        return None

    async def _booted(self) -> AgentProcess:
        waiter: asyncio.Future[AgentProcess] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        self._top_up()
        # A boot that fails is told by itself; this is for one's turn that does not come.
        seconds = self.options.boot_seconds * 2
        is_mine = False
        try:
            async with asyncio.timeout(seconds):
                process = await waiter
                is_mine = True
        except TimeoutError:
            raise MeshhostError(f"no process for the agent became ready within {seconds:g} s: {self!r}") from None
        finally:
            if not is_mine:
                self._forgo(waiter)
        return process

    def _forgo(self, waiter: asyncio.Future[AgentProcess]) -> None:
        if waiter in self._waiters:
            self._waiters.remove(waiter)
        # Given in the very moment in which we were cancelled or late.
        if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
            self._give(waiter.result())

    def _top_up(self) -> None:
        """Boot as many as are wanted and may boot now."""
        wanted = len(self._waiters) + (self.options.size if time.monotonic() >= self._not_before else 0)
        while self._is_open and self._booting < self.options.concurrency and self._booting + len(self._idle) < wanted:
            self._booting += 1
            self._spawn(self._boot(), "boot")

    async def _boot(self) -> None:
        began = time.monotonic()
        try:
            process = await self._launch()
        except Exception as error:  # noqa: BLE001 - whatever the program raised in the child is for who waits
            self._failed(error, time.monotonic() - began)
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
            process = await AgentProcess.launch(boot)
        await process.ready_within(self.options.boot_seconds)
        return process

    def _keep_template(self) -> None:
        # Who boots now starts it himself, and tells what it failed with.
        is_due = self._booting == 0 and time.monotonic() >= self._not_before
        if self._templates is not None and is_due and self._templates.is_wanted:
            self._spawn(self._start_template(self._templates), "template")

    async def _start_template(self, templates: Templates) -> None:
        began = time.monotonic()
        try:
            await templates.ready()
        except Exception as error:  # noqa: BLE001 - whatever the program raised
            if self._booting == 0:
                self._failed(error, time.monotonic() - began)

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
            silence_seconds=self.options.stuck_seconds * 2 + 10.0,
        )

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        # In a context of its own: what a process logs is not about the agent for whose sake it was booted.
        contextvars.Context().run(partial(self._tasks.spawn, work, name=name))

    def _give(self, process: AgentProcess) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(process)
                return
        if self._is_open:
            self._idle.append(process)
        else:
            self._spawn(process.dispose(), "dispose")

    def _failed(self, error: Exception, took: float) -> None:
        # What takes a minute to fail is not tried all the time: most of the time nothing runs.
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

    def _lost(self, process: AgentProcess) -> None:
        logger.warning("idle process for agents ended", extra={"pid": process.pid, "ended": process.exit_text})
        self._spawn(process.dispose(), "dispose")

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            for process in [process for process in self._idle if not process.is_alive]:
                self._idle.remove(process)
                self._lost(process)
            self._look_at_all()
            self._top_up()
            self._keep_template()

    def _look_at_all(self) -> None:
        running = tuple(self._running)
        sizes = [process.memory() for process in running]
        for process, used in zip(running, sizes, strict=True):
            self._look_at(process, used)
        looks = [
            ProcessMemory(process.spawn_id, used, is_ending=process.is_killed)
            for process, used in zip(running, sizes, strict=True)
        ]
        verdicts = self.judge(looks)
        for process in running:
            if (reason := verdicts.get(process.spawn_id)) is not None:
                process.kill(reason)

    def _look_at(self, process: AgentProcess, used_bytes: int) -> None:
        self._look_at_memory(process, used_bytes)
        if not process.has_started:
            return  # a constructor may well take its time; the start timeout bounds that
        # Counted in questions, not by the clock: a host that was blocked itself has not asked meanwhile.
        if process.ping() == max(round(self.options.stuck_seconds / _LOOK_SECONDS), 1):
            self._spawn(self._kill_stuck(process), "kill stuck")

    def _look_at_memory(self, process: AgentProcess, used_bytes: int) -> None:
        limit = self.options.memory_mb
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
        process.kill(
            f"the agent's process was stuck: its event loop did not answer for {self.options.stuck_seconds:g} s\n{stack}"
        )


class _ProcessLife:
    """Lets a process live an agent's life for a visit, once."""

    def __init__(self, pool: ProcessPool, path: str, visit: Assignment, grace: float) -> None:
        self._pool = pool
        self._path = path
        self._visit = visit
        self._grace = grace

    async def run(self, child: ChildContext) -> None:
        """Returns when the agent left in order; raises what it, or its process, crashed with."""
        process = await self._pool.acquire()
        try:
            process.spawn_id = self._visit.agent.id if self._visit.agent is not None else ""
            process.on_end_for_good = self._visit.end_for_good
            if (sink := current_sink()) is not None:
                process.on_usage = sink.add
            self._visit.pid = process.pid
            self._visit.on_renew = lambda request: process.send(Renew(_call(request)))
            process.assign(self._assignment())
            await process.wait_started()
            if not process.has_ended:
                child.started()
                child.current = process
            await first_of(process.wait_ended(), _pass_drain(child, process))
        finally:
            self._visit.on_renew = self._visit.pid = None
            await self._pool.release(process)
        process.raise_ending()

    def _assignment(self) -> Assign:
        trace: dict[str, str] = {}
        propagate.inject(trace)
        return Assign(
            path=self._path,
            call=_call(self._visit.request),
            call_id=self._visit.id,
            grace=self._grace,
            log_fields={name: str(value) for name, value in current_log_context().items()},
            trace=trace,
        )


async def _pass_drain(child: ChildContext, process: AgentProcess) -> None:
    await child.draining.wait()
    process.send(Drain())
    await process.wait_exited()


def _call(request: CallRequest) -> Call:
    return Call(
        tenant=request.tenant,
        room_name=request.room_name,
        room_url=request.room_url,
        identity=request.identity,
        arguments=dict(request.arguments),
        expires_at=request.expires_at,
        token=request.token,
    )


def process_child(pool: ProcessPool, path: str, visit: Assignment, *, grace: float) -> Child:
    """An agent in a process of the pool, as a child to supervise.

    Here it is a task that follows the process: a drain is passed on, an abort is too and then enforced.
    """
    return TaskChild(_ProcessLife(pool, path, visit, grace).run, visit.request.identity)

"""One worker process, as the room server sees it: requests go in, answers come out, and it can be killed at any moment.

`WorkerProcess` starts `meshhost.tables.worker` and speaks `frames` with it. Its task reads the answers and gives each to the
request that waits for it; when the process ends, every request that waits fails with WorkerGoneError. A request that takes
too long kills the process: nothing else surely frees the processors and the memory that a query holds. Nothing is lost by
that, since a write of LanceDB is one step.

A search that its caller gave up is cancelled first. LanceDB then ends it between two batches of rows, which may be long after;
so the process is asked for a sign that it has processors to spare, and killed without one, unless it does a write for somebody.
"""

import asyncio
import contextlib
import json
import logging
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from meshhost.errors import RoomError
from meshhost.tables.frames import RefusedError, pack, read_frame
from meshhost.tables.priority import HEAVY, USUAL, set_priority
from meshhost.tasks import TaskOwner, uninterrupted

__all__ = ["OUT_OF_MEMORY", "WorkerGoneError", "WorkerProcess"]

logger = logging.getLogger(__name__)

OUT_OF_MEMORY = 87
"""The exit status of a worker that needed too much memory (`worker.memory`)."""
_START_SECONDS = 60.0
# Seconds that a process has to show that nothing of a cancelled request is left in it.
_PROBE_SECONDS = 1.0
# A request that takes longer makes way for those of other tenants.
_LONG_SECONDS = 0.25
_BUFFER_BYTES = 1024 * 1024
_Answer = tuple[dict[str, Any], bytes]


class WorkerGoneError(Exception):
    """The process ended before it answered."""

    def __init__(self, *, out_of_memory: bool = False) -> None:
        super().__init__("the process ended")
        self.out_of_memory = out_of_memory


class WorkerProcess:
    """A process of a tenant. `options` are those of `worker.__main__`; `environment` is all that it gets of ours."""

    def __init__(self, options: Mapping[str, Any], environment: Mapping[str, str], tasks: TaskOwner) -> None:
        self._options = options
        self._environment = environment
        self._tasks = tasks
        self._process: Process | None = None
        self._waiting: dict[int, asyncio.Future[_Answer]] = {0: asyncio.get_running_loop().create_future()}
        self._last_id = 0
        self._sending = asyncio.Lock()
        self._writes = 0
        self._long = 0  # requests that have computed for long
        self._starting = tasks.spawn(self._start(), name="start of a process")
        self.is_gone = False
        """Whether it takes no requests any more."""

    @property
    def pid(self) -> int | None:
        """The id of the process, None before it is started."""
        return None if self._process is None else self._process.pid

    async def call(self, op: str, body: Mapping[str, Any], data: bytes, *, seconds: float, is_read: bool) -> _Answer:
        """Send a request and return its answer.

        Raises RefusedError, WorkerGoneError, TimeoutError after `seconds`: the process was killed then. Cancelled, it returns
        when nothing of the request is left in the process, or the process was killed; which takes until then at most.
        """
        await self._ready()
        number = self._last_id = self._last_id + 1
        loop = asyncio.get_running_loop()
        answer, deadline = loop.create_future(), loop.time() + seconds
        self._waiting[number] = answer
        self._writes += not is_read
        try:
            async with asyncio.timeout(seconds):
                await self._send({"id": number, "op": op, "body": body}, data)
                async with self._light_first():
                    header, result = await answer
        except TimeoutError:
            self.kill()
            raise
        except asyncio.CancelledError:
            await uninterrupted(self._give_up(number, body, deadline), timeout=seconds + 2 * _PROBE_SECONDS)
            raise
        finally:
            self._writes -= not is_read
            self._waiting.pop(number, None)
            if answer.done() and not answer.cancelled():
                answer.exception()  # read: it is raised above, or nobody waits for it
        if (error := header.get("error")) is not None:
            raise RefusedError(error["kind"], error["text"], error["field"])
        return header, result

    def kill(self) -> None:
        """End the process. Requests in progress fail. Idempotent."""
        self.is_gone = True
        if self._process is None:
            self._starting.cancel()
            self._fail(WorkerGoneError())
        elif self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    @asynccontextmanager
    async def _light_first(self) -> AsyncIterator[None]:
        """Lower the priority of the process while what is awaited in the block takes long."""
        is_long = False

        def lower() -> None:
            nonlocal is_long
            is_long = True
            self._set_long(1)

        timer = asyncio.get_running_loop().call_later(_LONG_SECONDS, lower)
        try:
            yield
        finally:
            timer.cancel()
            if is_long:
                self._set_long(-1)

    def _set_long(self, change: int) -> None:
        before, self._long = self._long, self._long + change
        if bool(before) != bool(self._long) and self.pid is not None and not self.is_gone:
            set_priority(self.pid, HEAVY if self._long else USUAL)

    async def _start(self) -> None:
        command = [sys.executable, "-P", "-m", "meshhost.tables.worker", json.dumps(self._options)]
        try:
            process = await asyncio.create_subprocess_exec(
                *command, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, env=self._environment, limit=_BUFFER_BYTES
            )
        except OSError as error:
            logger.warning("a process for tables does not start", extra={"reason": str(error)})
            self._fail(WorkerGoneError())
            return
        self._process = process
        self._tasks.spawn(self._read(process), name=f"process {process.pid}")

    async def _ready(self) -> None:
        """Wait until it is started. Raises WorkerGoneError, RoomError."""
        ready = self._waiting.get(0)
        if self.is_gone:
            raise WorkerGoneError
        if ready is None:
            return
        try:
            async with asyncio.timeout(_START_SECONDS):
                await asyncio.shield(ready)
        except TimeoutError:
            self.kill()
            raise RoomError("the process for tables did not start in time: try again later") from None
        self._waiting.pop(0, None)

    async def _send(self, header: dict[str, Any], data: bytes) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        async with self._sending:
            try:
                for part in pack(header, data):
                    self._process.stdin.write(part)
                await self._process.stdin.drain()
            except OSError:  # it is dead, which `_read` will say
                logger.debug("a process for tables takes no request")

    async def _give_up(self, number: int, body: Mapping[str, Any], deadline: float) -> None:
        await self._send({"cancel": number}, b"")
        while not self.is_gone and not await self._is_idle(body):
            is_late = asyncio.get_running_loop().time() >= deadline
            if is_late or not self._writes:
                self.kill()

    async def _is_idle(self, body: Mapping[str, Any]) -> bool:
        """Whether the process has processors to spare: it answers to a request that is next to nothing."""
        self._last_id = number = self._last_id + 1
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        probe = {"room": body["room"], "table": body.get("table")}
        try:
            await self._send({"id": number, "op": "probe", "body": probe}, b"")
            await asyncio.wait([answer], timeout=_PROBE_SECONDS)
            return answer.done()
        finally:
            del self._waiting[number]
            answer.cancel()

    async def _read(self, process: Process) -> None:
        assert process.stdout is not None
        try:
            while True:
                header, data = await read_frame(process.stdout)
                waiting = self._waiting.get(header["id"])
                if waiting is not None and not waiting.done():
                    waiting.set_result((header, data))
        except (asyncio.IncompleteReadError, ValueError, OSError):
            pass
        finally:
            self.kill()
            status = await uninterrupted(process.wait())
            if status not in (0, -9):
                logger.warning("a process for tables ended", extra={"status": status})
            self._fail(WorkerGoneError(out_of_memory=status == OUT_OF_MEMORY))

    def _fail(self, error: WorkerGoneError) -> None:
        self.is_gone = True
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(error)
                waiting.exception()  # read: a start that nobody waits for any more is no lost error

"""`BuiltInHost`: owns the process that serves the built-in agents; starts it when it is needed, and again when it has ended.

The room server asks for `address()` before each call. All changes of the process happen under one lock, in the task of the
request that came first; the others wait for it. The process gets its secret over stdin and ends when that closes
(`program.py`), so it cannot outlive this process, even after kill -9. One that keeps failing is started less and less often.
"""

import asyncio
import json
import logging
import os
import secrets
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from meshhost.backoff import Backoff
from meshhost.child_process.ending import end
from meshhost.clock import Clock, SystemClock
from meshhost.errors import ToolError
from meshhost.server.config import CalledAt

__all__ = ["BuiltInHost", "BuiltInLimits"]

logger = logging.getLogger(__name__)

START_SECONDS = 30.0
STOP_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class BuiltInLimits:
    """An agent ends after `idle_seconds` without work; at most so many live, altogether and of one tenant."""

    idle_seconds: float = 300.0
    max_agents: int = 1000
    max_agents_per_tenant: int = 50


class BuiltInHost:
    """Owns at most one process. Its agents dial the address that `room_server` returns; it inherits only `environment`."""

    def __init__(
        self,
        *,
        room_server: Callable[[], str],
        limits: BuiltInLimits,
        environment: Mapping[str, str],
        clock: Clock | None = None,
    ) -> None:
        self._room_server = room_server
        self._limits = limits
        self._environment = dict(environment)
        self._clock = clock or SystemClock()
        self._backoff = Backoff(1.0, 30.0, 2.0)
        self._lock = asyncio.Lock()
        self._process: Process | None = None
        self._at: CalledAt | None = None
        self._failures = 0
        self._last_failure = 0.0

    @property
    def pid(self) -> int | None:
        """The id of the process, or None when none is alive."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    async def address(self, *, but: CalledAt | None = None) -> CalledAt:
        """Return where the agents are called, once the process is up. `but` is an address that has just failed.

        Raises ToolError when the process cannot be started now.
        """
        async with self._lock:
            if self._at is not None and self._at is not but and self.pid is not None:
                return self._at
            await self._end()
            wait = self._last_failure + self._pause() - self._clock.monotonic()
            if wait > 0:
                raise ToolError(f"the built-in agents failed to start {self._failures} times; next try in {wait:.0f} s")
            try:
                self._at = await self._start()
            except BaseException as error:
                self._failures += isinstance(error, ToolError)
                await self._end()
                self._last_failure = self._clock.monotonic()
                raise
            self._failures = 0
            logger.info("the built-in agents are ready", extra={"pid": self.pid})
            return self._at

    async def stop(self) -> None:
        """End the process; its agents leave their rooms."""
        async with self._lock:
            await self._end()

    def _pause(self) -> float:
        return self._backoff.longest(self._failures) if self._failures else 0.0

    async def _start(self) -> CalledAt:
        secret = secrets.token_urlsafe(32)
        options = {
            "secret": secret,
            "room_server": self._room_server(),
            "idle_seconds": self._limits.idle_seconds,
            "max_agents": self._limits.max_agents,
            "max_agents_per_tenant": self._limits.max_agents_per_tenant,
        }
        try:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "meshhost.app.built_in.program"),
                stdin=PIPE,
                stdout=PIPE,
                env={
                    "PATH": os.defpath,
                    "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
                    **self._environment,
                },
                start_new_session=True,  # Ctrl-C is for the room server, which then ends this one in order
            )
            async with asyncio.timeout(START_SECONDS):
                return CalledAt(f"http://127.0.0.1:{await _exchange(self._process, options)}", secret)
        except TimeoutError:
            raise ToolError(f"the built-in agents were not ready after {START_SECONDS:g} s") from None
        except (OSError, ValueError, KeyError, TypeError):
            raise ToolError("the built-in agents could not be started; the log of the room server says why") from None

    async def _end(self) -> None:
        process, self._process, self._at = self._process, None, None
        if process is not None:
            await end(process, seconds=STOP_SECONDS)


async def _exchange(process: Process, options: dict[str, object]) -> int:
    if process.stdin is None or process.stdout is None:
        raise ValueError("the process has no pipes")
    process.stdin.write(f"{json.dumps(options)}\n".encode())
    await process.stdin.drain()
    return int(json.loads(await process.stdout.readline())["port"])

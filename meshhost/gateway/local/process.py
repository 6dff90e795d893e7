"""`LlamaProcess`: owns the child process of the local model; starts it when it is needed, and again when it died.

`LocalProvider` asks for `address()` at each request. All changes of the child happen under one lock, in the task of whichever
request came first; the others wait for it. The child gets a fresh key over stdin and announces its address on stdout; it
ends when its stdin closes (`runner.py`), so it cannot outlive this process, even after kill -9.
"""

import asyncio
import contextlib
import json
import logging
import os
import secrets
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from yarl import URL

from meshhost.child_process.ending import end
from meshhost.clock import Clock, SystemClock
from meshhost.errors import LLMError

__all__ = ["LlamaAddress", "LlamaProcess", "runner_command"]

logger = logging.getLogger(__name__)

_MAX_BACKOFF = 30.0
_CONNECT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class LlamaAddress:
    """The child's URL, and the key that requests must carry."""

    base_url: str
    key: str

    def __repr__(self) -> str:
        return f"LlamaAddress({self.base_url!r})"


class LlamaProcess:
    """Owns at most one child. `command` is called at each start. Timeouts are in seconds.

    Backoff: after n failures in a row (a start that failed, a child that died), requests are refused until 2^(n-2) seconds
    have passed since the last start, at most 30. A child that lived for a minute resets the count.
    """

    def __init__(
        self,
        command: Callable[[], Sequence[str]],
        *,
        start_timeout: float = 60.0,
        stop_timeout: float = 5.0,
        clock: Clock | None = None,
    ) -> None:
        self._command = command
        self._start_timeout = start_timeout
        self._stop_timeout = stop_timeout
        self._clock = clock or SystemClock()
        self._lock = asyncio.Lock()
        self._process: Process | None = None
        self._address: LlamaAddress | None = None
        self._failures = 0
        self._last_start = 0.0

    @property
    def pid(self) -> int | None:
        """The process id of the child, or None when none is alive."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    async def address(self, *, in_doubt: bool = False) -> LlamaAddress:
        """Return the address of a living child, started if need be. Raises LLMError (status 503) when it cannot be started now.

        `in_doubt` says that a request to it has just failed: a dying process still accepts connections for a moment.
        """
        async with self._lock:
            if in_doubt:
                await self._wait_for_death(1.0)
            if self._address is not None and self.pid is not None and await _listens(self._address):
                return self._address
            await self._note_death()
            self._check_backoff()
            self._last_start = self._clock.monotonic()
            try:
                self._address = await self._start()
            except BaseException as error:
                self._failures += isinstance(error, LLMError)
                await self._end()
                raise
            logger.info("the local model is ready", extra={"pid": self.pid})
            return self._address

    async def stop(self) -> None:
        """End the child."""
        async with self._lock:
            await self._end()

    async def _start(self) -> LlamaAddress:
        key = secrets.token_urlsafe(32)
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self._command(), stdin=PIPE, stdout=PIPE, stderr=DEVNULL, env=_environment()
            )
            async with asyncio.timeout(self._start_timeout):
                return LlamaAddress(await _exchange_key(self._process, key), key)
        except TimeoutError:
            raise LLMError(f"the local model was not ready after {self._start_timeout:g} s", status=503) from None
        except (OSError, ValueError, KeyError, TypeError):
            raise LLMError(
                "the local model could not be started (is 'meshhost[local]' installed?)", status=503
            ) from None

    async def _end(self) -> None:
        process, self._process, self._address = self._process, None, None
        if process is not None:
            await end(process, seconds=self._stop_timeout)

    async def _wait_for_death(self, seconds: float) -> None:
        if self._process is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._process.wait()

    async def _note_death(self) -> None:
        process = self._process
        if process is None:
            return
        await self._end()
        lived = self._clock.monotonic() - self._last_start
        self._failures = 1 if lived > 60 else self._failures + 1
        logger.warning("the local model died", extra={"exit_status": process.returncode, "seconds": round(lived, 1)})

    def _check_backoff(self) -> None:
        delay = min(_MAX_BACKOFF, 2.0 ** (self._failures - 2)) if self._failures > 1 else 0.0
        left = self._last_start + delay - self._clock.monotonic()
        if left > 0:
            raise LLMError(f"the local model failed {self._failures} times; next start in {left:.0f} s", status=503)


def runner_command(model: Path, *, name: str, threads: int) -> list[str]:
    """Return the command line of `meshhost.gateway.local.runner`."""
    module = [sys.executable, "-m", "meshhost.gateway.local.runner"]
    return [*module, "--model", str(model), "--name", name, "--host", "127.0.0.1", "--threads", str(threads)]


async def _listens(address: LlamaAddress) -> bool:
    url = URL(address.base_url)
    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            _, writer = await asyncio.open_connection(url.host, url.port)
    except OSError:  # TimeoutError is one
        return False
    writer.close()
    return True


async def _exchange_key(process: Process, key: str) -> str:
    if process.stdin is None or process.stdout is None:
        raise ValueError("the child has no pipes")
    process.stdin.write(f"{key}\n".encode())
    await process.stdin.drain()
    address = json.loads(await process.stdout.readline())["address"]
    if not isinstance(address, str):
        raise TypeError("expected an address")
    return address


def _environment() -> dict[str, str]:
    # Not the whole environment: the child needs none of our secrets, and LLAMA_ARG_* variables would change its behaviour.
    return {"PATH": os.defpath, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}

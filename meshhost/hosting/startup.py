"""What a host waits for between listening and being ready.

Agents in processes cannot start before the first process of the pool has booted, which takes as long as the program's imports.
Meanwhile the host listens, /readyz says what is missing (`http.routes` asks `missing`), calls to paths with processes are
refused (`check`), and the assembly starts the ledger's agents for these paths when `wait` returns.
"""

import asyncio
import logging
import re
import time

from meshhost.errors import CallRefusedError, MeshhostError
from meshhost.hosting.processes.pool import ProcessPool
from meshhost.hosting.refusals import RETRY_SOON_SECONDS

__all__ = ["StartUp", "error_line"]

logger = logging.getLogger(__name__)

_MAX_TEXT = 300
_MAX_PAUSE = 3600.0
# Errors are shown without authentication; one may quote a database URL with its password.
_URL_USER = re.compile(r"://[^/\s@]*@")


class StartUp:
    """What a host waits for after it listens: the first process of its pool, if the pool keeps warm ones.

    After `seconds` the log says what is missing, and again each time the wait has doubled.
    """

    def __init__(self, pool: ProcessPool, *, seconds: float) -> None:
        self._pool = pool
        self._seconds = seconds
        self._needs_pool = False

    def __repr__(self) -> str:
        return f"<StartUp missing={list(self.missing)}>"

    def need_pool(self) -> None:
        """Wait for the pool too, unless it keeps no warm processes. Called when a path needs processes."""
        self._needs_pool = self._pool.options.size > 0

    @property
    def missing(self) -> tuple[str, ...]:
        """What is still missing, or why it failed, as text for people without secrets. Empty when nothing is."""
        if not self._needs_pool or self._pool.has_booted:
            return ()
        error = self._pool.boot_error
        return ("process pool starting" if error is None else f"process pool: {error_line(error)}",)

    def check(self) -> None:
        """Raises CallRefusedError (503) while agents with processes cannot start."""
        if missing := self.missing:
            text = f"this host is not ready: {missing[0]}"
            raise CallRefusedError(text, status=503, retry_after=RETRY_SOON_SECONDS)

    async def wait(self) -> None:
        """Wait until nothing is missing; may wait forever, so the caller must be able to cancel it."""
        began, pause = time.monotonic(), self._seconds
        while self.missing:
            try:
                async with asyncio.timeout(pause):
                    await self._pool.wait_booted()
            except TimeoutError:
                waited = pause = time.monotonic() - began
                pause = min(pause, _MAX_PAUSE)
                fields = {"missing": list(self.missing), "waited_seconds": round(waited, 1)}
                logger.error("host is not ready yet", extra=fields)  # noqa: TRY400 - the deadline's traceback is useless


def error_line(error: BaseException) -> str:
    """One line such as `ImportError: no module named x`: type and first line of text, shortened, without URL passwords."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "").rstrip(": ")
    text = _URL_USER.sub("://…@", text)
    text = text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}…"
    if type(error) is MeshhostError and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__

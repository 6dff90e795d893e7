"""SIGTERM and SIGINT as events of the loop. `signal.signal` would run outside the loop and not wake it when idle."""

import asyncio
import logging
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

__all__ = ["StopSignals", "stop_signals"]

logger = logging.getLogger(__name__)

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopSignals:
    """The first signal asks to stop in order, a second one not to wait for it."""

    def __init__(self) -> None:
        self._asked = asyncio.Event()
        self._forced = asyncio.Event()

    async def wait(self) -> None:
        """Return when the process was asked to stop."""
        await self._asked.wait()

    async def wait_forced(self) -> None:
        """Return when it was asked again."""
        await self._forced.wait()

    def receive(self, number: signal.Signals) -> None:
        """A signal came."""
        logger.info("stop asked", extra={"signal": number.name, "again": self._asked.is_set()})
        (self._forced if self._asked.is_set() else self._asked).set()


@asynccontextmanager
async def stop_signals() -> AsyncIterator[StopSignals]:
    """Take SIGTERM and SIGINT inside the block; afterwards they do what they did before."""
    loop = asyncio.get_running_loop()
    received = StopSignals()
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    for number in _SIGNALS:
        loop.add_signal_handler(number, received.receive, number)
    try:
        yield received
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)

"""SIGTERM, SIGINT and SIGHUP as events of the event loop.

A handler of `signal.signal` runs outside of the loop and does not wake an idle one; `loop.add_signal_handler` does. Hosts, room
servers and the CLI use `stop_signals` around their whole life: the first signal requests an orderly stop, the second one says
not to wait for it. The earlier handlers come back at the end of the block.
"""

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager

__all__ = ["StopSignals", "hangups", "stop_signals"]

logger = logging.getLogger(__name__)

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopSignals:
    """The first signal requests an orderly stop, a second one an immediate stop."""

    def __init__(self) -> None:
        self._requested = asyncio.Event()
        self._forced = asyncio.Event()

    async def wait(self) -> None:
        """Return when a stop was requested."""
        await self._requested.wait()

    async def wait_forced(self) -> None:
        """Return when an immediate stop was requested."""
        await self._forced.wait()

    def receive(self, number: signal.Signals) -> None:
        """Handle a signal."""
        logger.info("stop requested", extra={"signal": number.name, "again": self._requested.is_set()})
        (self._forced if self._requested.is_set() else self._requested).set()


@asynccontextmanager
async def stop_signals() -> AsyncIterator[StopSignals]:
    """Handle SIGTERM and SIGINT inside the block; afterwards the earlier handlers are restored."""
    received = StopSignals()
    with _handled(_SIGNALS, received.receive):
        yield received


@asynccontextmanager
async def hangups() -> AsyncIterator[asyncio.Event]:
    """An event that each SIGHUP inside the block sets, instead of ending the process; afterwards as it was before."""
    received = asyncio.Event()
    with _handled((signal.SIGHUP,), lambda _: received.set()):
        yield received


@contextmanager
def _handled(numbers: Sequence[signal.Signals], handle: Callable[[signal.Signals], None]) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        loop.add_signal_handler(number, handle, number)
    try:
        yield
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)

"""The loop of a queue worker: lease a message, renew the lease while it is worked on, settle it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
import traceback
from collections.abc import Awaitable, Callable
from enum import Enum
from typing import TYPE_CHECKING

from opentelemetry import propagate, trace
from opentelemetry.trace import SpanKind

from meshhost.errors import AccessDeniedError, LeaseLostError, RoomError
from meshhost.room.reconnect import ReconnectPolicy
from meshhost.room.services.queues import LeasedMessage
from meshhost.tasks import Stopped, Won, first_of, uninterrupted
from meshhost.usage import Outcome, report_message

if TYPE_CHECKING:
    from meshhost.room.client import RoomClient

__all__ = ["QueueConsumer"]

logger = logging.getLogger(__name__)
tracer = trace.get_tracer("meshhost.room.consumer")

LEASE_SECONDS = 30.0
MAX_REASON_CHARS = 16 * 1024
SETTLE_TIMEOUT = 10.0


class _Outcome(Enum):
    DONE = "done"
    LEASE_LOST = "lease lost"


class QueueConsumer:
    """Takes the messages of one queue, one at a time, and gives each to `process`.

    A message is acked after `process` returned and nacked with the traceback when it raised. When the consumer is cancelled
    the message goes back as interrupted. A lease that was lost (the message is somebody else's by now) ends the processing.
    `idle` is set while no message is worked on.
    """

    def __init__(
        self,
        *,
        room: RoomClient,
        queue: str,
        process: Callable[[LeasedMessage], Awaitable[None]],
        lease_seconds: float = LEASE_SECONDS,
        backoff: ReconnectPolicy | None = None,
    ) -> None:
        self._room = room
        self._queue = queue
        self._process = process
        self._lease_seconds = lease_seconds
        self._backoff = backoff or ReconnectPolicy()
        self._draining = asyncio.Event()
        self._outcome: Outcome = "lost"
        self.idle = asyncio.Event()
        self.idle.set()

    def drain(self) -> None:
        """Take no further message; `run()` returns when the one in work is settled."""
        self._draining.set()

    async def run(self) -> None:
        """Consume until drained. Raises RoomError when the room is left for good, and what cannot be retried."""
        failures = 0
        while not self._draining.is_set():
            try:
                leased = await self._next()
            except RoomError as error:
                failures += 1
                await self._back_off(failures, error)
                continue
            failures = 0
            if leased is not None:
                await self._work(leased)

    async def _next(self) -> LeasedMessage | None:
        """The next message; None when there was none for a while, or when draining began."""
        receive = self._room.queues.lease(name=self._queue, create=True, wait=True, seconds=self._lease_seconds)
        # A message that arrives while draining begins is not lost: leaving the room in order ends its lease.
        outcome = await first_of(receive, self._draining.wait())
        return outcome.result if isinstance(outcome, Won) else None

    async def _back_off(self, failures: int, error: RoomError) -> None:
        # The token does not change while we are here.
        if self._room.is_closed or isinstance(error, AccessDeniedError):
            raise error
        delay = self._backoff.delay(failures, random.random)
        logger.warning(
            "receiving from the queue failed", extra={"queue": self._queue, "reason": str(error), "retry_in": delay}
        )
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay):
                await self._draining.wait()

    async def _work(self, leased: LeasedMessage) -> None:
        self.idle.clear()
        waited, began = _waited(leased), time.monotonic()
        # Until the server has taken another.
        self._outcome = "lost"
        context = propagate.extract(dict(leased.headers))
        try:
            with tracer.start_as_current_span(
                f"process {self._queue}", context=context, kind=SpanKind.CONSUMER
            ) as span:
                span.set_attribute("messaging.destination.name", self._queue)
                span.set_attribute("messaging.message.attempt", leased.attempt)
                await self._process_and_settle(leased)
        finally:
            self.idle.set()
            report_message(self._outcome, waited=waited, worked=time.monotonic() - began)

    async def _process_and_settle(self, leased: LeasedMessage) -> None:
        try:
            if await self._process_renewing(leased) is _Outcome.LEASE_LOST:
                logger.warning("lease lost while processing", extra={"queue": self._queue, "attempt": leased.attempt})
                return
        except asyncio.CancelledError:
            # We are being stopped: give the message back at once instead of letting its lease expire.
            with contextlib.suppress(RoomError, TimeoutError):
                await uninterrupted(self._give_back(leased), timeout=SETTLE_TIMEOUT)
            raise
        except Exception as error:
            logger.exception("processing failed", extra={"queue": self._queue, "attempt": leased.attempt})
            reason = "".join(traceback.format_exception(error))[-MAX_REASON_CHARS:]
            await self._settle(self._nack(leased, reason))
        else:
            await self._settle(self._ack(leased))

    async def _process_renewing(self, leased: LeasedMessage) -> _Outcome:
        """Process; renew the lease meanwhile. Raises what processing raised."""
        outcome = await first_of(self._process(leased), self._renew(leased))
        return _Outcome.LEASE_LOST if isinstance(outcome, Stopped) else _Outcome.DONE

    async def _renew(self, leased: LeasedMessage) -> None:
        """Extend the lease at every third of its time; return when it is lost."""
        if leased.seconds is None:
            await asyncio.Event().wait()  # a server without leases: the message is ours alone
            return
        while True:
            await asyncio.sleep(leased.seconds / 3)
            try:
                await leased.extend()
            except LeaseLostError:
                return
            except RoomError as error:
                # The connection may come back within the grace that the server gives; the next turn tries again.
                logger.info("lease not renewed", extra={"queue": self._queue, "reason": str(error)})

    # Each notes the outcome where it came about: a cancellation may keep the caller from hearing of it.

    async def _ack(self, leased: LeasedMessage) -> None:
        await leased.ack()
        self._outcome = "done"

    async def _nack(self, leased: LeasedMessage, error: str) -> None:
        is_dead = await leased.nack(reason="failed", error=error)
        self._outcome = "dead" if is_dead else "failed"

    async def _give_back(self, leased: LeasedMessage) -> None:
        await leased.nack(reason="interrupted", delay=0.0)
        self._outcome = "released"

    async def _settle(self, settling: Awaitable[object]) -> None:
        """Ack or nack. What fails here comes back when the lease expires: at least once, not at most once."""
        try:
            await uninterrupted(settling, timeout=SETTLE_TIMEOUT)
        except (RoomError, TimeoutError) as error:
            logger.warning("message not settled", extra={"queue": self._queue, "reason": str(error)})


def _waited(leased: LeasedMessage) -> float | None:
    """How long the message had been in the queue when it was taken; None when that is not known or not for the first time."""
    if leased.sent_at is None or leased.delivery > 1:
        return None
    return time.time() - leased.sent_at

"""The loop of a queue worker: lease a message, renew the lease while the message is processed, settle it.

`agents/worker.py` runs one `QueueConsumer` per agent. The consumer receives through `QueuesClient.lease`, calls `process` and
settles: ack when it returned, nack when it raised. Delivery is at least once. A message that was not settled, for whatever
reason, comes back when its lease expires; a message is never acked before `process` returned.

Tasks: `run()` runs in the caller's task. While a message is processed there are two more, the processing and the renewal of the
lease, and neither outlives the message. Cancelling `run()` cancels the processing and returns the message at once. Settling
itself is not interrupted by a cancellation (`uninterrupted`), only by its own timeout. Whatever the processing raises fails
the message and nothing else (`guard.py`).
"""

import asyncio
import contextlib
import logging
import random
import time
import traceback
from collections.abc import Awaitable, Callable
from enum import Enum

from opentelemetry import propagate, trace
from opentelemetry.trace import SpanKind

from meshhost.errors import AccessDeniedError, LeaseLostError, RoomError
from meshhost.guard import guarded, guarding
from meshhost.logs import describe_error
from meshhost.room.client import RoomClient
from meshhost.room.reconnect import ReconnectPolicy
from meshhost.room.services.queues import LeasedMessage
from meshhost.tasks import LightEvent, Stopped, first_of, uninterrupted
from meshhost.usage import Outcome, report_message

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
    """Takes the messages of one queue, one at a time, and passes each to `process`.

    A message is acked after `process` returned and nacked with the traceback when it raised. When the consumer is cancelled,
    the message is returned as interrupted, which does not count as a failed attempt. When the lease is lost, another worker may
    have the message, so the processing is cancelled. `idle` is set while no message is processed.
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
        self._outcome: Outcome = "lost"
        self._failure = ""  # the last error that was logged
        # LightEvents, because a host has thousands of idle workers.
        self._draining = LightEvent()
        self.idle = LightEvent()
        self.idle.set()

    def drain(self) -> None:
        """Take no further message; `run()` returns when the one in progress is settled."""
        self._draining.set()

    async def run(self) -> None:
        """Consume until drained. Raises RoomError when the room was left for good or the token does not grant the queue."""
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
        """The next message; None when the server had none for a while, or when draining began."""
        received: LeasedMessage | None = None

        async def receive() -> None:
            nonlocal received
            received = await self._room.queues.lease(
                name=self._queue, create=True, wait=True, seconds=self._lease_seconds
            )

        try:
            await first_of(receive(), self._draining.wait())
        except asyncio.CancelledError:
            # Received in the same turn of the loop in which we are stopped: nobody else would return it.
            if received is not None:
                with contextlib.suppress(RoomError, TimeoutError):
                    await uninterrupted(received.nack(reason="released", delay=0.0), timeout=SETTLE_TIMEOUT)
            raise
        return received

    async def _back_off(self, failures: int, error: RoomError) -> None:
        # Without the grant another try is pointless: the token of an open connection does not change.
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
        waited, began = _queued_seconds(leased), time.monotonic()
        # What is reported unless the server confirms another outcome.
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
            with guarding():
                outcome = await self._process_renewing(leased)
            if outcome is _Outcome.LEASE_LOST:
                logger.warning("lease lost while processing", extra={"queue": self._queue, "attempt": leased.attempt})
                return
        except asyncio.CancelledError:
            # We are being stopped: return the message at once instead of letting its lease expire.
            with contextlib.suppress(RoomError, TimeoutError):
                await uninterrupted(self._give_back(leased), timeout=SETTLE_TIMEOUT)
            raise
        except Exception as error:  # noqa: BLE001 - logged there
            self._log_failure(leased, error)
            reason = "".join(traceback.format_exception(error))[-MAX_REASON_CHARS:]
            await self._settle(leased, lambda: self._nack(leased, reason))
        else:
            await self._settle(leased, lambda: self._ack(leased))

    def _log_failure(self, leased: LeasedMessage, error: Exception) -> None:
        line = describe_error(error)
        # A later attempt mostly fails as the one before, and a dead letter keeps its traceback.
        is_news = leased.attempt == 1 or line != self._failure
        self._failure = line
        fields = {"queue": self._queue, "attempt": leased.attempt, "error": line}
        logger.error("processing failed", exc_info=error if is_news else None, extra=fields)

    async def _process_renewing(self, leased: LeasedMessage) -> _Outcome:
        """Process the message while renewing its lease. Raises what `process` raised."""
        outcome = await first_of(guarded(self._process(leased)), self._renew(leased))
        return _Outcome.LEASE_LOST if isinstance(outcome, Stopped) else _Outcome.DONE

    async def _renew(self, leased: LeasedMessage) -> None:
        """Extend the lease after each third of its duration, so that one failed try is not fatal; return when it is lost."""
        if leased.seconds is None:
            await asyncio.Event().wait()  # a server without leases: the message cannot be lost to another
            return
        while True:
            await self._room.clock.sleep(leased.seconds / 3)
            try:
                await leased.extend()
            except LeaseLostError:
                return
            except RoomError as error:
                # The connection may come back before the lease expires; the next turn tries again.
                logger.info("lease not renewed", extra={"queue": self._queue, "reason": str(error)})

    # Each records the outcome itself: a cancellation may prevent the caller from seeing the result.

    async def _ack(self, leased: LeasedMessage) -> None:
        await leased.ack()
        self._outcome = "done"

    async def _nack(self, leased: LeasedMessage, error: str) -> None:
        is_dead = await leased.nack(reason="failed", error=error)
        self._outcome = "dead" if is_dead else "failed"
        if is_dead:
            logger.error("message dead-lettered", extra={"queue": self._queue, "attempt": leased.attempt})

    async def _give_back(self, leased: LeasedMessage) -> None:
        # Interrupted, also by a drain: the work may be half done, so the next delivery has to say that it is not the first.
        is_dead = await leased.nack(reason="interrupted", delay=0.0)
        self._outcome = "dead" if is_dead else "released"

    async def _settle(self, leased: LeasedMessage, settle: Callable[[], Awaitable[None]]) -> None:
        """Ack or nack, again while the lease runs. When all tries fail, the message comes back: at least once."""
        try:
            await uninterrupted(self._try_to_settle(leased, settle), timeout=leased.seconds or SETTLE_TIMEOUT)
        except (RoomError, TimeoutError) as error:
            reason = str(error) or "no answer while the lease ran"
            logger.warning("message not settled", extra={"queue": self._queue, "reason": reason})

    async def _try_to_settle(self, leased: LeasedMessage, settle: Callable[[], Awaitable[None]]) -> None:
        tries = 0
        while True:
            tries += 1
            try:
                async with asyncio.timeout(SETTLE_TIMEOUT):
                    await settle()
            except LeaseLostError:
                # The try before may have been accepted, and only its answer was lost.
                if tries == 1:
                    raise
                logger.info("message settled already, or lost", extra={"queue": self._queue, "tries": tries})
            except (RoomError, TimeoutError) as error:
                if self._room.is_closed or leased.seconds is None:
                    raise
                # A new connection is waited for inside the request; the lease is the holder's, not the connection's.
                logger.info("message not settled yet", extra={"queue": self._queue, "reason": str(error)})
                await self._room.clock.sleep(self._backoff.delay(tries, random.random))
                continue
            return


def _queued_seconds(leased: LeasedMessage) -> float | None:
    """Seconds from sending to the first delivery; None for a later delivery, or when the server does not say."""
    if leased.sent_at is None or leased.delivery > 1:
        return None
    return max(time.time() - leased.sent_at, 0.0)  # two clocks, and one may have been set

"""One message in a worker's hands: it is processed within its deadline, and settled by how that ended.

`QueueConsumer` makes a `Job` for each message that it leased and runs it as a task of its own. What the processing raises fails
the message and nothing else (`guard.py`). A job that is cancelled gives its message back at once; one that is `stop`ped,
because its lease was lost or its message cancelled, ends its processing and goes on to what is left to be done. Settling is not
interrupted by a cancellation, only by its own timeout (`uninterrupted`). What else a job raises is a bug of ours, and ends its
consumer.
"""

import asyncio
import contextlib
import logging
import math
import random
import time
import traceback
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any, Literal

from opentelemetry import propagate, trace
from opentelemetry.trace import SpanKind

from meshhost.errors import InvalidRequestError, LeaseLostError, LimitExceededError, RoomError, StorageFullError
from meshhost.guard import EscapedError, guarding
from meshhost.logs import describe_error
from meshhost.room.client import RoomClient
from meshhost.room.consuming.job_log import logged
from meshhost.room.consuming.kept_values import MAX_VALUE_CHARS, plain_json, sized_json
from meshhost.room.consuming.settling import Acks
from meshhost.room.reconnect import ReconnectPolicy
from meshhost.room.services.queues import LeasedMessage
from meshhost.tasks import uninterrupted
from meshhost.traces.context import context_of
from meshhost.traces.recording import Delivered, Work, working
from meshhost.usage import Outcome, report_message

__all__ = ["MAX_REASON_CHARS", "RESULT_ERROR", "DeadlineError", "Failures", "Job", "Process", "current_job"]

logger = logging.getLogger(__name__)
tracer = trace.get_tracer("meshhost.room.consumer")

MAX_REASON_CHARS = 16 * 1024
# The one member of what is kept instead of a result that cannot be kept; its value says why.
RESULT_ERROR = "meshhost_error"
SETTLE_TIMEOUT = 10.0
# How often at most the progress of a message is sent, in seconds.
_PROGRESS_SECONDS = 0.5

Process = Callable[[LeasedMessage], Awaitable[Any]]
StopReason = Literal["lease lost", "cancelled"]

_current: ContextVar["Job | None"] = ContextVar("meshhost_job", default=None)


def current_job() -> "Job | None":
    """The job whose message is being processed by the code that asks, in this task, those it started, or its threads."""
    return _current.get()


class DeadlineError(TimeoutError):
    """A message was processed for longer than its worker or its queue allows; the attempt has failed."""


class Failures:
    """Decides which failures of a consumer are logged with their traceback: those that are new."""

    def __init__(self) -> None:
        self._last = ""

    def is_news(self, line: str, attempt: int) -> bool:
        """Whether this differs from the last one. A later attempt mostly fails as before, and a dead letter keeps its
        traceback."""
        is_news = attempt == 1 or line != self._last
        self._last = line
        return is_news


class Job:
    """A leased message and its processing.

    `on_processed` is called once, when the processing is over and settling begins. `is_ending` says whether a cancellation is
    that of the consumer, rather than one by the processing of its own task.
    """

    def __init__(
        self,
        leased: LeasedMessage,
        *,
        room: RoomClient,
        process: Process,
        deadline: float | None,
        backoff: ReconnectPolicy,
        failures: Failures,
        is_ending: Callable[[], bool],
        on_processed: Callable[["Job"], object],
        acks: Acks | None = None,
    ) -> None:
        self.leased = leased
        self.began = time.monotonic()
        self._room = room
        self._process = process
        self._deadline = deadline
        self._backoff = backoff
        self._failures = failures
        self._is_ending = is_ending
        self._on_processed = on_processed
        self._acks = acks
        # What is reported unless the server confirms another outcome.
        self._outcome: Outcome = "lost"
        self._is_large = False  # the result
        self._error = ""  # of the processing, in a line
        self._stopped: StopReason | None = None
        self._task: asyncio.Task[Any] | None = None
        # Progress that the server has not got yet; None: there is none.
        self._unsent: Any = None
        self._reported_at = 0.0

    @property
    def _fields(self) -> dict[str, Any]:
        return {"queue": self.leased.queue, "message_id": self.leased.id, "attempt": self.leased.attempt}

    def stop(self, reason: StopReason) -> None:
        """End the processing, for one of these reasons; the rest of the job goes on. Does nothing when it is over."""
        if self._task is not None and self._stopped is None:
            self._stopped = reason
            self._task.cancel()

    async def renew(self) -> None:
        """Extend the lease, and send progress that was not sent yet. Ends the processing when the message is not ours any
        more."""
        sent = self._unsent
        try:
            await (self.leased.extend() if sent is None else self.leased.extend(progress=sent))
        except LeaseLostError:
            self.stop("lease lost")
        except RoomError as error:
            # The connection may come back before the lease expires; the next turn tries again.
            logger.info("lease not renewed", extra=self._fields | {"reason": str(error)})
        else:
            if self._unsent is sent:  # and nothing newer came meanwhile
                self._unsent = None
            if self.leased.is_cancelled:
                self.stop("cancelled")

    async def report_progress(self, progress: Any) -> None:
        """Report how far the processing is. Of many reports within a moment only the last one may be sent.

        A server that keeps no progress gets none. Raises InvalidRequestError for what is no JSON value of at most 64 KiB: sent
        with a renewal, it would be refused together with that, and cost the lease.
        """
        try:
            plain = plain_json(progress)
        except ValueError as error:
            raise InvalidRequestError("progress", str(error)) from None
        if not self.leased.keeps_results:
            return
        self._unsent = plain
        if time.monotonic() - self._reported_at >= _PROGRESS_SECONDS:
            self._reported_at = time.monotonic()
            await self.renew()

    async def run(self) -> None:
        """Process the message and settle it. Cancelled, it gives the message back, unless it is being settled already."""
        with logged(self.leased, self._room):
            work = self._work()
            try:
                if self.leased.headers or not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
                    await self._run_traced(work)
                elif work is None:
                    await self._process_and_settle()
                else:  # nothing to continue, and nobody listens: most messages, and a span costs a tenth of the worker's CPU
                    with working(work):
                        await self._process_and_settle()
            finally:
                self._end_processing()
                seconds = time.monotonic() - self.began
                if work is not None:
                    self._end_work(work, seconds)
                report_message(self._outcome, waited=_queued_seconds(self.leased), worked=seconds)

    async def _run_traced(self, work: Work | None) -> None:
        leased = self.leased
        context = propagate.extract(dict(leased.headers))
        with tracer.start_as_current_span(f"process {leased.queue}", context=context, kind=SpanKind.CONSUMER) as span:
            span.set_attribute("messaging.destination.name", leased.queue)
            span.set_attribute("messaging.message.attempt", leased.attempt)
            with contextlib.nullcontext() if work is None else working(work, span):
                await self._process_and_settle()

    def _work(self) -> Work | None:
        """The place for the spans of this message; None when the room server keeps none, or they would belong to nothing."""
        leased, sink = self.leased, getattr(self._room, "traces", None)  # a stand-in of a program's tests has none
        if leased.id is None or sink is None or not sink.is_offered:
            return None
        context = context_of(leased.headers) if leased.headers else None
        return Work(
            sink,
            is_recorded=context is not None and context.is_recorded,
            trace="" if context is None else context.trace,
            of=Delivered(self._room.room_name, leased.queue, leased.id, leased.delivery),
        )

    def _end_work(self, work: Work, seconds: float) -> None:
        """Report the span of the message, if it is recorded or has failed."""
        leased = self.leased
        if not work.is_recorded and not self._error:
            work.drop()
            return
        attributes = {
            "messaging.destination.name": leased.queue,
            "messaging.message.id": leased.id,
            "messaging.message.attempt": leased.attempt,
            "meshhost.outcome": self._outcome,
        }
        work.finish(f"process {leased.queue}", attributes, seconds=seconds, error=self._error)

    async def _process_and_settle(self) -> None:
        try:
            result = await self._processed()
        except asyncio.CancelledError:
            # We are being stopped: return the message at once instead of letting its lease expire.
            self._end_processing()
            with contextlib.suppress(RoomError, TimeoutError):
                await uninterrupted(self._give_back(), timeout=SETTLE_TIMEOUT)
            raise
        except Exception as error:  # noqa: BLE001 - logged there
            self._end_processing()
            self._log_failure(error)
            reason = "".join(traceback.format_exception(error))[-MAX_REASON_CHARS:]
            await self._settle(lambda: self._nack(reason))
        else:
            self._end_processing()
            if self._stopped == "cancelled":
                logger.info("message was cancelled", extra=self._fields)
                await self._settle(self._give_back)
            elif self._stopped == "lease lost":
                logger.warning("lease lost while processing", extra=self._fields)
            else:
                kept = self._kept(result)
                acks = None if self._is_large else self._acks
                if acks is None or not await self._is_acked(acks, kept):
                    await self._settle(lambda: self._ack(kept), tries=int(acks is not None))

    def _kept(self, result: Any) -> Any:
        """Return what the server is to keep of a result: its plain JSON, or why it cannot be kept. None when there is none."""
        if result is None or not self.leased.keeps_results:
            return None
        try:
            most = math.inf if self.leased.keeps_large_results else MAX_VALUE_CHARS
            kept, size = sized_json(result, most=most)
        except ValueError as error:
            return self._not_kept(error)
        self._is_large = size > MAX_VALUE_CHARS
        return kept

    def _not_kept(self, error: Exception) -> Any:
        """Return what is kept instead of a result.

        The work is done, so the message is; who waits for the result has to learn that there was one.
        """
        logger.warning("a result cannot be kept", extra=self._fields | {"reason": str(error)})
        return {RESULT_ERROR: f"the result cannot be kept: {error}"}

    async def _processed(self) -> Any:
        """Return what the processing returned, or nothing when it was stopped. Raises what it raised."""
        self._task = task = asyncio.current_task()
        token = _current.set(self)
        timeout = None if self._deadline is None else asyncio.timeout(self._deadline)
        try:
            with guarding():
                if timeout is None:
                    return await self._load_and_process()
                async with timeout:
                    return await self._load_and_process()
        except TimeoutError as error:
            if timeout is None or not timeout.expired():
                raise
            raise DeadlineError(f"the message took longer than its deadline of {self._deadline:g} s") from error
        except asyncio.CancelledError as error:
            if task is None or self._is_ending():
                raise
            while task.uncancel():
                pass
            if self._stopped is None:
                raise EscapedError(error) from error
            return None
        finally:
            self._task = None
            _current.reset(token)

    async def _load_and_process(self) -> Any:
        if self.leased.body is not None:
            await self.leased.load()
        return await self._process(self.leased)

    def _end_processing(self) -> None:
        report, self._on_processed = self._on_processed, _nothing
        report(self)

    def _log_failure(self, error: Exception) -> None:
        line = self._error = describe_error(error)
        is_news = self._failures.is_news(line, self.leased.attempt)
        logger.error("processing failed", exc_info=error if is_news else None, extra=self._fields | {"error": line})

    # Each records the outcome itself: a cancellation may prevent the caller from seeing the result.

    async def _ack(self, result: Any) -> None:
        if self._is_large:
            await self._ack_large(result)
        elif self._acks is not None:
            await self._acks.ack(self.leased, result)
        else:
            await self.leased.ack(result=result)
        self._outcome = "done"

    async def _is_acked(self, acks: Acks, result: Any) -> bool:
        """Ack with others; False when that failed and has to be tried again. Unlike the further tries it needs no task."""
        acked = acks.begin(self.leased, result)
        try:
            await acked
        except LeaseLostError as error:
            self._log_unsettled(error)
            return True
        except (RoomError, TimeoutError) as error:
            if self._room.is_closed:
                self._log_unsettled(error)
            return self._room.is_closed
        except asyncio.CancelledError:
            if acked.done() and not isinstance(acked.exception(), LeaseLostError | None):
                await self._settle(lambda: self._ack(result), tries=1)
            raise
        finally:
            # Also when we were cancelled meanwhile.
            if acked.done() and acked.exception() is None:
                self._outcome = "done"
        return True

    async def _ack_large(self, result: Any) -> None:
        try:
            await self.leased.ack(result=result)
        except (InvalidRequestError, LimitExceededError, StorageFullError) as error:
            # Another try would be refused too, and the message would be processed again.
            await self.leased.ack(result=self._not_kept(error))

    async def _nack(self, error: str) -> None:
        is_dead = await self.leased.nack(reason="failed", error=error)
        self._outcome = "dead" if is_dead else "failed"
        if is_dead:
            logger.error("message dead-lettered", extra=self._fields)

    async def _give_back(self) -> None:
        # Interrupted, also by a drain: the work may be half done, so the next delivery has to say that it is not the first.
        is_dead = await self.leased.nack(reason="interrupted", delay=0.0)
        self._outcome = "dead" if is_dead else "cancelled" if self._stopped == "cancelled" else "released"

    async def _settle(self, settle: Callable[[], Awaitable[None]], *, tries: int = 0) -> None:
        """Ack or nack, again while the lease runs. When all tries fail, the message comes back: at least once.

        `tries` is how often that was tried before.
        """
        try:
            await uninterrupted(self._try_to_settle(settle, tries), timeout=self.leased.seconds or SETTLE_TIMEOUT)
        except (RoomError, TimeoutError) as error:
            self._log_unsettled(error)

    def _log_unsettled(self, error: Exception) -> None:
        reason = str(error) or "no answer while the lease ran"
        logger.warning("message not settled", extra=self._fields | {"reason": reason})

    async def _try_to_settle(self, settle: Callable[[], Awaitable[None]], tries: int) -> None:
        while True:
            tries += 1
            try:
                async with asyncio.timeout(SETTLE_TIMEOUT):
                    await settle()
            except LeaseLostError:
                # The try before may have been accepted, and only its answer was lost.
                if tries == 1:
                    raise
                logger.info("message settled already, or lost", extra=self._fields | {"tries": tries})
            except (RoomError, TimeoutError) as error:
                if self._room.is_closed or self.leased.seconds is None:
                    raise
                # A new connection is waited for inside the request; the lease is the holder's, not the connection's.
                logger.info("message not settled yet", extra=self._fields | {"reason": str(error)})
                await self._room.clock.sleep(self._backoff.delay(tries, random.random))
                continue
            return


def _nothing(_: Job) -> None:
    """The end of the processing was reported already."""


def _queued_seconds(leased: LeasedMessage) -> float | None:
    """Seconds from sending to the first delivery; None for a later delivery, or when the server does not say."""
    if leased.sent_at is None or leased.delivery > 1:
        return None
    return max(time.time() - leased.sent_at, 0.0)  # two clocks, and one may have been set

"""The server's own spans of a message: how it was sent, how long it waited, and each time it was in somebody's hands.

Which messages are recorded is decided when they are sent, by the rate of their tenant (`sampler.py`), and travels with them
(`meshhost.traces.context`). A message that belongs to a recorded trace already counts in the same rate; over it, the mark is
taken away, so that nobody can have more recorded by sending marks.

A message that is not recorded costs a look at its headers. When it fails, it gets a trace after all, also at a rate: what
happened is read from its record in the store, away from the request, under the same ids under which its worker reports what it
did. An attempt that ends because a lease expires is not reported to anybody, and makes no trace.
"""

import logging
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from meshhost.clock import Clock, SystemClock
from meshhost.errors import MeshhostError
from meshhost.identity.tenant import RoomKey
from meshhost.queues.activity.observer import Outcome
from meshhost.queues.service import QueueService
from meshhost.server.traces.recorder import TraceRecorder
from meshhost.server.traces.sampler import Sampler
from meshhost.stores.messages import MessageRecord, NewMessage
from meshhost.stores.queues import Delivery, EndReason, Lease, QueueKey
from meshhost.tasks import TaskOwner
from meshhost.traces.context import (
    TRACESTATE,
    context_of,
    delivery_span,
    is_marked,
    marked,
    new_span_id,
    new_trace_id,
    send_span,
    trace_of_message,
    unmarked,
)
from meshhost.traces.span import MAX_NAME, MAX_TEXT, Span, bounded

__all__ = ["MessageTraces", "trace_messages"]

logger = logging.getLogger(__name__)

# Deliveries that are not settled yet, of which the last begun are remembered.
_MOST_OPEN = 10_000
# Records of failed messages that are read at one time.
_MOST_READ = 8
_FAILED = frozenset({Outcome.FAILED, Outcome.DEAD})


class _Sending(list[NewMessage]):
    """Messages of which some are recorded: by their place, the trace, the span of sending and the one above it."""

    def __init__(self, messages: Sequence[NewMessage]) -> None:
        super().__init__(messages)
        self.recorded: dict[int, tuple[str, str, str]] = {}


@dataclass(frozen=True, slots=True)
class _Open:
    """A recorded message in somebody's hands, without its body: thousands may be open, and bodies are large."""

    lease: Lease
    attempt: int
    delivery: int
    trace: str
    parent: str
    by: str
    began: float


class MessageTraces:
    """Follows messages; a `MessageTracer`. `sampler` and `failed` are the rates of recorded and of failed ones."""

    def __init__(
        self,
        recorder: TraceRecorder,
        queues: QueueService,
        *,
        sampler: Sampler,
        failed: Sampler,
        clock: Clock | None = None,
    ) -> None:
        self.recorder = recorder
        self._queues = queues
        self._sampler = sampler
        self._failed = failed
        self._clock = clock or SystemClock()
        self._open: OrderedDict[int, _Open] = OrderedDict()
        self._reading = 0
        self._tasks = TaskOwner("failed messages")

    async def stop(self, *, timeout: float) -> None:
        """End reading records of failed messages, and write what came last."""
        await self._tasks.stop(timeout=timeout)
        await self.recorder.write()

    def sending(self, queue: QueueKey, messages: Sequence[NewMessage]) -> Sequence[NewMessage]:
        """See MessageTracer."""
        allowed = self._sampler.take(queue.room.tenant, len(messages))
        if not allowed and not any(message.headers for message in messages):
            return messages
        found = _Sending(messages)
        for number, message in enumerate(messages):
            if number < allowed:
                self._record(found, number, message)
            elif message.headers and is_marked(message.headers.get(TRACESTATE, "")):
                found[number] = replace(message, headers=unmarked(message.headers))
        return found

    @staticmethod
    def _record(found: _Sending, number: int, message: NewMessage) -> None:
        above = context_of(message.headers) if message.headers else None
        trace, span = (new_trace_id() if above is None else above.trace), new_span_id()
        found[number] = replace(message, headers=marked(message.headers, trace=trace, span=span))
        found.recorded[number] = trace, span, "" if above is None else above.span

    def sent(self, queue: QueueKey, messages: Sequence[NewMessage], ids: Sequence[int], *, began: float) -> None:
        """See MessageTracer."""
        if not isinstance(messages, _Sending) or not messages.recorded:
            return
        seconds = max(self._clock.time() - began, 0.0)
        for number, (trace, span, above) in messages.recorded.items():
            attributes = _attributes(queue, ids[number], {"messaging.batch.message_count": len(messages)})
            self._add(queue.room, Span(trace, span, above, _name("send", queue), began, seconds, attributes=attributes))

    def handed_over(self, deliveries: Sequence[Delivery], by: str) -> None:
        """See MessageTracer."""
        for delivery in deliveries:
            if not delivery.headers or not is_marked(delivery.headers.get(TRACESTATE, "")):
                continue
            if (context := context_of(delivery.headers)) is not None:
                ids = context.trace, context.span
                opened = _Open(
                    delivery.lease, delivery.attempt, delivery.delivery, *ids, by=by, began=self._clock.time()
                )
                self._begin(opened, delivery.waited)

    def _begin(self, opened: _Open, waited: float | None) -> None:
        lease, now = opened.lease, opened.began
        former = self._open.pop(lease.message_id, None)
        if former is not None:
            self._end(former, "unsettled", "the lease expired or its holder left")
        self._open[lease.message_id] = opened
        if len(self._open) > _MOST_OPEN:
            self._open.popitem(last=False)
        if waited is not None:
            seconds = max(waited, 0.0)
            attributes = _attributes(lease.queue, lease.message_id, {"messaging.message.attempt": opened.attempt})
            ids = opened.trace, new_span_id(), opened.parent
            self._add(
                lease.queue.room, Span(*ids, _name("wait", lease.queue), now - seconds, seconds, attributes=attributes)
            )

    def settled(self, lease: Lease, outcome: Outcome, error: str = "") -> None:
        """See MessageTracer."""
        opened = self._open.pop(lease.message_id, None) if self._open else None
        if opened is not None and opened.lease.queue == lease.queue:
            self._end(opened, outcome.value, _last_line(error) if outcome in _FAILED else "")
        elif outcome in _FAILED:
            self._note_failure(lease)

    def _end(self, opened: _Open, outcome: str, error: str) -> None:
        queue, message_id = opened.lease.queue, opened.lease.message_id
        attributes = _attributes(
            queue,
            message_id,
            {"messaging.message.attempt": opened.attempt, "meshhost.outcome": outcome, "meshhost.worker": opened.by},
        )
        span = Span(
            opened.trace,
            delivery_span(opened.trace, queue.name, str(message_id), opened.delivery),
            opened.parent,
            _name("lease", queue),
            opened.began,
            max(self._clock.time() - opened.began, 0.0),
            error,
            attributes=attributes,
        )
        self._add(queue.room, span)

    def _note_failure(self, lease: Lease) -> None:
        """Make a trace of the attempt, unless there are many already."""
        if self.recorder.is_recording and self._reading < _MOST_READ and self._failed.take(lease.queue.room.tenant):
            self._reading += 1
            self._tasks.spawn(self._read(lease), name="failed message")

    async def _read(self, lease: Lease) -> None:
        try:
            record = await self._queues.get(lease.queue, lease.message_id)
        except (OSError, MeshhostError) as error:
            logger.debug("a failed message could not be read", extra={"reason": str(error)})
            return
        finally:
            self._reading -= 1
        if record is not None:
            for span in _spans_of(lease.queue, record):
                self._add(lease.queue.room, span)

    def _add(self, room: RoomKey, span: Span) -> None:
        self.recorder.add(room, [span])


def trace_messages(
    recorder: TraceRecorder, queues: QueueService, per_second: float, failed_per_second: float
) -> MessageTraces:
    """Follow the messages of these queues if spans are kept: so many of a tenant per second, and of those that fail."""
    traces = MessageTraces(recorder, queues, sampler=Sampler(per_second), failed=Sampler(failed_per_second))
    if recorder.is_recording:
        queues.tracer = traces
    return traces


def _spans_of(queue: QueueKey, record: MessageRecord) -> Sequence[Span]:
    """The spans of a message that failed, as its record tells them: how it was sent, and its last failed attempt."""
    failed = [(number, each) for number, each in enumerate(record.history) if each.reason is EndReason.FAILED]
    if not failed:
        return ()
    number, attempt = failed[-1]
    message_id = str(record.id)
    context = context_of(record.headers)
    trace = trace_of_message(queue.room.name, queue.name, message_id) if context is None else context.trace
    above = send_span(trace, queue.name, message_id) if context is None else context.span
    # The history may have lost its beginning.
    delivery = record.deliveries - (len(record.history) - 1 - number)
    begin, seconds = attempt.began_at, max(attempt.ended_at - attempt.began_at, 0.0)
    told = {
        "messaging.message.attempt": record.failures,
        "meshhost.outcome": "dead" if record.state.value == "dead" else "failed",
        "meshhost.worker": attempt.by,
    }
    spans = [
        Span(
            trace,
            delivery_span(trace, queue.name, message_id, delivery),
            above,
            _name("lease", queue),
            begin,
            seconds,
            _last_line(attempt.error),
            attributes=_attributes(queue, record.id, told),
        )
    ]
    if context is None:
        attributes = _attributes(queue, record.id, {})
        spans.insert(0, Span(trace, above, "", _name("send", queue), record.sent_at, 0.0, attributes=attributes))
    return spans


def _name(what: str, queue: QueueKey) -> str:
    return f"{what} {queue.name}"[:MAX_NAME]


def _attributes(queue: QueueKey, message_id: int, others: dict[str, Any]) -> dict[str, Any]:
    return bounded({"messaging.destination.name": queue.name, "messaging.message.id": str(message_id), **others})


def _last_line(error: str) -> str:
    """What a traceback ends with."""
    lines = error.strip().splitlines()
    return (lines[-1].strip() if lines else "failed")[:MAX_TEXT] or "failed"

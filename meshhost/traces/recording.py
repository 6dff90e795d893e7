"""Notes the spans of an agent's work, for the room server, beside OpenTelemetry.

Code of ours that does something worth a bar is wrapped in `recorded(tracer, name)`. That always makes a span of OpenTelemetry,
which costs little while nothing is configured and goes to a collector when something is. It also makes a `Span` when there is
somebody who takes it: a `Work`, which a consumer of a queue begins for each message (`working`), or, where no work was begun, a
`sink` that is given, such as for the turn of a chat.

The `Work` of a message that the server records passes each span on as soon as it ends. That of any other message keeps them, at
most MOST_KEPT, and they are passed on when the message fails and dropped when it does not: so a failure has its trace although
nothing was decided before, and a message that goes well costs one small object.

The present work is a context variable: tasks and threads that the work starts belong to it. A span that ends after its work is
passed on only when the work is recorded.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple, Protocol

from opentelemetry import context as otel_context
from opentelemetry import propagate
from opentelemetry import trace as otel
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, StatusCode, TraceFlags, Tracer, TraceState

from meshhost.traces.context import delivery_span, marked, new_span_id, new_trace_id, trace_of_message
from meshhost.traces.span import MAX_NAME, MAX_TEXT, Span, bounded

__all__ = ["MOST_KEPT", "Delivered", "Noted", "SpanSink", "Work", "carried_headers", "recorded", "working"]

MOST_KEPT = 200
_RECORDED = TraceState([("meshhost", "r")])


class SpanSink(Protocol):
    """Takes spans, in any thread, at once; it never raises and may drop them."""

    def add(self, span: Span) -> None:
        """Take a span."""
        ...

    def may_begin(self) -> bool:
        """Whether a trace may be begun now that no message did."""
        ...


class Delivered(NamedTuple):
    """A message in the hands of a worker, of which the place in its trace can be computed."""

    room: str
    queue: str
    id: str
    delivery: int


class Work:
    """What is done for one message, or one turn of a chat: a part of a trace, with a place for its spans.

    `of` is the message. `trace` is the id of its trace, empty where the message carries none. Ids are made when they are
    needed: most work needs none.
    """

    __slots__ = ("_is_over", "_kept", "_of", "_own", "_trace", "began", "is_recorded", "sink")

    def __init__(self, sink: SpanSink, *, is_recorded: bool, trace: str = "", of: Delivered | None = None) -> None:
        self.sink = sink
        self.is_recorded = is_recorded
        self.began = time.time()
        self._trace = trace
        self._of = of
        self._own = ""
        self._kept: list[Span] | None = None
        self._is_over = False

    @property
    def trace(self) -> str:
        """The id of the trace."""
        if not self._trace:
            self._trace = new_trace_id() if self._of is None else trace_of_message(*self._of[:3])
        return self._trace

    @property
    def parent(self) -> str:
        """The id of the span above that of the work; empty: none."""
        return "" if self._of is None else delivery_span(self.trace, *self._of[1:])

    @property
    def own(self) -> str:
        """The id of the work's own span, which `finish` makes."""
        if not self._own:
            self._own = new_span_id()
        return self._own

    @own.setter
    def own(self, id: str) -> None:
        self._own = id

    def add(self, span: Span) -> None:
        """Take a span of this work."""
        if self.is_recorded:
            self.sink.add(span)
        elif not self._is_over:
            self._kept = self._kept or []
            if len(self._kept) < MOST_KEPT:
                self._kept.append(span)

    def finish(self, name: str, attributes: Mapping[str, Any], *, seconds: float, error: str = "") -> None:
        """Make the span of the work, and pass on what was kept."""
        kept = self._kept or ()
        self.drop()
        for span in kept:
            self.sink.add(span)
        self.sink.add(_span(self.trace, self.own, self.parent, name, self.began, seconds, error, attributes))

    def drop(self) -> None:
        """The work went well, and nobody wants to see its spans."""
        self._is_over = True
        self._kept = None


class _Place(NamedTuple):
    """Where the code is that runs now: in this work, below this span (empty: that of the work itself)."""

    work: Work
    span: str


_place: ContextVar[_Place | None] = ContextVar("meshhost_trace", default=None)


@contextmanager
def working(work: Work, otel_span: otel.Span | None = None) -> Iterator[None]:
    """What is recorded inside the block belongs to this work, and what is sent from there carries its trace if it is recorded.

    `otel_span` is the span that OpenTelemetry has for the work.
    """
    if otel_span is not None and otel_span.is_recording():
        work.own = f"{otel_span.get_span_context().span_id:016x}"
    token, carried = _place.set(_Place(work, "")), None
    if work.is_recorded and not (otel_span is not None and otel_span.is_recording()):
        carried = otel_context.attach(otel.set_span_in_context(_carrier(work.trace, work.own)))
    try:
        yield
    finally:
        if carried is not None:
            otel_context.detach(carried)
        _place.reset(token)


def carried_headers() -> dict[str, str]:
    """The headers by which a request to the room server joins the present trace; none when that is not recorded."""
    place, carrier = _place.get(), dict[str, str]()
    if place is None or not place.work.is_recorded:
        return carrier
    propagate.inject(carrier)
    # A trace that began here, such as a turn of a chat, has no mark yet where OpenTelemetry made its ids.
    return marked(carrier, trace=place.work.trace, span=place.span or place.work.own)


class Noted:
    """A span that is under way, for OpenTelemetry and for us."""

    __slots__ = ("_attributes", "_otel", "error")

    def __init__(self, otel_span: otel.Span, attributes: Mapping[str, Any] | None) -> None:
        self._otel = otel_span
        self._attributes: dict[str, Any] = dict(attributes or {})
        self.error = ""

    @property
    def attributes(self) -> Mapping[str, Any]:
        """What was set so far."""
        return self._attributes

    def set_attribute(self, key: str, value: str | int | float | bool) -> None:
        """Say something about it."""
        self._otel.set_attribute(key, value)
        self._attributes[key] = value

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        """Say several things about it."""
        self._otel.set_attributes(attributes)
        self._attributes.update(attributes)

    def fail(self, kind: str) -> None:
        """It failed, although nothing is raised."""
        self._otel.set_status(StatusCode.ERROR, kind)
        self.error = kind


@contextmanager
def recorded(
    tracer: Tracer,
    name: str,
    *,
    attributes: Mapping[str, Any] | None = None,
    sink: SpanSink | None = None,
    kind: SpanKind = SpanKind.INTERNAL,
    sets_status: bool = True,
) -> Iterator[Noted]:
    """Note the block as a span. `sink` takes the spans of a trace that begins here, unless there is work already.

    With `sets_status`, what the block raises makes it a failed one; for OpenTelemetry without the exception itself.
    """
    with tracer.start_as_current_span(
        name, kind=kind, attributes=attributes, record_exception=False, set_status_on_exception=sets_status
    ) as otel_span:
        noted = Noted(otel_span, attributes)
        place, parent = _place.get(), ""
        if place is not None:
            parent = place.span or place.work.own
        elif sink is not None and sink.may_begin():
            place = _Place(Work(sink, is_recorded=True, trace=_trace_of(otel_span)), "")
        else:
            yield noted
            return
        with _below(place, otel_span) as own:
            begin, started = time.time(), time.perf_counter()
            try:
                yield noted
            except BaseException as error:
                if sets_status:
                    noted.error = noted.error or type(error).__name__
                raise
            finally:
                seconds = time.perf_counter() - started
                place.work.add(
                    _span(place.work.trace, own, parent, name, begin, seconds, noted.error, noted.attributes)
                )


@contextmanager
def _below(place: _Place, otel_span: otel.Span) -> Iterator[str]:
    """Be below a new span, whose id is given, for the length of the block; what is sent from there carries it on."""
    context = otel_span.get_span_context()
    own = f"{context.span_id:016x}" if otel_span.is_recording() else new_span_id()
    token = _place.set(_Place(place.work, own))
    carried = None
    if place.work.is_recorded and not otel_span.is_recording():
        carried = otel_context.attach(otel.set_span_in_context(_carrier(place.work.trace, own)))
    try:
        yield own
    finally:
        if carried is not None:
            otel_context.detach(carried)
        _place.reset(token)


def _carrier(trace: str, span: str) -> otel.Span:
    """A span of OpenTelemetry that is nothing but its ids, for what propagates them."""
    return NonRecordingSpan(SpanContext(int(trace, 16), int(span, 16), False, TraceFlags(1), _RECORDED))


def _trace_of(otel_span: otel.Span) -> str:
    return f"{otel_span.get_span_context().trace_id:032x}" if otel_span.is_recording() else new_trace_id()


def _span(
    trace: str, id: str, parent: str, name: str, begin: float, seconds: float, error: str, attributes: Mapping[str, Any]
) -> Span:
    return Span(
        trace, id, parent, name[:MAX_NAME], begin, max(seconds, 0.0), error[:MAX_TEXT], attributes=bounded(attributes)
    )

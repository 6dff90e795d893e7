"""Code that is wrapped makes spans for OpenTelemetry and, within work, for the room server."""

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from meshhost.traces.context import context_of, delivery_span, trace_of_message
from meshhost.traces.recording import MOST_KEPT, Delivered, Work, carried_headers, recorded, working
from meshhost.traces.span import Span

TRACE = "a" * 32
NOBODY = trace.get_tracer("nobody listens")
MESSAGE = Delivered("room", "jobs", "7", 1)


class Sink:
    """Takes all."""

    def __init__(self, *, may_begin: bool = True) -> None:
        self.spans: list[Span] = []
        self._may_begin = may_begin

    def add(self, span: Span) -> None:
        self.spans.append(span)

    def may_begin(self) -> bool:
        return self._may_begin

    @property
    def by_name(self) -> dict[str, Span]:
        return {span.name: span for span in self.spans}


@pytest.fixture
def sink() -> Sink:
    return Sink()


def test_recorded_work_passes_each_span_on_as_it_ends(sink: Sink) -> None:
    work = Work(sink, is_recorded=True, trace=TRACE, of=MESSAGE)
    with working(work), recorded(NOBODY, "turn", attributes={"model": "m"}) as turn:
        turn.set_attribute("tokens", 5)
        with recorded(NOBODY, "call"):
            pass
        assert [span.name for span in sink.spans] == ["call"]
    work.finish("process jobs", {"outcome": "done"}, seconds=1.5)
    turn_span, call, process = (sink.by_name[name] for name in ("turn", "call", "process jobs"))
    assert {span.trace for span in sink.spans} == {TRACE}
    assert (call.parent, turn_span.parent) == (turn_span.id, process.id)
    assert process.parent == delivery_span(TRACE, "jobs", "7", 1)
    assert (process.seconds, dict(process.attributes)) == (1.5, {"outcome": "done"})
    assert dict(turn_span.attributes) == {"model": "m", "tokens": 5}


def test_work_that_is_not_recorded_keeps_its_spans_for_a_failure(sink: Sink) -> None:
    work = Work(sink, is_recorded=False, of=MESSAGE)
    with working(work), recorded(NOBODY, "turn"):
        pass
    assert sink.spans == []
    work.finish("process jobs", {}, seconds=1.0, error="ValueError: no")
    assert [span.name for span in sink.spans] == ["turn", "process jobs"]
    assert {span.trace for span in sink.spans} == {trace_of_message("room", "jobs", "7")}
    assert sink.spans[0].parent == sink.spans[1].id


def test_work_that_went_well_leaves_nothing(sink: Sink) -> None:
    work = Work(sink, is_recorded=False, of=MESSAGE)
    with working(work):
        for _ in range(MOST_KEPT + 5):
            with recorded(NOBODY, "turn"):
                pass
        work.drop()
        with recorded(NOBODY, "late"):
            pass
    assert sink.spans == []


def test_what_is_kept_for_a_failure_is_bounded(sink: Sink) -> None:
    work = Work(sink, is_recorded=False)
    with working(work):
        for _ in range(MOST_KEPT + 5):
            with recorded(NOBODY, "turn"):
                pass
    work.finish("process jobs", {}, seconds=1.0, error="no")
    assert len(sink.spans) == MOST_KEPT + 1
    assert sink.spans[-1].parent == ""


def test_a_span_that_raises_names_the_kind_of_the_error_only(sink: Sink) -> None:
    with working(Work(sink, is_recorded=True)):
        with pytest.raises(ValueError, match="secret"), recorded(NOBODY, "turn"):
            raise ValueError("secret")
        with pytest.raises(ValueError, match="secret"), recorded(NOBODY, "call", sets_status=False):
            raise ValueError("secret")
        with recorded(NOBODY, "told") as told:
            told.fail("ToolError")
    assert {span.name: span.error for span in sink.spans} == {"turn": "ValueError", "call": "", "told": "ToolError"}


def test_a_trace_may_begin_where_there_is_no_work(sink: Sink) -> None:
    with recorded(NOBODY, "llm.next", sink=sink), recorded(NOBODY, "llm.turn"):
        pass
    turn, following = sink.by_name["llm.turn"], sink.by_name["llm.next"]
    assert (turn.trace, turn.parent, following.parent) == (following.trace, following.id, "")


def test_no_trace_begins_that_the_sink_refuses_or_nobody_takes() -> None:
    refusing = Sink(may_begin=False)
    with recorded(NOBODY, "llm.next", sink=refusing), recorded(NOBODY, "llm.turn"):
        assert carried_headers() == {}
    assert refusing.spans == []


def test_requests_carry_a_recorded_trace_and_no_other(sink: Sink) -> None:
    with working(Work(sink, is_recorded=True, trace=TRACE)):
        with recorded(NOBODY, "turn"):
            found = context_of(carried_headers())
        assert found is not None
        assert (found.trace, found.span, found.is_recorded) == (TRACE, sink.spans[0].id, True)
        own = context_of(carried_headers())
        assert own is not None
        assert own.trace == TRACE
    with working(Work(sink, is_recorded=False, trace=TRACE)), recorded(NOBODY, "turn"):
        assert carried_headers() == {}
    assert carried_headers() == {}


def test_a_trace_that_began_here_is_marked_also_where_a_collector_follows_it(sink: Sink) -> None:
    with recorded(TracerProvider().get_tracer("test"), "turn", sink=sink):
        found = context_of(carried_headers())
    assert found is not None
    assert (found.trace, found.span, found.is_recorded) == (sink.spans[0].trace, sink.spans[0].id, True)


def test_a_collector_and_the_room_server_see_the_same_ids(sink: Sink) -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("test")
    with tracer.start_as_current_span("process") as process:
        work = Work(sink, is_recorded=True, trace=f"{process.get_span_context().trace_id:032x}")
        with working(work, process), recorded(tracer, "turn"):
            pass
        work.finish("process", {}, seconds=1.0)
    with recorded(tracer, "llm.next", sink=sink):
        pass
    provider.shutdown()
    seen = {span.name: span.context for span in exporter.get_finished_spans()}
    assert {(span.name, span.trace, span.id) for span in sink.spans} == {
        (name, f"{context.trace_id:032x}", f"{context.span_id:016x}") for name, context in seen.items()
    }

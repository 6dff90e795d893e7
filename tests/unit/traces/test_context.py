"""How a trace travels in headers, and the ids of what carries none."""

import pytest

from meshhost.traces.context import (
    TraceContext,
    context_of,
    delivery_span,
    is_marked,
    marked,
    send_span,
    trace_of_message,
    unmarked,
)

TRACE, SPAN = "a" * 32, "b" * 16
PARENT = f"00-{TRACE}-{SPAN}-01"


def test_a_marked_trace_is_recorded() -> None:
    headers = marked({"k": "v"}, trace=TRACE, span=SPAN)
    assert headers == {"k": "v", "traceparent": PARENT, "tracestate": "meshhost=r"}
    assert context_of(headers) == TraceContext(TRACE, SPAN, True)


def test_a_senders_own_trace_and_its_state_stay() -> None:
    headers = {"traceparent": PARENT, "tracestate": "other=1, meshhost=x,"}
    found = marked(headers, trace="c" * 32, span="d" * 16)
    assert found == {"traceparent": PARENT, "tracestate": "meshhost=r,other=1"}
    assert context_of(headers) == TraceContext(TRACE, SPAN, False)


def test_a_mark_can_be_taken_away() -> None:
    assert unmarked({"traceparent": PARENT, "tracestate": "meshhost=r,other=1"}) == {
        "traceparent": PARENT,
        "tracestate": "other=1",
    }
    assert unmarked({"tracestate": "meshhost=r"}) == {}


def test_a_state_that_is_too_long_makes_way() -> None:
    found = marked({"traceparent": PARENT, "tracestate": "x=" + "1" * 510}, trace=TRACE, span=SPAN)
    assert found["tracestate"] == "meshhost=r"


@pytest.mark.parametrize(
    "parent", ["", "00-short", f"00-{'0' * 32}-{SPAN}-01", f"00-{TRACE}-{'0' * 16}-01", PARENT.upper()]
)
def test_what_is_no_trace_context_is_none_and_is_replaced(parent: str) -> None:
    assert context_of({"traceparent": parent}) is None
    found = marked({"traceparent": parent, "tracestate": "other=1"}, trace=TRACE, span=SPAN)
    assert found == {"traceparent": PARENT, "tracestate": "meshhost=r"}


@pytest.mark.parametrize("state", ["", "other=meshhost=r", "xmeshhost=r", "meshhost=rr"])
def test_only_a_member_of_its_own_is_a_mark(state: str) -> None:
    assert not is_marked(state)


def test_ids_of_a_message_are_its_own() -> None:
    trace = trace_of_message("room", "jobs", "7")
    assert trace == trace_of_message("room", "jobs", "7")
    assert len({trace, trace_of_message("other", "jobs", "7"), trace_of_message("room", "jobs", "8")}) == 3
    spans = {send_span(trace, "jobs", "7"), delivery_span(trace, "jobs", "7", 1), delivery_span(trace, "jobs", "7", 2)}
    assert len(spans) == 3
    assert (len(trace), {len(span) for span in spans}) == (32, {16})

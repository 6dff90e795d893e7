"""How a trace travels: as W3C trace context in the headers of a message, and of requests.

The room server decides which messages are recorded, when they are sent, and says so in `tracestate` beside the `traceparent`
that it found or made: the worker of the message then reports its spans, and what it sends and asks for carries both on. An
OpenTelemetry collector sees the same trace id.

A message that is not recorded carries nothing. When it fails it is worth a trace all the same, so its trace has an id that both
sides compute from the message alone (`trace_of_message`), and so has the span of each delivery (`delivery_span`).
"""

import hashlib
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = [
    "TRACEPARENT",
    "TRACESTATE",
    "TraceContext",
    "context_of",
    "delivery_span",
    "is_marked",
    "marked",
    "new_span_id",
    "new_trace_id",
    "send_span",
    "trace_of_message",
    "unmarked",
]

TRACEPARENT, TRACESTATE = "traceparent", "tracestate"
_MARK = "meshhost=r"
_PARENT = re.compile("[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
# What W3C allows in `tracestate`.
_MOST_STATE, _MOST_MEMBERS = 512, 32


@dataclass(frozen=True, slots=True)
class TraceContext:
    """A trace and the span in it that something belongs to. `is_recorded`: the room server keeps this trace."""

    trace: str
    span: str
    is_recorded: bool


def context_of(headers: Mapping[str, str]) -> TraceContext | None:
    """The context that these headers carry; None: they carry none that can be read."""
    parent = headers.get(TRACEPARENT)
    found = None if parent is None else _PARENT.fullmatch(parent)
    if found is None or not found[1].strip("0") or not found[2].strip("0"):
        return None
    return TraceContext(found[1], found[2], is_marked(headers.get(TRACESTATE, "")))


def is_marked(state: str) -> bool:
    """Whether this `tracestate` says that the room server keeps the trace."""
    return _MARK in state and _MARK in (member.strip() for member in state.split(","))


def marked(headers: Mapping[str, str], *, trace: str, span: str) -> dict[str, str]:
    """These headers for a trace that is recorded. A `traceparent` that is there stays; else it names this trace and span."""
    state = headers.get(TRACESTATE, "") if context_of(headers) is not None else ""
    others = [
        member.strip() for member in state.split(",") if member.strip() and not member.strip().startswith("meshhost=")
    ]
    text = ",".join([_MARK, *others[: _MOST_MEMBERS - 1]])
    added = {TRACESTATE: text if len(text) <= _MOST_STATE else _MARK}
    if context_of(headers) is None:
        added[TRACEPARENT] = f"00-{trace}-{span}-01"
    return {**headers, **added}


def unmarked(headers: Mapping[str, str]) -> dict[str, str]:
    """These headers for a trace that is not recorded."""
    others = [member.strip() for member in headers.get(TRACESTATE, "").split(",")]
    text = ",".join(member for member in others if member and not member.startswith("meshhost="))
    return {
        **{name: value for name, value in headers.items() if name != TRACESTATE},
        **({TRACESTATE: text} if text else {}),
    }


def new_trace_id() -> str:
    """A random id of a trace."""
    return secrets.token_hex(16)


def new_span_id() -> str:
    """A random id of a span."""
    return secrets.token_hex(8)


def trace_of_message(room: str, queue: str, message_id: str) -> str:
    """The id of the trace of a message that carries none."""
    return _digest("trace", room, queue, message_id)[:32]


def send_span(trace: str, queue: str, message_id: str) -> str:
    """The id of the span in which a message was sent that carries no trace."""
    return _digest("send", trace, queue, message_id)[:16]


def delivery_span(trace: str, queue: str, message_id: str, delivery: int) -> str:
    """The id of the span of a delivery, the first of which is 1."""
    return _digest("delivery", trace, queue, message_id, str(delivery))[:16]


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode(errors="replace")).hexdigest()

"""The contract of a trace store: finished spans of rooms, bounded in bytes and age, and what traces are found by.

Traces help people who look for the cause of something; nothing depends on them. So a store is bounded in every respect and
forgets whole traces, those that changed longest ago first: those that are too old, those of a tenant over its share, and, when
all together are too many, those of the tenant that has most. That is the invariant: a tenant that has less than its fair part
of the whole loses nothing to others. A trace that is too large keeps its first spans and counts the rest.

Writing is in batches of many spans, which need not survive a power cut. Traces are of one server: each server of several over
one database keeps those that it recorded itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.traces.span import Span

__all__ = ["TraceKey", "TraceLimits", "TracePage", "TraceQuery", "TraceStore", "TraceSummary"]


@dataclass(frozen=True, slots=True)
class TraceLimits:
    """The bounds: bytes of all, of a tenant and of a trace (about: as spans measure themselves), spans of a trace, days."""

    total_bytes: int = 256 * 1024 * 1024
    tenant_bytes: int = 32 * 1024 * 1024
    trace_bytes: int = 512 * 1024
    trace_spans: int = 2_000
    days: float = 3.0


class TraceKey(NamedTuple):
    """A trace of a room. Traces of two rooms are two, also when they have one id."""

    room: RoomKey
    trace: str


@dataclass(frozen=True, slots=True)
class TraceSummary:
    """What a list shows of a trace. `name` is that of its first span; times are wall clock.

    `queues`, `messages` (ids) and `agents` are the first names of each kind that its spans have. `dropped` is how many spans
    did not fit.
    """

    trace: str
    name: str
    began: float
    ended: float
    is_failed: bool
    queues: Sequence[str]
    messages: Sequence[str]
    agents: Sequence[str]
    spans: int
    dropped: int


@dataclass(frozen=True, slots=True)
class TraceQuery:
    """Which traces of a room are looked for: those that fit everything that is given, and began after `since`.

    `longer` is in seconds. `before` is the `next` of the page before; `limit` bounds the traces of a page.
    """

    queue: str = ""
    message: str = ""
    agent: str = ""
    failed: bool = False
    longer: float = 0.0
    since: float = 0.0
    before: str | None = None
    limit: int = 50


@dataclass(frozen=True, slots=True)
class TracePage:
    """A page of traces, the newest first. `next` is where the next page begins; None: there is none."""

    traces: Sequence[TraceSummary]
    next: str | None


class TraceStore(Protocol):
    """Keeps traces. All but `open` raise RoomError when it is not open, and OSError when it fails."""

    async def open(self) -> None:
        """Begin to work. Raises SettingsError, OSError."""
        ...

    async def close(self) -> None:
        """Finish what was accepted. Idempotent."""
        ...

    async def add(self, batch: Mapping[TraceKey, Sequence[Span]], *, now: float) -> None:
        """Add spans to their traces, and forget what is over the limits; `now` is wall clock."""
        ...

    async def find(self, room: RoomKey, query: TraceQuery) -> TracePage:
        """Find traces of a room. Raises InvalidRequestError for a `before` that is none."""
        ...

    async def get(self, key: TraceKey, *, since: float = 0.0) -> tuple[TraceSummary, Sequence[Span]] | None:
        """A trace with its spans, by their beginning; None when it is not there, or did not begin after `since`."""
        ...

    async def delete_all(self, tenant: TenantId, room: str | None = None) -> None:
        """Delete the traces of a tenant, or of one of its rooms."""
        ...

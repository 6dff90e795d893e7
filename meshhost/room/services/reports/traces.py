"""Reports the spans of a participant's own work to the room server (room-protocol §12.1), for the traces of the room.

Spans come one by one, from any thread, while agents work (`meshhost.traces.recording`), and go in batches (`reporting.py`).
Those that are dropped are counted for the metrics of the host (`meshhost.usage`).
"""

from typing import Any

from meshhost.quotas.token_bucket import TokenBucket
from meshhost.room.link import RoomLink
from meshhost.room.services.reports.reporting import MOST_WAITING, Reporter
from meshhost.traces.span import MAX_BATCH, Span
from meshhost.usage import UsageSink, current_sink

__all__ = ["MOST_WAITING", "TracesClient"]

# Traces that begin here and not with a message, such as turns of a chat: each is a request to a model at least.
_BEGUN_PER_SECOND = 5.0


class TracesClient(Reporter[Span]):
    """Takes spans and sends them; a `SpanSink`."""

    extension, operation, member, max_batch = "traces", "traces.report", "spans", MAX_BATCH

    def __init__(self, *, room: RoomLink) -> None:
        super().__init__(room=room)
        self._begun = TokenBucket(_BEGUN_PER_SECOND, _BEGUN_PER_SECOND, clock=room.clock)
        self._sink: UsageSink | None = None

    def may_begin(self) -> bool:
        """Whether a trace may be begun now that no message did."""
        if not self.is_offered or self._begun.wait() > 0:
            return False
        self._begun.take()
        return True

    def add(self, one: Span) -> None:
        """Report a span soon. Any thread may call this."""
        self._sink = current_sink() or self._sink
        super().add(one)

    def _as_json(self, one: Span) -> dict[str, Any]:
        return {"trace": one.trace, **one.as_json()}

    def _count_dropped(self, number: int) -> None:
        if self._sink is not None and number:
            self._sink.dropped(number)

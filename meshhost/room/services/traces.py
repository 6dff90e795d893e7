"""Reports the spans of a participant's own work to the room server (room-protocol §12.1), for the traces of the room.

Spans come one by one, from any thread, while agents work (`meshhost.traces.recording`). They wait here, at most MOST_WAITING,
and a task sends those that came within a moment together. Nothing waits for that: what comes while too many wait is dropped, as
is what the server refuses or does not take in time, and counted for the metrics of the host (`meshhost.usage`). At the end
of the room what still waits has `_LAST_SECONDS` to be sent.

The task runs only while spans wait: a client of an idle agent has none.
"""

import asyncio
import contextlib
import logging
from collections import deque

from meshhost.errors import AccessDeniedError, MeshhostError, RoomError
from meshhost.quotas.token_bucket import TokenBucket
from meshhost.room.link import RoomLink
from meshhost.traces.span import MAX_BATCH, Span
from meshhost.usage import UsageSink, current_sink

__all__ = ["MOST_WAITING", "TRACES", "TracesClient"]

logger = logging.getLogger(__name__)

TRACES = "traces"
"""The extension under which a server of ours offers to keep spans."""
MOST_WAITING = 1000
_GATHER_SECONDS, _SEND_SECONDS, _LAST_SECONDS = 0.5, 5.0, 0.5
# Traces that begin here and not with a message, such as turns of a chat: each is a request to a model at least.
_BEGUN_PER_SECOND = 5.0


class TracesClient:
    """Takes spans and sends them; a `SpanSink`."""

    def __init__(self, *, room: RoomLink) -> None:
        self._room = room
        self._waiting: deque[Span] = deque()
        self._sending: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._is_over = self._is_refused = False
        self._begun = TokenBucket(_BEGUN_PER_SECOND, _BEGUN_PER_SECOND, clock=room.clock)
        self._sink: UsageSink | None = None
        self._under_way = asyncio.Lock()

    @property
    def is_offered(self) -> bool:
        """Whether the server keeps spans, and those of this participant."""
        try:
            return not self._is_refused and TRACES in self._room.extensions.get("extensions", ())
        except RoomError:  # not connected yet
            return False

    def may_begin(self) -> bool:
        """Whether a trace may be begun now that no message did."""
        if not self.is_offered or self._begun.wait() > 0:
            return False
        self._begun.take()
        return True

    def add(self, span: Span) -> None:
        """Report a span soon. Any thread may call this."""
        if self._is_over or len(self._waiting) >= MOST_WAITING:
            _count_dropped(current_sink(), 1)
            return
        self._sink = current_sink() or self._sink
        self._waiting.append(span)
        if self._sending is None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nothing can be sent any more
                self._loop.call_soon_threadsafe(self._begin)

    async def finish(self) -> None:
        """Send what waits, if that is quick; nothing is taken any more. Never raises."""
        self._is_over = True
        try:
            async with asyncio.timeout(_LAST_SECONDS):
                while self._waiting and self._room.is_open:
                    await self._send()
                async with self._under_way:  # what the task has sent is answered
                    pass
        except (MeshhostError, TimeoutError):
            pass
        _count_dropped(self._sink, len(self._waiting))
        self._waiting.clear()

    def _begin(self) -> None:
        if self._sending is None and not self._is_over:
            self._sending = self._room.spawn(self._run(), "spans")

    async def _run(self) -> None:
        try:
            while self._waiting and not self._is_over:
                await self._room.clock.sleep(_GATHER_SECONDS)
                while self._waiting and not self._is_over:
                    await self._send()
        finally:
            self._sending = None

    async def _send(self) -> None:
        async with self._under_way:
            await self._send_batch()

    async def _send_batch(self) -> None:
        batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), MAX_BATCH))]
        if not batch:
            return
        spans = [{"trace": span.trace, **span.as_json()} for span in batch]
        try:
            await self._room.send_request("traces.report", {"spans": spans}, timeout=_SEND_SECONDS)
        except MeshhostError as error:
            self._is_refused = self._is_refused or isinstance(error, AccessDeniedError)
            logger.debug("spans were not taken", extra={"spans": len(spans), "reason": str(error)})
            _count_dropped(self._sink, len(spans))
        except asyncio.CancelledError:
            _count_dropped(self._sink, len(spans))
            raise


def _count_dropped(sink: UsageSink | None, number: int) -> None:
    if sink is not None and number:
        sink.dropped(number)

"""Takes the spans of all rooms of this server, and has them stored in batches, away from the event loop.

`add` only appends to a list; one task, which the server owns, writes what came every second in one transaction. So nothing that
is traced waits for a disk, and a span costs no write of its own. What waits is bounded, for each tenant and for all: a tenant
that reports more than can be written loses its own spans, which are counted for the metrics. A store that fails loses what it
was to take; traces are a convenience, and nothing else depends on them. Reading writes first, so that it shows all that came.

Without a store nothing is recorded, and there are no traces to show.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from meshhost.clock import Clock, SystemClock
from meshhost.errors import RoomError
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.stores.traces.contract import TraceKey, TracePage, TraceQuery, TraceStore, TraceSummary
from meshhost.tasks import uninterrupted
from meshhost.traces.span import Span

__all__ = ["TraceBounds", "TraceRecorder"]

logger = logging.getLogger(__name__)

_WRITE_SECONDS, _WRITE_TIMEOUT = 1.0, 10.0
# How often the store is told the time when nothing comes, so that it forgets what is too old.
_TIDY_SECONDS = 600.0
_LOG_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class TraceBounds:
    """How many bytes of spans may wait to be written: of a tenant, of all, and of a tenant when those of all are too many."""

    of_tenant: int = 2 * 1024 * 1024
    of_all: int = 16 * 1024 * 1024
    at_least: int = 64 * 1024


class TraceRecorder:
    """Records spans in the store, which its caller opens and closes; None: nothing.

    `count` is called with what became of spans (`taken`, `dropped` for want of room, `lost` by a failing store), and how many.
    """

    def __init__(
        self,
        store: TraceStore | None,
        *,
        bounds: TraceBounds = TraceBounds(),
        clock: Clock | None = None,
        count: Callable[[str, int], object] = lambda outcome, spans: None,
    ) -> None:
        self._store = store
        self._bounds = bounds
        self._clock = clock or SystemClock()
        self._count = count
        self._waiting: dict[TraceKey, list[Span]] = {}
        self._bytes: defaultdict[str, int] = defaultdict(int)  # that wait, by tenant
        self._total = 0
        self._writing = asyncio.Lock()
        self._log_again_at = 0.0

    @property
    def is_recording(self) -> bool:
        """Whether spans are kept."""
        return self._store is not None

    def add(self, room: RoomKey, spans: Iterable[Span]) -> int:
        """Take spans of a room, of any of its traces; return how many. The others are dropped. Never waits or raises."""
        if self._store is None:
            return 0
        taken = dropped = 0
        for span in spans:
            size = span.size
            if not self._has_room(self._bytes.get(room.tenant, 0) + size, size):
                dropped += 1
                continue
            self._bytes[room.tenant] += size
            self._total += size
            self._waiting.setdefault(TraceKey(room, span.trace), []).append(span)
            taken += 1
        self._count("taken", taken)
        self._count("dropped", dropped)
        return taken

    def _has_room(self, of_tenant: int, size: int) -> bool:
        """Whether a span fits with which its tenant has so many bytes. When all is full, a little of each tenant still does."""
        fits = self._total + size <= self._bounds.of_all or of_tenant <= self._bounds.at_least
        return fits and of_tenant <= self._bounds.of_tenant

    async def find(self, room: RoomKey, query: TraceQuery) -> TracePage:
        """The traces of a room that fit. Raises InvalidRequestError, OSError."""
        if self._store is None:
            return TracePage((), None)
        await self.write()
        return await self._store.find(room, query)

    async def get(self, key: TraceKey, *, since: float = 0.0) -> tuple[TraceSummary, Sequence[Span]] | None:
        """A trace with its spans; None: there is none. Raises OSError."""
        if self._store is None:
            return None
        await self.write()
        return await self._store.get(key, since=since)

    async def delete_all(self, tenant: TenantId, room: str | None = None) -> None:
        """Forget the traces of a tenant, or of one of its rooms. Raises OSError or RoomError; it may be repeated then."""
        if self._store is None:
            return
        async with self._writing:  # what is being written is there when it is deleted
            for key in [key for key in self._waiting if key.room.is_of(tenant, room)]:
                self._release(key, self._waiting.pop(key))
            await self._store.delete_all(tenant, room)

    async def write(self) -> None:
        """Store what came so far. A failure of the store is logged, and what it was to take is lost."""
        if self._store is None:
            return
        async with self._writing:
            batch, self._waiting = self._waiting, {}
            for key, spans in batch.items():
                self._release(key, spans)
            if not batch:
                return
            await self._store_batch(self._store, batch)

    async def run(self) -> None:
        """Write what comes, until cancelled; then what came last is for `write`."""
        tidy_at = self._clock.monotonic() + _TIDY_SECONDS
        while True:
            await self._clock.sleep(_WRITE_SECONDS)
            await self.write()
            if self._store is not None and self._clock.monotonic() >= tidy_at:
                tidy_at = self._clock.monotonic() + _TIDY_SECONDS
                await self._store_batch(self._store, {})

    async def _store_batch(self, store: TraceStore, batch: dict[TraceKey, list[Span]]) -> None:
        spans = sum(map(len, batch.values()))
        try:
            await uninterrupted(store.add(batch, now=self._clock.time()), timeout=_WRITE_TIMEOUT)
        except (OSError, RoomError, TimeoutError) as error:
            self._count("lost", spans)
            if self._clock.monotonic() >= self._log_again_at:
                self._log_again_at = self._clock.monotonic() + _LOG_SECONDS
                logger.warning("traces are not stored", extra={"spans": spans, "reason": str(error) or "no answer"})

    def _release(self, key: TraceKey, spans: Sequence[Span]) -> None:
        size = sum(span.size for span in spans)
        self._total -= size
        self._bytes[key.room.tenant] -= size
        if self._bytes[key.room.tenant] <= 0:
            del self._bytes[key.room.tenant]

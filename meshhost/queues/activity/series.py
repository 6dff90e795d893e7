"""Keeps a series of points for the queues, rooms and tenants in use: what Studio draws without a Prometheus.

`QueueService` reports what happens to `QueueSeries` (`observer.py`), which looks every 10 seconds into the queues of rooms in
which something happened, every minute into those of other rooms that it keeps. Looking costs the store a count of what waits,
so the pause after it is at least twenty times as long as it took: points are further apart then, and each says its time.

What is kept is bounded: a new room, queue or tenant takes the place of the one that was used longest ago, once that has been
idle for ten minutes; what somebody asks for always gets a place. Points are kept in this process, and `save` returns them for
its next life; with several servers each counts what it did itself, while depths are those of the store. One task, `run`,
which its owner cancels.
"""

import logging
from collections.abc import Awaitable, Callable, Hashable, Iterable, Sequence
from typing import Generic, NamedTuple, TypeVar

from meshhost.clock import Clock, SystemClock
from meshhost.errors import RoomError
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.queues.activity.observer import Outcome
from meshhost.queues.activity.points import FINE_SECONDS, Counts, Point, Series, gauges_of, sum_of
from meshhost.stores.queues import Delivery, Lease, QueueKey, QueueStats
from meshhost.stores.shared.refusals import queue_missing

__all__ = ["QueueSeries", "SavedSeries"]

logger = logging.getLogger(__name__)

Key = TypeVar("Key", bound=Hashable)

_SENT, _STARTED, _DONE, _FAILED = range(4)
_COUNTED = {Outcome.DONE: _DONE, Outcome.FAILED: _FAILED, Outcome.DEAD: _FAILED}
_MOST_ROOMS, _MOST_QUEUES, _MOST_TENANTS = 100, 200, 50
# What is idle for these seconds gives its place to something new.
_IDLE_SECONDS = 600.0
# Of this many samples, one looks at the rooms in which nothing happened.
_RARELY = 6
_PAUSE_FACTOR = 20.0


class SavedSeries(NamedTuple):
    """One series as it is saved: whose it is (without a room: the tenant's), and its points of both lengths."""

    tenant: str
    room: str | None
    queue: str | None
    fine: bytes
    coarse: bytes


class QueueSeries:
    """The series of this process. `stats` returns what is in the queues of a room, as QueueStore.stats does."""

    def __init__(
        self,
        stats: Callable[[RoomKey], Awaitable[Sequence[QueueStats]]],
        *,
        clock: Clock | None = None,
        most_rooms: int = _MOST_ROOMS,
        most_queues: int = _MOST_QUEUES,
        most_tenants: int = _MOST_TENANTS,
    ) -> None:
        self._stats = stats
        self._clock = clock or SystemClock()
        self._fresh: dict[QueueKey, list[int]] = {}
        self._rooms: _Kept[RoomKey] = _Kept(most_rooms)
        self._queues: _Kept[QueueKey] = _Kept(most_queues)
        self._tenants: _Kept[TenantId] = _Kept(most_tenants)
        self._samples = 0
        self.has_forgotten = False  # something since it was last saved

    def sent(self, queue: QueueKey, count: int) -> None:
        """See QueueObserver."""
        self._counts_of(queue)[_SENT] += count

    def started(self, delivery: Delivery) -> None:
        """See QueueObserver."""
        self._counts_of(delivery.lease.queue)[_STARTED] += 1

    def settled(self, lease: Lease, outcome: Outcome) -> None:
        """See QueueObserver."""
        if (place := _COUNTED.get(outcome)) is not None:
            self._counts_of(lease.queue)[place] += 1

    def forget(self, tenant: TenantId, room: str | None = None) -> None:
        """See QueueObserver."""
        self.has_forgotten = True
        self._fresh = {queue: counts for queue, counts in self._fresh.items() if not queue.room.is_of(tenant, room)}
        self._rooms.drop(lambda key: key.is_of(tenant, room))
        self._queues.drop(lambda key: key.room.is_of(tenant, room))
        self._tenants.drop(lambda key: key == tenant and room is None)

    async def of_queue(self, queue: QueueKey, step: int = FINE_SECONDS) -> list[Point]:
        """The points of a queue. Raises NotFoundError when there is no such queue, and what `stats` raises."""
        series = self._queues.find(queue)
        if series is None:
            stats = await self._stats(queue.room)
            if all(each.name != queue.name for each in stats):
                raise queue_missing(queue)
            self._rooms.keep(queue.room, self._clock)
            series = self._queues.keep(queue, self._clock)
            self._seen(queue.room, stats)
            series.append(self._clock.time())
        series.used_at = self._clock.monotonic()
        return series.points(step)

    async def of_room(self, room: RoomKey, step: int = FINE_SECONDS) -> list[Point]:
        """The points of all queues of a room together. Raises what `stats` raises."""
        series = self._rooms.find(room)
        if series is None:
            stats = await self._stats(room)
            series = self._rooms.keep(room, self._clock)
            self._seen(room, stats)
            series.append(self._clock.time())
        series.used_at = self._clock.monotonic()
        return series.points(step)

    def of_tenant(self, tenant: TenantId, step: int = FINE_SECONDS) -> list[Point]:
        """The points of a tenant; its depths are those of its rooms that are kept. Empty when nothing happened lately."""
        series = self._tenants.find(tenant)
        return [] if series is None else series.points(step)

    def save(self) -> list[SavedSeries]:
        """Return everything that is kept, for `restore`."""
        found = [SavedSeries(tenant, None, None, *series.packed()) for tenant, series in self._tenants.items()]
        found += [SavedSeries(*room, None, *series.packed()) for room, series in self._rooms.items()]
        found += [SavedSeries(*queue.room, queue.name, *series.packed()) for queue, series in self._queues.items()]
        self.has_forgotten = False
        return found

    def restore(self, saved: Iterable[SavedSeries]) -> None:
        """Begin with what was saved, as far as it is not too old. Raises struct.error for points that are none."""
        for tenant, room, queue, fine, coarse in saved:
            series = Series(self._clock.time(), used_at=self._clock.monotonic())
            if not series.restore(fine, coarse, now=self._clock.time()):
                continue
            if room is None:
                self._tenants.put(TenantId(tenant), series)
            elif queue is None:
                self._rooms.put(RoomKey(TenantId(tenant), room), series)
            else:
                self._queues.put(QueueKey(RoomKey(TenantId(tenant), room), queue), series)

    async def run(self) -> None:
        """Sample until cancelled."""
        while True:
            began = self._clock.monotonic()
            await self.sample()
            took = self._clock.monotonic() - began
            await self._clock.sleep(max(FINE_SECONDS - took, took * _PAUSE_FACTOR))

    async def sample(self) -> None:
        """Close a point of everything that is kept."""
        fresh, self._fresh = self._fresh, {}
        busy = self._take_in(fresh)
        self._samples += 1
        for room in self._rooms.names():
            if room in busy or self._samples % _RARELY == 0:
                await self._look(room)
        now = self._clock.time()
        for tenant, series in self._tenants.items():
            series.look(sum_of(room.gauges for key, room in self._rooms.items() if key.tenant == tenant), now)
        for series in (*self._queues.values(), *self._rooms.values(), *self._tenants.values()):
            series.append(now)

    def _counts_of(self, queue: QueueKey) -> list[int]:
        counts = self._fresh.get(queue)
        if counts is None:
            counts = self._fresh[queue] = [0, 0, 0, 0]
        return counts

    def _take_in(self, fresh: dict[QueueKey, list[int]]) -> set[RoomKey]:
        """Add what happened to the series that are kept for it, the busiest first; return the rooms concerned."""
        for queue, numbers in sorted(fresh.items(), key=lambda each: -sum(each[1])):
            counts = Counts(*numbers)
            self._tenants.count(queue.room.tenant, counts, self._clock)
            if self._rooms.count(queue.room, counts, self._clock):
                self._queues.count(queue, counts, self._clock)
        return {queue.room for queue in fresh}

    async def _look(self, room: RoomKey) -> None:
        try:
            stats = await self._stats(room)
        except (OSError, RoomError) as error:  # what was there stays as it was seen last
            logger.debug("the queues of a room were not counted", extra={"room": room.name}, exc_info=error)
            return
        self._seen(room, stats)

    def _seen(self, room: RoomKey, stats: Sequence[QueueStats]) -> None:
        now, series = self._clock.time(), self._rooms.find(room)
        if series is None:  # deleted meanwhile
            return
        series.look(sum_of(map(gauges_of, stats)), now)
        names = {each.name for each in stats}
        self._queues.drop(lambda key: key.room == room and key.name not in names)
        for each in stats:
            found = self._queues.keep_if_free(QueueKey(room, each.name), self._clock)
            if found is not None:
                found.look(gauges_of(each), now)


class _Kept(Generic[Key]):
    """At most `most` series of one kind."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._series: dict[Key, Series] = {}

    def find(self, key: Key) -> Series | None:
        return self._series.get(key)

    def names(self) -> list[Key]:
        return list(self._series)

    def values(self) -> list[Series]:
        return list(self._series.values())

    def items(self) -> list[tuple[Key, Series]]:
        return list(self._series.items())

    def put(self, key: Key, series: Series) -> None:
        """Add one when there is a place."""
        if len(self._series) < self._most:
            self._series.setdefault(key, series)

    def drop(self, is_gone: Callable[[Key], bool]) -> None:
        for key in [key for key in self._series if is_gone(key)]:
            del self._series[key]

    def count(self, key: Key, counts: Counts, clock: Clock) -> bool:
        """Add to a series; return whether there is one. A new one may take the place of one that is idle."""
        now = clock.monotonic()
        is_full = key not in self._series and len(self._series) >= self._most
        if is_full and now - self._series[self._longest_unused()].used_at < _IDLE_SECONDS:
            return False
        series = self.keep(key, clock)
        series.count(counts)
        series.used_at = now
        return True

    def keep_if_free(self, key: Key, clock: Clock) -> Series | None:
        """The series, a new one if there is none and a place is free, or None."""
        found = self._series.get(key)
        return self.keep(key, clock) if found is None and len(self._series) < self._most else found

    def keep(self, key: Key, clock: Clock) -> Series:
        """The series; a new one takes the place of the one that was used longest ago, if need be."""
        found = self._series.get(key)
        if found is None:
            if len(self._series) >= self._most:
                del self._series[self._longest_unused()]
            found = self._series[key] = Series(clock.time(), used_at=clock.monotonic())
        return found

    def _longest_unused(self) -> Key:
        return min(self._series, key=lambda key: self._series[key].used_at)

"""One series: what a queue, a room or a tenant held and did, as points of two lengths in rings of a fixed size.

The points of 10 seconds reach back 10 minutes, those of a minute 24 hours. A point is 48 bytes, packed, so a full series takes
72 KB: with Python objects it would be ten times as much. `series.py` is the caller; a `Series` is fed with `count` for
everything
that happens, with `look` when the queue was looked at, and closes a point with `append`. Pure: no I/O and no clock.
"""

import struct
from collections.abc import Sequence
from typing import NamedTuple

from meshhost.stores.queues import QueueStats

__all__ = ["COARSE_SECONDS", "FINE_SECONDS", "Counts", "Gauges", "Point", "Series", "gauges_of"]

FINE_SECONDS, COARSE_SECONDS = 10, 60
_FINE_POINTS, _COARSE_POINTS = 60, 24 * 60
_PACKED = struct.Struct("<d5If4I")
_MOST = 2**32 - 1
_NO_AGE = -1.0


class Gauges(NamedTuple):
    """What is there at one moment. `oldest_seconds`: the age of the oldest message that is not dead, None without one."""

    ready: int = 0
    delayed: int = 0
    leased: int = 0
    blocked: int = 0
    dead: int = 0
    oldest_seconds: float | None = None


class Counts(NamedTuple):
    """What happened in a time. `failed` are deliveries that failed, with those that made a message dead."""

    sent: int = 0
    started: int = 0
    done: int = 0
    failed: int = 0

    def plus(self, other: "Counts") -> "Counts":
        """The sum."""
        return Counts(*(mine + its for mine, its in zip(self, other, strict=True)))


class Point(NamedTuple):
    """The end of a time (wall clock), what was there then, and what happened in it."""

    time: float
    gauges: Gauges
    counts: Counts


def gauges_of(stats: Sequence[QueueStats]) -> Gauges:
    """The sum over these queues."""
    ages = [queue.oldest_age for queue in stats if queue.oldest_age is not None]
    return Gauges(
        sum(queue.ready for queue in stats),
        sum(queue.delayed for queue in stats),
        sum(queue.leased for queue in stats),
        sum(queue.blocked for queue in stats),
        sum(queue.dead for queue in stats),
        max(ages, default=None),
    )


class _Ring:
    """The newest `most` points."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._bytes = bytearray()
        self._next = 0

    def append(self, point: Point) -> None:
        age = _NO_AGE if point.gauges.oldest_seconds is None else point.gauges.oldest_seconds
        numbers = (*(min(number, _MOST) for number in point.gauges[:5]), age, *(min(n, _MOST) for n in point.counts))
        packed = _PACKED.pack(point.time, *numbers)
        start = self._next * _PACKED.size
        self._bytes[start : start + _PACKED.size] = packed
        self._next = (self._next + 1) % self._most

    def points(self) -> list[Point]:
        """In the order in which they came."""
        found = [_unpacked(values) for values in _PACKED.iter_unpack(self._bytes)]
        return found if len(found) < self._most else found[self._next :] + found[: self._next]

    def packed(self) -> bytes:
        """All of them, in that order."""
        if len(self._bytes) < self._most * _PACKED.size:
            return bytes(self._bytes)
        middle = self._next * _PACKED.size
        return bytes(self._bytes[middle:] + self._bytes[:middle])


class Series:
    """The points of one queue, room or tenant. `now` is the wall clock, `used_at` a time of the keeper's own."""

    def __init__(self, now: float, *, used_at: float) -> None:
        self.used_at = used_at
        self._gauges = Gauges()
        self._looked_at = now
        self._fine, self._coarse = _Ring(_FINE_POINTS), _Ring(_COARSE_POINTS)
        self._counts = Counts()  # since the last point
        self._of_minute = Counts()
        self._minute = now // COARSE_SECONDS
        self._last_at: float | None = None

    def count(self, counts: Counts) -> None:
        """So much happened."""
        self._counts = self._counts.plus(counts)

    def look(self, gauges: Gauges, now: float) -> None:
        """This is there now."""
        self._gauges, self._looked_at = gauges, now

    @property
    def gauges(self) -> Gauges:
        """What was there when it was last looked at."""
        return self._gauges

    def append(self, now: float) -> None:
        """Close a point. What was not looked at since the last one is as it was, but older."""
        if now // COARSE_SECONDS != self._minute and self._last_at is not None:
            self._coarse.append(Point(self._last_at, self._now(self._last_at), self._of_minute))
            self._of_minute = Counts()
        self._minute = now // COARSE_SECONDS
        self._fine.append(Point(now, self._now(now), self._counts))
        self._of_minute = self._of_minute.plus(self._counts)
        self._counts, self._last_at = Counts(), now

    def points(self, step: int) -> list[Point]:
        """The points of this length, FINE_SECONDS or COARSE_SECONDS, the oldest first. The last minute is not over."""
        if step == FINE_SECONDS:
            return self._fine.points()
        last = [] if self._last_at is None else [Point(self._last_at, self._now(self._last_at), self._of_minute)]
        return self._coarse.points() + last

    def packed(self) -> tuple[bytes, bytes]:
        """The points of both lengths, for `restore`."""
        coarse = _Ring(_COARSE_POINTS)
        for point in self.points(COARSE_SECONDS):
            coarse.append(point)
        return self._fine.packed(), coarse.packed()

    def restore(self, fine: bytes, coarse: bytes, *, now: float) -> bool:
        """Begin with these points as far as they are not too old; return whether any is left. Raises struct.error."""
        kept = 0
        for ring, packed, seconds in (
            (self._fine, fine, _FINE_POINTS * FINE_SECONDS),
            (self._coarse, coarse, _COARSE_POINTS * COARSE_SECONDS),
        ):
            for values in _PACKED.iter_unpack(packed):
                point = _unpacked(values)
                if now - seconds <= point.time <= now:
                    ring.append(point)
                    self.look(point.gauges, point.time)
                    kept += 1
        return kept > 0

    def _now(self, now: float) -> Gauges:
        age = self._gauges.oldest_seconds
        if age is None:
            return self._gauges
        return self._gauges._replace(oldest_seconds=max(age + now - self._looked_at, 0.0))


def _unpacked(values: tuple[float, ...]) -> Point:
    time, ready, delayed, leased, blocked, dead, age, *counts = values
    depths = (int(ready), int(delayed), int(leased), int(blocked), int(dead))
    return Point(time, Gauges(*depths, None if age < 0 else age), Counts(*(int(count) for count in counts)))

"""One series: what a queue, a room or a tenant held and did, as points of two lengths in rings of a fixed size.

The points of 10 seconds reach back 10 minutes, those of a minute 24 hours. A point is 48 bytes, packed, so a full series takes
72 KB: with Python objects it would be ten times as much. `series.py` is the caller: it calls `count` for everything that
happens, `look` with what it found in the queue, and `append` to close a point. To save and restore a series copies bytes: to
unpack each point of a few hundred series would hold up the event loop for seconds. Pure: no I/O and no clock.
"""

import struct
from collections.abc import Iterable
from typing import NamedTuple

from meshhost.stores.queues import QueueStats

__all__ = ["COARSE_SECONDS", "FINE_SECONDS", "Counts", "Gauges", "Point", "Series", "gauges_of", "sum_of"]

FINE_SECONDS, COARSE_SECONDS = 10, 60
_FINE_POINTS, _COARSE_POINTS = 60, 24 * 60
_PACKED = struct.Struct("<d5If4I")
_TIME = struct.Struct(f"<d{_PACKED.size - 8}x")  # of a packed point
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


def gauges_of(queue: QueueStats) -> Gauges:
    """What is in one queue."""
    return Gauges(queue.ready, queue.delayed, queue.leased, queue.blocked, queue.dead, queue.oldest_age)


def sum_of(gauges: Iterable[Gauges]) -> Gauges:
    """The sum over queues or rooms, with the age of the oldest message of all."""
    found = list(gauges)
    return Gauges(
        sum(each.ready for each in found),
        sum(each.delayed for each in found),
        sum(each.leased for each in found),
        sum(each.blocked for each in found),
        sum(each.dead for each in found),
        max((each.oldest_seconds for each in found if each.oldest_seconds is not None), default=None),
    )


class _Ring:
    """The newest `most` points, packed."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._bytes = bytearray()
        self._next = 0

    def append(self, packed: bytes) -> None:
        start = self._next * _PACKED.size
        self._bytes[start : start + _PACKED.size] = packed
        self._next = (self._next + 1) % self._most

    def packed(self) -> bytes:
        """In the order in which they came."""
        if len(self._bytes) < self._most * _PACKED.size:
            return bytes(self._bytes)
        middle = self._next * _PACKED.size
        return bytes(self._bytes[middle:] + self._bytes[:middle])

    def restore(self, packed: bytes, *, since: float, until: float) -> bytes | None:
        """Add those of these points that lie between two times; return the last one. Raises struct.error."""
        last = None
        for number, (time,) in enumerate(_TIME.iter_unpack(packed)):
            if since <= time <= until:
                last = packed[number * _PACKED.size : (number + 1) * _PACKED.size]
                self.append(last)
        return last


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
        """Add what happened."""
        self._counts = self._counts.plus(counts)

    def look(self, gauges: Gauges, now: float) -> None:
        """Note what is there now."""
        self._gauges, self._looked_at = gauges, now

    @property
    def gauges(self) -> Gauges:
        """What was there when it was last looked at."""
        return self._gauges

    def append(self, now: float) -> None:
        """Close a point. What was not looked at since the last one is as it was, but older."""
        if now // COARSE_SECONDS != self._minute and self._last_at is not None:
            self._coarse.append(self._last_minute())
            self._of_minute = Counts()
        self._minute = now // COARSE_SECONDS
        self._fine.append(_packed(Point(now, self._now(now), self._counts)))
        self._of_minute = self._of_minute.plus(self._counts)
        self._counts, self._last_at = Counts(), now

    def points(self, step: int) -> list[Point]:
        """The points of this length, FINE_SECONDS or COARSE_SECONDS, the oldest first. The last minute is not over."""
        fine, coarse = self.packed()
        return [_unpacked(values) for values in _PACKED.iter_unpack(fine if step == FINE_SECONDS else coarse)]

    def packed(self) -> tuple[bytes, bytes]:
        """The points of both lengths, for `restore`."""
        return self._fine.packed(), self._coarse.packed() + self._last_minute()

    def restore(self, fine: bytes, coarse: bytes, *, now: float) -> bool:
        """Begin with these points as far as they are not too old; return whether any is left. Raises struct.error."""
        kept = (
            self._fine.restore(fine, since=now - _FINE_POINTS * FINE_SECONDS, until=now),
            self._coarse.restore(coarse, since=now - _COARSE_POINTS * COARSE_SECONDS, until=now),
        )
        for packed in kept:
            if packed is not None:
                point = _unpacked(_PACKED.unpack(packed))
                self.look(point.gauges, point.time)
        return kept != (None, None)

    def _last_minute(self) -> bytes:
        if self._last_at is None:
            return b""
        return _packed(Point(self._last_at, self._now(self._last_at), self._of_minute))

    def _now(self, now: float) -> Gauges:
        age = self._gauges.oldest_seconds
        if age is None:
            return self._gauges
        return self._gauges._replace(oldest_seconds=max(age + now - self._looked_at, 0.0))


def _packed(point: Point) -> bytes:
    age = _NO_AGE if point.gauges.oldest_seconds is None else point.gauges.oldest_seconds
    depths, counts = ([min(number, _MOST) for number in numbers] for numbers in (point.gauges[:5], point.counts))
    return _PACKED.pack(point.time, *depths, age, *counts)


def _unpacked(values: tuple[float, ...]) -> Point:
    time, ready, delayed, leased, blocked, dead, age, *counts = values
    depths = (int(ready), int(delayed), int(leased), int(blocked), int(dead))
    return Point(time, Gauges(*depths, None if age < 0 else age), Counts(*(int(count) for count in counts)))

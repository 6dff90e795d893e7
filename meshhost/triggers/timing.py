"""When a schedule is due: a cron line in a time zone, an interval, or one time.

A `Timing` is a pure function of time: it answers which occurrences there are after a time and up to a time, and gives the same
answers to everybody who asks, in any process and in any order. The scheduler relies on that: it names an occurrence by its
time, so two servers that work out the same occurrence send one message.

Cron lines have five fields with the meaning of Debian's cron, which cronsim implements. A line with fixed hours and minutes
runs once a day also where the clocks change: what falls into the skipped hour runs right after it, and what falls into the
repeated hour runs the first time only. A line with `*` in its hours or minutes goes by elapsed time, so an hourly job runs in
both hours of the same name.

Times are seconds since the epoch. Used by `schedules.py`, and by the command line for previews.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice, takewhile
from typing import Final, Protocol
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from meshhost.errors import InvalidRequestError

__all__ = [
    "SHORTEST_INTERVAL",
    "Cron",
    "Interval",
    "Once",
    "Timing",
    "check_time",
    "next_times",
    "shortest_gap",
    "zone_of",
]

SHORTEST_INTERVAL: Final = 10.0
LONGEST_INTERVAL: Final = 366 * 24 * 3600.0
# The year 9000: what datetime can hold in every zone.
_LATEST: Final = 221_845_392_000.0
# Longer than any change of a clock: a search backwards begins this much later, see `Cron.up_to`.
_CHANGE_SECONDS: Final = 2 * 3600.0
_LONGEST_LINE: Final = 200
# How many gaps are looked at, and how far ahead: a rare line is searched for day by day.
_GAPS: Final = 100
_GAPS_SECONDS: Final = 400 * 24 * 3600.0
_NAMED: Final = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
# What cronsim calls a field, and what may stand there.
_FIELDS: Final = {
    "minute": "0-59",
    "hour": "0-23",
    "day-of-month": "1-31, L or LW, in a month that has that day",
    "month": "1-12 or JAN-DEC",
    "day-of-week": "0-7 or SUN-SAT",
}


class Timing(Protocol):
    """When something is due."""

    def after(self, time: float) -> float | None:
        """Return the first occurrence after this time; None when there is none."""
        ...

    def up_to(self, time: float, *, since: float, most: int) -> Sequence[float]:
        """Return the newest occurrences from `since` up to this time, both included: at most `most`, in order."""
        ...


@dataclass(frozen=True, slots=True)
class Once:
    """One time."""

    at: float

    def after(self, time: float) -> float | None:
        """See Timing."""
        return self.at if self.at > time else None

    def up_to(self, time: float, *, since: float, most: int) -> Sequence[float]:
        """See Timing."""
        return [self.at][:most] if since <= self.at <= time else []


@dataclass(frozen=True, slots=True)
class Interval:
    """Every so many seconds, the first time at `start`. Raises InvalidRequestError."""

    seconds: float
    start: float

    def __post_init__(self) -> None:
        """Check the length."""
        if not SHORTEST_INTERVAL <= self.seconds <= LONGEST_INTERVAL:
            raise InvalidRequestError("every", f"expected from {SHORTEST_INTERVAL:.0f} seconds up to 366 days")

    def after(self, time: float) -> float | None:
        """See Timing."""
        number = max(math.floor((time - self.start) / self.seconds) + 1, 0)
        while (found := self._occurrence(number)) <= time:  # by rounding
            number += 1
        return found

    def up_to(self, time: float, *, since: float, most: int) -> Sequence[float]:
        """See Timing."""
        last = math.floor((time - self.start) / self.seconds) + 1
        first = max(math.ceil((since - self.start) / self.seconds) - 1, last - most - 2, 0)
        found = [self._occurrence(number) for number in range(first, last + 1)]
        return [each for each in found if since <= each <= time][-most:] if most else []

    def _occurrence(self, number: int) -> float:
        return self.start + number * self.seconds


class Cron:
    """A cron line of five fields, or a name such as `@daily`, in a time zone.

    Raises InvalidRequestError, which names the field of the line.
    """

    __slots__ = ("_line", "_zone")

    def __init__(self, line: str, zone: str = "UTC") -> None:
        self._zone = zone_of(zone)
        self._line = _NAMED.get(line.strip().lower(), line)
        parts = self._line.split()
        if len(parts) != len(_FIELDS) or len(self._line) > _LONGEST_LINE:
            names = ", ".join(_FIELDS)
            raise InvalidRequestError(
                "cron", f"expected five fields ({names}) such as '30 8 * * 1-5', got {len(parts)}"
            )
        try:
            found = next(CronSim(self._line, datetime(2000, 1, 1, tzinfo=UTC)), None)
        except CronSimError as error:
            field = str(error).removeprefix("Bad ")
            shown = dict(zip(_FIELDS, parts, strict=True)).get(field, "")[:40]
            raise InvalidRequestError("cron", f"{field}: expected {_FIELDS.get(field)}, got {shown!r}") from None
        if found is None:
            raise InvalidRequestError("cron", "no day is like that: this would never run")

    def after(self, time: float) -> float | None:
        """See Timing."""
        return next((found for found in self._search(time) if found > time), None)

    def up_to(self, time: float, *, since: float, most: int) -> Sequence[float]:
        """See Timing."""
        # cronsim searches by the clock on the wall. In the second of two hours of the same name, it would begin before what was
        # due in the first one; so the search begins later and leaves out what is not due yet.
        found = (each for each in self._search(time + _CHANGE_SECONDS, reverse=True) if each <= time)
        return [*islice(takewhile(lambda each: each >= since, found), most)][::-1]

    def _search(self, time: float, *, reverse: bool = False) -> Iterator[float]:
        start = datetime.fromtimestamp(math.floor(check_time(time)), self._zone)
        if reverse:
            start = datetime.fromtimestamp(math.floor(time) + 1, self._zone)
        return (found.timestamp() for found in CronSim(self._line, start, reverse=reverse))


def next_times(timing: Timing, after: float, count: int) -> list[float]:
    """Return the first occurrences after this time, at most `count`."""
    times: list[float] = []
    due = timing.after(after)
    while due is not None and len(times) < count:
        times.append(due)
        due = timing.after(due)
    return times


def shortest_gap(timing: Timing, start: float) -> float | None:
    """Return the shortest time between two of the next occurrences, within about a year; None when there are not two."""
    gaps: list[float] = []
    before = timing.after(start)
    while before is not None and len(gaps) < _GAPS and before < start + _GAPS_SECONDS:
        following = timing.after(before)
        if following is not None:
            gaps.append(following - before)
        before = following
    return min(gaps, default=None)


def zone_of(name: str) -> ZoneInfo:
    """Return the time zone of a name such as Europe/Berlin. Raises InvalidRequestError."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # a name that is a folder, a path, or not there
        text = "expected the name of a time zone such as Europe/Berlin"
        raise InvalidRequestError("timezone", f"{text}, got {name[:40]!r}") from None


def check_time(time: float) -> float:
    """Return a time that a calendar has. Raises InvalidRequestError."""
    if not 0 <= time <= _LATEST:
        raise InvalidRequestError("at", "expected a time between 1970 and the year 9000")
    return time

"""How often messages of a queue, or of one key, may be started: a rate as people write it, and the arithmetic of it.

The rule is GCRA, a token bucket that is one number: the time until which the starts so far are paid for, each with an interval
of 1/rate. A start is allowed while that time is less than a burst ahead. The number is what the stores keep for a queue and
for each key that was started lately, so that any number of workers and servers share one rate; they call `places` before they
hand messages out and `taken` after it, both in one transaction. Pure: times come from the caller, on any line that grows.

Invariant: over any time of t seconds at most burst + rate * t messages are started. A number that is further ahead than a whole
burst, because a clock was set back or the rate was lower, counts as a whole burst: so nothing waits longer than it takes to
pay one.
"""

import functools
import math
import re
from dataclasses import dataclass

from meshhost.errors import InvalidRequestError

__all__ = ["MAX_BURST", "MAX_INTERVAL", "Rate", "check_burst", "check_rate", "rate_of"]

MAX_BURST = 1_000_000
# Seconds between two starts.
MAX_INTERVAL = 24 * 3600.0
_MOST_PER_SECOND = 1_000_000.0
_FORM = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)/(s|sec|second|m|min|minute|h|hour)")
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}
# Of one start.
_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True)
class Rate:
    """At most one start in `interval` seconds on average, and `burst` at once. `until` is the number that is kept, or 0."""

    interval: float
    burst: int

    @property
    def slack(self) -> float:
        """By how many seconds a start may come too early: times are floats, so a wake-up may be slightly early."""
        return self.interval * _TOLERANCE

    def places(self, until: float, now: float) -> int:
        """How many may be started now."""
        left = now + self.burst * self.interval - self._now(until, now)
        return max(math.floor(left / self.interval + _TOLERANCE), 0)

    def taken(self, until: float, now: float, count: int = 1) -> float:
        """What to keep after `count` more starts."""
        return self._now(until, now) + count * self.interval

    def next_at(self, until: float, now: float) -> float:
        """When one may be started again."""
        return max(self._now(until, now) - (self.burst - 1) * self.interval, now)

    def _now(self, until: float, now: float) -> float:
        return min(max(until, now), now + self.burst * self.interval)


def rate_of(rate: str | None, burst: int | None = None) -> Rate | None:
    """Return a rate that was checked, or None for None. Without a `burst` it is what may be started in a second, at least 1."""
    return None if rate is None else _parsed(rate, burst)


def check_rate(name: str, text: str) -> None:
    """Raise InvalidRequestError unless the text of this setting is a rate that can be kept."""
    found = _FORM.fullmatch(text)
    if found is None:
        raise InvalidRequestError(name, f"expected starts per time, such as 10/s, 600/m or 100/h, got {text[:60]!r}")
    seconds = _SECONDS[found[2][0]]
    per_second = float(found[1]) / seconds
    if not 1 / MAX_INTERVAL <= per_second <= _MOST_PER_SECOND:
        raise InvalidRequestError(name, f"expected between 1 in 24 hours and {_MOST_PER_SECOND:.0f}/s, got {text!r}")


def check_burst(name: str, burst: int) -> None:
    """Raise InvalidRequestError unless the burst is one that can be set."""
    if not 1 <= burst <= MAX_BURST:
        raise InvalidRequestError(name, f"expected a number from 1 to {MAX_BURST}, got {burst}")


@functools.lru_cache(maxsize=1024)
def _parsed(text: str, burst: int | None) -> Rate:
    number, _, unit = text.partition("/")
    interval = _SECONDS[unit[0]] / float(number)
    return Rate(interval, burst or max(math.floor(1 / interval + _TOLERANCE), 1))

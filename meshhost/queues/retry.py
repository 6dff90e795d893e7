"""How long to wait before the next try: capped exponential backoff with full jitter."""

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["RetryPolicy"]

# 2**64 seconds are past any cap, and no float overflows on the way.
_MAX_DOUBLINGS = 64


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Waits grow by `factor` from `first_delay` to at most `max_delay` seconds.

    Full jitter: the wait is a random part of that, so that messages which failed together are not retried together.
    """

    first_delay: float = 1.0
    max_delay: float = 300.0
    factor: float = 2.0

    def longest(self, attempt: int) -> float:
        """The bound of the wait after this failed attempt (1 for the first). Never falls, never passes `max_delay`."""
        return float(min(self.max_delay, self.first_delay * self.factor ** min(attempt - 1, _MAX_DOUBLINGS)))

    def delay(self, attempt: int, random: Callable[[], float]) -> float:
        """The wait in seconds; `random` returns a number from 0 to 1."""
        return random() * self.longest(attempt)

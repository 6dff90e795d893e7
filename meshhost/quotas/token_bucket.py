"""A token bucket: lets a number of events per second pass on average, and some at once.

Quotas of starts per second (`meshhost.hosting.tenants.quotas`) and of requests per second (`rates.py`) are made of it. It knows
nothing of tenants and awaits nothing.
"""

from meshhost.clock import Clock

__all__ = ["TokenBucket"]


class TokenBucket:
    """Lets `rate` events per second pass on average, and `burst` at once."""

    __slots__ = ("_at", "_clock", "_last_turn", "_tokens", "burst", "rate")

    def __init__(self, rate: float, burst: float, *, clock: Clock) -> None:
        self.rate = rate
        self.burst = burst
        self._clock = clock
        self._tokens = burst
        self._at = self._last_turn = clock.monotonic()

    @property
    def is_full(self) -> bool:
        """Whether it equals a new bucket."""
        self._refill()
        return self._tokens >= self.burst

    def wait(self) -> float:
        """Seconds until the next event may pass; 0 when it may now. Changes nothing."""
        self._refill()
        return 0.0 if self._tokens >= 1 else (1 - self._tokens) / self.rate

    def turn(self, most: float) -> float:
        """Seconds until an event that may not pass now should be tried again.

        Each that asks gets a turn of its own after those before it, so that they do not all come at once for one token. None is
        told more than `most`, unless `wait` is longer.
        """
        wait, now = self.wait(), self._clock.monotonic()
        self._last_turn = min(max(now + wait, self._last_turn + 1 / self.rate), now + max(wait, most))
        return self._last_turn - now

    def debt(self) -> float:
        """Seconds until events that were let pass without waiting are made up for. Changes nothing."""
        self._refill()
        return max(-self._tokens, 0.0) / self.rate

    def take(self) -> None:
        """Let one event pass. While `wait` is not 0 this makes a debt, of at most a burst: `wait` grows."""
        self._refill()
        self._tokens = max(self._tokens - 1, -self.burst)

    def _refill(self) -> None:
        now = self._clock.monotonic()
        self._tokens = min(self.burst, self._tokens + (now - self._at) * self.rate)
        # Rounding may leave a token just below 1 forever, and `wait` would never be 0.
        if 0 < 1 - self._tokens < 1e-9:
            self._tokens = 1.0
        self._at = now

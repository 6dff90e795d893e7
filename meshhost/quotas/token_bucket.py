"""A token bucket: lets a number of events per second pass on average, and some at once.

Quotas of starts per second (`meshhost.hosting.tenants.quotas`) and of requests per second (`rates.py`) are made of it. It knows
nothing of tenants and awaits nothing.
"""

from meshhost.clock import Clock

__all__ = ["TokenBucket"]


class TokenBucket:
    """Lets `rate` events per second pass on average, and `burst` at once."""

    __slots__ = ("_at", "_clock", "_tokens", "burst", "rate")

    def __init__(self, rate: float, burst: float, *, clock: Clock) -> None:
        self.rate = rate
        self.burst = burst
        self._clock = clock
        self._tokens = burst
        self._at = clock.monotonic()

    @property
    def is_full(self) -> bool:
        """Whether it equals a new bucket."""
        self._refill()
        return self._tokens >= self.burst

    def wait(self) -> float:
        """Seconds until the next event may pass; 0 when it may now. Changes nothing."""
        self._refill()
        return 0.0 if self._tokens >= 1 else (1 - self._tokens) / self.rate

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

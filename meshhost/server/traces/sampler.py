"""Decides how many traces are recorded: a number per second for each tenant, whatever the others do.

It is asked for every message that is sent, so an answer is two look-ups and a little arithmetic. A tenant that was quiet for a
second has its whole number again, and what is over is not recorded: it costs nothing more.
"""

from meshhost.clock import Clock, SystemClock

__all__ = ["Sampler"]

# Beyond it, tenants that have their whole number again are forgotten.
_MOST_TENANTS = 10_000


class Sampler:
    """Lets `per_second` traces of each tenant begin, and as many at once; 0: none."""

    def __init__(self, per_second: float, *, clock: Clock | None = None) -> None:
        self._rate = per_second
        self._burst = max(per_second, 1.0) if per_second > 0 else 0.0
        self._clock = clock or SystemClock()
        self._left: dict[str, tuple[float, float]] = {}

    def take(self, tenant: str, wanted: int = 1) -> int:
        """How many of the wanted ones may begin now."""
        now = self._clock.monotonic()
        left, at = self._left.get(tenant, (self._burst, now))
        left = min(self._burst, left + (now - at) * self._rate)
        taken = min(wanted, int(left))
        self._left[tenant] = left - taken, now
        if len(self._left) > _MOST_TENANTS:
            self._left = {
                name: (n, t) for name, (n, t) in self._left.items() if n + (now - t) * self._rate < self._burst
            }
        return taken

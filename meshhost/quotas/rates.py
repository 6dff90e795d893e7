"""Requests and new connections per second of each tenant: token buckets, asked before each of them.

The room server asks `take` for each request of REST and in rooms, and `connect` before a participant joins. An error says in
how many seconds to try again, to each refused one another time, so that they do not all come for the next token. A connection
waits that long before it reads the next message, and as long as `pause` says after requests that must not be refused, so that
neither becomes a flood. Nothing here awaits, and a tenant without a limit costs two look-ups. Each server counts on its
own: a tenant gets its rate at each of several servers.
"""

from collections.abc import Callable
from typing import Protocol

from meshhost.clock import Clock, SystemClock
from meshhost.quotas.quota import ServerQuota, over_rate
from meshhost.quotas.token_bucket import TokenBucket

__all__ = ["MAX_PAUSE", "Rates", "TenantRates"]

_MIN_BURST = 10.0
_REQUESTS, _CONNECTIONS = "requests_per_second", "connections_per_second"
MAX_PAUSE = 1.0
"""How long a connection waits before it reads on, in seconds."""


class Rates(Protocol):
    """Decides whether a tenant may send another request. All methods return at once."""

    def take(self, tenant: str, *, may_refuse: bool = True) -> None:
        """Count a request. Raises QuotaExceededError when the tenant is over its rate, and then counts nothing.

        A request that must not be refused is counted in any case.
        """
        ...

    def connect(self, tenant: str) -> None:
        """Count a new connection. Raises QuotaExceededError when the tenant is over its rate, and then counts nothing."""
        ...

    def pause(self, tenant: str) -> float:
        """Return how many seconds its connections wait before they read on, at most MAX_PAUSE: for what was not refused."""
        ...


class TenantRates:
    """Keeps the contract of Rates in this process. `quota_of` returns the present quota of a tenant."""

    def __init__(self, quota_of: Callable[[str], ServerQuota], *, clock: Clock | None = None) -> None:
        self._quota_of = quota_of
        self._clock = clock or SystemClock()
        self._buckets: dict[tuple[str, str], TokenBucket] = {}

    def take(self, tenant: str, *, may_refuse: bool = True) -> None:
        """See Rates."""
        self._take(tenant, _REQUESTS, may_refuse=may_refuse)

    def connect(self, tenant: str) -> None:
        """See Rates."""
        self._take(tenant, _CONNECTIONS, may_refuse=True)

    def pause(self, tenant: str) -> float:
        """See Rates."""
        bucket = self._bucket(tenant, _REQUESTS)
        return 0.0 if bucket is None else min(bucket.debt(), MAX_PAUSE)

    def _take(self, tenant: str, name: str, *, may_refuse: bool) -> None:
        bucket = self._bucket(tenant, name)
        if bucket is None:
            return
        if may_refuse and bucket.wait() > 0:
            raise over_rate(name, bucket.rate, bucket.turn(MAX_PAUSE))
        bucket.take()

    def _bucket(self, tenant: str, name: str) -> TokenBucket | None:
        rate: float | None = getattr(self._quota_of(tenant), name)
        if rate is None:
            return None
        bucket = self._buckets.get((tenant, name))
        if bucket is None or bucket.rate != rate:
            bucket = self._buckets[tenant, name] = TokenBucket(rate, max(_MIN_BURST, rate), clock=self._clock)
        return bucket

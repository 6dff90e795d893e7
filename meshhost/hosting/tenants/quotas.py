"""How much of a host one tenant may take."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from meshhost.clock import Clock
from meshhost.errors import CallRefusedError, SettingsError

__all__ = ["Quotas", "TenantQuota", "TokenBucket"]

# Tells a caller when to ask again for what nobody can foresee: that an agent ends, that a start is over.
RETRY_AFTER_SECONDS = 5.0
_MAX_BUCKETS = 10_000


@dataclass(frozen=True, slots=True)
class TenantQuota:
    """The share of one tenant; None is no limit.

    At most `max_agents` live and `max_waiting` of them waiting for their start; `starts_per_second` new ones on average, in
    bursts of as many (at least one). Its agents with processes of their own take at most `memory_mb` megabytes together. Of the
    starts a tenant of `weight` 2 gets twice those of a tenant of weight 1.
    """

    max_agents: int | None = None
    starts_per_second: float | None = None
    max_waiting: int = 100
    weight: int = 1
    memory_mb: float | None = None

    def __post_init__(self) -> None:
        if self.max_agents is not None and self.max_agents < 0:
            raise SettingsError("quota max_agents must not be negative")
        rate = self.starts_per_second
        if rate is not None and not 0 < rate < math.inf:
            raise SettingsError("quota starts_per_second must be more than 0 (None: no limit)")
        if self.memory_mb is not None and not 0 < self.memory_mb < math.inf:
            raise SettingsError("quota memory_mb must be more than 0 (None: no limit)")
        if self.max_waiting < 1 or self.weight < 1:
            raise SettingsError("quota max_waiting and weight must be at least 1")


class TokenBucket:
    """Lets `rate` things a second pass on average, and `burst` at once."""

    __slots__ = ("_at", "_clock", "_tokens", "burst", "rate")

    def __init__(self, rate: float, burst: float, *, clock: Clock) -> None:
        self.rate = rate
        self.burst = burst
        self._clock = clock
        self._tokens = burst
        self._at = clock.monotonic()

    @property
    def is_full(self) -> bool:
        """Whether it is as good as a new one."""
        self._refill()
        return self._tokens >= self.burst

    def wait(self) -> float:
        """Seconds until the next may pass; 0 when it may now. Takes nothing."""
        self._refill()
        return 0.0 if self._tokens >= 1 else (1 - self._tokens) / self.rate

    def take(self) -> None:
        """Let one pass. For when `wait` is 0."""
        self._refill()
        self._tokens -= 1

    def _refill(self) -> None:
        now = self._clock.monotonic()
        self._tokens = min(self.burst, self._tokens + (now - self._at) * self.rate)
        # A remainder below what a float shows would make one wait for nothing, for ever.
        if 0 < 1 - self._tokens < 1e-9:
            self._tokens = 1.0
        self._at = now


class Quotas:
    """Decides whether a tenant may start one more agent. `overrides` are by tenant, `default` is for all others."""

    def __init__(
        self, *, clock: Clock, default: TenantQuota | None = None, overrides: Mapping[str, TenantQuota] | None = None
    ) -> None:
        self._clock = clock
        self._default = default if default is not None else TenantQuota()
        self._overrides = dict(overrides or {})
        self._buckets: dict[str, TokenBucket] = {}

    def of(self, tenant: str) -> TenantQuota:
        """The tenant's quota."""
        return self._overrides.get(tenant, self._default)

    def weight(self, tenant: str) -> int:
        """The tenant's weight."""
        return self.of(tenant).weight

    def admit(self, tenant: str, *, live: int, waiting: int) -> None:
        """Count a start of the tenant, of whom `live` agents live here and `waiting` of them wait for their start.

        Raises CallRefusedError (429) that names the quota; then nothing is counted.
        """
        quota = self.of(tenant)
        if quota.max_agents is not None and live >= quota.max_agents:
            raise _refused(f"max_agents: {quota.max_agents} agents of this tenant may live here", RETRY_AFTER_SECONDS)
        if waiting >= quota.max_waiting:
            raise _refused(
                f"max_waiting: {quota.max_waiting} agents of this tenant may wait for their start", RETRY_AFTER_SECONDS
            )
        if quota.starts_per_second is None:
            return
        bucket = self._bucket(tenant, quota.starts_per_second)
        if (seconds := bucket.wait()) > 0:
            raise _refused(f"starts_per_second: {quota.starts_per_second:g} agents of this tenant", seconds)
        bucket.take()

    def _bucket(self, tenant: str, rate: float) -> TokenBucket:
        bucket = self._buckets.get(tenant)
        if bucket is None:
            if len(self._buckets) >= _MAX_BUCKETS:
                # Those that are full say nothing a new one would not.
                self._buckets = {name: one for name, one in self._buckets.items() if not one.is_full}
            bucket = self._buckets[tenant] = TokenBucket(rate, max(1.0, rate), clock=self._clock)
        return bucket


def _refused(what: str, retry_after: float) -> CallRefusedError:
    return CallRefusedError(f"over the tenant's quota {what}", status=429, retry_after=retry_after)

"""How many agents of one tenant may live, wait and start: the limits, and the decision about one more start.

`Tenancy.check_start` asks `Quotas.admit` for each new agent; the start queue takes the weights from here; `memory_quota`
enforces `memory_mb`. `TenantQuota` is public: users pass it to `ServiceHost`. No I/O and no tasks.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from meshhost.clock import Clock
from meshhost.errors import CallRefusedError, SettingsError
from meshhost.hosting.refusals import RETRY_SOON_SECONDS
from meshhost.quotas.token_bucket import TokenBucket

__all__ = ["Quotas", "TenantQuota", "TokenBucket"]

_MAX_BUCKETS = 10_000


@dataclass(frozen=True, slots=True)
class TenantQuota:
    """The limits of one tenant; None means no limit.

    At most `max_agents` agents live, and at most `max_waiting` of them wait for their start. Per second `starts_per_second` new
    agents start on average, in bursts of the same number (at least one). Its agents with processes of their own use at most
    `memory_mb` megabytes together. A tenant of `weight` 2 gets twice as many turns to start as a tenant of weight 1.
    """

    max_agents: int | None = None
    starts_per_second: float | None = None
    max_waiting: int = 1_000  # as MESHHOST_TENANT_MAX_WAITING
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


class Quotas:
    """Decides whether a tenant may start one more agent. `overrides` are by tenant; `default` is for all others."""

    def __init__(
        self,
        *,
        clock: Clock,
        default: TenantQuota | None = None,
        overrides: Mapping[str, TenantQuota] | None = None,
        max_buckets: int = _MAX_BUCKETS,
    ) -> None:
        self._clock = clock
        self._default = default if default is not None else TenantQuota()
        self._overrides = dict(overrides or {})
        self._max_buckets = max_buckets
        self._buckets: dict[str, TokenBucket] = {}

    def of(self, tenant: str) -> TenantQuota:
        """The tenant's quota."""
        return self._overrides.get(tenant, self._default)

    def weight(self, tenant: str) -> int:
        """The tenant's weight."""
        return self.of(tenant).weight

    def admit(self, tenant: str, *, live: int, waiting: int) -> None:
        """Count a start of the tenant, which has `live` agents, `waiting` of them for their start.

        Raises CallRefusedError (429) naming the quota; then nothing is counted.
        """
        quota = self.of(tenant)
        if quota.max_agents is not None and live >= quota.max_agents:
            raise _refused(f"max_agents: {quota.max_agents} agents of this tenant may live here", RETRY_SOON_SECONDS)
        if waiting >= quota.max_waiting:
            raise _refused(
                f"max_waiting: {quota.max_waiting} agents of this tenant may wait for their start", RETRY_SOON_SECONDS
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
            if len(self._buckets) >= self._max_buckets:
                # A full bucket equals a new one, so it need not be kept.
                self._buckets = {name: one for name, one in self._buckets.items() if not one.is_full}
            bucket = self._buckets[tenant] = TokenBucket(rate, max(1.0, rate), clock=self._clock)
        return bucket


def _refused(what: str, retry_after: float) -> CallRefusedError:
    return CallRefusedError(f"over the tenant's quota {what}", status=429, retry_after=retry_after)

"""The contract of the usage store: what participants spent on models, as measured by the LLM gateway.

One row holds the sums of one UTC hour for one (tenant, room, identity, model, price). `meshhost.gateway.meter` is the only
writer: it adds batches off the request path. Readers are the REST API and, later, a ledger with budgets; all of them
read through this Protocol, so there is one place where the truth about usage is written and one way to read it. What agents
report about themselves (`meshhost.usage`) never reaches this store.

The price is a part of the key, and no cost is stored: tokens that were used at different prices are never summed, so their
cost can be computed exactly at any time (`meshhost.gateway.prices`), and a new price changes nothing about the past.

This module is pure: values and signatures, no I/O. Implementations: `stores/memory/usage.py`, `stores/sqlite/usage.py`; one
contract suite runs on all of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from meshhost.identity.tenant import TenantId

__all__ = ["HOUR", "UsageCounts", "UsageKey", "UsageRow", "UsageStore", "hour_of"]

HOUR = 3600


class UsageKey(NamedTuple):
    """Who used which model, and when. `hour` is the begin of a UTC hour in seconds since the epoch.

    `price` is the price in force then, in the words of `meshhost.gateway.prices`, which no store reads; "" when none was set.
    """

    tenant: TenantId
    room: str
    identity: str
    model: str
    hour: int
    price: str = ""


@dataclass(frozen=True, slots=True)
class UsageCounts:
    """Sums over requests.

    `cached_tokens` are the part of `input_tokens` that the provider read from its cache, and `cache_write_tokens` the part that
    it wrote there. `seconds` is the time from request to the end of its answer. `unmeasured` counts the requests whose answer
    named no usage: their tokens are not in the sums.
    """

    requests: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    seconds: float = 0.0
    unmeasured: int = 0
    cache_write_tokens: int = 0

    def plus(self, other: "UsageCounts") -> "UsageCounts":
        """Return the sum of both."""
        return UsageCounts(
            self.requests + other.requests,
            self.input_tokens + other.input_tokens,
            self.cached_tokens + other.cached_tokens,
            self.output_tokens + other.output_tokens,
            self.seconds + other.seconds,
            self.unmeasured + other.unmeasured,
            self.cache_write_tokens + other.cache_write_tokens,
        )


class UsageRow(NamedTuple):
    """The stored sums of one key."""

    key: UsageKey
    counts: UsageCounts


class UsageStore(Protocol):
    """A durable store of usage, for one or several writers.

    Methods are safe to call concurrently and atomic. A failing store raises OSError, and nothing of the call is done then;
    one that is not open raises RoomError.
    """

    async def open(self) -> None:
        """Make the store usable (schema, migrations). Raises SettingsError when it cannot be used, OSError."""
        ...

    async def close(self) -> None:
        """Finish what was accepted and release all resources. Idempotent."""
        ...

    async def add(self, sums: Mapping[UsageKey, UsageCounts]) -> None:
        """Add these sums to those stored, all or none; they are on disk when this returns."""
        ...

    async def delete(self, tenant: TenantId) -> None:
        """Delete all rows of a tenant; idempotent, in steps. A crash may leave some."""
        ...

    async def read(
        self,
        tenant: TenantId,
        *,
        room: str | None = None,
        since: float | None = None,
        until: float | None = None,
        limit: int = 1000,
        offset: int = 0,
    ) -> Sequence[UsageRow]:
        """Return rows of one tenant, ordered by hour, room, identity, model and price.

        `since` and `until` are seconds since the epoch: a row is included when its hour begins at or after the hour of
        `since` and before `until`. At most `limit` rows, after the first `offset`.
        """
        ...

    async def totals(
        self,
        *,
        since: float | None = None,
        until: float | None = None,
        hours: int = 1,
        limit: int = 1000,
        offset: int = 0,
    ) -> Sequence[UsageRow]:
        """Return the sums of all tenants over rooms and identities, ordered by hour, tenant, model and price.

        `hours` of them (1 or 24) are one sum, whose `hour` is that of its begin; its room and identity are empty. The rest is
        as in `read`.
        """
        ...


def hour_of(time: float) -> int:
    """Return the begin of the UTC hour of a time; both in seconds since the epoch."""
    return int(time // HOUR) * HOUR

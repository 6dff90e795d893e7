"""Counts what each tenant has taken of a room server, and refuses what is over its quota.

There are two kinds of resources. What is *open* (rooms, connections, agents, uploads) is counted by those who open it: they
`take` a place and `give_back` it. What is *kept* (queues and messages, files and bytes, documents) is in a store, which several
servers may use. A source counts it there when a tenant first needs it, in one query; from then on the count is kept in memory,
so that a send costs no query: a place is taken before the operation of the store, and `keep` says that the store has it now;
`free` says that the store has less. It is counted again about once a minute while it is used, and before a refusal if the count
is not fresh or doubtful. So the count is right after a crash, and an error in it does not last.

A store runs its operations in order, so a count has seen the operations that began before it and none that began later: `mark`
is called before an operation, and tells the two apart when its outcome is known. PostgreSQL runs operations beside each other:
there a count may be wrong, until the next one, by the operations that were under way while it was made.

Everything runs in one event loop. Between the check and the addition nothing is awaited, so that concurrent callers never pass
a limit together. Counting runs in tasks of a TaskOwner, one per tenant and source, which no caller's cancellation ends; `stop`
ends them.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import NewType, Protocol, Self, TypeAlias

from meshhost.clock import Clock, SystemClock
from meshhost.errors import MeshhostError
from meshhost.quotas.quota import Resource, ServerQuota, over_quota
from meshhost.tasks import TaskOwner

__all__ = ["UNCOUNTED", "LocalCounts", "Mark", "Source", "TenantCounts", "held"]

logger = logging.getLogger(__name__)

# Counts what a tenant keeps in a store. Raises OSError or MeshhostError.
Source: TypeAlias = Callable[[str], Awaitable[Mapping[Resource, int]]]
Mark = NewType("Mark", int)
"""A moment among the counts of a process."""

_RECOUNT_SECONDS = 60.0
_FRESH_SECONDS = 1.0
# A count that takes long is made more rarely: at most this share of the time is spent counting, for a tenant at its limit more.
_SHARE_RECOUNTING = 0.01
_SHARE_AT_LIMIT = 0.1
# A count that takes less is waited for whenever it is made.
_QUICK_SECONDS = 0.1


class TenantCounts(Protocol):
    """Counts what tenants have taken. The one place that enforces quotas of numbers; made to be replaced for several servers.

    What an implementation guarantees: within one process a limit is never passed by concurrent callers. What other servers
    took is known within about a minute, and always before a tenant is refused: several servers may together pass a limit by
    what they took in that time, and a tenant below its limit is not refused for longer than a second (where counting takes
    long: ten times as long). A tenant's count is never changed by another tenant. After a crash the count is taken from what
    is kept.
    """

    async def take(self, tenant: str, resource: Resource, amount: int = 1, *, may_refuse: bool = True) -> None:
        """Take a place for something that will be open or kept. Raises QuotaExceededError when that is over the quota.

        Then nothing is taken. What must not be refused is taken in any case.
        """
        ...

    def give_back(self, tenant: str, resource: Resource, amount: int = 1) -> None:
        """End what was taken: it is closed, or was not kept."""
        ...

    def mark(self) -> Mark:
        """Return the present moment; call it just before an operation of a store."""
        ...

    def keep(self, tenant: str, resource: Resource, amount: int = 1, *, since: Mark) -> None:
        """What was taken is in the store now, by an operation that began at this mark."""
        ...

    def free(self, tenant: str, resource: Resource, amount: int = 1, *, since: Mark) -> None:
        """The store has less of it now, by an operation that began at this mark."""
        ...

    def doubt(self, tenant: str, resource: Resource, *, may_be_more: bool = False) -> None:
        """The store may have less than is counted, by an unknown amount: count again before the tenant is refused.

        Where it may also have more, count again before the tenant takes more, but not at every request.
        """
        ...

    def forget(self, tenant: str) -> None:
        """The tenant was deleted: nothing of it is left in the stores."""
        ...

    async def use(self, tenant: str) -> Mapping[Resource, int]:
        """Return what the tenant has now, with what it has taken a place for. What cannot be counted is missing."""
        ...

    def known(self) -> Mapping[str, Mapping[Resource, int]]:
        """Return what is known at this moment, without counting, by tenant."""
        ...


class _Uncounted:
    """The counts of a server without quotas. See TenantCounts for all methods."""

    async def take(self, tenant: str, resource: Resource, amount: int = 1, *, may_refuse: bool = True) -> None:
        """Never refuses."""

    def give_back(self, tenant: str, resource: Resource, amount: int = 1) -> None:
        """Does nothing."""

    def mark(self) -> Mark:
        """Every moment is the same."""
        return Mark(0)

    def keep(self, tenant: str, resource: Resource, amount: int = 1, *, since: Mark) -> None:
        """Does nothing."""

    def free(self, tenant: str, resource: Resource, amount: int = 1, *, since: Mark) -> None:
        """Does nothing."""

    def doubt(self, tenant: str, resource: Resource, *, may_be_more: bool = False) -> None:
        """Does nothing."""

    def forget(self, tenant: str) -> None:
        """Does nothing."""

    async def use(self, tenant: str) -> Mapping[Resource, int]:
        """Nothing is known."""
        return {}

    def known(self) -> Mapping[str, Mapping[Resource, int]]:
        """Nothing is known."""
        return {}


UNCOUNTED: TenantCounts = _Uncounted()
"""Counts nothing and refuses nothing."""


@asynccontextmanager
async def held(counts: TenantCounts, tenant: str, *resources: Resource, may_refuse: bool = True) -> AsyncIterator[None]:
    """Take one of each resource for the time of the block. Raises QuotaExceededError, and then takes none."""
    taken: list[Resource] = []
    try:
        for resource in resources:
            await counts.take(tenant, resource, may_refuse=may_refuse)
            taken.append(resource)
        yield
    finally:
        for resource in taken:
            counts.give_back(tenant, resource)


class _Tally:
    """What one tenant has of the resources of one source (None: what is only open).

    `taken` are places, `kept` is what the store has. `counted_at` is the monotonic time of the last count, None before the
    first: until then `kept` holds changes only. `begun` is the number of the last count among all of the process.
    """

    __slots__ = (
        "begun",
        "counted_at",
        "counting",
        "is_doubtful",
        "kept",
        "may_be_low",
        "seconds",
        "source",
        "taken",
        "tenant",
    )

    def __init__(self, tenant: str, source: Source | None) -> None:
        self.tenant = tenant
        self.source = source
        self.taken: dict[Resource, int] = {}
        self.kept: dict[Resource, int] = {}
        self.begun = 0
        self.counted_at: float | None = None
        self.seconds = 0.0  # what the last count took
        self.is_doubtful = False
        self.may_be_low = False
        self.counting: asyncio.Task[None] | None = None

    def used(self, resource: Resource) -> int:
        return self.taken.get(resource, 0) + self.kept.get(resource, 0)

    def use(self) -> dict[Resource, int]:
        return {resource: max(self.used(resource), 0) for resource in {*self.taken, *self.kept}}


class LocalCounts:
    """Keeps the contract of TenantCounts in this process. Use it as a context manager, or call `stop`.

    `quota_of` returns the present quota of a tenant; `sources` say who counts the resources that are kept. A request waits for
    a count for at most `wait_seconds`: a source may have a million files to look at.
    """

    def __init__(
        self,
        quota_of: Callable[[str], ServerQuota],
        *,
        sources: Iterable[tuple[frozenset[Resource], Source]] = (),
        clock: Clock | None = None,
        wait_seconds: float = 2.0,
    ) -> None:
        self.wait_seconds = wait_seconds
        self._quota_of = quota_of
        self._clock = clock or SystemClock()
        self._source_of: dict[Resource, Source | None] = dict.fromkeys(Resource)
        for resources, source in sources:
            self._source_of |= dict.fromkeys(resources, source)
        self._tallies: dict[tuple[str, Source | None], _Tally] = {}
        self._begun = 0
        self._tasks = TaskOwner("tenant counts")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Stop counting. Idempotent."""
        await self._tasks.stop()

    async def take(self, tenant: str, resource: Resource, amount: int = 1, *, may_refuse: bool = True) -> None:
        """See TenantCounts."""
        tally = self._tally(tenant, resource)
        limit = self._quota_of(tenant).limit_of(resource)
        if limit is not None and may_refuse:
            if tally.source is not None and self._is_due(tally):
                await self._count_first(tally)
            if tally.used(resource) + amount > limit:
                await self._check(tally, resource, amount, limit)
        tally.taken[resource] = tally.taken.get(resource, 0) + amount

    def give_back(self, tenant: str, resource: Resource, amount: int = 1) -> None:
        """See TenantCounts."""
        tally = self._tally(tenant, resource)
        tally.taken[resource] = tally.taken.get(resource, 0) - amount

    def mark(self) -> Mark:
        """See TenantCounts."""
        return Mark(self._begun)

    def keep(self, tenant: str, resource: Resource, amount: int = 1, *, since: Mark) -> None:
        """See TenantCounts."""
        self.give_back(tenant, resource, amount)
        self._change(tenant, resource, amount, since)

    def free(self, tenant: str, resource: Resource, amount: int = 1, *, since: Mark) -> None:
        """See TenantCounts."""
        self._change(tenant, resource, -amount, since)

    def doubt(self, tenant: str, resource: Resource, *, may_be_more: bool = False) -> None:
        """See TenantCounts."""
        tally = self._tally(tenant, resource)
        tally.is_doubtful = True
        tally.may_be_low |= may_be_more

    def forget(self, tenant: str) -> None:
        """See TenantCounts."""
        for key in [key for key in self._tallies if key[0] == tenant and key[1] is not None]:
            del self._tallies[key]

    async def use(self, tenant: str) -> Mapping[Resource, int]:
        """See TenantCounts."""
        tallies = {resource: self._tally(tenant, resource) for resource in Resource}
        for tally in {id(tally): tally for tally in tallies.values()}.values():
            if tally.source is not None:
                await self._make_fresh(tally)
        counted = {one: tally for one, tally in tallies.items() if tally.source is None or tally.counted_at is not None}
        return {resource: max(tally.used(resource), 0) for resource, tally in counted.items()}

    def known(self) -> Mapping[str, Mapping[Resource, int]]:
        """See TenantCounts."""
        found: dict[str, dict[Resource, int]] = {}
        for (tenant, source), tally in self._tallies.items():
            if (source is None or tally.counted_at is not None) and (use := tally.use()):
                found.setdefault(tenant, {}).update(use)
        return found

    def _tally(self, tenant: str, resource: Resource) -> _Tally:
        key = (tenant, self._source_of[resource])
        tally = self._tallies.get(key)
        if tally is None:
            tally = self._tallies[key] = _Tally(*key)
        return tally

    def _change(self, tenant: str, resource: Resource, amount: int, since: Mark) -> None:
        tally = self._tally(tenant, resource)
        # A count that began after the operation has seen it, or will.
        if tally.begun <= since:
            tally.kept[resource] = tally.kept.get(resource, 0) + amount

    def _age(self, tally: _Tally) -> float:
        return float("inf") if tally.counted_at is None else self._clock.monotonic() - tally.counted_at

    def _is_due(self, tally: _Tally) -> bool:
        if tally.may_be_low:
            return self._age(tally) > max(_FRESH_SECONDS, tally.seconds / _SHARE_AT_LIMIT)
        return self._age(tally) > max(_RECOUNT_SECONDS, tally.seconds / _SHARE_RECOUNTING)

    async def _count_first(self, tally: _Tally) -> None:
        """Begin a count that is due, and wait for it unless it is known to take long."""
        counting = self._begin(tally)
        if tally.counted_at is None or tally.seconds < _QUICK_SECONDS:
            await self._wait_for(counting)

    async def _check(self, tally: _Tally, resource: Resource, amount: int, limit: int) -> None:
        """Raise QuotaExceededError, unless a fresh count leaves room."""
        if tally.source is not None:
            await self._make_fresh(tally)
        if tally.used(resource) + amount > limit:
            raise over_quota(resource, limit)

    async def _make_fresh(self, tally: _Tally) -> None:
        """Count unless the last count is fresh. A tenant that causes doubt all the time waits for its turn here."""
        if tally.counting is None and self._age(tally) < _FRESH_SECONDS and not tally.is_doubtful:
            return
        pause = tally.seconds / _SHARE_AT_LIMIT - self._age(tally)
        if pause > 0 and tally.counting is None:
            await self._clock.sleep(min(pause, self.wait_seconds))
        await self._wait_for(self._begin(tally))

    def _begin(self, tally: _Tally) -> asyncio.Task[None]:
        if tally.counting is None:
            tally.counting = self._tasks.spawn(self._count(tally), name="count of a tenant")
        return tally.counting

    async def _wait_for(self, counting: asyncio.Task[None]) -> None:
        # `wait` neither cancels the task with the caller nor raises what it raised.
        await asyncio.wait([counting], timeout=self.wait_seconds)

    async def _count(self, tally: _Tally) -> None:
        assert tally.source is not None
        before, began = dict(tally.kept), self._clock.monotonic()
        tally.is_doubtful = tally.may_be_low = False
        self._begun += 1
        tally.begun = self._begun
        try:
            found = await tally.source(tally.tenant)
        except (OSError, MeshhostError) as error:
            tally.is_doubtful = True
            fields = {"tenant": tally.tenant, "reason": str(error)}
            logger.warning("what a tenant keeps was not counted; its quota is not enforced until it is", extra=fields)
            return
        finally:
            tally.counting = None
        # What changed by operations that began later than the count is added to it.
        for resource, number in found.items():
            tally.kept[resource] = number + tally.kept.get(resource, 0) - before.get(resource, 0)
        tally.counted_at = self._clock.monotonic()
        tally.seconds = tally.counted_at - began

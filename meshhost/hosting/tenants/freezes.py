"""Which tenants the operator has frozen, since when and why; kept over restarts of the host where there is a ledger."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from meshhost.clock import Clock
from meshhost.errors import CallRefusedError, RoomError

__all__ = ["MAX_REASON_LENGTH", "Freeze", "FreezeStore", "Freezes"]

logger = logging.getLogger(__name__)

MAX_REASON_LENGTH = 500
"""In characters."""

_RETRY_AFTER_SECONDS = 5.0


@dataclass(slots=True, eq=False)
class Freeze:
    """A frozen tenant. `since` is seconds since the epoch; `reason` is the operator's own, "" for none.

    `is_durable` says whether the tenant is still frozen when the host was killed and started again.
    """

    tenant: str
    since: float
    reason: str = ""
    is_durable: bool = False


class FreezeStore(Protocol):
    """Where freezes are kept. All raise OSError, RoomError."""

    async def freezes(self) -> list[Freeze]:
        """All, of whatever order."""

    async def put_freeze(self, freeze: Freeze) -> None:
        """Record it, in the place of the tenant's former one; durable when this returns."""

    async def remove_freeze(self, tenant: str) -> None:
        """Forget the tenant's; durable when this returns."""


class Freezes(Mapping[str, Freeze]):
    """The freezes by tenant. Without a `store` they end with the host.

    A frozen tenant's calls are refused: it gets no new agents. Those it has live on, and come back with the host.
    """

    def __init__(self, *, clock: Clock, store: FreezeStore | None = None) -> None:
        self._clock = clock
        self._store = store
        self._by_tenant: dict[str, Freeze] = {}

    def __repr__(self) -> str:
        return f"<Freezes tenants={len(self)}>"

    def __getitem__(self, tenant: str) -> Freeze:
        return self._by_tenant[tenant]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_tenant)

    def __len__(self) -> int:
        return len(self._by_tenant)

    async def restore(self) -> None:
        """Take over what the store holds. Raises OSError, RoomError."""
        if self._store is not None:
            self._by_tenant = {freeze.tenant: freeze for freeze in await self._store.freezes()}
        if self._by_tenant:
            logger.warning("tenants are still frozen by the operator", extra={"tenants": len(self._by_tenant)})

    async def freeze(self, tenant: str, *, reason: str = "") -> Freeze:
        """Freeze the tenant at once; returns when that is durable, or at once without a store.

        One that is frozen already keeps its time, and its reason unless another is given. Raises CallRefusedError (503)
        when it cannot be recorded; the tenant is frozen all the same, as far as this process goes.
        """
        before = self._by_tenant.get(tenant) or Freeze(tenant, self._clock.time())
        # Each freeze is an object of its own, so that a thaw under way does not end one that came after it.
        freeze = self._by_tenant[tenant] = replace(before, reason=reason or before.reason)
        if self._store is not None:
            try:
                await self._store.put_freeze(freeze)
            except (OSError, RoomError) as error:
                text = "this host cannot record the freeze: the tenant is frozen, but may not be after a restart"
                raise _not_recorded(tenant, text, error) from None
            freeze.is_durable = True
        return freeze

    async def thaw(self, tenant: str) -> None:
        """End the freeze; returns when that is durable. No effect on a tenant that is not frozen.

        Raises CallRefusedError (503) when it cannot be recorded; the tenant stays frozen.
        """
        freeze = self._by_tenant.get(tenant)
        if self._store is not None:
            try:
                await self._store.remove_freeze(tenant)
            except (OSError, RoomError) as error:
                text = "this host cannot record the thaw: the tenant stays frozen"
                raise _not_recorded(tenant, text, error) from None
        if self._by_tenant.get(tenant) is freeze:
            self._by_tenant.pop(tenant, None)


def _not_recorded(tenant: str, text: str, error: Exception) -> CallRefusedError:
    logger.error("freeze or thaw could not be recorded", extra={"tenant": tenant}, exc_info=error)
    return CallRefusedError(f"{text}; see its log", status=503, retry_after=_RETRY_AFTER_SECONDS)

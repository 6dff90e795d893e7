"""Which tenants the operator has frozen, since when and why.

The operator's routes freeze and thaw; `Tenancy.check_call` refuses the calls of a frozen tenant. With a `FreezeStore` (the
ledger of the host) a freeze survives a restart. A freeze takes effect in memory first and is stored then: a slow or broken
disk must not keep an operator from stopping a tenant.
"""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from meshhost.clock import Clock
from meshhost.errors import CallRefusedError, RoomError
from meshhost.hosting.refusals import RETRY_SOON_SECONDS

__all__ = ["MAX_REASON_LENGTH", "Freeze", "FreezeStore", "Freezes"]

logger = logging.getLogger(__name__)

MAX_REASON_LENGTH = 500
"""In characters."""


@dataclass(slots=True, eq=False)
class Freeze:
    """A frozen tenant. `since` is seconds since the epoch; `reason` is the operator's own, "" for none.

    `is_durable` says whether the freeze survives a restart of the host.
    """

    tenant: str
    since: float
    reason: str = ""
    is_durable: bool = False


class FreezeStore(Protocol):
    """Stores freezes. All methods raise OSError and RoomError."""

    async def freezes(self) -> list[Freeze]:
        """All freezes, in any order."""

    async def put_freeze(self, freeze: Freeze) -> None:
        """Store the freeze, in place of the tenant's earlier one; durable when this returns."""

    async def remove_freeze(self, tenant: str) -> None:
        """Remove the freeze of the tenant; durable when this returns."""


class Freezes(Mapping[str, Freeze]):
    """The freezes by tenant. Without a `store` they end with the host.

    The calls of a frozen tenant are refused, so it gets no new agents. Its live agents go on, also after a restart.
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
        """Load the freezes from the store. Raises OSError, RoomError."""
        if self._store is not None:
            self._by_tenant = {freeze.tenant: freeze for freeze in await self._store.freezes()}
        if self._by_tenant:
            logger.warning("tenants are still frozen by the operator", extra={"tenants": len(self._by_tenant)})

    async def freeze(self, tenant: str, *, reason: str = "") -> Freeze:
        """Freeze the tenant; durable when this returns, if there is a store.

        A tenant that is frozen already keeps its time, and its reason unless another one is given. Raises CallRefusedError
        (503) when the freeze cannot be stored; the tenant is then still frozen in this process.
        """
        before = self._by_tenant.get(tenant) or Freeze(tenant, self._clock.time())
        # A new object for each freeze, so that a thaw in progress does not end a later freeze.
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
        """End the freeze; durable when this returns. No effect on a tenant that is not frozen.

        Raises CallRefusedError (503) when the thaw cannot be stored; the tenant stays frozen.
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
    return CallRefusedError(f"{text}; see its log", status=503, retry_after=RETRY_SOON_SECONDS)

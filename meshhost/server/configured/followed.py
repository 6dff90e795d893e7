"""The services and webhooks of all tenants in memory, kept current while other servers change them, too.

Each change of a room asks for them, so nobody can wait for the store then. One task asks the store every second whether
something changed and reads it again if so; a change made here is taken over before its request is answered. While the store
cannot be read, what was known last is used.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence

from meshhost.errors import RoomError
from meshhost.identity.tenant import TenantId
from meshhost.server.config import ConfiguredService
from meshhost.server.configured.services import configured_by
from meshhost.server.configured.webhooks import Webhook, webhook_of
from meshhost.stores.configuration.contract import ConfigurationItem, ConfigurationStore, ItemKind

__all__ = ["Followed"]

logger = logging.getLogger(__name__)

# Half of the two seconds within which a change is known to every server.
_REFRESH_SECONDS = 1.0


class Followed:
    """What is stored, as it is now. `on_services` is called with all services when they changed."""

    def __init__(
        self, store: ConfigurationStore, *, on_services: Callable[[Sequence[ConfiguredService]], None]
    ) -> None:
        self._store = store
        self._on_services = on_services
        self._webhooks: dict[TenantId, list[Webhook]] = {}
        self._versions: dict[ItemKind, int] = {}
        self._items: dict[ItemKind, Sequence[ConfigurationItem]] = {}
        self._reading = asyncio.Lock()

    def webhooks(self, tenant: TenantId) -> Sequence[Webhook]:
        """Return the webhooks of a tenant."""
        return self._webhooks.get(tenant, ())

    async def refresh(self) -> None:
        """Take over what changed. Raises OSError."""
        async with self._reading:  # so that an older answer is not applied after a newer one
            if await self._has_changed(ItemKind.SERVICE):
                self._on_services(configured_by(self._items[ItemKind.SERVICE]))
            if await self._has_changed(ItemKind.WEBHOOK):
                self._webhooks = _by_tenant(self._items[ItemKind.WEBHOOK])

    async def run(self) -> None:
        """Stay current until cancelled."""
        is_failing = False
        while True:
            await asyncio.sleep(_REFRESH_SECONDS)
            try:
                await self.refresh()
            except (OSError, RoomError) as error:
                if not is_failing:
                    logger.warning("services of tenants are not followed now", extra={"reason": str(error)})
                is_failing = True
            else:
                is_failing = False

    async def _has_changed(self, kind: ItemKind) -> bool:
        snapshot = await self._store.read(kind, self._versions.get(kind))
        if snapshot is None:
            return False
        self._versions[kind] = snapshot.version
        is_new = list(self._items.get(kind, ())) != list(snapshot.items)
        self._items[kind] = snapshot.items
        return is_new


def _by_tenant(items: Sequence[ConfigurationItem]) -> dict[TenantId, list[Webhook]]:
    found: dict[TenantId, list[Webhook]] = {}
    for item in items:
        try:
            found.setdefault(item.tenant, []).append(webhook_of(item))
        except (KeyError, ValueError, TypeError) as error:
            fields = {"tenant": item.tenant, "webhook": item.name, "reason": str(error)}
            logger.warning("a stored webhook cannot be used", extra=fields)
    return found

"""Services that tenants configure by REST: stored beside those of the operator's file, and called in the same way.

`Followed` hands what is stored to the caller of services, here at once and on other servers within two seconds; open rooms then
get their agents, and those of services that are gone are told to leave.
"""

import json
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from meshhost.clock import Clock, SystemClock
from meshhost.errors import MeshhostError, NotFoundError
from meshhost.identity.tenant import TenantId
from meshhost.server.config import ConfiguredService
from meshhost.server.configured.items import Items
from meshhost.server.configured.reach import TenantReach
from meshhost.server.configured.spec import ServiceSpec, parse_spec, without_nothing
from meshhost.stores.configuration.contract import WHOLE_TENANT, ConfigurationItem, ConfigurationStore, ItemKind

__all__ = ["MAX_SERVICES", "Services", "configured_by"]

logger = logging.getLogger(__name__)

MAX_SERVICES = 200


class Services:
    """The services of all tenants. `on_change` is awaited after each change. Operations raise OSError, too."""

    def __init__(
        self,
        store: ConfigurationStore,
        reach: TenantReach,
        *,
        on_change: Callable[[], Awaitable[None]],
        clock: Clock | None = None,
    ) -> None:
        self._items = Items(store, ItemKind.SERVICE, most=MAX_SERVICES, clock=clock or SystemClock())
        self._reach = reach
        self._on_change = on_change

    async def create(
        self, tenant: TenantId, document: Mapping[str, Any], *, room: str = WHOLE_TENANT, by: str | None
    ) -> ConfigurationItem:
        """Store a service of a room, or of all rooms. Raises InvalidRequestError, AlreadyExistsError, LimitExceededError."""
        spec = self._checked(document)
        item = self._items.new(tenant, spec.metadata.name, _content(document), room)
        await self._items.add(item)
        _audit("service created", item, by)
        await self._on_change()
        return item

    async def update(
        self, tenant: TenantId, service_id: str, document: Mapping[str, Any], *, room: str, by: str | None
    ) -> ConfigurationItem:
        """Replace the spec of a service. Raises NotFoundError, InvalidRequestError, AlreadyExistsError."""
        spec = self._checked(document)
        item = await self.get(tenant, service_id, room=room)
        changed = await self._items.change(item, name=spec.metadata.name, content=_content(document))
        _audit("service changed", changed, by)
        await self._on_change()
        return changed

    async def get(self, tenant: TenantId, service_id: str, *, room: str) -> ConfigurationItem:
        """Return a service by id or name; one of a room only for that room. Raises NotFoundError."""
        named = [each for each in await self.list(tenant, room=room) if each.name == service_id]
        item = named[0] if named else await self._items.get(tenant, service_id)
        if item.room != room:
            raise NotFoundError("no such service")
        return item

    async def list(self, tenant: TenantId, *, room: str = WHOLE_TENANT) -> list[ConfigurationItem]:
        """Return the services for all rooms, or those of one room, by name."""
        return [item for item in await self._items.list(tenant) if item.room == room]

    async def delete(self, tenant: TenantId, service_id: str, *, room: str, by: str | None) -> None:
        """Delete a service: its agents are told to leave. Raises NotFoundError."""
        item = await self.get(tenant, service_id, room=room)
        await self._items.delete(item)
        _audit("service deleted", item, by)
        await self._on_change()

    @staticmethod
    def shown(item: ConfigurationItem) -> dict[str, Any]:
        """The spec as JSON, with its id."""
        spec: dict[str, Any] = json.loads(item.content)
        return spec | {"id": item.id}

    def _checked(self, document: Mapping[str, Any]) -> ServiceSpec:
        spec = parse_spec(document)
        for url in spec.urls():
            self._reach.check("external.url", url)
        return spec


def configured_by(items: Sequence[ConfigurationItem]) -> Sequence[ConfiguredService]:
    """Return the services to call. One that cannot be read, as of a newer release, is left out and logged."""
    found: list[ConfiguredService] = []
    for item in items:
        try:
            found += parse_spec(json.loads(item.content)).configured(item)
        except (MeshhostError, ValueError, TypeError, AttributeError) as error:
            fields = {"tenant": item.tenant, "service": item.name, "reason": str(error)}
            logger.warning("a stored service cannot be called", extra=fields)
    return found


def _content(document: Mapping[str, Any]) -> str:
    # ASCII: half of a surrogate pair, which no store takes, stays an escape.
    return json.dumps(without_nothing(document))


def _audit(what: str, item: ConfigurationItem, by: str | None) -> None:
    fields = {"tenant": item.tenant, "room": item.room or None, "service": item.name, "service_id": item.id}
    logger.info(what, extra={**fields, "key_id": by})

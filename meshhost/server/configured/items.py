"""What secrets, services and webhooks have in common as items of the configuration store: ids, limits, finding and changing."""

import uuid
from dataclasses import replace
from typing import Any

from meshhost.clock import Clock
from meshhost.errors import AlreadyExistsError, InvalidRequestError, NotFoundError
from meshhost.identity.tenant import TenantId
from meshhost.stores.configuration.contract import WHOLE_TENANT, ConfigurationItem, ConfigurationStore, ItemKind

__all__ = ["Items", "check_name"]

_MAX_NAME = 128


class Items:
    """The items of one kind, of all tenants: at most `most` of each. Operations raise OSError, too."""

    def __init__(self, store: ConfigurationStore, kind: ItemKind, *, most: int, clock: Clock) -> None:
        self.store = store
        self._kind = kind
        self._most = most
        self._clock = clock

    def new(self, tenant: TenantId, name: str, content: str = "", room: str = WHOLE_TENANT) -> ConfigurationItem:
        """Return an item with a new id that is not stored yet."""
        now = self._clock.time()
        return ConfigurationItem(str(uuid.uuid4()), self._kind, tenant, name, content, now, now, room)

    async def add(self, item: ConfigurationItem) -> None:
        """Store a new item. Raises AlreadyExistsError for its name, LimitExceededError."""
        await self.store.add(item, most=self._most)

    async def get(self, tenant: TenantId, item_id: str) -> ConfigurationItem:
        """Return the item of this id. Raises NotFoundError."""
        found = await self.store.find(tenant, item_id)
        if found is None or found.kind is not self._kind:
            raise NotFoundError(f"no such {self._kind}")
        return found

    async def list(self, tenant: TenantId) -> list[ConfigurationItem]:
        """Return the tenant's items."""
        return [*await self.store.list(tenant, self._kind)]

    async def change(self, item: ConfigurationItem, **changes: Any) -> ConfigurationItem:
        """Store changed fields of an item as it was read. Raises AlreadyExistsError, also when somebody was faster."""
        changed = replace(item, **changes, changed_at=self._clock.time(), version=item.version + 1)
        if not await self.store.replace(changed):
            raise AlreadyExistsError(f"the {self._kind} {item.name!r} was changed or deleted meanwhile: try again")
        return changed

    async def delete(self, item: ConfigurationItem) -> None:
        """Delete an item. Raises NotFoundError."""
        await self.store.delete(item.tenant, item.id)


def check_name(name: object, field: str = "name") -> str:
    """Return the name for an item. Raises InvalidRequestError."""
    if not isinstance(name, str) or not name.strip() or len(name) > _MAX_NAME or not name.isprintable():
        raise InvalidRequestError(field, f"expected 1 to {_MAX_NAME} printable characters")
    return name.strip()

"""What tenants configured in this process's memory: the contract of ConfigurationStore in its plainest form.

Used by the memory engine. Methods do not await anything, so each is atomic in its event loop.
"""

from collections import deque
from collections.abc import Iterable, Sequence

from meshhost.errors import AlreadyExistsError, LimitExceededError, NotFoundError, RoomError
from meshhost.identity.tenant import TenantId
from meshhost.stores.configuration.contract import ConfigurationItem, ConfigurationSnapshot, ItemKind
from meshhost.stores.triggers.contract import LOG_ENTRIES, LogEntry

__all__ = ["MemoryConfigurationStore"]


class MemoryConfigurationStore:
    """Keeps the contract of ConfigurationStore except durability. `is_open`: it needs no `open`."""

    def __init__(self, *, is_open: bool = False) -> None:
        self._items: dict[str, ConfigurationItem] = {}
        self._logs: dict[str, deque[LogEntry]] = {}
        self._version = 1
        self._open = is_open

    async def open(self) -> None:
        """See ConfigurationStore."""
        self._open = True

    async def close(self) -> None:
        """See ConfigurationStore."""
        self._open = False

    async def add(self, item: ConfigurationItem, *, most: int) -> None:
        """See ConfigurationStore."""
        same = [each for each in self._all().values() if (each.tenant, each.kind) == (item.tenant, item.kind)]
        if len(same) >= most:
            raise LimitExceededError(f"the tenant has {most} {item.kind}s already, which is the limit")
        if item.id in self._items or _name_is_taken(item, same):
            raise AlreadyExistsError(f"there is a {item.kind} {item.name!r} already")
        self._items[item.id] = item
        self._logs[item.id] = deque(maxlen=LOG_ENTRIES)
        self._version += 1

    async def find(self, tenant: TenantId, item_id: str) -> ConfigurationItem | None:
        """See ConfigurationStore."""
        found = self._all().get(item_id)
        return None if found is None or found.tenant != tenant else found

    async def list(self, tenant: TenantId, kind: ItemKind) -> Sequence[ConfigurationItem]:
        """See ConfigurationStore."""
        found = [each for each in self._all().values() if each.tenant == tenant and each.kind is kind]
        return sorted(found, key=lambda each: (each.room, each.name))

    async def replace(self, item: ConfigurationItem) -> bool:
        """See ConfigurationStore."""
        present = self._all().get(item.id)
        if present is None or present.version != item.version - 1 or present.tenant != item.tenant:
            return False
        if _name_is_taken(item, self._items.values()):
            raise AlreadyExistsError(f"there is a {item.kind} {item.name!r} already")
        self._items[item.id] = item
        self._version += 1
        return True

    async def delete(self, tenant: TenantId, item_id: str) -> None:
        """See ConfigurationStore."""
        found = self._all().get(item_id)
        if found is None or found.tenant != tenant:
            raise NotFoundError("no such item")
        del self._items[item_id], self._logs[item_id]
        self._version += 1

    async def delete_all(self, tenant: TenantId, room: str | None = None) -> None:
        """See ConfigurationStore."""
        for found in [each for each in self._all().values() if each.tenant == tenant and room in (None, each.room)]:
            await self.delete(tenant, found.id)

    async def read(self, kind: ItemKind, known: int | None = None) -> ConfigurationSnapshot | None:
        """See ConfigurationStore."""
        items = [each for each in self._all().values() if each.kind is kind]
        if self._version == known:
            return None
        return ConfigurationSnapshot(self._version, sorted(items, key=lambda each: (each.created_at, each.id)))

    async def add_entry(self, item_id: str, entry: LogEntry) -> None:
        """See ConfigurationStore."""
        if item_id in self._all():
            self._logs[item_id].append(entry)

    async def entries(self, item_id: str) -> Sequence[LogEntry]:
        """See ConfigurationStore."""
        self._all()
        return [*reversed(self._logs.get(item_id, ()))]

    def _all(self) -> dict[str, ConfigurationItem]:
        if not self._open:
            raise RoomError("the configuration store is not open")
        return self._items


def _name_is_taken(item: ConfigurationItem, others: Iterable[ConfigurationItem]) -> bool:
    place = (item.tenant, item.kind, item.room, item.name)
    return any((each.tenant, each.kind, each.room, each.name) == place and each.id != item.id for each in others)

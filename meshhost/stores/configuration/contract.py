"""The contract of a configuration store: what tenants configure while the server runs, and the last deliveries of each.

An item is a secret, a service or a webhook. The store keeps its content as text that it does not read: JSON, or what was
encrypted. Names are unique among the items of one kind in one place, which is a room or the whole tenant. An item changes by
compare-and-set: `replace` takes effect for the one that read the version before.

Several room servers share one store, and each has all services and webhooks in memory, since it asks for them at every change
of a room. So the store keeps one version of everything, which changes with each change of an item by any process, and `read`
answers "nothing new" without reading: a change of one server is known to all of them as soon as they look. Entries of the log
change no version.

This module is pure: values and signatures, no I/O. One contract suite runs on all implementations.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from meshhost.identity.tenant import TenantId
from meshhost.stores.triggers.contract import LogEntry

__all__ = ["WHOLE_TENANT", "ConfigurationItem", "ConfigurationSnapshot", "ConfigurationStore", "ItemKind"]

WHOLE_TENANT = ""
"""The room of an item that is for all rooms of its tenant."""


class ItemKind(StrEnum):
    """What a tenant can configure."""

    SECRET = "secret"  # noqa: S105 - a kind
    SERVICE = "service"
    WEBHOOK = "webhook"


@dataclass(frozen=True, slots=True)
class ConfigurationItem:
    """A secret, service or webhook. `id` is unique over all tenants; times are seconds since the epoch.

    `content` may hold a secret, so it is not shown. The first `version` is 1.
    """

    id: str
    kind: ItemKind
    tenant: TenantId
    name: str
    content: str
    created_at: float
    changed_at: float
    room: str = WHOLE_TENANT
    version: int = 1

    def __repr__(self) -> str:
        where = f"{self.tenant}/{self.room}" if self.room else self.tenant
        return f"<ConfigurationItem {self.kind} {self.name!r} of {where} version={self.version}>"


@dataclass(frozen=True, slots=True)
class ConfigurationSnapshot:
    """All items of a kind at one moment, oldest first, and the version of the store then."""

    version: int
    items: Sequence[ConfigurationItem]


class ConfigurationStore(Protocol):
    """A durable store of what tenants configured, shared by all processes that open it.

    Methods are safe to call concurrently, from any number of tasks and processes, and atomic. Changes are on disk when they
    return. A failing store raises OSError, and nothing of the call is done then; one that is not open raises RoomError.
    """

    async def open(self) -> None:
        """Make the store usable (schema, migrations). Raises SettingsError when it cannot be used, OSError."""
        ...

    async def close(self) -> None:
        """Finish what was accepted and release all resources. Idempotent; the store may be opened again."""
        ...

    async def add(self, item: ConfigurationItem, *, most: int) -> None:
        """Add an item, unless its tenant has `most` of its kind. Raises AlreadyExistsError for its id or name,
        LimitExceededError.

        Processes that add at the same moment may exceed the limit by what the others add.
        """
        ...

    async def find(self, tenant: TenantId, item_id: str) -> ConfigurationItem | None:
        """Return the item of this id if it is the tenant's, else None."""
        ...

    async def list(self, tenant: TenantId, kind: ItemKind) -> Sequence[ConfigurationItem]:
        """Return all items of one kind of a tenant, by room (the whole tenant first) and name."""
        ...

    async def replace(self, item: ConfigurationItem) -> bool:
        """Store name, content and the time of the change of an item; return whether that was done.

        Nothing is done unless the item is there with the version before that of `item`. Raises AlreadyExistsError when another
        item of its kind and place has the name.
        """
        ...

    async def delete(self, tenant: TenantId, item_id: str) -> None:
        """Delete an item of a tenant with its log. Raises NotFoundError when the tenant has none of this id."""
        ...

    async def delete_all(self, tenant: TenantId, room: str | None = None) -> None:
        """Delete all items of a tenant, or those of one of its rooms. Idempotent."""
        ...

    async def read(self, kind: ItemKind, known: int | None = None) -> ConfigurationSnapshot | None:
        """Return all items of a kind, of all tenants, or None when the version is still `known`.

        Versions are compared for equality only. After a change returned, in any process, no later call returns what was before
        or takes an older version for the present one.
        """
        ...

    async def add_entry(self, item_id: str, entry: LogEntry) -> None:
        """Add an entry to the log of an item, which keeps the newest LOG_ENTRIES; nothing when the item is not there."""
        ...

    async def entries(self, item_id: str) -> Sequence[LogEntry]:
        """Return the log of an item, the newest entry first."""
        ...

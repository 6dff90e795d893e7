"""An item of the configuration as a row of SQLite or PostgreSQL, and back: both have the same columns."""

from typing import Any

from meshhost.identity.tenant import TenantId
from meshhost.stores.configuration.contract import ConfigurationItem, ItemKind

__all__ = ["item_of", "values_of"]


def values_of(item: ConfigurationItem) -> dict[str, Any]:
    """Return the values of a row, by column."""
    return {
        "id": item.id,
        "kind": item.kind.value,
        "tenant": item.tenant,
        "room": item.room,
        "name": item.name,
        "content": item.content,
        "created_at": item.created_at,
        "changed_at": item.changed_at,
        "version": item.version,
    }


def item_of(row: tuple[Any, ...]) -> ConfigurationItem:
    """Return the item of a row as the statements select it: the columns in the order of the fields."""
    item_id, kind, tenant, *rest = row
    return ConfigurationItem(item_id, ItemKind(kind), TenantId(tenant), *rest)

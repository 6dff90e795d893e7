"""Which tenants have a label of their own in a host's metrics: the first ones, since a label once shown stays."""

__all__ = ["OTHER", "TenantLabels"]

OTHER = "other"
"""The label of all tenants that have none of their own. A tenant of this very name is one of them, always."""

_MAX_CHARS = 128


class TenantLabels:
    """Gives at most `limit` tenants a label of their own, their name, in the order in which they come.

    Only for tenants of calls that were admitted: anybody could use the labels up with names of his own else.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._own: set[str] = set()

    def __len__(self) -> int:
        """How many tenants have one of their own."""
        return len(self._own)

    def of(self, tenant: str) -> str:
        """The tenant's label."""
        if tenant in self._own:
            return tenant
        if len(self._own) >= self._limit or not _can_be_shown(tenant):
            return OTHER
        self._own.add(tenant)
        return tenant


def _can_be_shown(tenant: str) -> bool:
    # A token may say anything: names that are endless, that no encoding takes, or that look like another one.
    return tenant not in ("", OTHER) and len(tenant) <= _MAX_CHARS and tenant.isprintable()

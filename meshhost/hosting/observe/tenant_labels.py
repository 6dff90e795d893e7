"""Which tenants have a label of their own in a host's metrics.

Each label value costs memory in the host and in Prometheus for good, so only a limited number of tenants get one: the first
ones that come. All others share the label `other`.
"""

__all__ = ["OTHER", "TenantLabels"]

OTHER = "other"
"""The label of all tenants without one of their own. A tenant with this name is always one of them."""

_MAX_CHARS = 128


class TenantLabels:
    """Gives at most `limit` tenants their name as a label, in the order in which they come.

    Only for tenants of admitted calls: otherwise anyone could use up the labels with invented names.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._own: set[str] = set()

    def __len__(self) -> int:
        """How many tenants have a label of their own."""
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
    # A token may contain any name: endless, not encodable, or with invisible characters.
    return tenant not in ("", OTHER) and len(tenant) <= _MAX_CHARS and tenant.isprintable()

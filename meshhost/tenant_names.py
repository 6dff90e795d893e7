"""What people see of tenants in this process: their present names, and which of them have a label of their own in metrics.

Everything in the code is keyed by a tenant's id, which never changes; a name is only shown. A room server learns the names from
its identity store, a service host from the calls and from the greetings of rooms (not from agents' processes, which run a
tenant's code); both report them here with `learn`, and logs, tables, webhooks and metrics look them up with `name_of` when they
show something, so that a rename is seen at once. No code may decide by a name.

`TenantLabels` bounds the labels: each label value costs memory here and in Prometheus for good, so only the first tenants that
come get one of their own, and all others share the label `other`. A leaf, without I/O.
"""

from collections.abc import Mapping
from typing import Literal

__all__ = ["OTHER", "TenantLabel", "TenantLabels", "known_name_of", "learn", "name_of"]

OTHER = "other"
"""The label of all tenants without one of their own. A tenant with this name is always one of them."""

TenantLabel = Literal["id", "name"]
"""What the label of a tenant shows."""

_MAX_CHARS = 128
# Beyond this many, the names that were learned first are forgotten.
_MAX_NAMES = 100_000

_names: dict[str, str] = {}


def learn(names: Mapping[str, str]) -> None:
    """Take over the present names of tenants, by id. Texts that cannot be shown on a line are ignored."""
    _names.update({tenant: name for tenant, name in names.items() if _can_be_shown(name)})
    while len(_names) > _MAX_NAMES:
        del _names[next(iter(_names))]


def known_name_of(tenant: str) -> str | None:
    """Return the tenant's name, or None when it is not known here."""
    return _names.get(tenant)


def name_of(tenant: str) -> str:
    """Return the tenant's name, or its id when the name is not known here."""
    return _names.get(tenant, tenant)


class TenantLabels:
    """Gives at most `limit` tenants a label of their own, in the order in which they come: their id, or their name.

    Only for tenants of admitted calls: otherwise anyone could use up the labels with invented names. A tenant that is renamed
    gets a new label where names are shown; it stays one of the `limit`.
    """

    def __init__(self, limit: int, *, label: TenantLabel = "id") -> None:
        self._limit = limit
        self._label = label
        self._own: set[str] = set()

    def __len__(self) -> int:
        """How many tenants have a label of their own."""
        return len(self._own)

    def of(self, tenant: str) -> str:
        """The tenant's label."""
        if tenant not in self._own:
            if len(self._own) >= self._limit or not _can_be_shown(tenant):
                return OTHER
            self._own.add(tenant)
        return tenant if self._label == "id" else name_of(tenant)


def _can_be_shown(text: str) -> bool:
    # A token may contain any name: endless, not encodable, or with invisible characters.
    return text not in ("", OTHER) and len(text) <= _MAX_CHARS and text.isprintable()

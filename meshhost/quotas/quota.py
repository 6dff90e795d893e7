"""The limits of one tenant on a room server: pure values and the texts about them.

A `ServerQuota` is what a tenant may take; a server has a default one, and the identity store keeps what the operator set for
single tenants (`ServerQuota.changed`). The service host has limits of its own for the agents that it runs, in the same words:
`meshhost.hosting.tenants.quotas.TenantQuota`. A limit of None is no limit. Names of limits are those of the fields here: in
`meshhost.toml`, in REST, in the store and in error texts.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from enum import StrEnum
from typing import Any

from meshhost.errors import InvalidRequestError, QuotaExceededError

__all__ = ["RATES", "Resource", "ServerQuota", "check_limit", "check_room_for", "over_quota", "over_rate"]

_MAX_LIMIT = 2**53  # what every reader of JSON takes exactly


class Resource(StrEnum):
    """What is counted for a tenant. The limit of `rooms` is `max_rooms`, and so on."""

    ROOMS = "rooms"
    CONNECTIONS = "connections"
    AGENTS = "agents"
    QUEUES = "queues"
    MESSAGES = "messages"
    STORED_BYTES = "stored_bytes"
    FILES = "files"
    DOCUMENTS = "documents"
    TABLES = "tables"
    KEYS = "keys"
    UPLOADS = "uploads"

    @property
    def limit_name(self) -> str:
        """The name of its limit, a field of ServerQuota."""
        return f"max_{self.value}"


RATES: Mapping[str, str] = {"requests_per_second": "requests", "connections_per_second": "new connections"}
"""The limits that are rates, and what they count."""

# What the limit allows, and what a tenant can do about it.
_TEXTS: Mapping[Resource, tuple[str, str]] = {
    Resource.ROOMS: ("rooms may be open", "leave some"),
    Resource.CONNECTIONS: ("connections may be open", "close some"),
    Resource.AGENTS: ("agents may be connected, over all hosts", "stop some"),
    Resource.QUEUES: ("queues may exist", "delete some"),
    Resource.MESSAGES: ("messages may be kept in queues, dead ones included", "let workers take some, or purge some"),
    Resource.STORED_BYTES: ("bytes of files and tables may be stored", "delete some files or rows"),
    Resource.FILES: ("files may be stored", "delete some"),
    Resource.DOCUMENTS: ("documents may exist", "delete some"),
    Resource.TABLES: ("tables may exist", "drop some"),
    Resource.KEYS: ("API keys may exist", "revoke some"),
    Resource.UPLOADS: ("uploads may be in progress", "finish some"),
}


@dataclass(frozen=True, slots=True)
class ServerQuota:
    """The limits of one tenant on a room server; None means no limit.

    `max_agents` are connected agents, whichever hosts run them. `max_messages` are those in all queues, dead ones included.
    `max_in_flight_bytes` are those of messages that are received, handled or sent. `requests_per_second` are requests of REST
    and in rooms, `connections_per_second` those that join a room, both on average and in bursts of as many (at least 10).
    `weight` is no limit: while several tenants want the stores, one of weight 2 has two turns for each of one of weight 1.
    """

    max_rooms: int | None = 1_000
    max_connections: int | None = 20_000
    max_agents: int | None = 10_000
    max_queues: int | None = 10_000
    max_messages: int | None = 2_000_000
    max_stored_bytes: int | None = None
    max_files: int | None = None
    max_documents: int | None = 100_000
    max_tables: int | None = 1_000
    max_keys: int | None = 1_000
    max_uploads: int | None = 1_000
    max_in_flight_bytes: int | None = 128 * 1024 * 1024
    requests_per_second: float | None = None
    weight: float = 1.0
    connections_per_second: float | None = None

    def limit_of(self, resource: Resource) -> int | None:
        """The limit of a resource."""
        limit: int | None = getattr(self, _LIMIT_NAMES[resource])
        return limit

    def changed(self, changes: Mapping[str, float | None]) -> "ServerQuota":
        """Return this quota with other limits, by name. Names that this release does not know are ignored."""
        known: dict[str, Any] = {
            name: value if value is None or name in _DECIMALS else int(value)
            for name, value in changes.items()
            if name in _NAMES
        }
        return replace(self, **known)

    def as_json(self) -> dict[str, float | None]:
        """Every limit by name."""
        return asdict(self)


_LIMIT_NAMES = {resource: resource.limit_name for resource in Resource}
_DECIMALS = frozenset({*RATES, "weight"})
_LEAST_WEIGHT, _MOST_WEIGHT = 0.01, 1000
_NAMES = tuple(field.name for field in fields(ServerQuota))


def check_limit(name: str, value: Any) -> float | None:
    """Return a limit that was given for a tenant. Raises InvalidRequestError for an unknown name or a wrong value."""
    if name not in _NAMES:
        raise InvalidRequestError(name, f"expected one of {', '.join(_NAMES)}")
    if value is None and name != "weight":
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidRequestError(
            name, "expected a number" if name == "weight" else "expected a number, or null for no limit"
        )
    if name == "weight":
        if not _LEAST_WEIGHT <= value <= _MOST_WEIGHT:
            raise InvalidRequestError(name, f"expected {_LEAST_WEIGHT} to {_MOST_WEIGHT}")
        return float(value)
    if name in RATES:
        if not 0 < value <= _MAX_LIMIT:
            raise InvalidRequestError(name, "expected more than 0")
        return float(value)
    if not 0 <= value <= _MAX_LIMIT or value != int(value):
        raise InvalidRequestError(name, "expected a whole number, 0 or more")
    return int(value)


def over_quota(resource: Resource, limit: int) -> QuotaExceededError:
    """Return the error for a tenant that wants more of a resource than its limit."""
    what, remedy = _TEXTS[resource]
    text = f"{limit} {what}; {remedy}, or ask the operator for a higher limit"
    return QuotaExceededError(f"over the tenant's quota {resource.limit_name}: {text}", quota=resource.limit_name)


def check_room_for(resource: Resource, used: int, quota: ServerQuota) -> None:
    """Raise QuotaExceededError when a tenant that uses so much of a resource may not have one more."""
    limit = quota.limit_of(resource)
    if limit is not None and used >= limit:
        raise over_quota(resource, limit)


def over_rate(name: str, rate: float, seconds: float) -> QuotaExceededError:
    """Return the error for a tenant that is over the rate of this name, and may go on in `seconds`."""
    text = f"{rate:g} {RATES[name]} per second; try again in {seconds:.3g} s, or ask the operator for a higher limit"
    return QuotaExceededError(f"over the tenant's quota {name}: {text}", quota=name, retry_after=seconds)

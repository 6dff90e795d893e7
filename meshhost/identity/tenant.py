"""Names of tenants, rooms and agents.

Isolation of tenants rests on these types: a room is always a `RoomKey`, its owner and its name together. A room name alone
never crosses a layer, because two tenants may use the same one. An `AgentKey` says whose agent it is and which one: hosting
puts it on every supervised agent, and quotas, operators' pages and metrics read the tenant from it. Pure values: no I/O.
"""

import re
from dataclasses import dataclass
from typing import NamedTuple, NewType

from meshhost.errors import InvalidRequestError

__all__ = ["AgentKey", "RoomKey", "TenantId", "check_room_name", "check_tenant_name"]

TenantId = NewType("TenantId", str)

# The SDK's own rule (room-protocol §1): 1-63 characters, lower-case letters, digits and hyphens, alphanumeric ends. Public
# MeshAgent programs also use underscores, which the SDK never checks.
_ROOM_NAME = re.compile(r"[a-z0-9](?:[-_a-z0-9]{0,61}[a-z0-9])?")


# Not the form of an id: commands and routes take either.
_TENANT_NAME = re.compile(r"(?![0-9a-f]{8}-[0-9a-f]{4}-)[A-Za-z0-9](?:[-_.A-Za-z0-9]{0,61}[A-Za-z0-9])?")


class RoomKey(NamedTuple):
    """A room: its owner and its name there."""

    tenant: TenantId
    name: str

    def __str__(self) -> str:
        return self.name

    def is_of(self, tenant: TenantId, room: str | None = None) -> bool:
        """Whether this is a room of the tenant; with `room`, the one of that name."""
        return self.tenant == tenant and room in (None, self.name)


@dataclass(frozen=True, slots=True)
class AgentKey:
    """An agent of a host: the room it serves, the path of its class, and the identity it acts as there."""

    room: RoomKey
    path: str
    identity: str

    def __str__(self) -> str:
        return f"{self.identity} in {self.room.name} at {self.path}"

    @property
    def tenant(self) -> TenantId:
        """The tenant that the agent belongs to."""
        return self.room.tenant

    def log_fields(self) -> dict[str, object]:
        """The fields of log records about the agent. Made on each request: one per agent would cost 200 bytes."""
        return {"tenant": self.room.tenant, "room": self.room.name, "identity": self.identity, "path": self.path}


def check_room_name(name: str) -> str:
    """Return `name` when it may name a room, else raise InvalidRequestError."""
    if _ROOM_NAME.fullmatch(name) is None:
        raise InvalidRequestError(
            "room name",
            "expected 1-63 of a-z, 0-9, '-' and '_', beginning and ending with a letter or digit",
        )
    return name


def check_tenant_name(name: str) -> str:
    """Return `name` when it may name a tenant, else raise InvalidRequestError."""
    if _TENANT_NAME.fullmatch(name) is None:
        raise InvalidRequestError(
            "tenant name",
            "expected 1-63 letters, digits, '-', '_' and '.', beginning and ending with a letter or digit, and not an id",
        )
    return name

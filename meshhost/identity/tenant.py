"""Names of tenants and rooms.

Isolation of tenants rests on these types: a room is always a `RoomKey`, its owner and its name together. A room name alone
is never passed from one layer to another, because two tenants may use the same one.
"""

import re
from typing import NamedTuple, NewType

from meshhost.errors import InvalidRequestError

__all__ = ["RoomKey", "TenantId", "check_room_name"]

TenantId = NewType("TenantId", str)

# The SDK's own rule (room-protocol §1): 1-63 characters, lower-case letters, digits and hyphens, alphanumeric ends.
_ROOM_NAME = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")


class RoomKey(NamedTuple):
    """A room: its owner and its name there."""

    tenant: TenantId
    name: str

    def __str__(self) -> str:
        return self.name


def check_room_name(name: str) -> str:
    """Return `name` when it may name a room, else raise InvalidRequestError."""
    if _ROOM_NAME.fullmatch(name) is None:
        raise InvalidRequestError(
            "room name",
            "expected 1-63 of a-z, 0-9 and '-', beginning and ending with a letter or digit",
        )
    return name

"""The contract of an identity store: projects (tenants), API keys and room records.

Several room servers share one identity store. Whether a participant may connect is decided many times a second and without
waiting, so no server asks the store then: `meshhost.stores.identity_service` keeps the keys in memory and is the caller of
this contract. It must learn within two seconds that another process revoked a key. For that the store keeps a version of
its keys that changes with every change of them by any process, and `read_keys` answers "nothing new" without reading them
again.

This module is pure: values and signatures, no I/O.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from meshhost.identity.keys import ApiKey

__all__ = ["IdentityStore", "KeyInfo", "KeySnapshot", "Project", "RoomInfo"]


@dataclass(frozen=True, slots=True)
class Project:
    """A tenant."""

    id: str
    name: str


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """An API key without its secret."""

    id: str
    name: str
    description: str


@dataclass(frozen=True, slots=True)
class KeySnapshot:
    """All API keys at one moment, oldest first, and the version of the keys then."""

    version: int
    keys: Sequence[ApiKey]


@dataclass(frozen=True, slots=True)
class RoomInfo:
    """The record of a room that was created by REST; `metadata` is JSON text."""

    id: str
    name: str
    metadata: str


class IdentityStore(Protocol):
    """A durable store of projects, API keys and room records, shared by all processes that open it.

    Methods are safe to call concurrently, from any number of tasks and processes, and atomic. Changes are on disk when they
    return. A failing store raises OSError, and nothing of the call is done then; one that is not open raises RoomError.
    """

    async def open(self) -> None:
        """Make the store usable (schema, migrations); several processes may do so at once. Raises SettingsError, OSError."""
        ...

    async def close(self) -> None:
        """Finish what was accepted and release all resources. Idempotent; the store may be opened again."""
        ...

    async def projects(self) -> Sequence[Project]:
        """Return all projects, by name and id."""
        ...

    async def add_project(self, project: Project) -> None:
        """Record a project, unless one of this id is there: that one keeps its name."""
        ...

    async def read_keys(self, known: int | None = None) -> KeySnapshot | None:
        """Return all API keys, or None when their version is still `known`.

        Versions are compared for equality only. After `add_key` or `delete_key` returned, in any process, no later call
        returns the keys of before or takes an older version for the present one.
        """
        ...

    async def add_key(self, key: ApiKey, *, name: str, description: str) -> None:
        """Record an API key. Raises NotFoundError when its project is unknown."""
        ...

    async def keys(self, project_id: str) -> Sequence[KeyInfo]:
        """Return the keys recorded for a project, by name and id."""
        ...

    async def delete_key(self, project_id: str, key_id: str) -> None:
        """Revoke a key. Raises NotFoundError when the project has no such key."""
        ...

    async def add_room(self, project_id: str, room: RoomInfo) -> RoomInfo:
        """Record a room, unless the project has one of this name; return the record that is there now."""
        ...

    async def find_room(self, project_id: str, name: str) -> RoomInfo | None:
        """Return the record of a room, by name, or None."""
        ...

    async def rooms(self, project_id: str, *, limit: int, offset: int) -> Sequence[RoomInfo]:
        """Return the recorded rooms of a project, by name."""
        ...

    async def delete_room(self, project_id: str, room_id: str) -> RoomInfo:
        """Delete the record of a room, and return it; what the room holds stays. Raises NotFoundError."""
        ...

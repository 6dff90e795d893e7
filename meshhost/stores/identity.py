"""The contract of an identity store: projects (tenants), API keys and room records.

Several room servers share one identity store. Whether a participant may connect is decided many times a second and without
waiting, so no server asks the store then: `meshhost.stores.identity_service` keeps the keys in memory and is the caller of
this contract. It must learn within two seconds that another process revoked a key. For that the store keeps a version of
its keys that changes with every change of them by any process, and `read_keys` answers "nothing new" without reading them
again.

This module is pure: values and signatures, no I/O.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from meshhost.identity.keys import ApiKey
from meshhost.identity.roles import Role

__all__ = ["CLOSED", "IdentityStore", "KeyInfo", "KeyRights", "KeySnapshot", "Project", "RoomDeletion", "RoomInfo"]

CLOSED = "the tenant is being deleted"
"""Why a closed project is suspended."""


@dataclass(frozen=True, slots=True)
class Project:
    """A tenant. `suspended` is why its keys and tokens are refused, None when they are not."""

    id: str
    name: str
    suspended: str | None = None


@dataclass(frozen=True, slots=True)
class KeyRights:
    """What a key may do, and when it expires (seconds since the epoch; None: never)."""

    role: Role = Role.ADMIN
    expires_at: float | None = None

    def has_expired(self, now: float) -> bool:
        """Return whether the key is worth nothing any more at this time, in seconds since the epoch."""
        return self.expires_at is not None and self.expires_at <= now


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """An API key without its secret. `last_used_at` is exact to a minute; None when it was never used."""

    id: str
    name: str
    description: str
    rights: KeyRights = KeyRights()
    last_used_at: float | None = None


class RoomDeletion(NamedTuple):
    """When a room was deleted (seconds since the epoch; 0: never), and whether what it held is gone.

    `importing_until` is set while an archive is imported into the room, which is not there until then. The importing server
    moves this time on; when it has passed, the import was interrupted, and what it brought is deleted. The record of a room
    without a name is for a whole tenant.
    """

    at: float
    ended: bool
    importing_until: float | None = None


@dataclass(frozen=True, slots=True)
class KeySnapshot:
    """All API keys at one moment, oldest first, and the version of the keys then.

    `rights` are those of each key by its id, `suspended` the reasons of suspended projects by id, `deleted` the ids of projects
    that were deleted, `deleted_rooms` the rooms that were deleted, by project and name, also those that were made again.
    `quotas` are the limits that were set for single projects, by id and by the name of the limit, None for no limit; `names`
    are the names of projects by id.
    """

    version: int
    keys: Sequence[ApiKey]
    rights: Mapping[str, KeyRights] = field(default_factory=dict)
    suspended: Mapping[str, str] = field(default_factory=dict)
    deleted: frozenset[str] = frozenset()
    deleted_rooms: Mapping[tuple[str, str], RoomDeletion] = field(default_factory=dict)
    quotas: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)


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
        """Record a project, unless one of this id is there: that one keeps its name.

        Raises AlreadyExistsError when another project has the name, NotFoundError when one of this id was deleted.
        """
        ...

    async def rename_project(self, project_id: str, name: str) -> None:
        """Give a project another name. Raises NotFoundError, AlreadyExistsError when another project has it."""
        ...

    async def suspend_project(self, project_id: str, reason: str | None) -> None:
        """Record why the keys and tokens of a project are refused; None ends that. Changes the version of the keys.

        Raises NotFoundError, also for a project that is being deleted.
        """
        ...

    async def set_quota(
        self, project_id: str, limits: Mapping[str, float | None], *, unset: Collection[str] = ()
    ) -> None:
        """Record limits of a project by name (None: no limit), and remove those in `unset`; others stay.

        Changes the version of the keys. Raises NotFoundError, also for a project that is being deleted.
        """
        ...

    async def close_project(self, project_id: str) -> None:
        """Begin to delete a project: its keys are gone, and none can be added, by any process, from now on.

        The project is listed as suspended until `delete_project`. Idempotent. Raises NotFoundError.
        """
        ...

    async def delete_project(self, project_id: str) -> None:
        """Delete what is left of a closed project: its room records, in batches, then its own record.

        May be repeated after a crash. Its id can never be added again. Raises NotFoundError when it is not closed.
        """
        ...

    async def read_keys(self, known: int | None = None) -> KeySnapshot | None:
        """Return all API keys, or None when their version is still `known`.

        Versions are compared for equality only. After a change of keys, limits, a name or a suspension returned, in any
        process, no later call returns what was before or takes an older version for the present one.
        """
        ...

    async def add_key(
        self,
        key: ApiKey,
        *,
        name: str,
        description: str,
        rights: KeyRights = KeyRights(),
    ) -> None:
        """Record an API key. Raises NotFoundError when its project is unknown or was closed."""
        ...

    async def record_key_use(self, used_at: Mapping[str, float]) -> None:
        """Record when keys were used, by id. A later time that is recorded stays; the version of the keys does too."""
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

    async def change_room(self, project_id: str, room: RoomInfo) -> RoomInfo:
        """Replace the metadata of the record with this id; return the record. Its name stays. Raises NotFoundError."""
        ...

    async def delete_room(self, project_id: str, room_id: str) -> RoomInfo:
        """Delete the record of a room, and return it; what the room holds stays. Raises NotFoundError."""
        ...

    async def begin_room_deletion(self, project_id: str, name: str, now: float) -> None:
        """Delete the record of a room, if there is one, and record that the room is being deleted. Changes the version.

        What was signed for the room before `now` is worth nothing from then on, also when it is made again.
        """
        ...

    async def end_room_deletion(self, project_id: str, name: str) -> None:
        """Record that nothing of a deleted room is left. Idempotent."""
        ...

    async def record_import(self, project_id: str, name: str, state: RoomDeletion) -> None:
        """Record the state of a room while and after an archive is imported into it. Changes the version of the keys."""
        ...

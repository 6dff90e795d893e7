"""Projects, API keys and room records in this process's memory: the contract of IdentityStore in its plainest form.

Used by the memory engine, for tests and rooms that need no durability. The contract suite runs on it and every other store.
Methods do not await anything, so each is atomic in its event loop.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from meshhost.errors import AlreadyExistsError, NotFoundError, RoomError
from meshhost.identity.keys import ApiKey
from meshhost.stores.identity import CLOSED, KeyInfo, KeyRights, KeySnapshot, Project, RoomDeletion, RoomInfo

__all__ = ["MemoryIdentityStore"]


@dataclass(slots=True)
class _Content:
    projects: dict[str, Project] = field(default_factory=dict)
    keys: dict[str, tuple[ApiKey, KeyInfo]] = field(default_factory=dict)
    rooms: dict[tuple[str, str], RoomInfo] = field(default_factory=dict)  # by project and name
    used: dict[str, float] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)
    quotas: dict[str, dict[str, float | None]] = field(default_factory=dict)
    deleted_rooms: dict[tuple[str, str], RoomDeletion] = field(default_factory=dict)


class MemoryIdentityStore:
    """Keeps the contract of IdentityStore except durability."""

    def __init__(self) -> None:
        self._content = _Content()
        self._version = 1
        self._open = False

    async def open(self) -> None:
        """See IdentityStore."""
        self._open = True

    async def close(self) -> None:
        """See IdentityStore."""
        self._open = False

    async def projects(self) -> Sequence[Project]:
        """See IdentityStore."""
        return sorted(self._all().projects.values(), key=lambda project: (project.name, project.id))

    async def add_project(self, project: Project) -> None:
        """See IdentityStore."""
        if project.id in self._all().projects:
            return
        if project.id in self._content.deleted:
            raise NotFoundError("the tenant was deleted")
        self._check_name(project)
        self._content.projects[project.id] = project

    async def rename_project(self, project_id: str, name: str) -> None:
        """See IdentityStore."""
        renamed = replace(self._project(project_id), name=name)
        self._check_name(renamed)
        self._content.projects[project_id] = renamed
        self._version += 1

    async def suspend_project(self, project_id: str, reason: str | None) -> None:
        """See IdentityStore."""
        project = self._project(project_id)
        if project_id in self._content.deleted:
            raise NotFoundError("no such project")
        self._content.projects[project_id] = replace(project, suspended=reason)
        self._version += 1

    async def set_quota(
        self, project_id: str, limits: Mapping[str, float | None], *, unset: Collection[str] = ()
    ) -> None:
        """See IdentityStore."""
        self._project(project_id)
        if project_id in self._content.deleted:
            raise NotFoundError("no such project")
        present = self._content.quotas.get(project_id, {})
        kept = {name: value for name, value in present.items() if name not in unset}
        self._content.quotas[project_id] = {**kept, **limits}
        self._version += 1

    async def close_project(self, project_id: str) -> None:
        """See IdentityStore."""
        self._content.projects[project_id] = replace(self._project(project_id), suspended=CLOSED)
        self._content.deleted.add(project_id)
        keys = self._content.keys
        self._content.keys = {key_id: found for key_id, found in keys.items() if found[0].project_id != project_id}
        self._version += 1

    async def delete_project(self, project_id: str) -> None:
        """See IdentityStore."""
        self._project(project_id)
        if project_id not in self._content.deleted:
            raise NotFoundError("no such closed project")
        rooms = self._content.rooms
        self._content.rooms = {place: room for place, room in rooms.items() if place[0] != project_id}
        gone = self._content.deleted_rooms
        self._content.deleted_rooms = {place: found for place, found in gone.items() if place[0] != project_id}
        del self._content.projects[project_id]
        self._content.quotas.pop(project_id, None)

    async def read_keys(self, known: int | None = None) -> KeySnapshot | None:
        """See IdentityStore."""
        content = self._all()
        if known == self._version:
            return None
        return KeySnapshot(
            self._version,
            [key for key, _ in content.keys.values()],
            {key.id: info.rights for key, info in content.keys.values()},
            {one.id: one.suspended for one in content.projects.values() if one.suspended is not None},
            frozenset(content.deleted),
            dict(content.deleted_rooms),
            {project: dict(limits) for project, limits in content.quotas.items() if limits},
            {one.id: one.name for one in content.projects.values()},
        )

    async def add_key(
        self,
        key: ApiKey,
        *,
        name: str,
        description: str,
        rights: KeyRights = KeyRights(),  # noqa: B008 - immutable
    ) -> None:
        """See IdentityStore."""
        if key.project_id not in self._all().projects or key.project_id in self._content.deleted:
            raise NotFoundError("no such project")
        self._content.keys[key.id] = (key, KeyInfo(key.id, name, description, rights))
        self._version += 1

    async def record_key_use(self, used_at: Mapping[str, float]) -> None:
        """See IdentityStore."""
        used = self._all().used
        for key_id, time in used_at.items():
            if key_id in self._content.keys:
                used[key_id] = max(time, used.get(key_id, time))

    async def keys(self, project_id: str) -> Sequence[KeyInfo]:
        """See IdentityStore."""
        used = self._all().used
        found = [
            replace(info, last_used_at=used.get(info.id))
            for key, info in self._all().keys.values()
            if key.project_id == project_id
        ]
        return sorted(found, key=lambda info: (info.name, info.id))

    async def delete_key(self, project_id: str, key_id: str) -> None:
        """See IdentityStore."""
        found = self._all().keys.get(key_id)
        if found is None or found[0].project_id != project_id:
            raise NotFoundError("no such API key")
        del self._content.keys[key_id]
        self._content.used.pop(key_id, None)
        self._version += 1

    async def add_room(self, project_id: str, room: RoomInfo) -> RoomInfo:
        """See IdentityStore."""
        return self._all().rooms.setdefault((project_id, room.name), room)

    async def find_room(self, project_id: str, name: str) -> RoomInfo | None:
        """See IdentityStore."""
        return self._all().rooms.get((project_id, name))

    async def rooms(self, project_id: str, *, limit: int, offset: int) -> Sequence[RoomInfo]:
        """See IdentityStore."""
        found = [room for (project, _), room in self._all().rooms.items() if project == project_id]
        return sorted(found, key=lambda room: room.name)[offset : offset + limit]

    async def change_room(self, project_id: str, room: RoomInfo) -> RoomInfo:
        """See IdentityStore."""
        place = self._place_of(project_id, room.id)
        changed = self._content.rooms[place] = replace(self._content.rooms[place], metadata=room.metadata)
        return changed

    async def delete_room(self, project_id: str, room_id: str) -> RoomInfo:
        """See IdentityStore."""
        return self._content.rooms.pop(self._place_of(project_id, room_id))

    def _place_of(self, project_id: str, room_id: str) -> tuple[str, str]:
        for place, room in self._all().rooms.items():
            if place[0] == project_id and room.id == room_id:
                return place
        raise NotFoundError("no such room")

    async def begin_room_deletion(self, project_id: str, name: str, now: float) -> None:
        """See IdentityStore."""
        self._all().rooms.pop((project_id, name), None)
        before = self._content.deleted_rooms.get((project_id, name), RoomDeletion(now, ended=False))
        self._content.deleted_rooms[project_id, name] = RoomDeletion(max(now, before.at), ended=False)
        self._version += 1

    async def end_room_deletion(self, project_id: str, name: str) -> None:
        """See IdentityStore."""
        found = self._all().deleted_rooms.get((project_id, name))
        if found is not None and not found.ended:
            self._content.deleted_rooms[project_id, name] = RoomDeletion(found.at, ended=True)
            self._version += 1

    async def record_import(self, project_id: str, name: str, state: RoomDeletion) -> None:
        """See IdentityStore."""
        self._all().deleted_rooms[project_id, name] = state
        self._version += 1

    def _project(self, project_id: str) -> Project:
        found = self._all().projects.get(project_id)
        if found is None:
            raise NotFoundError("no such project")
        return found

    def _check_name(self, wanted: Project) -> None:
        if any(one.name == wanted.name and one.id != wanted.id for one in self._content.projects.values()):
            raise AlreadyExistsError(f"there is a tenant {wanted.name!r}")

    def _all(self) -> _Content:
        if not self._open:
            raise RoomError("the identity store is not open")
        return self._content

"""Projects, API keys and room records in this process's memory: the contract of IdentityStore in its plainest form.

Used by the memory engine, for tests and rooms that need no durability. The contract suite runs on it and every other store.
Methods do not await anything, so each is atomic in its event loop.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from meshhost.errors import NotFoundError, RoomError
from meshhost.identity.keys import ApiKey
from meshhost.stores.identity import KeyInfo, KeySnapshot, Project, RoomInfo

__all__ = ["MemoryIdentityStore"]


@dataclass(slots=True)
class _Content:
    projects: dict[str, Project] = field(default_factory=dict)
    keys: dict[str, tuple[ApiKey, KeyInfo]] = field(default_factory=dict)
    rooms: dict[tuple[str, str], RoomInfo] = field(default_factory=dict)  # by project and name


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
        self._all().projects.setdefault(project.id, project)

    async def read_keys(self, known: int | None = None) -> KeySnapshot | None:
        """See IdentityStore."""
        keys = [key for key, _ in self._all().keys.values()]
        return None if known == self._version else KeySnapshot(self._version, keys)

    async def add_key(self, key: ApiKey, *, name: str, description: str) -> None:
        """See IdentityStore."""
        if key.project_id not in self._all().projects:
            raise NotFoundError("no such project")
        self._content.keys[key.id] = (key, KeyInfo(key.id, name, description))
        self._version += 1

    async def keys(self, project_id: str) -> Sequence[KeyInfo]:
        """See IdentityStore."""
        found = [info for key, info in self._all().keys.values() if key.project_id == project_id]
        return sorted(found, key=lambda info: (info.name, info.id))

    async def delete_key(self, project_id: str, key_id: str) -> None:
        """See IdentityStore."""
        found = self._all().keys.get(key_id)
        if found is None or found[0].project_id != project_id:
            raise NotFoundError("no such API key")
        del self._content.keys[key_id]
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

    async def delete_room(self, project_id: str, room_id: str) -> RoomInfo:
        """See IdentityStore."""
        for place, room in self._all().rooms.items():
            if place[0] == project_id and room.id == room_id:
                return self._content.rooms.pop(place)
        raise NotFoundError("no such room")

    def _all(self) -> _Content:
        if not self._open:
            raise RoomError("the identity store is not open")
        return self._content

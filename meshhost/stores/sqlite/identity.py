"""Projects, API keys and room records in a small SQLite file of their own.

Keeps the contract of `meshhost.stores.identity.IdentityStore`. Unlike the other stores it keeps nothing in memory, so several
processes may have the file open at once (SQLite serialises their transactions): room servers of one machine can share their
tenants. The version of the keys is a row that triggers count up, see `migrations/identity`.
"""

import sqlite3
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from meshhost.errors import AlreadyExistsError, NotFoundError
from meshhost.identity.keys import ApiKey
from meshhost.identity.roles import Role
from meshhost.stores.identity import CLOSED, KeyInfo, KeyRights, KeySnapshot, Project, RoomDeletion, RoomInfo
from meshhost.stores.sqlite.database import SqliteDatabase, Statements

__all__ = ["SqliteIdentityStore"]

_SQL = Statements("identity.sql")
_execute = _SQL.execute

# Room records deleted in one transaction: it must not hold the file's lock for long.
_BATCH = 500


class SqliteIdentityStore:
    """Keeps the contract of IdentityStore in the file `path`."""

    def __init__(self, path: Path) -> None:
        self._database = SqliteDatabase(path, migrations="identity", what="identity store", shared=True)

    def __repr__(self) -> str:
        return f"<SqliteIdentityStore {str(self._database.path)!r} open={self._database.is_open}>"

    async def open(self) -> None:
        """See IdentityStore."""
        await self._database.open()

    async def close(self) -> None:
        """See IdentityStore."""
        await self._database.close()

    async def projects(self) -> Sequence[Project]:
        """See IdentityStore."""
        return await self._database.run(lambda db: [Project(*row) for row in _execute(db, "projects")])

    async def add_project(self, project: Project) -> None:
        """See IdentityStore."""

        def operation(db: sqlite3.Connection) -> None:
            if _execute(db, "find_project", id=project.id).fetchone() is not None:
                return
            if _execute(db, "find_deleted", id=project.id).fetchone() is not None:
                raise NotFoundError("the tenant was deleted")
            _check_name(db, project.id, project.name)
            _execute(db, "add_project", id=project.id, name=project.name, suspended=project.suspended)

        await self._database.run(operation)

    async def rename_project(self, project_id: str, name: str) -> None:
        """See IdentityStore."""

        def operation(db: sqlite3.Connection) -> None:
            _check_name(db, project_id, name)
            _changed(_execute(db, "rename_project", id=project_id, name=name))

        await self._database.run(operation)

    async def suspend_project(self, project_id: str, reason: str | None) -> None:
        """See IdentityStore."""
        await self._database.run(lambda db: _changed(_execute(db, "suspend_project", id=project_id, reason=reason)))

    async def set_quota(
        self, project_id: str, limits: Mapping[str, float | None], *, unset: Collection[str] = ()
    ) -> None:
        """See IdentityStore."""

        def operation(db: sqlite3.Connection) -> None:
            if _execute(db, "find_open_project", id=project_id).fetchone() is None:
                raise NotFoundError("no such project")
            for name in {*unset, *limits}:
                _execute(db, "delete_limit", project=project_id, name=name)
            for name, value in limits.items():
                _execute(db, "add_limit", project=project_id, name=name, value=value)

        await self._database.run(operation)

    async def close_project(self, project_id: str) -> None:
        """See IdentityStore."""

        def operation(db: sqlite3.Connection) -> None:
            if _execute(db, "find_project", id=project_id).fetchone() is None:
                raise NotFoundError("no such project")
            if _execute(db, "find_deleted", id=project_id).fetchone() is None:
                _execute(db, "suspend_project", id=project_id, reason=CLOSED)
                _execute(db, "add_deleted", id=project_id)
            _execute(db, "delete_uses", project=project_id)
            _execute(db, "delete_keys", project=project_id)

        await self._database.run(operation)

    async def delete_project(self, project_id: str) -> None:
        """See IdentityStore."""
        while await self._database.run(
            lambda db: _execute(db, "delete_some_rooms", project=project_id, limit=_BATCH).rowcount
        ):
            pass

        def operation(db: sqlite3.Connection) -> None:
            _changed(_execute(db, "delete_project", id=project_id))
            _execute(db, "forget_deleted_rooms", id=project_id)

        await self._database.run(operation)

    async def read_keys(self, known: int | None = None) -> KeySnapshot | None:
        """See IdentityStore."""

        def operation(db: sqlite3.Connection) -> KeySnapshot | None:
            (version,) = _execute(db, "key_version").fetchone()
            if version == known:
                return None
            rows = _execute(db, "all_keys").fetchall()
            return KeySnapshot(
                version,
                [ApiKey(*row[:3]) for row in rows],
                {row[0]: KeyRights(Role(row[3]), row[4]) for row in rows},
                dict(_execute(db, "suspended_projects").fetchall()),
                frozenset(found for (found,) in _execute(db, "deleted_projects")),
                {(row[0], row[1]): RoomDeletion(row[2], bool(row[3]), row[4]) for row in _execute(db, "deleted_rooms")},
                _quotas(_execute(db, "quotas")),
                {project_id: name for project_id, name, _ in _execute(db, "projects")},
            )

        return await self._database.run(operation)

    async def add_key(
        self,
        key: ApiKey,
        *,
        name: str,
        description: str,
        rights: KeyRights = KeyRights(),  # noqa: B008 - immutable
    ) -> None:
        """See IdentityStore."""

        def operation(db: sqlite3.Connection) -> None:
            if _execute(db, "find_open_project", id=key.project_id).fetchone() is None:
                raise NotFoundError("no such project")
            values = {"id": key.id, "project": key.project_id, "secret": key.secret, "role": rights.role.value}
            _execute(db, "add_key", **values, expires_at=rights.expires_at, name=name, description=description)

        await self._database.run(operation)

    async def record_key_use(self, used_at: Mapping[str, float]) -> None:
        """See IdentityStore."""

        def operation(db: sqlite3.Connection) -> None:
            for key_id, time in used_at.items():
                _execute(db, "record_use", id=key_id, time=time)

        await self._database.run(operation)

    async def keys(self, project_id: str) -> Sequence[KeyInfo]:
        """See IdentityStore."""

        def operation(db: sqlite3.Connection) -> Sequence[KeyInfo]:
            return [
                KeyInfo(key_id, name, description, KeyRights(Role(role), expires_at), used_at)
                for key_id, name, description, role, expires_at, used_at in _execute(
                    db, "keys_of_project", project=project_id
                )
            ]

        return await self._database.run(operation)

    async def delete_key(self, project_id: str, key_id: str) -> None:
        """See IdentityStore."""

        def operation(db: sqlite3.Connection) -> None:
            if _execute(db, "delete_key", project=project_id, id=key_id).rowcount == 0:
                raise NotFoundError("no such API key")
            _execute(db, "delete_use", id=key_id)

        await self._database.run(operation)

    async def add_room(self, project_id: str, room: RoomInfo) -> RoomInfo:
        """See IdentityStore."""

        def operation(db: sqlite3.Connection) -> RoomInfo:
            values = {"id": room.id, "project": project_id, "name": room.name, "metadata": room.metadata}
            _execute(db, "add_room", **values)
            return RoomInfo(*_execute(db, "find_room", project=project_id, name=room.name).fetchone())

        return await self._database.run(operation)

    async def find_room(self, project_id: str, name: str) -> RoomInfo | None:
        """See IdentityStore."""
        row = await self._database.run(lambda db: _execute(db, "find_room", project=project_id, name=name).fetchone())
        return None if row is None else RoomInfo(*row)

    async def rooms(self, project_id: str, *, limit: int, offset: int) -> Sequence[RoomInfo]:
        """See IdentityStore."""

        def operation(db: sqlite3.Connection) -> Sequence[RoomInfo]:
            rows = _execute(db, "rooms", project=project_id, limit=limit, offset=offset)
            return [RoomInfo(*row) for row in rows]

        return await self._database.run(operation)

    async def change_room(self, project_id: str, room: RoomInfo) -> RoomInfo:
        """See IdentityStore."""
        return await self._one_room("change_room", project=project_id, id=room.id, metadata=room.metadata)

    async def delete_room(self, project_id: str, room_id: str) -> RoomInfo:
        """See IdentityStore."""
        return await self._one_room("delete_room", project=project_id, id=room_id)

    async def _one_room(self, statement: str, **values: str) -> RoomInfo:
        def operation(db: sqlite3.Connection) -> RoomInfo:
            rows = _execute(db, statement, **values).fetchall()
            if not rows:
                raise NotFoundError("no such room")
            return RoomInfo(*rows[0])

        return await self._database.run(operation)

    async def begin_room_deletion(self, project_id: str, name: str, now: float) -> None:
        """See IdentityStore."""

        def operation(db: sqlite3.Connection) -> None:
            _execute(db, "begin_room_deletion", project=project_id, name=name, now=now)
            _execute(db, "delete_room_of_name", project=project_id, name=name)

        await self._database.run(operation)

    async def end_room_deletion(self, project_id: str, name: str) -> None:
        """See IdentityStore."""
        await self._database.run(lambda db: _execute(db, "end_room_deletion", project=project_id, name=name).rowcount)

    async def record_import(self, project_id: str, name: str, state: RoomDeletion) -> None:
        """See IdentityStore."""
        values = {"at": state.at, "ended": state.ended, "importing_until": state.importing_until}
        await self._database.run(
            lambda db: _execute(db, "record_import", project=project_id, name=name, **values).rowcount
        )


def _check_name(db: sqlite3.Connection, project_id: str, name: str) -> None:
    if _execute(db, "find_other_name", id=project_id, name=name).fetchone() is not None:
        raise AlreadyExistsError(f"there is a tenant {name!r}")


def _quotas(rows: Iterable[tuple[str, str, float | None]]) -> dict[str, dict[str, float | None]]:
    found: dict[str, dict[str, float | None]] = {}
    for project_id, name, value in rows:
        found.setdefault(project_id, {})[name] = value
    return found


def _changed(cursor: sqlite3.Cursor) -> None:
    if cursor.rowcount == 0:
        raise NotFoundError("no such project")

"""Projects, API keys and room records in PostgreSQL.

Keeps the contract of `meshhost.stores.identity.IdentityStore`; read that first. The version of the keys is one row that
triggers count up (`migrations/identity`): a change of keys holds that row until it is committed, so no server can take a
version for newer than the keys it has read. These changes are rare; nothing that happens for each request touches the row.
"""

from collections.abc import Collection, Mapping, Sequence

from psycopg import errors

from meshhost.errors import AlreadyExistsError, NotFoundError
from meshhost.identity.keys import ApiKey
from meshhost.identity.roles import Role
from meshhost.stores.identity import CLOSED, KeyInfo, KeyRights, KeySnapshot, Project, RoomDeletion, RoomInfo
from meshhost.stores.postgres.database import Connection, Lifetime, PostgresDatabase, Row, Values
from meshhost.stores.shared.statements import read_statements

__all__ = ["PostgresIdentityStore"]

_SQL = read_statements("meshhost.stores.postgres", "identity.sql")
# Room records deleted in one transaction.
_BATCH = 500


class PostgresIdentityStore(Lifetime):
    """Keeps the contract of IdentityStore in `database`."""

    def __init__(self, database: PostgresDatabase) -> None:
        super().__init__(database, migrations="identity", what="identity store")

    async def projects(self) -> Sequence[Project]:
        """See IdentityStore."""
        return [Project(*row) for row in await self.database.rows(_SQL["projects"])]

    async def add_project(self, project: Project) -> None:
        """See IdentityStore."""
        values = {"id": project.id, "name": project.name, "suspended": project.suspended}

        async def operation(connection: Connection) -> None:
            if (await connection.execute(_SQL["add_project"], values)).rowcount:
                return
            is_there, was_deleted = await _row(connection, "why_not_added", values) or (False, False)
            if was_deleted and not is_there:
                raise NotFoundError("the tenant was deleted")
            if not is_there:
                raise _name_taken(project.name)

        await self.database.transaction(operation)

    async def rename_project(self, project_id: str, name: str) -> None:
        """See IdentityStore."""

        async def operation(connection: Connection) -> None:
            try:
                _changed((await connection.execute(_SQL["rename_project"], {"id": project_id, "name": name})).rowcount)
            except errors.UniqueViolation:
                raise _name_taken(name) from None

        await self.database.transaction(operation)

    async def suspend_project(self, project_id: str, reason: str | None) -> None:
        """See IdentityStore."""
        _changed(await self.database.count(_SQL["suspend_project"], {"id": project_id, "reason": reason}))

    async def set_quota(
        self, project_id: str, limits: Mapping[str, float | None], *, unset: Collection[str] = ()
    ) -> None:
        """See IdentityStore."""
        removed: Values = {"project": project_id, "names": [name for name in unset if name not in limits]}
        changed: Values = {
            "project": project_id,
            "names": list(limits),
            "values": [None if limit is None else float(limit) for limit in limits.values()],
        }

        async def operation(connection: Connection) -> None:
            if await _row(connection, "share_project", {"id": project_id}) is None:
                raise NotFoundError("no such project")
            await connection.execute(_SQL["delete_limits"], removed)
            await connection.execute(_SQL["set_limits"], changed)

        await self.database.transaction(operation)

    async def close_project(self, project_id: str) -> None:
        """See IdentityStore."""

        async def operation(connection: Connection) -> None:
            if await _row(connection, "lock_project", {"id": project_id}) is None:
                raise NotFoundError("no such project")
            await connection.execute(_SQL["suspend_project"], {"id": project_id, "reason": CLOSED})
            await connection.execute(_SQL["add_deleted"], {"id": project_id})
            await connection.execute(_SQL["delete_keys"], {"project": project_id})

        await self.database.transaction(operation)

    async def delete_project(self, project_id: str) -> None:
        """See IdentityStore."""
        while await self.database.count(_SQL["delete_some_rooms"], {"project": project_id, "limit": _BATCH}):
            pass

        async def operation(connection: Connection) -> None:
            _changed((await connection.execute(_SQL["delete_project"], {"id": project_id})).rowcount)
            await connection.execute(_SQL["forget_deleted_rooms"], {"id": project_id})

        await self.database.transaction(operation)

    async def read_keys(self, known: int | None = None) -> KeySnapshot | None:
        """See IdentityStore."""
        row = await self.database.row(_SQL["key_version"])
        if row is not None and row[0] == known:
            return None
        return await self.database.transaction(_snapshot)

    async def add_key(
        self,
        key: ApiKey,
        *,
        name: str,
        description: str,
        rights: KeyRights = KeyRights(),  # noqa: B008 - immutable
    ) -> None:
        """See IdentityStore."""
        values = {
            "id": key.id,
            "project": key.project_id,
            "secret": key.secret,
            "name": name,
            "description": description,
            "role": rights.role.value,
            "expires_at": rights.expires_at,
        }

        async def operation(connection: Connection) -> None:
            if await _row(connection, "share_project", {"id": key.project_id}) is None:
                raise NotFoundError("no such project")
            await connection.execute(_SQL["add_key"], values)

        await self.database.transaction(operation)

    async def record_key_use(self, used_at: Mapping[str, float]) -> None:
        """See IdentityStore."""
        await self.database.rows(_SQL["record_uses"], {"ids": list(used_at), "times": list(used_at.values())})

    async def keys(self, project_id: str) -> Sequence[KeyInfo]:
        """See IdentityStore."""
        return [
            KeyInfo(key_id, name, description, KeyRights(Role(role), expires_at), used_at)
            for key_id, name, description, role, expires_at, used_at in await self.database.rows(
                _SQL["keys_of_project"], {"project": project_id}
            )
        ]

    async def delete_key(self, project_id: str, key_id: str) -> None:
        """See IdentityStore."""
        if not await self.database.count(_SQL["delete_key"], {"project": project_id, "id": key_id}):
            raise NotFoundError("no such API key")

    async def add_room(self, project_id: str, room: RoomInfo) -> RoomInfo:
        """See IdentityStore."""
        values = {"id": room.id, "project": project_id, "name": room.name, "metadata": room.metadata}

        async def operation(connection: Connection) -> RoomInfo:
            await connection.execute(_SQL["add_room"], values)
            found = await _row(connection, "find_room", values)
            return room if found is None else RoomInfo(*found)

        return await self.database.transaction(operation)

    async def find_room(self, project_id: str, name: str) -> RoomInfo | None:
        """See IdentityStore."""
        row = await self.database.row(_SQL["find_room"], {"project": project_id, "name": name})
        return None if row is None else RoomInfo(*row)

    async def rooms(self, project_id: str, *, limit: int, offset: int) -> Sequence[RoomInfo]:
        """See IdentityStore."""
        values = {"project": project_id, "limit": limit, "offset": offset}
        return [RoomInfo(*row) for row in await self.database.rows(_SQL["rooms"], values)]

    async def change_room(self, project_id: str, room: RoomInfo) -> RoomInfo:
        """See IdentityStore."""
        values = {"project": project_id, "id": room.id, "metadata": room.metadata}
        return await self._one_room("change_room", values)

    async def delete_room(self, project_id: str, room_id: str) -> RoomInfo:
        """See IdentityStore."""
        return await self._one_room("delete_room", {"project": project_id, "id": room_id})

    async def _one_room(self, statement: str, values: Values) -> RoomInfo:
        row = await self.database.row(_SQL[statement], values)
        if row is None:
            raise NotFoundError("no such room")
        return RoomInfo(*row)

    async def begin_room_deletion(self, project_id: str, name: str, now: float) -> None:
        """See IdentityStore."""
        values = {"project": project_id, "name": name, "now": now}

        async def operation(connection: Connection) -> None:
            await connection.execute(_SQL["begin_room_deletion"], values)
            await connection.execute(_SQL["delete_room_of_name"], values)

        await self.database.transaction(operation)

    async def end_room_deletion(self, project_id: str, name: str) -> None:
        """See IdentityStore."""
        await self.database.count(_SQL["end_room_deletion"], {"project": project_id, "name": name})

    async def record_import(self, project_id: str, name: str, state: RoomDeletion) -> None:
        """See IdentityStore."""
        await self.database.count(_SQL["record_import"], {"project": project_id, "name": name, **state._asdict()})


async def _row(connection: Connection, statement: str, values: Values) -> Row | None:
    return await (await connection.execute(_SQL[statement], values)).fetchone()


async def _snapshot(connection: Connection) -> KeySnapshot:
    # One view for all statements: the version must be that of the keys.
    await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
    (version,) = await _row(connection, "key_version", {}) or (0,)
    rows = await (await connection.execute(_SQL["all_keys"])).fetchall()
    suspended = await (await connection.execute(_SQL["suspended_projects"])).fetchall()
    deleted = await (await connection.execute(_SQL["deleted_projects"])).fetchall()
    rooms = await (await connection.execute(_SQL["deleted_rooms"])).fetchall()
    names = await (await connection.execute(_SQL["project_names"])).fetchall()
    quotas: dict[str, dict[str, float | None]] = {}
    for project, name, value in await (await connection.execute(_SQL["quotas"])).fetchall():
        quotas.setdefault(project, {})[name] = value
    return KeySnapshot(
        version,
        [ApiKey(*row[:3]) for row in rows],
        {row[0]: KeyRights(Role(row[3]), row[4]) for row in rows},
        dict(suspended),
        frozenset(project for (project,) in deleted),
        {(project, name): RoomDeletion(*state) for project, name, *state in rooms},
        quotas,
        dict(names),
    )


def _name_taken(name: str) -> AlreadyExistsError:
    return AlreadyExistsError(f"there is a tenant {name!r}")


def _changed(rows: int) -> None:
    if rows == 0:
        raise NotFoundError("no such project")

"""Projects (tenants), API keys and room records of one room server, in a small SQLite file of their own."""

import asyncio
import contextlib
import hmac
import sqlite3
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from meshhost.errors import AlreadyExistsError, InvalidTokenError, NotFoundError
from meshhost.identity.keys import ApiKey, new_api_key

__all__ = ["IdentityStore", "KeyInfo", "Project", "RoomInfo"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS project (id TEXT PRIMARY KEY, name TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS api_key (
    id TEXT PRIMARY KEY, project_id TEXT NOT NULL, secret TEXT NOT NULL,
    name TEXT NOT NULL, description TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS room (
    id TEXT PRIMARY KEY, project_id TEXT NOT NULL, name TEXT NOT NULL, metadata TEXT NOT NULL,
    UNIQUE (project_id, name)
);
"""


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
class RoomInfo:
    """A room that was made by REST; `metadata` is JSON text."""

    id: str
    name: str
    metadata: str


class IdentityStore:
    """Who may use this room server.

    Keys are those made here and those of `extra_keys`, which is asked again when a key is unknown: the key that
    `meshhost setup` wrote for the user who runs this server, and the key in the server's own environment. Reads that decide
    on a connection come from memory; changes are on disk when they return. Tokens without a key id are verified with
    `default_secret` and belong to `default_project`.
    """

    def __init__(
        self,
        path: Path,
        *,
        extra_keys: Callable[[], list[ApiKey]] = list,
        default_secret: str | None = None,
    ) -> None:
        self._path = path
        self._extra_keys = extra_keys
        self._default_secret = default_secret
        self._keys: dict[str, ApiKey] = {}
        self._extra: dict[str, ApiKey] = {}

    async def open(self) -> None:
        """Make the file if it is missing, and read the keys."""
        await asyncio.to_thread(self._make)
        rows = await self._query("SELECT id, project_id, secret FROM api_key")
        self._keys = {row[0]: ApiKey(*row) for row in rows}
        for key in self._read_extra():
            await self._add_project(Project(key.project_id, "default"))

    def find_key(self, key_id: str) -> ApiKey | None:
        """The key of this id, if it is known."""
        found = self._keys.get(key_id) or self._extra.get(key_id)
        if found is None:
            self._read_extra()
            found = self._extra.get(key_id)
        return found

    def secret_for(self, key_id: str | None, project_id: str | None) -> str:
        """The secret that signs tokens of this key. Raises InvalidTokenError, which says nothing of what exists."""
        if key_id is None:
            if self._default_secret is None:
                raise InvalidTokenError("the token names no API key")
            return self._default_secret
        key = self.find_key(key_id)
        if key is None or key.project_id != project_id:
            raise InvalidTokenError("the token's API key is unknown or was revoked")
        return key.secret

    def is_key(self, shown: ApiKey) -> bool:
        """Whether the whole key is one of ours."""
        known = self.find_key(shown.id)
        # Compared with something even when the id is unknown, so that the time tells nothing.
        is_known = known is not None and known.project_id == shown.project_id
        expected = known.secret if known is not None and is_known else "-" * 64
        # Bytes of a header that are no text come here as lone surrogates.
        same = hmac.compare_digest(expected.encode(), shown.secret.encode(errors="surrogatepass"))
        return same and is_known

    def signing_key(self, project_id: str) -> ApiKey | None:
        """A key of the project to sign tokens with, if it has one."""
        keys = [*self._keys.values(), *self._extra.values()]
        return next((key for key in keys if key.project_id == project_id), None)

    async def projects(self) -> list[Project]:
        """All projects."""
        for key in self._read_extra():
            await self._add_project(Project(key.project_id, "default"))
        return [Project(*row) for row in await self._query("SELECT id, name FROM project ORDER BY name, id")]

    async def create_project(self, name: str) -> Project:
        """A new project."""
        project = Project(str(uuid.uuid4()), name)
        await self._add_project(project)
        return project

    async def create_key(self, project_id: str, *, name: str, description: str) -> ApiKey:
        """A new key of a project. Raises NotFoundError for an unknown project."""
        if not await self._query("SELECT 1 FROM project WHERE id = ?", project_id):
            raise NotFoundError("no such project")
        key = new_api_key(project_id)
        sql = "INSERT INTO api_key (id, project_id, secret, name, description) VALUES (?, ?, ?, ?, ?)"
        await self._query(sql, key.id, project_id, key.secret, name, description)
        self._keys[key.id] = key
        return key

    async def keys(self, project_id: str) -> list[KeyInfo]:
        """The keys made here for a project."""
        sql = "SELECT id, name, description FROM api_key WHERE project_id = ? ORDER BY name, id"
        return [KeyInfo(*row) for row in await self._query(sql, project_id)]

    async def delete_key(self, project_id: str, key_id: str) -> None:
        """Revoke a key. Raises NotFoundError."""
        key = self._keys.get(key_id)
        if key is None or key.project_id != project_id:
            raise NotFoundError("no such API key")
        await self._query("DELETE FROM api_key WHERE id = ?", key_id)
        self._keys.pop(key_id, None)

    async def create_room(self, project_id: str, name: str, *, metadata: str, if_not_exists: bool) -> RoomInfo:
        """Record a room. Raises AlreadyExistsError."""
        room = RoomInfo(str(uuid.uuid4()), name, metadata)
        sql = "INSERT OR IGNORE INTO room (id, project_id, name, metadata) VALUES (?, ?, ?, ?) RETURNING id"
        if await self._query(sql, room.id, project_id, room.name, room.metadata):
            return room
        present = await self.find_room(project_id, name) if if_not_exists else None
        if present is None:
            raise AlreadyExistsError(f"room {name!r} exists")
        return present

    async def find_room(self, project_id: str, name: str) -> RoomInfo | None:
        """The record of a room, by name."""
        sql = "SELECT id, name, metadata FROM room WHERE project_id = ? AND name = ?"
        rows = await self._query(sql, project_id, name)
        return RoomInfo(*rows[0]) if rows else None

    async def rooms(self, project_id: str, *, limit: int, offset: int) -> list[RoomInfo]:
        """Recorded rooms, by name."""
        sql = "SELECT id, name, metadata FROM room WHERE project_id = ? ORDER BY name LIMIT ? OFFSET ?"
        return [RoomInfo(*row) for row in await self._query(sql, project_id, limit, offset)]

    async def delete_room(self, project_id: str, room_id: str) -> RoomInfo:
        """Forget the record of a room; what it holds stays. Raises NotFoundError."""
        sql = "DELETE FROM room WHERE project_id = ? AND id = ? RETURNING id, name, metadata"
        rows = await self._query(sql, project_id, room_id)
        if not rows:
            raise NotFoundError("no such room")
        return RoomInfo(*rows[0])

    async def _add_project(self, project: Project) -> None:
        await self._query("INSERT OR IGNORE INTO project (id, name) VALUES (?, ?)", project.id, project.name)

    def _read_extra(self) -> list[ApiKey]:
        keys = self._extra_keys()
        self._extra = {key.id: key for key in keys}
        return keys

    def _make(self) -> None:
        self._path.touch(mode=0o600)
        with self._connection() as connection:
            connection.executescript(_SCHEMA)

    async def _query(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        return await asyncio.to_thread(self._run, sql, parameters)

    def _run(self, sql: str, parameters: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        with self._connection() as connection, connection:
            return connection.execute(sql, parameters).fetchall()

    @contextlib.contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        connection = sqlite3.connect(self._path, timeout=10)
        try:
            connection.execute("PRAGMA synchronous=FULL")
            yield connection
        finally:
            connection.close()

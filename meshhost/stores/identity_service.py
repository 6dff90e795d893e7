"""Who may use this room server: the identity store with its API keys in memory, for decisions that cannot wait.

Every connection and every REST call shows a key or a token signed by one. That is decided here without awaiting: all keys are
held in memory, together with `extra_keys` (those in the files and environment of the user who runs the server). Reads and
changes of projects, keys and rooms go to the store.

Another server over the same store may add or revoke keys. One task, from `start` to `stop`, asks the store every
REFRESH_SECONDS whether its keys changed and reads them again if so; a revoked key is refused everywhere within two seconds of
its revocation, and a new one is accepted everywhere by then. While the store cannot be read the last known keys decide: a
failing disk or network must not lock every tenant out. Changes made here count at once: a lock keeps a read that began before
a change from being applied after it, which would bring a revoked key back.
"""

import asyncio
import hmac
import logging
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Self

from meshhost.clock import Clock, SystemClock
from meshhost.errors import AlreadyExistsError, InvalidTokenError
from meshhost.identity.keys import ApiKey, new_api_key
from meshhost.stores.identity import IdentityStore, KeyInfo, Project, RoomInfo
from meshhost.tasks import TaskOwner

__all__ = ["REFRESH_SECONDS", "IdentityService"]

logger = logging.getLogger(__name__)

# Half of the two seconds within which a revoked key is dead on every server: the other half is for the store to answer.
REFRESH_SECONDS = 1.0


class IdentityService:
    """The identity store as a room server uses it.

    The store is opened before `start` and closed after `stop` by its owner. `extra_keys` is asked again when a key is
    unknown, so that a key that `meshhost setup` wrote works at once. Tokens without a key id are verified with
    `default_secret`. Operations raise what those of IdentityStore raise.
    """

    def __init__(
        self,
        store: IdentityStore,
        *,
        extra_keys: Callable[[], list[ApiKey]] = list,
        default_secret: str | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._store = store
        self._extra_keys = extra_keys
        self._default_secret = default_secret
        self._clock = clock or SystemClock()
        self._keys: Mapping[str, ApiKey] = {}
        self._version: int | None = None
        self._extra: dict[str, ApiKey] = {}
        self._changing = asyncio.Lock()
        self._on_revoked: list[Callable[[Collection[str]], object]] = []
        self._tasks = TaskOwner("identity")

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Read the keys, and keep them current from now on. Raises OSError."""
        await self._record_extra_projects()
        await self._refresh()
        self._tasks.spawn(self._keep_current(), name="key refresh")

    async def stop(self) -> None:
        """Stop reading keys. Idempotent."""
        await self._tasks.stop()

    def on_revoked(self, listener: Callable[[Collection[str]], object]) -> None:
        """Call the listener with the ids of keys that were revoked, here or on another server; it must not raise.

        A server closes the connections whose tokens those keys signed.
        """
        self._on_revoked.append(listener)

    def find_key(self, key_id: str) -> ApiKey | None:
        """Return the key of this id, or None."""
        found = self._keys.get(key_id) or self._extra.get(key_id)
        if found is None:
            self._read_extra()
            found = self._extra.get(key_id)
        return found

    def secret_for(self, key_id: str | None, project_id: str | None) -> str:
        """Return the secret that signs tokens of this key. Raises InvalidTokenError, whose text does not say what exists."""
        if key_id is None:
            if self._default_secret is None:
                raise InvalidTokenError("the token names no API key")
            return self._default_secret
        key = self.find_key(key_id)
        if key is None or key.project_id != project_id:
            raise InvalidTokenError("the token's API key is unknown or was revoked")
        return key.secret

    def is_key(self, shown: ApiKey) -> bool:
        """Return whether id, project and secret are those of a known key."""
        known = self.find_key(shown.id)
        # A comparison takes place even when the id is unknown, so that the time taken does not tell.
        is_known = known is not None and known.project_id == shown.project_id
        expected = known.secret if known is not None and is_known else "-" * 64
        # Header bytes that are not text arrive as lone surrogates.
        same = hmac.compare_digest(expected.encode(), shown.secret.encode(errors="surrogatepass"))
        return same and is_known

    def signing_key(self, project_id: str) -> ApiKey | None:
        """Return a key of the project to sign tokens with, or None when it has none."""
        keys = [*self._keys.values(), *self._extra.values()]
        return next((key for key in keys if key.project_id == project_id), None)

    async def projects(self) -> Sequence[Project]:
        """Return all projects, by name and id."""
        await self._record_extra_projects()
        return await self._store.projects()

    async def create_project(self, name: str) -> Project:
        """Record and return a new project."""
        project = Project(str(uuid.uuid4()), name)
        await self._store.add_project(project)
        return project

    async def create_key(self, project_id: str, *, name: str, description: str) -> ApiKey:
        """Record and return a new key of a project. Raises NotFoundError for an unknown project."""
        key = new_api_key(project_id)
        async with self._changing:
            await self._store.add_key(key, name=name, description=description)
            self._replace_keys({**self._keys, key.id: key})
        return key

    async def keys(self, project_id: str) -> Sequence[KeyInfo]:
        """Return the keys that were created for a project; extra keys are not among them."""
        return await self._store.keys(project_id)

    async def delete_key(self, project_id: str, key_id: str) -> None:
        """Revoke a key, at once here and within two seconds on every other server. Raises NotFoundError."""
        async with self._changing:
            await self._store.delete_key(project_id, key_id)
            self._replace_keys({known: key for known, key in self._keys.items() if known != key_id})

    async def create_room(self, project_id: str, name: str, *, metadata: str, if_not_exists: bool) -> RoomInfo:
        """Record a room and return its record. Raises AlreadyExistsError unless `if_not_exists`."""
        room = RoomInfo(str(uuid.uuid4()), name, metadata)
        present = await self._store.add_room(project_id, room)
        if present.id != room.id and not if_not_exists:
            raise AlreadyExistsError(f"room {name!r} exists")
        return present

    async def find_room(self, project_id: str, name: str) -> RoomInfo | None:
        """Return the record of a room, by name, or None."""
        return await self._store.find_room(project_id, name)

    async def rooms(self, project_id: str, *, limit: int, offset: int) -> Sequence[RoomInfo]:
        """Return the recorded rooms of a project, by name."""
        return await self._store.rooms(project_id, limit=limit, offset=offset)

    async def delete_room(self, project_id: str, room_id: str) -> RoomInfo:
        """Delete the record of a room, and return it; what the room holds stays. Raises NotFoundError."""
        return await self._store.delete_room(project_id, room_id)

    async def _keep_current(self) -> None:
        is_failing = False
        while True:
            await self._clock.sleep(REFRESH_SECONDS)
            try:
                await self._refresh()
                is_failing = False
            except Exception as error:
                # Whatever is wrong with the store, later revocations must be seen. Logged once per outage.
                if not is_failing:
                    logger.warning("reading the API keys failed; the last known keys decide", exc_info=error)
                is_failing = True

    async def _refresh(self) -> None:
        async with self._changing:
            snapshot = await self._store.read_keys(self._version)
            if snapshot is not None:
                self._version = snapshot.version
                self._replace_keys({key.id: key for key in snapshot.keys})

    def _replace_keys(self, keys: Mapping[str, ApiKey]) -> None:
        revoked = self._keys.keys() - keys.keys()
        self._keys = keys
        if revoked:
            for listener in self._on_revoked:
                listener(revoked)

    async def _record_extra_projects(self) -> None:
        for key in self._read_extra():
            await self._store.add_project(Project(key.project_id, "default"))

    def _read_extra(self) -> list[ApiKey]:
        keys = self._extra_keys()
        self._extra = {key.id: key for key in keys}
        return keys

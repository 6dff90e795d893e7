"""Who may use this room server: the identity store with its API keys in memory, for decisions that cannot wait.

Every connection and every REST call shows a key or a token signed by one. That is decided here without awaiting: all keys are
held in memory, together with `extra_keys` (those in the files and environment of the user who runs the server). Reads and
changes of projects, keys and rooms go to the store.

Another server over the same store may add or revoke keys. One task, from `start` to `stop`, asks the store every
REFRESH_SECONDS whether its keys changed and reads them again if so; a revoked key is refused everywhere within two seconds of
its revocation, and a new one is accepted everywhere by then. While the store cannot be read the last known keys decide: a
failing disk or network must not lock every tenant out. Changes made here count at once: a lock keeps a read that began before
a change from being applied after it, which would bring a revoked key back.

The same task learns of suspended and deleted tenants, and of their limits and names, ends what expired keys began, and records
when keys were last used (`identity.key_uses`).

Longer than 400 lines because every question about who may do what is answered from the one snapshot that is kept here.
"""

import asyncio
import contextlib
import hmac
import logging
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Self

from meshhost import tenant_names
from meshhost.clock import Clock, SystemClock
from meshhost.errors import (
    AlreadyExistsError,
    ExpiredTokenError,
    InvalidRequestError,
    InvalidTokenError,
    NotFoundError,
    RoomError,
    TenantSuspendedError,
)
from meshhost.identity.key_uses import KeyUses
from meshhost.identity.keys import ApiKey, new_api_key
from meshhost.identity.roles import Role
from meshhost.identity.tenant import RoomKey, check_tenant_name
from meshhost.quotas.quota import Resource, ServerQuota, check_limit, check_room_for
from meshhost.stores.deleted_rooms import DeletedRooms
from meshhost.stores.identity import IdentityStore, KeyInfo, KeyRights, KeySnapshot, Project, RoomInfo
from meshhost.tasks import TaskOwner

__all__ = ["REFRESH_SECONDS", "IdentityService"]

logger = logging.getLogger(__name__)

# Half of the two seconds within which a revoked key is dead on every server: the other half is for the store to answer.
REFRESH_SECONDS = 1.0


class IdentityService:
    """The identity store as a room server uses it.

    The store is opened before `start` and closed after `stop` by its owner. `extra_keys` is asked again when a key is
    unknown, so that a key that `meshhost setup` wrote works at once. Tokens without a key id are verified with
    `default_secret`; `default_quota` has the limits of a tenant with none of its own. Operations raise what the store raises.
    """

    def __init__(
        self,
        store: IdentityStore,
        *,
        extra_keys: Callable[[], list[ApiKey]] = list,
        default_secret: str | None = None,
        default_quota: ServerQuota = ServerQuota(),  # noqa: B008 - immutable
        clock: Clock | None = None,
    ) -> None:
        self.deleted_rooms = DeletedRooms(store, clock or SystemClock())
        self._store = store
        self._extra_keys = extra_keys
        self._default_secret = default_secret
        self._default_quota = default_quota
        self._quotas: Mapping[str, ServerQuota] = {}  # of tenants with limits of their own
        self._clock = clock or SystemClock()
        self._keys: Mapping[str, ApiKey] = {}
        self._rights: Mapping[str, KeyRights] = {}
        self._suspended: Mapping[str, str] = {}
        self._deleted: frozenset[str] = frozenset()
        self._closed: Mapping[str, str] = {}  # both, by id, with the text for those who are disconnected
        self._version: int | None = None
        self._expired: set[str] = set()
        self._uses = KeyUses()
        self._extra: dict[str, ApiKey] = {}
        self._changing = asyncio.Lock()
        self._on_revoked: list[Callable[[Collection[str]], object]] = []
        self._on_closed: list[Callable[[Mapping[str, str]], object]] = []
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
        self._report_expired()
        self._tasks.spawn(self._keep_current(), name="key refresh")

    async def stop(self) -> None:
        """Stop reading keys. Idempotent. The store is still open: last uses are written if it takes them."""
        await self._tasks.stop()
        with contextlib.suppress(OSError, RoomError):
            await self._uses.write(self._store.record_key_use)

    def on_revoked(self, listener: Callable[[Collection[str]], object]) -> None:
        """Call the listener with the ids of keys that were revoked, here or on another server, or expired; it must not raise.

        A server closes the connections whose tokens those keys signed.
        """
        self._on_revoked.append(listener)

    def on_closed(self, listener: Callable[[Mapping[str, str]], object]) -> None:
        """Call the listener with all tenants that are suspended or deleted, by id, and why; it must not raise.

        Called at once when one is added, and every second while there are any: a connection that was checked before the
        suspension and made after it is found by the next call.
        """
        self._on_closed.append(listener)

    def find_key(self, key_id: str) -> ApiKey | None:
        """Return the key of this id, or None; those of deleted projects are none."""
        found = self._keys.get(key_id) or self._extra.get(key_id)
        if found is None:
            self._read_extra()
            found = self._extra.get(key_id)
        return None if found is None or found.project_id in self._deleted else found

    def role_of(self, key_id: str) -> Role:
        """Return what a known key may do; extra keys, which are the user's own, may do everything."""
        return self._rights[key_id].role if key_id in self._rights else Role.ADMIN

    def check_use(self, key_id: str) -> None:
        """Note that a verified key, or a token that it signed, is used. Raises ExpiredTokenError when it has expired."""
        rights = self._rights.get(key_id)
        now = self._clock.time()
        if rights is not None and rights.has_expired(now):
            raise ExpiredTokenError("the API key has expired: ask for a new one")
        if rights is not None:
            self._uses.note(key_id, now)

    def check_tenant(self, project_id: str) -> None:
        """Raise TenantSuspendedError for a suspended project, InvalidTokenError for a deleted one."""
        if project_id in self._deleted:
            raise InvalidTokenError("the tenant was deleted")
        if project_id in self._suspended:
            raise TenantSuspendedError(self._suspended[project_id])

    def quota_of(self, project_id: str) -> ServerQuota:
        """Return what a tenant may take of this server now."""
        return self._quotas.get(project_id, self._default_quota)

    @property
    def deleted_projects(self) -> frozenset[str]:
        """The ids of all projects that were deleted, or that are being deleted."""
        return self._deleted

    async def begin_room_deletion(self, room: RoomKey) -> None:
        """Delete the record of a room, and refuse everything that was signed for it before. See `deleted_rooms`."""
        async with self._changing:
            await self.deleted_rooms.begin(room)

    async def import_until(self, room: RoomKey, until: float) -> None:
        """Begin or go on to import into a room that is not there: until then nobody opens it. See `deleted_rooms`."""
        async with self._changing:
            await self.deleted_rooms.import_until(room, until)

    async def end_import(self, room: RoomKey, *, is_complete: bool) -> None:
        """Let the room be opened from now on; one whose import is not complete is deleted."""
        async with self._changing:
            await (self.deleted_rooms.end_import(room) if is_complete else self.deleted_rooms.give_up_import(room))

    async def add_project(self, project: Project) -> None:
        """Record a project. Raises AlreadyExistsError when another has its name."""
        await self._store.add_project(project)

    async def end_room_deletion(self, room: RoomKey) -> None:
        """Record that nothing of the room is left: it may be made again."""
        async with self._changing:
            await self.deleted_rooms.end(room)

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

    def signing_key(self, project_id: str, key_id: str | None = None) -> ApiKey | None:
        """Return the key of the project that has this id, or without one any, if it may sign tokens; else None."""
        if project_id in self._deleted or project_id in self._suspended:
            return None
        keys = [*self._keys.values(), *self._extra.values()]
        if key_id is not None:
            keys = [key for key in (self.find_key(key_id),) if key is not None]
        return next((key for key in keys if key.project_id == project_id and self._may_sign(key.id)), None)

    async def own_project(self) -> Project | None:
        """Return the project of this machine's user: that of an extra key, else the only one; None where several remain."""
        found = await self.projects()
        own = [project for key in self._extra.values() for project in found if project.id == key.project_id]
        if own:
            return own[0]
        return found[0] if len(found) == 1 else None

    async def projects(self) -> Sequence[Project]:
        """Return all projects, by name and id."""
        await self._record_extra_projects()
        projects = await self._store.projects()
        tenant_names.learn({project.id: project.name for project in projects})
        return projects

    async def find_project(self, name_or_id: str) -> Project:
        """Return the project of this id, else of this name. Raises NotFoundError."""
        projects = await self.projects()
        by_id = next((project for project in projects if project.id == name_or_id), None)
        found = by_id or next((project for project in projects if project.name == name_or_id), None)
        if found is None:
            raise NotFoundError(f"no tenant {name_or_id!r}")
        return found

    async def create_project(self, name: str) -> Project:
        """Record and return a new project. Raises InvalidRequestError for its name, AlreadyExistsError."""
        project = Project(str(uuid.uuid4()), check_tenant_name(name))
        await self._store.add_project(project)
        tenant_names.learn({project.id: project.name})
        return project

    async def rename_project(self, project_id: str, name: str) -> None:
        """Give a project another name. Raises NotFoundError, AlreadyExistsError, InvalidRequestError."""
        await self._store.rename_project(project_id, check_tenant_name(name))
        tenant_names.learn({project_id: name})

    async def set_quota(
        self, project_id: str, limits: Mapping[str, float | None], *, unset: Collection[str] = ()
    ) -> None:
        """Set limits (None: no limit); those in `unset` are the default's again. Raises NotFoundError, InvalidRequestError."""
        checked = {name: check_limit(name, value) for name, value in limits.items()}
        await self._store.set_quota(project_id, checked, unset=unset)
        await self._refresh()

    async def suspend_project(self, project_id: str, reason: str) -> None:
        """Refuse all keys and tokens of a project, at once here and within two seconds elsewhere. Raises NotFoundError."""
        async with self._changing:
            await self._store.suspend_project(project_id, reason)
            self._replace_closed({**self._suspended, project_id: reason}, self._deleted)

    async def resume_project(self, project_id: str) -> None:
        """End a suspension. Raises NotFoundError."""
        async with self._changing:
            await self._store.suspend_project(project_id, None)
            left = {known: reason for known, reason in self._suspended.items() if known != project_id}
            self._replace_closed(left, self._deleted)

    async def close_project(self, project_id: str) -> None:
        """Begin to delete a project: its keys and tokens are worth nothing from now on. Raises NotFoundError."""
        async with self._changing:
            await self._store.close_project(project_id)
            self._replace_closed(self._suspended, self._deleted | {project_id})
            self._replace_keys({known: key for known, key in self._keys.items() if key.project_id != project_id})

    async def delete_project(self, project_id: str) -> None:
        """Delete the records of a project that was closed. Raises NotFoundError."""
        await self._store.delete_project(project_id)

    async def create_key(
        self,
        project_id: str,
        *,
        name: str,
        description: str,
        rights: KeyRights = KeyRights(),  # noqa: B008 - immutable
    ) -> ApiKey:
        """Record and return a new key of a project. Raises NotFoundError, InvalidRequestError, QuotaExceededError."""
        if rights.has_expired(self._clock.time()):
            raise InvalidRequestError("expires_at", "expected a time in the future")
        key = new_api_key(project_id)
        async with self._changing:
            check_room_for(Resource.KEYS, self.key_count(project_id), self.quota_of(project_id))
            await self._store.add_key(key, name=name, description=description, rights=rights)
            self._rights = {**self._rights, key.id: rights}
            self._replace_keys({**self._keys, key.id: key})
        return key

    def key_count(self, project_id: str) -> int:
        """Return how many keys were created for a project; extra keys are not among them."""
        return sum(key.project_id == project_id for key in self._keys.values())

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

    async def change_room(self, project_id: str, room_id: str, *, metadata: str) -> RoomInfo:
        """Replace the metadata of the record of a room, and return the record. Raises NotFoundError."""
        return await self._store.change_room(project_id, RoomInfo(room_id, "", metadata))

    async def delete_room(self, project_id: str, room_id: str) -> RoomInfo:
        """Delete the record of a room, and return it; what the room holds stays. Raises NotFoundError."""
        return await self._store.delete_room(project_id, room_id)

    async def _keep_current(self) -> None:
        is_failing = False
        while True:
            await self._clock.sleep(REFRESH_SECONDS)
            try:
                await self._refresh()
                self._report_expired()
                self._tell_closed()
                await self._uses.write(self._store.record_key_use)
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
                self._take(snapshot)

    def _take(self, snapshot: KeySnapshot) -> None:
        self._version, self._rights = snapshot.version, snapshot.rights
        tenant_names.learn(snapshot.names)
        self._quotas = {tenant: self._default_quota.changed(limits) for tenant, limits in snapshot.quotas.items()}
        self.deleted_rooms.take(snapshot.deleted_rooms)
        self._replace_closed(snapshot.suspended, snapshot.deleted)
        self._replace_keys({key.id: key for key in snapshot.keys})

    def _replace_keys(self, keys: Mapping[str, ApiKey]) -> None:
        revoked = self._keys.keys() - keys.keys()
        self._keys = keys
        self._tell_revoked(revoked)

    def _tell_revoked(self, key_ids: Collection[str]) -> None:
        if not key_ids:
            return
        for key_id in key_ids:
            self._uses.forget(key_id)
        for listener in self._on_revoked:
            listener(key_ids)

    def _replace_closed(self, suspended: Mapping[str, str], deleted: frozenset[str]) -> None:
        reasons = {tenant: f"the tenant is suspended: {reason}" for tenant, reason in suspended.items()}
        reasons |= dict.fromkeys(deleted, "the tenant was deleted")
        self._suspended, self._deleted, self._closed = suspended, deleted, reasons
        self._tell_closed()

    def _tell_closed(self) -> None:
        if self._closed:
            for listener in self._on_closed:
                listener(self._closed)

    def _may_sign(self, key_id: str) -> bool:
        rights = self._rights.get(key_id, KeyRights())
        return rights.role.includes(Role.DEVELOPER) and not rights.has_expired(self._clock.time())

    def _report_expired(self) -> None:
        """End what keys began that have expired since the last look."""
        now = self._clock.time()
        expired = {key_id for key_id, rights in self._rights.items() if rights.has_expired(now)}
        newly, self._expired = expired - self._expired, expired
        self._tell_revoked(newly)

    async def _record_extra_projects(self) -> None:
        for key in self._read_extra():
            # A deleted tenant is not made again by a key that is left in a file.
            with contextlib.suppress(NotFoundError):
                try:
                    await self._store.add_project(Project(key.project_id, "default"))
                except AlreadyExistsError:
                    await self._store.add_project(Project(key.project_id, f"default-{key.project_id[:8]}"))

    def _read_extra(self) -> list[ApiKey]:
        keys = self._extra_keys()
        self._extra = {key.id: key for key in keys}
        return keys

"""Keys in memory, over a store that other servers change too."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from meshhost.errors import (
    AlreadyExistsError,
    ExpiredTokenError,
    InvalidRequestError,
    InvalidTokenError,
    NotFoundError,
    TenantSuspendedError,
)
from meshhost.identity.keys import ApiKey, new_api_key
from meshhost.identity.roles import Role
from meshhost.stores.identity import KeyRights, KeySnapshot, Project
from meshhost.stores.identity_service import IdentityService
from meshhost.stores.memory.identity import MemoryIdentityStore
from meshhost.stores.sqlite.identity import SqliteIdentityStore
from meshhost.testing.clock import FakeClock

EXTRA = new_api_key("11111111-2222-3333-4444-555555555555")


class Store(MemoryIdentityStore):
    """Reading keys fails while it is broken, and is answered late while `gate` is cleared."""

    def __init__(self) -> None:
        super().__init__()
        self.is_broken = False
        self.gate = asyncio.Event()
        self.gate.set()

    async def read_keys(self, known: int | None = None) -> KeySnapshot | None:
        if self.is_broken:
            raise OSError("disk I/O error")
        snapshot = await super().read_keys(known)
        await self.gate.wait()
        return snapshot


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def store() -> Store:
    made = Store()
    await made.open()
    return made


@pytest.fixture
async def service(store: Store, clock: FakeClock) -> AsyncIterator[IdentityService]:
    async with IdentityService(store, extra_keys=lambda: [EXTRA], clock=clock) as made:
        yield made


@pytest.fixture
async def other(store: Store, clock: FakeClock) -> AsyncIterator[IdentityService]:
    """Another server over the same store."""
    async with IdentityService(store, clock=clock) as made:
        yield made


# --- Keys


async def test_keys_and_projects_are_there_after_a_restart(service: IdentityService, store: Store) -> None:
    project = await service.create_project("p")
    key = await service.create_key(project.id, name="n", description="d")
    async with IdentityService(store) as again:
        assert again.find_key(key.id) == key
        assert again.is_key(key)
        assert again.signing_key(project.id) == key
        assert [(info.id, info.name, info.description) for info in await again.keys(project.id)] == [(key.id, "n", "d")]
        assert await again.projects() == [Project(EXTRA.project_id, "default"), project]
        assert again.find_key(EXTRA.id) is None


async def test_a_key_belongs_to_a_project(service: IdentityService) -> None:
    with pytest.raises(NotFoundError):
        await service.create_key("nope", name="n", description="")


async def test_a_key_that_was_set_up_later_is_found(store: Store) -> None:
    keys: list[ApiKey] = []
    service = IdentityService(store, extra_keys=lambda: list(keys))
    assert service.find_key(EXTRA.id) is None
    keys.append(EXTRA)
    assert service.find_key(EXTRA.id) == EXTRA
    assert service.signing_key(EXTRA.project_id) == EXTRA
    assert await service.projects() == [Project(EXTRA.project_id, "default")]


async def test_only_the_whole_key_is_the_key(service: IdentityService) -> None:
    assert service.is_key(EXTRA)
    for wrong in (
        ApiKey(EXTRA.id, EXTRA.project_id, "x" * 64),
        ApiKey(EXTRA.id, EXTRA.project_id, "-" * 64),
        ApiKey(EXTRA.id, EXTRA.id, EXTRA.secret),
        ApiKey(EXTRA.id, EXTRA.id, "-" * 64),
        ApiKey(EXTRA.project_id, EXTRA.project_id, EXTRA.secret),
        ApiKey(EXTRA.project_id, EXTRA.project_id, "-" * 64),
        ApiKey(EXTRA.id, EXTRA.project_id, "ü"),
    ):
        assert not service.is_key(wrong)


async def test_a_secret_is_given_for_the_keys_own_project_only(service: IdentityService) -> None:
    assert service.secret_for(EXTRA.id, EXTRA.project_id) == EXTRA.secret
    for key_id, project in ((EXTRA.id, None), (EXTRA.id, "other"), ("other", EXTRA.project_id), (None, None)):
        with pytest.raises(InvalidTokenError):
            service.secret_for(key_id, project)


async def test_a_token_without_a_key_id_has_the_default_secret(store: Store) -> None:
    assert IdentityService(store, default_secret="s").secret_for(None, None) == "s"


async def test_a_revoked_key_is_gone_at_once_and_for_good(service: IdentityService, store: Store) -> None:
    project = await service.create_project("p")
    key = await service.create_key(project.id, name="n", description="")
    with pytest.raises(NotFoundError):
        await service.delete_key("other", key.id)
    assert service.find_key(key.id) == key
    await service.delete_key(project.id, key.id)
    assert service.find_key(key.id) is None
    assert service.signing_key(project.id) is None
    async with IdentityService(store) as again:
        assert again.find_key(key.id) is None


# --- Other servers


async def test_a_key_created_or_revoked_by_another_server_is_known_within_two_seconds(
    service: IdentityService, other: IdentityService, clock: FakeClock
) -> None:
    project = await other.create_project("p")
    key = await other.create_key(project.id, name="n", description="")
    await clock.advance(2)
    assert service.find_key(key.id) == key
    await clock.advance(0.5)  # at no particular moment of the other's period
    await other.delete_key(project.id, key.id)
    await clock.advance(2)
    assert service.find_key(key.id) is None
    assert not service.is_key(key)
    with pytest.raises(InvalidTokenError, match="unknown or was revoked"):
        service.secret_for(key.id, project.id)


async def test_a_revocation_is_reported_once_to_every_server(
    service: IdentityService, other: IdentityService, clock: FakeClock
) -> None:
    project = await other.create_project("p")
    key = await other.create_key(project.id, name="n", description="")
    kept = await other.create_key(project.id, name="kept", description="")
    await clock.advance(1)
    heard: list[tuple[str, set[str]]] = []
    service.on_revoked(lambda ids: heard.append(("service", set(ids))))
    other.on_revoked(lambda ids: heard.append(("other", set(ids))))
    await other.delete_key(project.id, key.id)
    assert heard == [("other", {key.id})]
    await clock.advance(2)
    assert heard == [("other", {key.id}), ("service", {key.id})]
    assert service.find_key(kept.id) == kept


async def test_a_read_that_began_before_a_revocation_does_not_bring_the_key_back(
    service: IdentityService, store: Store, clock: FakeClock
) -> None:
    project = await service.create_project("p")
    key = await service.create_key(project.id, name="n", description="")
    store.gate.clear()
    await clock.advance(1)  # the refresh has read the key, and is not answered yet
    revoking = asyncio.create_task(service.delete_key(project.id, key.id))
    await clock.advance(0)
    store.gate.set()
    await revoking
    assert service.find_key(key.id) is None
    await clock.advance(5)
    assert service.find_key(key.id) is None


async def test_while_the_store_fails_the_last_known_keys_decide(
    service: IdentityService, other: IdentityService, store: Store, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    project = await other.create_project("p")
    key = await other.create_key(project.id, name="n", description="")
    await clock.advance(1)
    store.is_broken = True
    await clock.advance(5)
    assert service.find_key(key.id) == key
    assert caplog.text.count("reading the API keys failed") == 2  # once for each of the two servers, not for each try
    await other.delete_key(project.id, key.id)
    store.is_broken = False
    await clock.advance(1)
    assert service.find_key(key.id) is None


async def test_nothing_is_read_after_the_stop(store: Store, clock: FakeClock) -> None:
    service = IdentityService(store, clock=clock)
    await service.start()
    await service.stop()
    await service.stop()
    assert clock.sleepers == 0


class Watched(SqliteIdentityStore):
    """Sets `changed` when it read keys that are new."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.changed = asyncio.Event()

    async def read_keys(self, known: int | None = None) -> KeySnapshot | None:
        snapshot = await super().read_keys(known)
        if snapshot is not None:
            asyncio.get_running_loop().call_soon(self.changed.set)
        return snapshot


async def test_two_servers_share_one_file(tmp_path: Path, clock: FakeClock) -> None:
    mine, theirs = Watched(tmp_path / "identity.db"), SqliteIdentityStore(tmp_path / "identity.db")
    await asyncio.gather(mine.open(), theirs.open())
    async with IdentityService(mine, clock=clock) as service, IdentityService(theirs, clock=clock) as other:
        project = await other.create_project("p")
        key = await other.create_key(project.id, name="n", description="")
        for expected in (key, None):
            mine.changed.clear()
            if expected is None:
                await other.delete_key(project.id, key.id)
            await clock.advance(1)
            async with asyncio.timeout(20):
                await mine.changed.wait()
            assert service.find_key(key.id) == expected
    await mine.close()
    await theirs.close()


# --- Rooms


async def test_rooms_are_their_projects_own(service: IdentityService) -> None:
    room = await service.create_room("p", "r", metadata="{}", if_not_exists=False)
    other = await service.create_room("q", "r", metadata="{}", if_not_exists=False)
    assert room.id != other.id
    with pytest.raises(AlreadyExistsError):
        await service.create_room("p", "r", metadata="{}", if_not_exists=False)
    assert await service.create_room("p", "r", metadata='{"new": 1}', if_not_exists=True) == room
    assert await service.find_room("p", "r") == room
    assert await service.find_room("p", "x") is None
    with pytest.raises(NotFoundError):
        await service.delete_room("p", other.id)
    with pytest.raises(NotFoundError):
        await service.change_room("p", other.id, metadata='{"new": 1}')
    room = await service.change_room("p", room.id, metadata='{"new": 2}')
    assert (room.name, room.metadata) == ("r", '{"new": 2}')
    assert await service.delete_room("p", room.id) == room
    assert await service.rooms("p", limit=10, offset=0) == []
    assert await service.rooms("q", limit=10, offset=0) == [other]


# --- Tenants


async def test_a_suspension_is_obeyed_here_at_once_and_elsewhere_within_two_seconds(
    service: IdentityService, other: IdentityService, clock: FakeClock
) -> None:
    project = await service.create_project("acme")
    key = await service.create_key(project.id, name="n", description="")
    told: list[dict[str, str]] = []
    other.on_closed(lambda closed: told.append(dict(closed)))
    await clock.advance(1.0)
    await service.suspend_project(project.id, "unpaid")
    with pytest.raises(TenantSuspendedError, match="the tenant is suspended: unpaid"):
        service.check_tenant(project.id)
    assert service.signing_key(project.id) is None
    await clock.advance(1.0)
    with pytest.raises(TenantSuspendedError):
        other.check_tenant(project.id)
    assert told[-1] == {project.id: "the tenant is suspended: unpaid"}
    await service.resume_project(project.id)
    service.check_tenant(project.id)
    assert service.signing_key(project.id) == key
    await clock.advance(1.0)
    other.check_tenant(project.id)


async def test_an_expired_key_is_refused_and_reported(service: IdentityService, clock: FakeClock) -> None:
    project = await service.create_project("acme")
    rights = KeyRights(Role.DEVELOPER, clock.time() + 10)
    key = await service.create_key(project.id, name="n", description="", rights=rights)
    revoked: list[object] = []
    service.on_revoked(revoked.extend)
    service.check_use(key.id)
    assert service.signing_key(project.id) == key
    await clock.advance(11.0)
    with pytest.raises(ExpiredTokenError, match="has expired"):
        service.check_use(key.id)
    assert service.signing_key(project.id) is None
    await clock.advance(1.0)
    await clock.advance(1.0)
    assert revoked == [key.id]
    with pytest.raises(InvalidRequestError, match="future"):
        await service.create_key(project.id, name="n", description="", rights=KeyRights(Role.ADMIN, clock.time()))


async def test_a_viewers_key_signs_no_tokens(service: IdentityService) -> None:
    project = await service.create_project("acme")
    key = await service.create_key(project.id, name="n", description="", rights=KeyRights(Role.VIEWER))
    assert service.role_of(key.id) is Role.VIEWER
    assert service.role_of(EXTRA.id) is Role.ADMIN
    assert service.signing_key(project.id) is None


async def test_the_use_of_a_key_is_written_at_most_once_a_minute(
    service: IdentityService, store: Store, clock: FakeClock
) -> None:
    writes: list[dict[str, float]] = []
    record = store.record_key_use

    async def counted(used_at: Mapping[str, float]) -> None:
        writes.append(dict(used_at))
        await record(used_at)

    store.record_key_use = counted  # type: ignore[method-assign]
    project = await service.create_project("acme")
    key = await service.create_key(project.id, name="n", description="")
    began = clock.time()
    for _ in range(50):
        service.check_use(key.id)
        service.check_use(EXTRA.id)
        await clock.advance(1.0)
    assert writes == [{key.id: began}]
    await clock.advance(11.0)
    service.check_use(key.id)
    await service.stop()
    assert [list(written) for written in writes] == [[key.id], [key.id]]


async def test_a_deleted_tenant_does_not_come_back_with_a_key_in_a_file(service: IdentityService, store: Store) -> None:
    await service.close_project(EXTRA.project_id)
    assert service.find_key(EXTRA.id) is None
    assert not service.is_key(EXTRA)
    with pytest.raises(InvalidTokenError, match="deleted"):
        service.check_tenant(EXTRA.project_id)
    await service.delete_project(EXTRA.project_id)
    assert list(await service.projects()) == []
    async with IdentityService(store, extra_keys=lambda: [EXTRA]) as again:
        assert again.find_key(EXTRA.id) is None


async def test_a_tenant_is_found_by_its_name_and_its_id(service: IdentityService) -> None:
    project = await service.create_project("acme")
    assert await service.find_project("acme") == await service.find_project(project.id) == project
    with pytest.raises(NotFoundError, match="no tenant 'nobody'"):
        await service.find_project("nobody")
    with pytest.raises(AlreadyExistsError):
        await service.create_project("acme")
    for name in ("", "a b", "-a", "a/b", project.id, "x" * 64):
        with pytest.raises(InvalidRequestError, match="tenant name"):
            await service.create_project(name)
    await service.rename_project(project.id, "Acme.Inc")
    assert (await service.find_project(project.id)).name == "Acme.Inc"


async def test_the_tenants_of_two_files_have_two_names(store: Store) -> None:
    second = new_api_key("99999999-2222-3333-4444-555555555555")
    async with IdentityService(store, extra_keys=lambda: [EXTRA, second]) as service:
        assert [project.name for project in await service.projects()] == ["default", "default-99999999"]


async def test_the_project_of_the_machines_user_is_that_of_the_own_key(service: IdentityService) -> None:
    await service.create_project("another")
    project = await service.own_project()
    assert project is not None
    assert project.id == EXTRA.project_id


async def test_without_an_own_key_the_only_project_is_the_users_and_several_are_nobodys(store: Store) -> None:
    async with IdentityService(store) as service:
        assert await service.own_project() is None
        only = await service.create_project("only")
        assert await service.own_project() == only
        await service.create_project("second")
        assert await service.own_project() is None


async def test_a_use_that_could_not_be_written_is_written_later(
    service: IdentityService, store: Store, clock: FakeClock
) -> None:
    writes: list[list[str]] = []
    record = store.record_key_use

    async def failing_once(used_at: Mapping[str, float]) -> None:
        writes.append(list(used_at))
        if len(writes) == 1:
            raise OSError("disk I/O error")
        await record(used_at)

    store.record_key_use = failing_once  # type: ignore[method-assign]
    project = await service.create_project("acme")
    key = await service.create_key(project.id, name="n", description="")
    service.check_use(key.id)
    for _ in range(4):
        await clock.advance(1.0)
    assert writes == [[key.id], [key.id]]

"""What every identity store does, whichever engine it is of."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from doubles.engines import EVERY_STORE, opened_store

from meshhost.errors import AlreadyExistsError, NotFoundError, RoomError
from meshhost.identity.keys import ApiKey, new_api_key
from meshhost.identity.roles import Role
from meshhost.stores.identity import CLOSED, IdentityStore, KeyInfo, KeyRights, Project, RoomDeletion, RoomInfo
from meshhost.stores.memory.identity import MemoryIdentityStore
from meshhost.stores.postgres.identity import PostgresIdentityStore
from meshhost.stores.sqlite.identity import SqliteIdentityStore

ACME, RIVAL = Project("11111111-2222-3333-4444-555555555555", "acme"), Project("rival-id", "rival")


@pytest.fixture(params=EVERY_STORE)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[IdentityStore]:
    async with opened_store(
        request,
        memory=MemoryIdentityStore,
        sqlite=lambda: SqliteIdentityStore(tmp_path / "identity.db"),
        postgresql=PostgresIdentityStore,
    ) as made:
        yield made


async def add_key(store: IdentityStore, *, name: str = "n", description: str = "d") -> ApiKey:
    await store.add_project(ACME)
    key = new_api_key(ACME.id)
    await store.add_key(key, name=name, description=description)
    return key


async def test_projects_are_recorded_once_and_listed_by_name(store: IdentityStore) -> None:
    await store.add_project(RIVAL)
    await store.add_project(ACME)
    await store.add_project(Project(ACME.id, "another name"))
    assert list(await store.projects()) == [ACME, RIVAL]


async def test_a_key_belongs_to_a_project(store: IdentityStore) -> None:
    with pytest.raises(NotFoundError, match="no such project"):
        await store.add_key(new_api_key(ACME.id), name="n", description="")
    key = await add_key(store)
    assert list(await store.keys(ACME.id)) == [KeyInfo(key.id, "n", "d")]
    assert list(await store.keys(RIVAL.id)) == []


async def test_keys_are_read_oldest_first_with_their_secrets(store: IdentityStore) -> None:
    keys = [await add_key(store, name=name) for name in "cab"]
    snapshot = await store.read_keys()
    assert snapshot is not None
    assert list(snapshot.keys) == keys
    assert [info.name for info in await store.keys(ACME.id)] == ["a", "b", "c"]


async def test_keys_are_read_again_only_after_a_change(store: IdentityStore) -> None:
    key = await add_key(store)
    first = await store.read_keys()
    assert first is not None
    assert await store.read_keys(first.version) is None
    await store.add_room(ACME.id, RoomInfo("i", "r", "{}"))
    await store.add_project(RIVAL)
    assert await store.read_keys(first.version) is None
    await store.delete_key(ACME.id, key.id)
    second = await store.read_keys(first.version)
    assert second is not None
    assert list(second.keys) == []
    assert await store.read_keys(second.version) is None
    await add_key(store)
    third = await store.read_keys(second.version)
    assert third is not None
    assert len({first.version, second.version, third.version}) == 3


async def test_a_key_is_revoked_by_its_own_project_only(store: IdentityStore) -> None:
    key = await add_key(store)
    for project, key_id in ((RIVAL.id, key.id), (ACME.id, "other")):
        with pytest.raises(NotFoundError, match="no such API key"):
            await store.delete_key(project, key_id)
    await store.delete_key(ACME.id, key.id)
    with pytest.raises(NotFoundError, match="no such API key"):
        await store.delete_key(ACME.id, key.id)
    assert list(await store.keys(ACME.id)) == []


async def test_of_concurrent_revocations_one_finds_the_key(store: IdentityStore) -> None:
    key = await add_key(store)
    results = await asyncio.gather(*(store.delete_key(ACME.id, key.id) for _ in range(8)), return_exceptions=True)
    assert sum(result is None for result in results) == 1
    assert sum(isinstance(result, NotFoundError) for result in results) == 7


async def test_a_room_is_recorded_once_for_each_project(store: IdentityStore) -> None:
    first, second, other = RoomInfo("1", "r", "{}"), RoomInfo("2", "r", '{"new": 1}'), RoomInfo("3", "r", "{}")
    assert await store.add_room("p", first) == first
    assert await store.add_room("p", second) == first
    assert await store.add_room("q", other) == other
    assert await store.find_room("p", "r") == first
    assert await store.find_room("p", "x") is None


async def test_rooms_are_listed_by_name_in_pages(store: IdentityStore) -> None:
    for name in "cabd":
        await store.add_room("p", RoomInfo(f"id-{name}", name, "{}"))
    await store.add_room("q", RoomInfo("other", "b", "{}"))
    assert [room.name for room in await store.rooms("p", limit=10, offset=0)] == ["a", "b", "c", "d"]
    assert [room.name for room in await store.rooms("p", limit=2, offset=1)] == ["b", "c"]
    assert list(await store.rooms("p", limit=2, offset=4)) == []


async def test_the_metadata_of_a_room_is_replaced_by_its_own_project_only(store: IdentityStore) -> None:
    await store.add_room("p", RoomInfo("1", "r", "{}"))
    with pytest.raises(NotFoundError, match="no such room"):
        await store.change_room("q", RoomInfo("1", "", '{"a": 1}'))
    assert await store.change_room("p", RoomInfo("1", "", '{"a": 1}')) == RoomInfo("1", "r", '{"a": 1}')
    assert await store.find_room("p", "r") == RoomInfo("1", "r", '{"a": 1}')


async def test_the_record_of_a_room_is_deleted_by_its_own_project_only(store: IdentityStore) -> None:
    room = await store.add_room("p", RoomInfo("1", "r", "{}"))
    with pytest.raises(NotFoundError, match="no such room"):
        await store.delete_room("q", room.id)
    assert await store.delete_room("p", room.id) == room
    assert await store.find_room("p", "r") is None
    with pytest.raises(NotFoundError, match="no such room"):
        await store.delete_room("p", room.id)


async def test_a_closed_store_refuses_and_can_be_opened_again(store: IdentityStore) -> None:
    key = await add_key(store)
    await store.close()
    await store.close()
    with pytest.raises(RoomError, match="identity store is not open"):
        await store.projects()
    await store.open()
    snapshot = await store.read_keys()
    assert snapshot is not None
    assert list(snapshot.keys) == [key]


# --- Tenants


async def test_a_name_is_of_one_project(store: IdentityStore) -> None:
    await store.add_project(ACME)
    await store.add_project(RIVAL)
    for attempt in (store.add_project(Project("third", "acme")), store.rename_project(RIVAL.id, "acme")):
        with pytest.raises(AlreadyExistsError, match="there is a tenant 'acme'"):
            await attempt
    await store.rename_project(ACME.id, "renamed")
    await store.rename_project(ACME.id, "renamed")
    await store.rename_project(RIVAL.id, "acme")
    assert list(await store.projects()) == [Project(RIVAL.id, "acme"), Project(ACME.id, "renamed")]
    with pytest.raises(NotFoundError):
        await store.rename_project("nobody", "name")


async def test_a_suspension_is_seen_with_the_keys(store: IdentityStore) -> None:
    key = await add_key(store)
    first = await store.read_keys()
    assert first is not None
    await store.suspend_project(ACME.id, "unpaid")
    second = await store.read_keys(first.version)
    assert second is not None
    assert (dict(second.suspended), list(second.keys)) == ({ACME.id: "unpaid"}, [key])
    assert list(await store.projects()) == [Project(ACME.id, "acme", "unpaid")]
    await store.suspend_project(ACME.id, None)
    third = await store.read_keys(second.version)
    assert third is not None
    assert dict(third.suspended) == {}
    with pytest.raises(NotFoundError):
        await store.suspend_project("nobody", "unpaid")


async def test_a_key_keeps_its_rights(store: IdentityStore) -> None:
    await store.add_project(ACME)
    key, rights = new_api_key(ACME.id), KeyRights(Role.VIEWER, 1234.5)
    await store.add_key(key, name="n", description="", rights=rights)
    snapshot = await store.read_keys()
    assert snapshot is not None
    assert dict(snapshot.rights) == {key.id: rights}
    assert [info.rights for info in await store.keys(ACME.id)] == [rights]


async def test_the_last_use_of_a_key_never_goes_back(store: IdentityStore) -> None:
    key = await add_key(store)
    before = await store.read_keys()
    assert before is not None
    assert [info.last_used_at for info in await store.keys(ACME.id)] == [None]
    await store.record_key_use({key.id: 200.0, "revoked meanwhile": 1.0})
    await store.record_key_use({key.id: 100.0})
    assert [info.last_used_at for info in await store.keys(ACME.id)] == [200.0]
    assert await store.read_keys(before.version) is None


async def test_a_closed_project_has_no_keys_and_gets_none(store: IdentityStore) -> None:
    key = await add_key(store)
    await store.add_project(RIVAL)
    await store.add_room(ACME.id, RoomInfo("1", "r", "{}"))
    kept = await store.add_room(RIVAL.id, RoomInfo("2", "r", "{}"))
    with pytest.raises(NotFoundError):
        await store.delete_project(ACME.id)
    await store.close_project(ACME.id)
    await store.close_project(ACME.id)
    snapshot = await store.read_keys()
    assert snapshot is not None
    assert (list(snapshot.keys), snapshot.deleted) == ([], frozenset({ACME.id}))
    assert Project(ACME.id, "acme", CLOSED) in await store.projects()
    with pytest.raises(NotFoundError):
        await store.add_key(key, name="n", description="")
    with pytest.raises(NotFoundError):
        await store.suspend_project(ACME.id, None)
    await store.delete_project(ACME.id)
    assert list(await store.projects()) == [RIVAL]
    assert await store.find_room(ACME.id, "r") is None
    assert await store.find_room(RIVAL.id, "r") == kept
    with pytest.raises(NotFoundError, match="the tenant was deleted"):
        await store.add_project(ACME)
    await store.add_project(Project("another id", "acme"))
    for attempt in (store.close_project(ACME.id), store.delete_project(ACME.id)):
        with pytest.raises(NotFoundError):
            await attempt


async def test_all_rooms_of_a_large_tenant_are_deleted(store: IdentityStore) -> None:
    await store.add_project(ACME)
    for number in range(1203):
        await store.add_room(ACME.id, RoomInfo(str(number), str(number), "{}"))
    await store.close_project(ACME.id)
    await store.delete_project(ACME.id)
    assert list(await store.rooms(ACME.id, limit=1, offset=0)) == []


async def test_limits_of_a_project_are_read_with_the_keys(store: IdentityStore) -> None:
    await store.add_project(ACME)
    first = await store.read_keys()
    assert first is not None
    assert dict(first.quotas) == {}
    await store.set_quota(ACME.id, {"max_rooms": 3, "max_queues": None})
    second = await store.read_keys(first.version)
    assert second is not None
    assert second.quotas == {ACME.id: {"max_rooms": 3, "max_queues": None}}
    await store.set_quota(ACME.id, {"max_rooms": 4, "requests_per_second": 0.5}, unset=["max_queues", "max_keys"])
    third = await store.read_keys(second.version)
    assert third is not None
    assert third.quotas == {ACME.id: {"max_rooms": 4, "requests_per_second": 0.5}}
    await store.set_quota(ACME.id, {}, unset=["max_rooms", "requests_per_second"])
    fourth = await store.read_keys(third.version)
    assert fourth is not None
    assert dict(fourth.quotas) == {}
    with pytest.raises(NotFoundError):
        await store.set_quota("nobody", {"max_rooms": 1})


async def test_the_limits_of_a_deleted_project_are_gone(store: IdentityStore) -> None:
    await store.add_project(ACME)
    await store.set_quota(ACME.id, {"max_rooms": 3})
    await store.close_project(ACME.id)
    with pytest.raises(NotFoundError):
        await store.set_quota(ACME.id, {"max_rooms": 4})
    await store.delete_project(ACME.id)
    found = await store.read_keys()
    assert found is not None
    assert dict(found.quotas) == {}


async def test_a_rename_is_seen_with_the_keys(store: IdentityStore) -> None:
    await store.add_project(ACME)
    first = await store.read_keys()
    assert first is not None
    assert first.names == {ACME.id: "acme"}
    await store.rename_project(ACME.id, "acme-inc")
    second = await store.read_keys(first.version)
    assert second is not None
    assert second.names == {ACME.id: "acme-inc"}


async def test_the_deletion_of_a_room_is_remembered_and_changes_the_version(store: IdentityStore) -> None:
    await store.add_project(Project("p", "acme"))
    await store.add_room("p", RoomInfo("r", "lobby", "{}"))
    before = await store.read_keys()
    assert before is not None
    await store.begin_room_deletion("p", "lobby", 10.0)
    assert await store.find_room("p", "lobby") is None
    begun = await store.read_keys(before.version)
    assert begun is not None
    assert begun.deleted_rooms == {("p", "lobby"): RoomDeletion(10.0, ended=False)}
    await store.end_room_deletion("p", "lobby")
    await store.end_room_deletion("p", "other")
    ended = await store.read_keys(begun.version)
    assert ended is not None
    assert ended.deleted_rooms == {("p", "lobby"): RoomDeletion(10.0, ended=True)}
    await store.add_room("p", RoomInfo("r2", "lobby", "{}"))
    await store.begin_room_deletion("p", "lobby", 5.0)  # a clock that was set back
    await store.end_room_deletion("p", "lobby")
    again = await store.read_keys()
    assert again is not None
    assert again.deleted_rooms == {("p", "lobby"): RoomDeletion(10.0, ended=True)}
    await store.close_project("p")
    await store.delete_project("p")
    gone = await store.read_keys()
    assert gone is not None
    assert gone.deleted_rooms == {}


async def test_an_import_into_a_room_is_recorded_until_it_is_deleted(store: IdentityStore) -> None:
    before = await store.read_keys()
    assert before is not None
    for state in (RoomDeletion(0.0, False, 60.5), RoomDeletion(0.0, True)):
        await store.record_import(ACME.id, "room", state)
        snapshot = await store.read_keys(before.version)
        assert snapshot is not None
        assert snapshot.deleted_rooms == {(ACME.id, "room"): state}
    await store.record_import(ACME.id, "room", RoomDeletion(0.0, False, 60.5))
    await store.begin_room_deletion(ACME.id, "room", 5.0)
    snapshot = await store.read_keys()
    assert snapshot is not None
    assert snapshot.deleted_rooms == {(ACME.id, "room"): RoomDeletion(5.0, False)}

"""What every configuration store does, whichever it is: names, limits, compare-and-set, versions, logs and deletion."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from doubles.engines import EVERY_STORE, opened_store

from meshhost.errors import AlreadyExistsError, LimitExceededError, NotFoundError, RoomError
from meshhost.identity.tenant import TenantId
from meshhost.stores.configuration.contract import ConfigurationItem, ConfigurationStore, ItemKind
from meshhost.stores.memory.configuration import MemoryConfigurationStore
from meshhost.stores.postgres.configuration.store import PostgresConfigurationStore
from meshhost.stores.sqlite.configuration.store import SqliteConfigurationStore
from meshhost.stores.triggers.contract import LOG_ENTRIES, LogEntry

ACME, RIVAL = TenantId("acme"), TenantId("rival")
SECRET, SERVICE = ItemKind.SECRET, ItemKind.SERVICE
MOST = 10


@pytest.fixture(params=EVERY_STORE)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ConfigurationStore]:
    async with opened_store(
        request,
        memory=MemoryConfigurationStore,
        sqlite=lambda: SqliteConfigurationStore(tmp_path / "configuration.db"),
        postgresql=PostgresConfigurationStore,
    ) as made:
        yield made


def secret(name: str, tenant: TenantId = ACME) -> ConfigurationItem:
    return ConfigurationItem(f"{tenant}-{name}", SECRET, tenant, name, '{"é": 1}', 10.5, 11.25)


async def names(store: ConfigurationStore, tenant: TenantId = ACME, kind: ItemKind = SECRET) -> list[str]:
    return [each.name for each in await store.list(tenant, kind)]


async def test_an_item_is_found_by_its_tenant_as_it_was_added(store: ConfigurationStore) -> None:
    added = replace(secret("mail"), room="lobby")
    await store.add(added, most=MOST)

    assert await store.find(ACME, added.id) == added
    assert await store.find(RIVAL, added.id) is None
    assert await store.find(ACME, "other") is None
    assert "é" not in repr(added)  # it may be a secret
    assert "acme/lobby" in repr(added)
    assert "of acme " in repr(secret("mail"))


async def test_items_are_listed_by_room_and_name(store: ConfigurationStore) -> None:
    for item in (secret("c"), secret("a"), replace(secret("b"), room="lobby"), secret("d", RIVAL)):
        await store.add(item, most=MOST)
    await store.add(replace(secret("e"), kind=SERVICE), most=MOST)

    assert await names(store) == ["a", "c", "b"]
    assert await names(store, kind=SERVICE) == ["e"]
    assert await names(store, RIVAL) == ["d"]


async def test_a_name_is_unique_for_its_kind_in_its_place(store: ConfigurationStore) -> None:
    await store.add(secret("mail"), most=MOST)

    with pytest.raises(AlreadyExistsError, match="there is a secret 'mail' already"):
        await store.add(replace(secret("mail"), id="2"), most=MOST)
    with pytest.raises(AlreadyExistsError):
        await store.add(replace(secret("other"), id=secret("mail").id), most=MOST)
    await store.add(replace(secret("mail"), id="3", room="lobby"), most=MOST)
    await store.add(replace(secret("mail"), id="4", kind=SERVICE), most=MOST)
    await store.add(secret("mail", RIVAL), most=MOST)

    await store.add(secret("other"), most=MOST)
    with pytest.raises(AlreadyExistsError):
        await store.replace(replace(secret("other"), name="mail", version=2))
    assert await names(store) == ["mail", "other", "mail"]


async def test_a_tenant_has_a_limit_for_each_kind(store: ConfigurationStore) -> None:
    await store.add(secret("a"), most=2)
    await store.add(secret("b"), most=2)

    with pytest.raises(LimitExceededError, match="the tenant has 2 secrets already"):
        await store.add(secret("c"), most=2)
    await store.add(replace(secret("c"), kind=SERVICE), most=2)
    await store.add(secret("c", RIVAL), most=2)


async def test_of_those_that_read_the_same_version_one_replaces_it(store: ConfigurationStore) -> None:
    added = secret("mail")
    await store.add(added, most=MOST)
    changes = [replace(added, content=str(number), changed_at=20.0 + number, version=2) for number in range(8)]

    done = await asyncio.gather(*(store.replace(each) for each in changes))

    assert done.count(True) == 1
    winner = changes[done.index(True)]
    assert await store.find(ACME, added.id) == winner
    assert not await store.replace(replace(winner, version=2))
    assert not await store.replace(replace(winner, id="none", name="none", version=3))
    assert not await store.replace(replace(winner, tenant=RIVAL, version=3))
    assert await store.replace(replace(winner, name="post", version=3))
    assert await names(store) == ["post"]


async def test_all_items_of_a_kind_are_read_when_something_changed(store: ConfigurationStore) -> None:
    empty = await store.read(SERVICE)
    assert empty is not None
    assert not empty.items
    assert await store.read(SERVICE, empty.version) is None

    later = replace(secret("z", RIVAL), kind=SERVICE, created_at=99.0)
    sooner = replace(secret("a"), kind=SERVICE)
    versions = [empty.version]
    for change in (
        store.add(later, most=MOST),
        store.add(sooner, most=MOST),
        store.add(secret("b"), most=MOST),
        store.replace(replace(sooner, content="{}", version=2)),
        store.delete(RIVAL, later.id),
    ):
        await change
        found = await store.read(SERVICE, versions[-1])
        assert found is not None
        versions.append(found.version)
        if len(versions) == 4:
            assert list(found.items) == [sooner, later]
    assert len(set(versions)) == len(versions)

    await store.add_entry(sooner.id, LogEntry(1.0, ""))
    assert await store.read(SERVICE, versions[-1]) is None


async def test_a_log_keeps_the_newest_entries_and_goes_with_its_item(store: ConfigurationStore) -> None:
    item = secret("mail")
    await store.add(item, most=MOST)
    for number in range(LOG_ENTRIES + 3):
        await store.add_entry(item.id, LogEntry(float(number), str(number)))
    await store.add_entry("nobody", LogEntry(0.0, ""))

    kept = range(LOG_ENTRIES + 2, 2, -1)
    assert list(await store.entries(item.id)) == [LogEntry(float(number), str(number)) for number in kept]
    assert list(await store.entries("nobody")) == []

    with pytest.raises(NotFoundError):
        await store.delete(RIVAL, item.id)
    await store.delete(ACME, item.id)
    with pytest.raises(NotFoundError):
        await store.delete(ACME, item.id)
    await store.add(item, most=MOST)
    assert list(await store.entries(item.id)) == []


async def test_a_room_and_a_tenant_are_deleted_as_a_whole(store: ConfigurationStore) -> None:
    for item in (
        secret("a"),
        replace(secret("b"), room="lobby"),
        replace(secret("c"), room="mail"),
        secret("d", RIVAL),
    ):
        await store.add(item, most=MOST)

    for _ in range(2):
        await store.delete_all(ACME, "lobby")
    assert await names(store) == ["a", "c"]
    await store.delete_all(ACME)
    assert await names(store) == []
    assert await names(store, RIVAL) == ["d"]


async def test_a_closed_store_refuses_and_can_be_opened_again(store: ConfigurationStore) -> None:
    await store.add(secret("a"), most=MOST)
    await store.close()
    await store.close()
    with pytest.raises(RoomError, match="not open"):
        await store.find(ACME, "a")
    await store.open()
    assert await store.find(ACME, secret("a").id) is not None


async def test_two_processes_may_have_the_file_open(tmp_path: Path) -> None:
    one, other = (SqliteConfigurationStore(tmp_path / "configuration.db") for _ in range(2))
    assert "configuration.db' open=False" in repr(one)
    await one.open()
    await other.open()
    before = await other.read(SECRET)
    await one.add(secret("a"), most=MOST)

    found = await other.read(SECRET, before.version if before else None)

    assert found is not None
    assert [each.name for each in found.items] == ["a"]
    await one.close()
    await other.close()

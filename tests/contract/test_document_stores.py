"""What every document store does, whichever engine it is of."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from doubles.engines import EVERY_STORE, opened_store

from meshhost.errors import AlreadyExistsError, NotFoundError, RoomError
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.stores.documents import DocumentKey, DocumentStore
from meshhost.stores.memory.documents import MemoryDocumentStore
from meshhost.stores.postgres.documents import PostgresDocumentStore
from meshhost.stores.sqlite.documents import SqliteDocumentStore
from meshhost.testing.clock import FakeClock

ROOM = RoomKey(TenantId("acme"), "lobby")
OTHER_ROOM = RoomKey(TenantId("acme"), "other")
OTHER_TENANT = RoomKey(TenantId("rival"), "lobby")
KEY = DocumentKey(ROOM, "a/b.page")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(params=EVERY_STORE)
async def store(request: pytest.FixtureRequest, tmp_path: Path, clock: FakeClock) -> AsyncIterator[DocumentStore]:
    async with opened_store(
        request,
        memory=lambda: MemoryDocumentStore(clock=clock),
        sqlite=lambda: SqliteDocumentStore(tmp_path / "documents.db", clock=clock),
        postgresql=lambda database: PostgresDocumentStore(database, clock=clock),
    ) as made:
        yield made


async def loaded(store: DocumentStore, key: DocumentKey = KEY) -> tuple[bytes, list[bytes]]:
    found = await store.load(key)
    assert found is not None
    return found.snapshot, list(found.updates)


async def test_a_document_is_its_snapshot_and_the_updates_since(store: DocumentStore) -> None:
    assert await store.load(KEY) is None
    await store.create(KEY, b"first")
    await asyncio.gather(*(store.append(KEY, bytes([number])) for number in range(5)))
    assert await loaded(store) == (b"first", [bytes([number]) for number in range(5)])
    await store.compact(KEY, b"second")
    await store.append(KEY, b"new")
    assert await loaded(store) == (b"second", [b"new"])


async def test_what_was_loaded_does_not_change_afterwards(store: DocumentStore) -> None:
    await store.create(KEY, b"first")
    before = await store.load(KEY)
    await store.append(KEY, b"x")
    assert before is not None
    assert list(before.updates) == []


async def test_a_document_is_created_once_and_can_be_deleted(store: DocumentStore) -> None:
    await store.create(KEY, b"first")
    with pytest.raises(AlreadyExistsError, match=r"document 'a/b.page' exists"):
        await store.create(KEY, b"other")
    await store.append(KEY, b"x")
    await store.delete(KEY)
    for missing in (store.delete(KEY), store.append(KEY, b"x"), store.compact(KEY, b"x")):
        with pytest.raises(NotFoundError, match=r"no document 'a/b.page'"):
            await missing
    await store.create(KEY, b"again")
    assert await loaded(store) == (b"again", [])


async def test_of_concurrent_creators_one_succeeds(store: DocumentStore) -> None:
    results = await asyncio.gather(*(store.create(KEY, bytes([n])) for n in range(8)), return_exceptions=True)
    assert sum(result is None for result in results) == 1
    assert sum(isinstance(result, AlreadyExistsError) for result in results) == 7


async def test_rooms_and_tenants_are_apart(store: DocumentStore) -> None:
    for room, content in ((ROOM, b"1"), (OTHER_ROOM, b"2"), (OTHER_TENANT, b"3")):
        await store.create(DocumentKey(room, "x"), content)
    await store.delete(DocumentKey(OTHER_ROOM, "x"))
    assert await loaded(store, DocumentKey(ROOM, "x")) == (b"1", [])
    assert await loaded(store, DocumentKey(OTHER_TENANT, "x")) == (b"3", [])
    assert await store.list(OTHER_ROOM, "") == []


async def test_a_folder_lists_all_below_it_by_path(store: DocumentStore) -> None:
    for name in ("x.page", "a/b.page", "a/c/d.page", "ab/e.page", "a%/f.page", "A/g.page"):
        await store.create(DocumentKey(ROOM, name), b"")

    async def paths(folder: str) -> list[str]:
        return [entry.path for entry in await store.list(ROOM, folder)]

    assert await paths("") == ["A/g.page", "a%/f.page", "a/b.page", "a/c/d.page", "ab/e.page", "x.page"]
    assert await paths("a") == ["a/b.page", "a/c/d.page"]
    assert await paths("a%") == ["a%/f.page"]
    assert await paths("none") == []


async def test_an_entry_tells_when_the_document_was_created_and_changed(store: DocumentStore, clock: FakeClock) -> None:
    created = clock.time()
    await store.create(KEY, b"")
    await clock.advance(5)
    await store.append(KEY, b"x")
    found = await store.find(KEY)
    assert found is not None
    assert (found.path, found.created_at, found.updated_at) == ("a/b.page", created, created + 5)
    await clock.advance(5)
    await store.compact(KEY, b"y")
    (entry,) = await store.list(ROOM, "")
    assert (entry.created_at, entry.updated_at) == (created, created + 10)
    assert await store.find(DocumentKey(ROOM, "no")) is None


async def test_the_documents_of_a_tenant_are_counted_over_its_rooms(store: DocumentStore) -> None:
    assert await store.count(TenantId("t")) == 0
    for room in ("r", "s"):
        await store.create(DocumentKey(RoomKey(TenantId("t"), room), "a.page"), b"x")
    await store.create(DocumentKey(RoomKey(TenantId("other"), "r"), "a.page"), b"x")
    await store.delete(DocumentKey(RoomKey(TenantId("t"), "s"), "a.page"))
    assert await store.count(TenantId("t")) == 1


async def test_a_closed_store_refuses_and_can_be_opened_again(store: DocumentStore) -> None:
    await store.create(KEY, b"first")
    await store.close()
    await store.close()
    with pytest.raises(RoomError, match="document store is not open"):
        await store.load(KEY)
    await store.open()
    assert await loaded(store) == (b"first", [])


@pytest.mark.parametrize("room", [None, "lobby"])
async def test_a_tenant_or_a_room_is_deleted_and_its_neighbours_are_not(store: DocumentStore, room: str | None) -> None:
    for number in range(25):
        await store.create(DocumentKey(ROOM, f"{number}.page"), b"x")
    kept = [DocumentKey(OTHER_TENANT, "a.page")]
    for key in (*kept, DocumentKey(OTHER_ROOM, "a.page")):
        await store.create(key, b"x")
        await store.append(key, b"y")
    for _ in range(2):
        await store.delete_all(ROOM.tenant, room)
    assert await store.list(ROOM, "") == []
    assert len(await store.list(OTHER_ROOM, "")) == (1 if room else 0)
    assert await loaded(store, kept[0]) == (b"x", [b"y"])


async def test_rooms_with_documents_are_listed_by_tenant(store: DocumentStore) -> None:
    for key in (KEY, DocumentKey(OTHER_ROOM, "x"), DocumentKey(OTHER_ROOM, "y")):
        await store.create(key, b"first")
    await store.create(DocumentKey(RoomKey(TenantId("rival"), "attic"), "x"), b"first")
    assert list(await store.rooms(TenantId("acme"))) == ["lobby", "other"]


async def test_documents_are_listed_from_any_path_on(store: DocumentStore) -> None:
    paths = ["a", "a b", "a-b", "a/b", "a0", "b", "é", "日", "\U0010ffff"]
    for path in reversed(paths):
        await store.create(DocumentKey(ROOM, path), b"")
    await store.create(DocumentKey(OTHER_ROOM, "other"), b"")
    await store.create(DocumentKey(OTHER_TENANT, "other"), b"")

    async def listed(path: str, limit: int) -> list[str]:
        return [entry.path for entry in await store.list_from(ROOM, path, limit)]

    assert await listed("", 100) == paths
    assert await listed("a/b", 2) == ["a/b", "a0"]
    assert await listed("a0 ", 3) == ["b", "é", "日"]
    assert await listed("z", 100) == ["é", "日", "\U0010ffff"]
    assert await listed("\U0010ffff ", 100) == []

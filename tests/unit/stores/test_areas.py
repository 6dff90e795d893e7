"""Areas of the object store: what is in them is counted and deleted by tenant and room, and nothing else is."""

from pathlib import Path
from typing import Any

import obstore
import pytest
from obstore.exceptions import GenericError
from obstore.store import MemoryStore, ObjectStore

from meshhost.errors import InvalidRequestError, RoomError
from meshhost.identity.tenant import TenantId
from meshhost.stores.files import open_object_store
from meshhost.stores.listing.area import AreaUse, ObjectArea

A, B = TenantId("a"), TenantId("b")


@pytest.fixture(params=["directory", "memory"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    store = open_object_store(tmp_path / "storage") if request.param == "directory" else MemoryStore()
    for key in (
        "a/room/t.lance/1",
        "a/room/t.lance/data/2",
        "a/room/u.lance/1",
        "a/room-2/t.lance/1",
        "b/room/t.lance/1",
    ):
        await obstore.put_async(store, f".tables/{key}", b"12345")
    await obstore.put_async(store, "a/room/file", b"12345")
    return store


async def test_what_a_tenant_has_is_counted(store: ObjectStore) -> None:
    area = ObjectArea(store, "tables")
    names = {("room", "t.lance"), ("room", "u.lance"), ("room-2", "t.lance")}
    assert await area.use(A) == AreaUse(20, frozenset(names))
    assert await area.rooms(A) == ["room", "room-2"]
    assert await area.use(TenantId("c")) == AreaUse(0, frozenset())
    assert await area.rooms(TenantId("c")) == []


async def test_a_room_is_deleted_and_no_other(store: ObjectStore) -> None:
    area = ObjectArea(store, "tables")
    await area.delete_all(A, "room")
    await area.delete_all(A, "room")
    assert await area.rooms(A) == ["room-2"]
    assert (await area.use(B)).stored_bytes == 5
    await area.delete_all(A)
    assert await area.rooms(A) == []
    assert (await obstore.head_async(store, "a/room/file"))["size"] == 5


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\\b"])
async def test_a_name_that_leads_elsewhere_is_refused(store: ObjectStore, name: str) -> None:
    area = ObjectArea(store, "tables")
    with pytest.raises(InvalidRequestError):
        await area.delete_all(TenantId(name))
    with pytest.raises(InvalidRequestError):
        await area.delete_all(A, name)


async def test_a_store_that_fails_is_a_room_error(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise GenericError("down")

    monkeypatch.setattr(obstore, "list", fail)
    with pytest.raises(RoomError, match="storage failed"):
        await ObjectArea(store, "tables").use(A)


async def test_nothing_is_there_when_the_store_finds_nothing(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise FileNotFoundError

    monkeypatch.setattr(obstore, "list", fail)
    assert await ObjectArea(store, "tables").use(A) == AreaUse(0, frozenset())


async def test_a_file_beside_the_rooms_is_no_table(store: ObjectStore) -> None:
    await obstore.put_async(store, ".tables/b/room/loose", b"1")
    await obstore.put_async(store, ".tables/b/looser", b"1")
    assert (await ObjectArea(store, "tables").use(B)).names == {("room", "t.lance"), ("room", "loose")}

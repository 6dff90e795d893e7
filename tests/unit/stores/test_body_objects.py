"""Objects with large bodies: what is not theirs, what is gone, and a store that fails."""

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import obstore
import pytest
from obstore.exceptions import GenericError

from meshhost.errors import InvalidRequestError, NotFoundError, RoomError, StorageFullError
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.stores.bodies.checking import beginning_of
from meshhost.stores.bodies.objects import BodyObjects, reference_to
from meshhost.stores.bodies.reference import BodyReference
from meshhost.stores.files import open_object_store

ROOM = RoomKey(TenantId("acme"), "lobby")


@pytest.fixture
def objects(tmp_path: Path) -> BodyObjects:
    return BodyObjects(open_object_store(tmp_path))


async def put(objects: BodyObjects, text: str) -> BodyReference:
    upload = objects.new_upload()
    try:
        await upload.add(text.encode())
        reference = await reference_to(upload, "message")
        await objects.write(ROOM, reference, upload)
    finally:
        upload.close()
    return reference


def path_of(folder: Path, reference: BodyReference) -> Path:
    return folder / ".queues" / "acme" / "lobby" / reference.name


async def test_an_object_is_listed_with_its_room_and_others_are_not(objects: BodyObjects, tmp_path: Path) -> None:
    assert [page async for page in objects.all()] == []
    reference = await put(objects, "[1, 2]")
    (tmp_path / ".queues" / "acme" / "lobby" / "notes.txt").write_text("not ours")
    (tmp_path / ".queues" / "readme").write_text("not ours")
    assert [(found.room, found.name, found.size) async for page in objects.all() for found in page] == [
        (ROOM, reference.name, 6)
    ]
    assert await objects.bytes_of(ROOM.tenant) == 6
    assert await objects.bytes_of(TenantId("rival")) == 0


async def test_an_object_that_is_gone_or_cut_off_says_so(objects: BodyObjects, tmp_path: Path) -> None:
    reference = await put(objects, "[1, 2]")
    path_of(tmp_path, reference).write_text("[1, ")
    with pytest.raises(RoomError, match="has 4 bytes instead of 6"):
        assert [piece async for piece in objects.stream(ROOM, reference)]
    await objects.delete(ROOM, [reference.name])
    await objects.delete(ROOM, [reference.name])
    with pytest.raises(NotFoundError, match="not in the object store any more"):
        await objects.read(ROOM, reference, 0, 6)


async def test_nothing_is_written_over_an_object(objects: BodyObjects) -> None:
    reference = await put(objects, "[1, 2]")
    upload = objects.new_upload()
    await upload.add(b"[3, 4]")
    with pytest.raises(RoomError):
        await objects.write(ROOM, reference, upload)
    upload.close()
    assert await objects.read(ROOM, reference, 0, 100) == b"[1, 2]"


async def test_a_body_is_on_the_disk_before_it_is_referred_to(
    objects: BodyObjects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []

    def fsync(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").resolve())

    monkeypatch.setattr("meshhost.stores.bodies.objects.os.fsync", fsync)
    path = path_of(tmp_path, await put(objects, "[1, 2]"))
    assert synced[1:] == [path, *list(path.parents)[:4]]


def failing(error: Exception) -> Callable[..., Any]:
    async def fail(*_: object, **__: object) -> None:
        raise error

    return fail


def listing(error: Exception) -> Callable[..., Any]:
    async def fail(*_: object, **__: object) -> AsyncIterator[list[Any]]:
        raise error
        yield []

    return fail


async def test_errors_of_the_store_are_told_without_its_paths(
    objects: BodyObjects, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    reference = await put(objects, "[1, 2]")
    error = GenericError("at /secret/path")
    for name in ("get_range_async", "delete_async"):
        monkeypatch.setattr(obstore, name, failing(error))
    monkeypatch.setattr(obstore, "list", listing(error))
    for work in (objects.read(ROOM, reference, 0, 1), objects.delete(ROOM, ["a"]), objects.bytes_of(ROOM.tenant)):
        with pytest.raises(RoomError, match="storage failed") as told:
            await work
        assert "secret" not in str(told.value)
    monkeypatch.setattr(obstore, "list", listing(FileNotFoundError()))
    assert await objects.bytes_of(ROOM.tenant) == 0
    monkeypatch.setattr(
        "meshhost.stores.disk.upload.require_room", lambda *_: (_ for _ in ()).throw(StorageFullError("full"))
    )
    with pytest.raises(StorageFullError):
        await put(objects, json.dumps("x" * 100_000))


def test_what_is_no_reference_is_refused() -> None:
    reference = BodyReference("a" * 32, 7, "b" * 64, '["\n')
    assert BodyReference.parse(reference.to_text()) == reference
    for text in ("", "[]", "@", reference.to_text()[1:], reference.to_text().replace("a", "g", 1)):
        with pytest.raises(InvalidRequestError):
            BodyReference.parse(text)


def test_a_beginning_does_not_end_within_a_character() -> None:
    text = json.dumps("x" * 490 + "é" * 10, ensure_ascii=False)
    whole = json.dumps(json.loads(text))
    assert beginning_of(text) == whole[:497]
    assert beginning_of("[1]") == "[1]"

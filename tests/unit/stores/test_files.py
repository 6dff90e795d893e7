"""Paths and files of rooms."""

import asyncio
import io
import os
from collections.abc import Awaitable
from pathlib import Path

import obstore
import pytest
from hypothesis import given
from hypothesis import strategies as st
from obstore.exceptions import GenericError
from obstore.store import MemoryStore

from meshhost.errors import AlreadyExistsError, InvalidRequestError, NotFoundError, RoomError, StorageFullError
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.stores.disk.upload import MEMORY_BYTES
from meshhost.stores.files import Entry, RoomFiles, clean_path, mime_type_of, open_object_store

ROOM = RoomKey(TenantId("t"), "r")
OTHER = RoomKey(TenantId("t"), "r2")


@pytest.fixture
def files(tmp_path: Path) -> RoomFiles:
    return RoomFiles(open_object_store(tmp_path / "files"))


async def _write(files: RoomFiles, path: str, data: bytes = b"x", *, room: RoomKey = ROOM, again: bool = False) -> None:
    await files.write(room, path, io.BytesIO(data), overwrite=again)


@pytest.mark.parametrize(
    ("path", "cleaned"),
    [("", ""), ("/", ""), ("///", ""), ("a", "a"), ("/a/b/", "a/b"), ("a b/ü.txt", "a b/ü.txt"), ("...", "...")],
)
def test_slashes_at_the_ends_do_not_count(path: str, cleaned: str) -> None:
    assert clean_path(path) == cleaned


@pytest.mark.parametrize(
    "path",
    ["..", ".", "../a", "a/..", "a/../b", "./a", "a/.", "a//b", "a\\b", "a\0", "a\n", "a\x7f", "\x85", "\ud800"],
    ids=repr,
)
def test_a_path_that_is_not_plain_is_refused(path: str) -> None:
    with pytest.raises(InvalidRequestError):
        clean_path(path)


def test_paths_and_segments_have_a_limit() -> None:
    assert clean_path("ü" * 120) == "ü" * 120
    for path in ("x" * 241, "ü" * 121, "/".join(["x" * 100] * 10)):
        with pytest.raises(InvalidRequestError):
            clean_path(path)


@given(st.text())
def test_a_clean_path_leads_nowhere_else(path: str) -> None:
    try:
        cleaned = clean_path(path)
    except InvalidRequestError:
        return
    assert clean_path(cleaned) == cleaned
    assert cleaned == "" or not {"", ".", ".."} & set(cleaned.split("/"))


@pytest.mark.parametrize(
    "path",
    [
        "a",
        "d/e/f.txt",
        "ü/日本.txt",
        "a%2Fb",
        "%2e%2e",
        "a%",
        "a?b",
        "a#b",
        "a*b",
        "a b",
        "~",
        "[x]",
        "a:b",
        "a&b=c",
        "-",
    ],
)
async def test_every_plain_path_names_its_own_file(files: RoomFiles, path: str, tmp_path: Path) -> None:
    await _write(files, path, b"data")
    assert await files.read(ROOM, path, max_bytes=10) == b"data"
    entry = await files.stat(ROOM, path)
    assert entry is not None
    assert (entry.path, entry.name, entry.size, entry.is_folder) == (path, path.rpartition("/")[2], 4, False)
    assert [entry.path for entry in await files.list(ROOM, path.rpartition("/")[0])] == [path]
    assert _outside(tmp_path, tmp_path / "files" / "t" / "r") == []
    await files.delete(ROOM, path)
    assert await files.stat(ROOM, path) is None


def _outside(root: Path, folder: Path) -> list[Path]:
    return [file for file in root.rglob("*") if file.is_file() and folder not in file.parents]


async def test_a_name_that_local_stores_keep_for_themselves_is_refused(files: RoomFiles) -> None:
    with pytest.raises(InvalidRequestError):
        clean_path("d/report#12")
    await _write(files, "report#1/x", b"data")
    assert [entry.path for entry in await files.list(ROOM, "report#1")] == ["report#1/x"]


async def test_folders_are_listed_with_their_files(files: RoomFiles) -> None:
    for path in ("b", "a/x", "a/y/z", "ab"):
        await _write(files, path)
    await _write(files, "elsewhere", room=OTHER)
    listed = await files.list(ROOM, "")
    assert [(entry.path, entry.is_folder) for entry in listed] == [("a", True), ("ab", False), ("b", False)]
    assert [entry.path for entry in await files.list(ROOM, "a")] == ["a/x", "a/y"]
    assert await files.list(ROOM, "nope") == []
    assert await files.list(ROOM, "b") == []
    assert await files.stat(ROOM, "") == Entry(path="", is_folder=True)
    assert await files.stat(ROOM, "a/y") == Entry(path="a/y", is_folder=True)


async def test_a_file_below_a_file_is_refused(files: RoomFiles) -> None:
    await _write(files, "f")
    await _write(files, "d/g")
    for path in ("f/below", "d"):
        with pytest.raises(InvalidRequestError):
            await _write(files, path, again=True)
    assert await files.stat(ROOM, "f/below") is None
    with pytest.raises(NotFoundError):
        await files.read(ROOM, "f/below", max_bytes=1)
    assert await files.list(ROOM, "f/below") == []


async def test_writing_creates_or_overwrites_as_told(files: RoomFiles) -> None:
    file = io.BytesIO(b"12345")
    file.seek(3)
    await files.write(ROOM, "f", file, overwrite=False)
    assert await files.read(ROOM, "f", max_bytes=5) == b"12345"
    with pytest.raises(AlreadyExistsError):
        await _write(files, "f")
    await _write(files, "f", b"new", again=True)
    assert b"".join([bytes(chunk) async for chunk in await files.stream(ROOM, "f")]) == b"new"
    with pytest.raises(RoomError, match="download URL"):
        await files.read(ROOM, "f", max_bytes=2)


async def test_what_is_not_a_file_cannot_be_read_or_deleted(files: RoomFiles) -> None:
    await _write(files, "d/f")
    for operation in (files.read(ROOM, "d", max_bytes=1), files.stream(ROOM, "d"), files.delete(ROOM, "d")):
        with pytest.raises(InvalidRequestError):
            await operation
    for operation in (files.read(ROOM, "x", max_bytes=1), files.stream(ROOM, "x"), files.delete(ROOM, "x")):
        with pytest.raises(NotFoundError):
            await operation


async def test_a_file_that_vanishes_meanwhile_is_not_found(files: RoomFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    async def there(*_: object) -> Entry:
        return Entry(path="f", is_folder=False, size=1)

    monkeypatch.setattr(files, "_file", there)
    for operation in (files.read(ROOM, "f", max_bytes=1), files.stream(ROOM, "f"), files.delete(ROOM, "f")):
        with pytest.raises(NotFoundError):
            await operation


async def test_a_failing_store_tells_no_path_of_the_server(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    files = RoomFiles(open_object_store("memory:///"))
    await _write(files, "there")

    async def fail(*_: object, **__: object) -> None:
        raise GenericError("/srv/secret: Permission denied")

    monkeypatch.setattr("obstore.get_async", fail)
    with pytest.raises(RoomError, match="storage failed"):
        await files.read(ROOM, "there", max_bytes=10)
    for name in ("head_async", "list_with_delimiter_async", "put_async"):
        monkeypatch.setattr(f"obstore.{name}", fail)
    for operation in (files.stat(ROOM, "f"), files.list(ROOM, ""), _write(files, "f")):
        with pytest.raises(RoomError, match="storage failed") as caught:
            await operation
        assert "secret" not in str(caught.value)
    assert "Permission denied" in caplog.text


async def test_a_store_may_be_given_by_url() -> None:
    store = open_object_store("memory:///")
    assert isinstance(store, MemoryStore)
    files = RoomFiles(store)
    await _write(files, "a/b")
    assert [entry.path for entry in await files.list(ROOM, "a")] == ["a/b"]
    assert await files.stat(ROOM, "nope") is None


def test_a_local_store_is_for_its_owner_only(tmp_path: Path) -> None:
    open_object_store(tmp_path / "x" / "files")
    assert (tmp_path / "x" / "files").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("path", "kind"), [("a.txt", "text/plain"), ("a/b.json", "application/json"), ("a", "application/octet-stream")]
)
def test_the_ending_tells_the_kind(path: str, kind: str) -> None:
    assert mime_type_of(path) == kind


async def test_a_folder_may_be_named_like_an_upload_in_progress(files: RoomFiles) -> None:
    await _write(files, clean_path("issue #12/f.txt"))
    folder = clean_path("issue #12", may_be_folder=True)

    assert [entry.name for entry in await files.list(ROOM, folder)] == ["f.txt"]
    assert (await files.stat(ROOM, folder)).is_folder  # type: ignore[union-attr]


async def test_the_files_of_a_tenant_are_counted_over_its_rooms(files: RoomFiles) -> None:
    assert await files.of_tenant(TenantId("t")) == (0, 0)
    await _write(files, "a/b.txt", b"123")
    await _write(files, "c", b"45", room=OTHER)
    await _write(files, "c", b"45678", room=OTHER, again=True)
    await _write(files, "x", b"1", room=RoomKey(TenantId("t2"), "r"))
    assert await files.of_tenant(TenantId("t")) == (2, 8)
    assert await files.of_tenant(TenantId("t2")) == (1, 1)


async def test_the_files_of_a_room_or_a_tenant_are_deleted_with_their_folders(files: RoomFiles, tmp_path: Path) -> None:
    upstairs, elsewhere = RoomKey(ROOM.tenant, f"{ROOM.name}-2"), RoomKey(TenantId(f"{ROOM.tenant}-2"), ROOM.name)
    for room in (ROOM, upstairs, elsewhere):
        for path in ("a", "b/c/d", "b/e"):
            await _write(files, path, room=room)
    for _ in range(2):
        await files.delete_all(ROOM.tenant, ROOM.name)
    assert await files.list(ROOM, "") == []
    assert not (tmp_path / "files" / ROOM.tenant / ROOM.name).exists()
    assert len(await files.list(upstairs, "")) == 2
    await files.delete_all(ROOM.tenant)
    assert not (tmp_path / "files" / ROOM.tenant).exists()
    assert len(await files.list(elsewhere, "")) == 2


@pytest.mark.parametrize(
    ("tenant", "room"), [("", None), (".", None), ("..", "x"), ("a", ".."), ("a/b", None), ("a", "b/c")]
)
async def test_a_deletion_does_not_leave_its_folder(files: RoomFiles, tenant: str, room: str | None) -> None:
    with pytest.raises(InvalidRequestError):
        await files.delete_all(TenantId(tenant), room)


async def test_a_long_list_lets_others_run(files: RoomFiles, tmp_path: Path) -> None:
    folder = tmp_path / "files" / ROOM.tenant / ROOM.name
    folder.mkdir(parents=True)
    for number in range(2000):
        (folder / f"{number}.txt").touch()
    listing = asyncio.create_task(files.list(ROOM, ""))
    turns = 0
    while not listing.done():
        turns += 1
        await asyncio.sleep(0)
    assert len(listing.result()) == 2000
    assert turns >= 8


async def test_a_failing_folder_tells_no_path_of_the_server(files: RoomFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("os.scandir", fail)
    for operation in (files.list(ROOM, "d"), files.stat(ROOM, "d")):
        with pytest.raises(RoomError, match="storage failed") as caught:
            await operation
        assert "/" not in str(caught.value)


async def _upload(files: RoomFiles, path: str, *parts: bytes, again: bool = False) -> None:
    upload = files.new_upload()
    try:
        for part in parts:
            await upload.add(part)
        await files.write(ROOM, path, upload, overwrite=again)
    finally:
        upload.close()


SIZES = [0, 10, MEMORY_BYTES + 1, 9 * 1024 * 1024]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("where", ["folder", "memory:///"])
async def test_an_upload_becomes_a_file_in_one_step(tmp_path: Path, where: str, size: int) -> None:
    files = RoomFiles(open_object_store(tmp_path / where if where == "folder" else where))
    data = bytes(range(256)) * (size // 256) + bytes(size % 256)
    await _upload(files, "d/f", data[:100], data[100:])
    assert await files.read(ROOM, "d/f", max_bytes=size) == data
    with pytest.raises(AlreadyExistsError):
        await _upload(files, "d/f", data)
    await _upload(files, "d/f", b"new", again=True)
    assert await files.read(ROOM, "d/f", max_bytes=3) == b"new"
    assert [entry.path for entry in await files.list(ROOM, "d")] == ["d/f"]
    assert {name for _, _, names in os.walk(tmp_path) for name in names} <= {"f"}


@pytest.mark.parametrize("again", [False, True])
async def test_an_upload_takes_the_place_of_no_folder(files: RoomFiles, again: bool) -> None:
    await _write(files, "f")
    await _write(files, "d/g")
    for path in ("f/below", "f/further/below", "d"):
        with pytest.raises(InvalidRequestError):
            await _upload(files, path, b"x", again=again)


async def test_of_two_large_uploads_that_create_one_file_in_a_remote_store_the_second_fails() -> None:
    files = RoomFiles(open_object_store("memory:///"))
    large = bytes(9 * 1024 * 1024)
    outcomes = await asyncio.gather(*(_upload(files, "f", large) for _ in range(2)), return_exceptions=True)
    assert sorted(map(type, outcomes), key=str) == [type(None), AlreadyExistsError]


def _folder_of(home: Path) -> Path:
    folder = home / "files" / ROOM.tenant / ROOM.name
    for name in FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("1")
    (folder / "empty").mkdir()
    (folder / "link").symlink_to(folder / "a")
    (folder / "broken").symlink_to(folder / "nothing")
    return folder


FILES = ("a", ".hidden", "ü", "x#y", "%2e", "a b", "deep/f", "deep#3/f", "b#12")


async def test_a_local_folder_is_listed_as_the_library_lists_it(files: RoomFiles, tmp_path: Path) -> None:
    folder = _folder_of(tmp_path)
    found = obstore.list_with_delimiter(open_object_store(tmp_path / "files"), f"{ROOM.tenant}/{ROOM.name}")
    start = len(f"{ROOM.tenant}/{ROOM.name}/")
    expected = {(meta["path"][start:], meta["size"], meta["last_modified"]) for meta in found["objects"]}
    expected |= {(path[start:], None, None) for path in found["common_prefixes"]}
    listed = await files.list(ROOM, "")
    as_listed = {
        (entry.path, entry.size, entry.updated_at and entry.updated_at.replace(microsecond=0)) for entry in listed
    }
    assert as_listed == {(path, size, at and at.replace(microsecond=0)) for path, size, at in expected}
    # What the library cannot read ends a list of its own.
    (folder / "c\nd").write_text("1")
    (folder / os.fsdecode(b"\xff")).write_text("1")
    assert await files.list(ROOM, "") == listed


async def _outcome(operation: Awaitable[None]) -> type[BaseException] | None:
    try:
        await operation
    except RoomError as error:
        return type(error)
    return None


async def test_an_upload_leaves_the_reserve_of_the_disk(small_disk: Path) -> None:
    files = RoomFiles(open_object_store(small_disk / "files"))
    upload = files.new_upload()
    outcomes = [await _outcome(upload.add(bytes(1024 * 1024))) for _ in range(40)]
    assert outcomes[0] is None
    assert outcomes[-1] is StorageFullError
    assert 0 < upload.size < 10 * 1024 * 1024
    with pytest.raises(StorageFullError):
        await _upload(files, "small", b"x")
    with pytest.raises(StorageFullError):
        await files.restore(ROOM, "restored", io.BytesIO(b"x"))
    upload.close()
    await _upload(files, "small", b"x")


async def test_a_disk_that_is_full_all_the_same_is_reported_as_full(small_disk: Path) -> None:
    files = RoomFiles(open_object_store(small_disk / "files"))
    (small_disk / "filler").write_bytes(bytes(39 * 1024 * 1024))
    with pytest.raises(StorageFullError):
        await _write(files, "f", bytes(4 * 1024 * 1024))

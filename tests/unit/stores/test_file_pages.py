"""Pages of the entries of a folder: every backend gives each entry once, in one order, whatever changes meanwhile."""

import asyncio
import io
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import obstore
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from obstore.store import MemoryStore, ObjectStore, S3Store

from meshhost.errors import RoomError
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.stores.disk import folder as disk_folder
from meshhost.stores.document_files import FilesAndDocuments
from meshhost.stores.documents import DocumentKey
from meshhost.stores.files import Entry, RoomFiles, open_object_store
from meshhost.stores.listing import names as listing_names
from meshhost.stores.listing import objects as listing_objects
from meshhost.stores.listing.names import FolderNames
from meshhost.stores.memory.documents import MemoryDocumentStore

ROOM = RoomKey(TenantId("t"), "r")
SECOND = 10**9

# Few names, so that many begin alike, and characters on both sides of the slash.
NAME = st.text(st.sampled_from("a-.0z ü#\U0010ffff"), min_size=1, max_size=3).filter(
    lambda name: name not in {".", ".."} and not disk_folder.STAGED.search(name)
)
PATH = st.lists(NAME, min_size=1, max_size=3).map("/".join)
LIMIT = st.integers(1, 6)


def _without_conflicts(paths: list[str]) -> list[str]:
    """The paths, without those below one of them: a file cannot be a folder."""
    return [path for path in dict.fromkeys(paths) if not any(path.startswith(f"{other}/") for other in paths)]


PATHS = st.lists(PATH, max_size=25).map(_without_conflicts)


def _key_of(entry: Entry) -> str:
    return f"{entry.name}/" if entry.is_folder else entry.name


async def _all(
    files: RoomFiles,
    path: str = "",
    *,
    limit: int,
    prefix: str = "",
    wanted: Callable[[str], bool] = lambda _: True,
    between: Callable[[], None] = lambda: None,
) -> list[Entry]:
    found: list[Entry] = []
    after: str | None = ""
    while after is not None:
        page = await files.page(ROOM, path, limit=limit, after=after, prefix=prefix, wanted=wanted)
        assert len(page.entries) <= limit
        found += page.entries
        after = page.next
        between()
    return found


async def _store(files: RoomFiles, paths: list[str]) -> None:
    for path in paths:
        await files.write(ROOM, path, io.BytesIO(path.encode()), overwrite=True)


def _expected(listed: list[Entry], prefix: str = "") -> list[Entry]:
    return sorted((entry for entry in listed if entry.name.startswith(prefix)), key=_key_of)


async def _laws(files: RoomFiles, limit: int, folder: str, prefix: str) -> None:
    everything = [*await files.list(ROOM, folder)]
    assert await _all(files, folder, limit=limit) == _expected(everything)
    assert await _all(files, folder, limit=limit, prefix=prefix) == _expected(everything, prefix)
    chosen = {entry.path for entry in everything[::3]}
    found = await _all(files, folder, limit=limit, wanted=chosen.__contains__)
    assert found == [entry for entry in _expected(everything) if entry.path in chosen]


@settings(max_examples=40, deadline=None)
@given(paths=PATHS, limit=LIMIT, folder=PATH, prefix=NAME)
def test_pages_of_a_local_folder_hold_what_its_list_holds(
    paths: list[str], limit: int, folder: str, prefix: str
) -> None:
    with TemporaryDirectory() as home:
        files = RoomFiles(open_object_store(Path(home)))

        async def check() -> None:
            await _store(files, paths)
            for where in ("", folder, *(path.partition("/")[0] for path in paths[:2])):
                await _laws(files, limit, where, prefix)

        asyncio.run(check())


@settings(max_examples=60, deadline=None)
@given(paths=PATHS, limit=LIMIT, folder=PATH, prefix=NAME, passed=st.integers(1, 3))
def test_pages_of_an_object_store_hold_what_its_list_holds(
    paths: list[str], limit: int, folder: str, prefix: str, passed: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(listing_objects, "_PASSED", passed)
        files = RoomFiles(MemoryStore())

        async def check() -> None:
            await _store(files, paths)
            for where in ("", folder, *(path.partition("/")[0] for path in paths[:2])):
                await _laws(files, limit, where, prefix)

        asyncio.run(check())


@settings(max_examples=60, deadline=None)
@given(paths=PATHS, limit=LIMIT, prefix=NAME, data=st.data())
def test_pages_show_documents_among_the_files(paths: list[str], limit: int, prefix: str, data: st.DataObject) -> None:
    documents = MemoryDocumentStore()
    files = FilesAndDocuments(MemoryStore(), documents)
    are_documents = data.draw(st.lists(st.booleans(), min_size=len(paths), max_size=len(paths)))

    async def check() -> None:
        await documents.open()
        for path, is_document in zip(paths, are_documents, strict=True):
            if is_document:
                await documents.create(DocumentKey(ROOM, path), b"")
            else:
                await _store(files, [path])
        for where in ("", *(path.partition("/")[0] for path in paths[:3])):
            await _laws(files, limit, where, prefix)

    asyncio.run(check())


@settings(max_examples=40, deadline=None)
@given(stays=PATHS, comes=st.lists(NAME, max_size=8), goes=st.lists(NAME, max_size=8), limit=LIMIT)
def test_what_stays_is_given_once_whatever_else_changes(
    stays: list[str], comes: list[str], goes: list[str], limit: int
) -> None:
    with TemporaryDirectory() as home:
        files = RoomFiles(open_object_store(Path(home)))
        room = Path(home) / ROOM.tenant / ROOM.name
        kept = {path.partition("/")[0] for path in stays}

        def changes() -> Iterator[Callable[[], object]]:
            for name in {*goes} - kept:
                yield (room / name).unlink
            for name in {*comes} - kept - {*goes}:
                yield (room / name).touch

        room.mkdir(parents=True)

        async def check() -> None:
            await _store(files, [*stays, *({*goes} - kept)])
            left = changes()
            found = await _all(
                files, limit=limit, between=lambda: [change() for change in [next(left, None)] if change]
            )
            names = [entry.name for entry in found if entry.name in kept]
            assert sorted(names) == sorted(kept)

        asyncio.run(check())


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A folder of a room with as many files as are kept, that did not change for long."""
    folder = tmp_path / ROOM.tenant / ROOM.name / "large"
    folder.mkdir(parents=True)
    for number in range(5000):
        (folder / f"file-{number:04}").touch()
    _settle(folder)
    return folder


def _settle(folder: Path) -> None:
    state = folder.stat()
    os.utime(folder, ns=(state.st_atime_ns, state.st_mtime_ns - 10 * SECOND))


async def test_a_large_folder_is_read_once_while_it_does_not_change(
    large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, read = RoomFiles(open_object_store(tmp_path)), list[str]()
    scan = os.scandir
    monkeypatch.setattr(listing_names.os, "scandir", lambda path: (read.append(path), scan(path))[1])
    assert len(await _all(files, "large", limit=1000)) == 5000
    assert len(read) == 1
    # Changed just now: read for each page, since a second change could have the same time.
    (large / "file-9999").touch()
    assert len(await _all(files, "large", limit=1000)) == 5001
    assert len(read) > 2
    _settle(large)
    read.clear()
    (last,) = (await files.page(ROOM, "large", limit=10, after="file-9998")).entries
    assert (last.path, len(read)) == ("large/file-9999", 1)
    await files.page(ROOM, "large", limit=10)
    assert len(read) == 1


@pytest.fixture
def other(large: Path) -> Path:
    """A second folder beside `large`, with 1,500 files."""
    folder = large.with_name("other")
    folder.mkdir()
    for number in range(1500):
        (folder / str(number)).touch()
    _settle(folder)
    return folder


@pytest.mark.usefixtures("large", "other")
async def test_the_names_that_are_kept_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing_names, "KEPT_NAMES", 6000)
    files, read = RoomFiles(open_object_store(tmp_path)), list[str]()
    scan = os.scandir
    monkeypatch.setattr(listing_names.os, "scandir", lambda path: (read.append(path.name), scan(path))[1])
    for folder in ("other", "large", "large", "other"):
        await files.page(ROOM, folder, limit=1)
    assert read == ["other", "large", "other"]


async def test_a_step_of_a_large_folder_is_short(large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing_names, "_STEP_SECONDS", 0.0)
    files = RoomFiles(open_object_store(tmp_path))
    steps, main = list[int](), threading.get_ident()
    is_of_room = disk_folder.is_of_room

    def seen(key: str) -> bool:
        assert threading.get_ident() != main
        steps.append(1)
        return is_of_room(key)

    monkeypatch.setattr(listing_names, "is_of_room", seen)
    listing = asyncio.create_task(files.page(ROOM, "large", limit=1000))
    turns = 0
    while not listing.done():
        turns += 1
        await asyncio.sleep(0)
    assert len(listing.result().entries) == 1000
    assert len(steps) == 5000
    assert turns > 5000 // 128


async def test_what_changes_while_a_page_is_made_is_left_out(
    large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = RoomFiles(open_object_store(tmp_path))
    await files.page(ROOM, "large", limit=1)
    found = FolderNames.after

    async def then_changed(self: FolderNames, *asked: Any) -> Sequence[str]:
        keys = await found(self, *asked)
        (large / "file-0000").unlink()
        (large / "file-0001").unlink()
        (large / "file-0001").mkdir()
        return keys

    monkeypatch.setattr(FolderNames, "after", then_changed)
    page = await files.page(ROOM, "large", limit=4)
    assert [entry.name for entry in page.entries] == ["file-0002", "file-0003"]
    assert page.next == "file-0003"


async def test_a_folder_that_cannot_be_read_tells_no_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = RoomFiles(open_object_store(tmp_path))

    def fail(path: object) -> None:
        raise PermissionError(13, "denied", str(path))

    monkeypatch.setattr(listing_names.os, "scandir", fail)
    with pytest.raises(RoomError, match="PermissionError") as raised:
        await files.page(ROOM, "", limit=1)
    assert str(tmp_path) not in str(raised.value)


@pytest.mark.parametrize("path", ["file", "missing", "missing/too"])
async def test_what_is_no_folder_has_no_entries(path: str, tmp_path: Path) -> None:
    files = RoomFiles(open_object_store(tmp_path))
    await _store(files, ["file"])
    page = await files.page(ROOM, path, limit=5)
    assert (page.entries, page.next) == ([], None)


def test_what_stores_list_in_order() -> None:
    assert listing_objects.ordered(MemoryStore())
    assert listing_objects.ordered(S3Store("bucket", region="x"))
    assert not listing_objects.ordered(S3Store("bucket--use1-az4--x-s3", region="x"))
    assert not listing_objects.ordered(obstore.store.HTTPStore.from_url("https://example.com"))


async def test_a_store_without_an_order_is_read_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meshhost.stores.files.ordered", lambda _: False)
    files = RoomFiles(MemoryStore())
    await _store(files, ["b", "a/x", "a-b", "c"])
    assert [_key_of(entry) for entry in await _all(files, limit=1)] == ["a-b", "a/", "b", "c"]
    assert [_key_of(entry) for entry in await _all(files, limit=2, prefix="a")] == ["a-b", "a/"]


@pytest.mark.parametrize(
    ("failure", "outcome"), [(FileNotFoundError(), []), (obstore.exceptions.GenericError("x"), None)]
)
async def test_a_failing_object_store_fails_the_page(
    failure: Exception, outcome: list[Entry] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(store: ObjectStore, prefix: str, **_: object) -> None:
        raise failure

    monkeypatch.setattr(listing_objects.obstore, "list", fail)
    files = RoomFiles(MemoryStore())
    if outcome is None:
        with pytest.raises(RoomError):
            await files.page(ROOM, "", limit=1)
    else:
        assert (await files.page(ROOM, "", limit=1)).entries == outcome


async def test_a_large_folder_of_an_object_store_is_left_without_reading_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing_objects, "_PASSED", 10)
    monkeypatch.setattr(listing_objects, "_PAGE", 5)
    files = RoomFiles(MemoryStore())
    await _store(files, [*(f"folder/{number:03}" for number in range(300)), "zebra"])
    offsets, listed = [], obstore.list

    def seen(store: ObjectStore, prefix: str, *, offset: str, chunk_size: int) -> object:
        offsets.append(offset)
        return listed(store, prefix, offset=offset, chunk_size=chunk_size)

    monkeypatch.setattr(listing_objects.obstore, "list", seen)
    assert [entry.name for entry in await _all(files, limit=5)] == ["folder", "zebra"]
    assert len(offsets) == 2

"""Uploads in progress: in memory or on the disk, closed at any time, without leaving anything."""

import asyncio
import os
from pathlib import Path

import pytest

from meshhost.stores.disk import folder, upload
from meshhost.stores.disk.folder import LocalFolder
from meshhost.stores.disk.upload import MEMORY_BYTES, Upload

LARGE = MEMORY_BYTES + 1


def _names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def test_a_small_upload_takes_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload, "unnamed_file", None)
    small = Upload(tmp_path)
    await small.add(bytes(MEMORY_BYTES))
    assert small.size == MEMORY_BYTES
    small.close()


async def test_a_large_upload_has_no_name_until_it_is_placed(tmp_path: Path) -> None:
    large = Upload(tmp_path)
    await large.add(b"a")
    await large.add(bytes(LARGE))
    await large.add(b"z")
    assert _names(tmp_path) == []
    with large.open() as file:
        assert file.read() == b"a" + bytes(LARGE) + b"z"
    LocalFolder(tmp_path).place(large, "d/f", overwrite=False)
    large.close()
    assert (tmp_path / "d" / "f").read_bytes() == b"a" + bytes(LARGE) + b"z"


@pytest.mark.parametrize("system", ["no unnamed files", "no links to descriptors"])
@pytest.mark.parametrize("overwrite", [False, True])
async def test_other_systems_copy_instead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, system: str, overwrite: bool
) -> None:
    if system == "no unnamed files":
        monkeypatch.delattr(os, "O_TMPFILE")
    else:

        def refuse(*_: object, **__: object) -> None:
            raise PermissionError

        monkeypatch.setattr(os, "link", refuse)
    large = Upload(tmp_path)
    await large.add(bytes(LARGE))
    assert _names(tmp_path) == []
    LocalFolder(tmp_path).place(large, "f", overwrite=overwrite)
    assert (tmp_path / "f").read_bytes() == bytes(LARGE)
    with pytest.raises(FileExistsError):
        LocalFolder(tmp_path).place(large, "f", overwrite=False)
    large.close()


async def test_a_copy_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise PermissionError

    large = Upload(tmp_path)
    await large.add(bytes(LARGE))
    monkeypatch.setattr(os, "link", fail)
    monkeypatch.setattr(os, "pread", fail)
    with pytest.raises(PermissionError):
        LocalFolder(tmp_path).place(large, "f", overwrite=True)
    large.close()
    assert _names(tmp_path) == []


async def test_a_name_that_cannot_be_taken_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise IsADirectoryError

    large = Upload(tmp_path)
    await large.add(bytes(LARGE))
    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(IsADirectoryError):
        LocalFolder(tmp_path).place(large, "f", overwrite=True)
    large.close()
    assert _names(tmp_path) == []


async def test_closing_waits_for_no_thread_and_the_thread_closes_the_file(tmp_path: Path) -> None:
    large = Upload(tmp_path)
    loop, is_used, go_on = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()
    used: list[int] = []

    def work(descriptor: int) -> None:
        used.append(descriptor)
        loop.call_soon_threadsafe(is_used.set)
        asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result(10)
        os.fstat(descriptor)  # still open

    using = asyncio.create_task(asyncio.to_thread(large.use, work, b"x"))
    await is_used.wait()
    large.close()
    go_on.set()
    await using
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(used[0])
    large.close()
    with pytest.raises(OSError, match="the upload was closed"):
        await large.add(bytes(LARGE))


def test_what_disappears_while_a_folder_is_listed_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        (tmp_path / str(number)).touch()
    pages = LocalFolder(tmp_path).pages("", 1)
    assert len(next(pages)) == 1
    for path in tmp_path.iterdir():
        path.unlink()
    assert list(pages) == []
    assert list(LocalFolder(tmp_path).pages("nothing", 1)) == []
    assert folder.STAGED.search("f#1")

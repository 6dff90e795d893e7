"""Files in a local folder, for what an object store's library cannot do there: place an upload, and list in pages.

`obstore` reads a whole file into memory to create it, and makes one list of a folder in one step, which holds the event loop.
`LocalFolder` uses the same names, so both work on one folder: a key is a path below the root, and a name that ends with `#` and
digits is a file in progress, which is not listed. Its methods block: call them in a thread.
"""

import contextlib
import os
import re
import secrets
import stat
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from meshhost.stores.disk.upload import Upload

__all__ = ["STAGED", "FolderEntry", "LocalFolder", "is_of_room"]

STAGED = re.compile(r"#[0-9]+$")
"""How files are named that are being written."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\\\ud800-\udfff]")


class FolderEntry(NamedTuple):
    """What is in a folder; `size` in bytes and `updated_at` are those of a file, None for a folder."""

    name: str
    size: int | None = None
    updated_at: datetime | None = None


class LocalFolder:
    """The folder of a store. Keys are clean: `meshhost.stores.files.clean_path` made them."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def place(self, upload: Upload, key: str, *, overwrite: bool) -> None:
        """Give a complete upload its name, in one step.

        Raises FileExistsError, NotADirectoryError or IsADirectoryError where something else is, StorageFullError, OSError.
        """
        path = self.root / key
        upload.use(lambda descriptor: _name(descriptor, path, overwrite=overwrite))

    def pages(self, key: str, size: int) -> Iterator[list[FolderEntry]]:
        """Yield what is in a folder in no order, at most `size` entries at a time; nothing when there is no such folder."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(self.root / key) as found:
            entries = filter(None, map(_entry, found))
            while page := list(islice(entries, size)):
                yield page

    def looks(self, key: str, names: Sequence[str], size: int) -> Iterator[list[FolderEntry]]:
        """Yield what has these names in a folder, from at most `size` names at a time; what is gone is left out.

        The name of a folder has a slash at its end. What is a folder now and was none, or the reverse, has another name.
        """
        for start in range(0, len(names), size):
            yield list(filter(None, (_look(self.root / key, name) for name in names[start : start + size])))


def is_of_room(name: str) -> bool:
    """Return whether this is the name of a file of a room, or with a slash at its end that of a folder.

    False for files in progress, and for what nobody could name.
    """
    return _CONTROL.search(name) is None and STAGED.search(name) is None


def _name(descriptor: int, path: Path, *, overwrite: bool) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError:  # a file is in its place
        raise NotADirectoryError(str(path.parent)) from None
    if path.is_dir():
        raise IsADirectoryError(str(path))
    if not overwrite:
        _link(descriptor, path)
        return
    staged = path.with_name(f"{path.name}#{secrets.randbelow(10**9)}")
    _link(descriptor, staged)
    try:
        staged.replace(path)
    except OSError:
        staged.unlink(missing_ok=True)
        raise


def _link(descriptor: int, path: Path) -> None:
    """Link the file of a descriptor; copy it where that cannot be."""
    try:
        # The descriptor of the folder is not used, but without one Python does not follow the link in /proc.
        os.link(f"/proc/self/fd/{descriptor}", path, src_dir_fd=descriptor, follow_symlinks=True)
    except (FileNotFoundError, PermissionError, NotImplementedError):
        _copy(descriptor, path)


def _copy(descriptor: int, path: Path) -> None:
    target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        offset = 0
        while piece := os.pread(descriptor, 1024 * 1024, offset):
            offset += os.write(target, piece)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(target)


def _look(folder: Path, name: str) -> FolderEntry | None:
    try:
        state = (folder / name).stat()
    except (FileNotFoundError, NotADirectoryError):  # deleted or replaced meanwhile
        return None
    if stat.S_ISDIR(state.st_mode) != name.endswith("/"):
        return None
    if name.endswith("/"):
        return FolderEntry(name[:-1])
    return FolderEntry(name, state.st_size, datetime.fromtimestamp(state.st_mtime, UTC))


def _entry(found: os.DirEntry[str]) -> FolderEntry | None:
    if _CONTROL.search(found.name):
        return None  # not a file of a room: nobody could name it
    try:
        if found.is_dir():
            return FolderEntry(found.name)
        if STAGED.search(found.name):
            return None
        state = found.stat()
    except FileNotFoundError:  # deleted meanwhile
        return None
    return FolderEntry(found.name, state.st_size, datetime.fromtimestamp(state.st_mtime, UTC))

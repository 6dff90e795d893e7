"""Writes a backup: the databases of a data directory as one archive, while a room server may be writing to them.

Each file is read through SQLite's online backup API inside of a read transaction. All these transactions are begun before
anything is copied, so a backup holds everything that was accepted before it began, all files are of nearly one moment, and a
busy server cannot make the copy start over. Meanwhile the write-ahead logs cannot shrink. Files of rooms are no databases, and
are not in it.

The archive is the tar of `meshhost.archives` with a manifest first and a checksum last. It is written under another name and
renamed when it is whole, so what is there under its own name is complete.
"""

import contextlib
import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from meshhost.archives.manifest import MANIFEST
from meshhost.archives.tar import Entry, TarEncoder, damaged, open_entry, read_entries
from meshhost.errors import AlreadyExistsError, InvalidRequestError, SettingsError
from meshhost.stores.sqlite.file import is_restore_unfinished
from meshhost.stores.sqlite.upkeep.files import DatabaseFile, reading

__all__ = ["Backup", "Progress", "SavedFile", "back_up", "check_copy", "copied", "read_backup", "synced_folder"]

_FORMAT: Final = "meshhost backup"
_VERSION: Final = 1
_LEFT_OUT: Final = ["files of rooms (storage/, or the object store)", "keys of the configuration directory"]
_MOST_MANIFEST_BYTES = 64 * 1024
_PAGES = 256
_CHUNK = 1024 * 1024

Progress = Callable[[int], None]
"""Is called with the number of bytes just copied."""


@dataclass(frozen=True, slots=True)
class SavedFile:
    """A database in a backup: its name, the version of its schema, its size."""

    name: str
    version: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Backup:
    """What a backup says of itself: when it was begun (seconds since the epoch), by which meshhost, and what it holds."""

    created_at: float
    release: str
    databases: Sequence[SavedFile]

    def to_json(self) -> bytes:
        """Return the manifest."""
        content = {
            "format": _FORMAT,
            "version": _VERSION,
            "created_at": self.created_at,
            "release": self.release,
            "databases": [{"name": one.name, "version": one.version, "bytes": one.bytes} for one in self.databases],
            "left_out": _LEFT_OUT,
        }
        return json.dumps(content, indent=2).encode() + b"\n"


def back_up(
    files: Sequence[DatabaseFile],
    target: Path,
    *,
    release: str,
    progress: Callable[[int], contextlib.AbstractContextManager[Progress]],
) -> Backup:
    """Write a backup of those files that exist to `target`, and return what is in it.

    `progress` is called with the number of bytes there are to copy. Raises AlreadyExistsError when the target exists,
    SettingsError when there is nothing to back up, OSError when a file is damaged or cannot be copied. Then no target is there.
    """
    if target.exists():
        raise AlreadyExistsError(f"{str(target)!r} exists: choose another file")
    present = [file for file in files if file.path.exists()]
    if not present:
        raise SettingsError(f"no databases in {files[0].path.parent}: there is nothing to back up")
    if any(is_restore_unfinished(file.path) for file in present):
        raise SettingsError("a restore did not finish: run `meshhost db restore --force` again")
    partial = target.with_name(f".{target.name}.{os.getpid()}.part")
    copy = target.with_name(f".{target.name}.{os.getpid()}.copy")
    try:
        with ExitStack() as stack:
            backup, sources = _begin(stack, present, release)
            advance = stack.enter_context(progress(sum(one.bytes for one in backup.databases)))
            with _private(partial) as output:
                _write(output, backup, zip(present, sources, strict=True), copy, advance)
        partial.rename(target)
        synced_folder(target.parent)
    finally:
        for path in (partial, copy):
            path.unlink(missing_ok=True)
    return backup


def read_backup(file: IO[bytes]) -> tuple[Backup, dict[str, Entry]]:
    """Check the whole archive; return its manifest and where each database is. Raises InvalidRequestError."""
    entries = list(read_entries(file))
    if not entries or entries[0].name != MANIFEST or entries[0].size > _MOST_MANIFEST_BYTES:
        raise InvalidRequestError("file", "it is no backup of `meshhost db backup`")
    backup = _parsed(open_entry(file, entries[0]).read())
    found = {entry.name: entry for entry in entries[1:]}
    if [*found] != [one.name for one in backup.databases] or any("/" in name or name[:1] == "." for name in found):
        raise damaged("the databases are not those of the manifest")
    return backup, found


def copied(source: IO[bytes], target: IO[bytes], advance: Progress = lambda _: None) -> None:
    """Copy all that is left of a file."""
    while chunk := source.read(_CHUNK):
        target.write(chunk)
        advance(len(chunk))


def check_copy(path: Path, name: str) -> int:
    """Return the version of the schema of a database that nobody else has open. Raises OSError when it is damaged."""
    try:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
            found = [row[0] for row in connection.execute("PRAGMA quick_check(1)")]
            (version,) = connection.execute("PRAGMA user_version").fetchone()
    except sqlite3.Error as error:
        found, version = [str(error)], 0
    if found != ["ok"]:
        raise OSError(f"the database {name} is damaged: {found[0].splitlines()[-1]}")
    return int(version)


def synced_folder(path: Path) -> None:
    """Return when the names in a folder are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _begin(stack: ExitStack, files: Sequence[DatabaseFile], release: str) -> tuple[Backup, list[sqlite3.Connection]]:
    created_at, saved, sources = time.time(), [], []
    for file in files:
        source = stack.enter_context(reading(file))
        # The first read, not BEGIN, fixes the moment that this connection sees.
        source.execute("BEGIN")
        version, pages, size = (
            source.execute(f"PRAGMA {name}").fetchone()[0] for name in ("user_version", "page_count", "page_size")
        )
        saved.append(SavedFile(file.name, version, pages * size))
        sources.append(source)
    return Backup(created_at, release, saved), sources


def _write(
    output: IO[bytes],
    backup: Backup,
    sources: Iterator[tuple[DatabaseFile, sqlite3.Connection]],
    copy: Path,
    advance: Progress,
) -> None:
    archive = TarEncoder()
    output.write(archive.entry(MANIFEST, backup.to_json()))
    for (file, source), saved in zip(sources, backup.databases, strict=True):
        with _private(copy):
            pass
        _copy(source, copy, saved.bytes, advance)
        source.execute("ROLLBACK")  # its log may shrink again
        check_copy(copy, str(file.path))
        size = copy.stat().st_size
        output.write(archive.begin(file.name, size))
        with copy.open("rb") as opened:
            while chunk := opened.read(_CHUNK):
                output.write(archive.data(chunk))
        output.write(archive.end(size))
        copy.unlink()
    output.write(archive.finish())


def _copy(source: sqlite3.Connection, path: Path, size: int, advance: Progress) -> None:
    done = 0

    def step(_: int, remaining: int, total: int) -> None:
        nonlocal done
        now = size * (total - remaining) // max(total, 1)
        advance(now - done)
        done = now

    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as target:
        # The archive is written to disk before it gets its name; this copy need not be.
        target.execute("PRAGMA synchronous = OFF")
        source.backup(target, pages=_PAGES, progress=step)


@contextmanager
def _private(path: Path) -> Iterator[IO[bytes]]:
    """A new file that only its owner can read, on disk when the block is left."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def _parsed(text: bytes) -> Backup:
    try:
        content = json.loads(text)
        kind, version = content["format"], content["version"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise damaged("the manifest is not one") from None
    if kind == "meshhost archive":
        raise InvalidRequestError(
            "file", "it is an archive of a tenant or room: use `meshhost tenant import` or `room import`"
        )
    if kind != _FORMAT or not isinstance(version, int):
        raise damaged("the manifest is not one")
    if version > _VERSION:
        raise InvalidRequestError("file", "it is of a newer format of backups: install a newer meshhost")
    try:
        saved = [SavedFile(str(one["name"]), int(one["version"]), int(one["bytes"])) for one in content["databases"]]
        return Backup(float(content["created_at"]), str(content["release"]), saved)
    except (ValueError, KeyError, TypeError):
        raise damaged("the manifest is not one") from None

"""Puts the databases of a backup into a data directory: all of them or none.

Everything that can be wrong is found first: the archive's checksum, each database (`PRAGMA quick_check`), versions that are
too new, a server that holds a file. The databases are written beside their places and only renamed at the end. What they
replace is moved into a folder, not deleted. An error while renaming puts everything back. A process that is killed there leaves
a marker (`RESTORING`), and no store opens beside it until a restore has finished.
"""

import contextlib
import os
import tempfile
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from meshhost.archives.tar import Entry, open_entry
from meshhost.errors import AlreadyExistsError, InvalidRequestError
from meshhost.stores.sqlite.file import RESTORING, is_restore_unfinished, lock_file
from meshhost.stores.sqlite.upkeep.backup import Backup, Progress, check_copy, copied, read_backup, synced_folder
from meshhost.stores.sqlite.upkeep.files import DatabaseFile

__all__ = ["check_backup", "occupied", "restore"]

_PARTS = ("", "-wal", "-shm", "-journal")


def occupied(files: Sequence[DatabaseFile]) -> list[Path]:
    """The databases that are there already, with logs that were left of one."""
    return [path for file in files for path in _parts(file.path) if path.exists()]


def check_backup(
    archive: IO[bytes], files: Sequence[DatabaseFile], folder: Path, *, advance: Progress = lambda _: None
) -> Backup:
    """Check what `restore` would, and put nothing in place: each database is for a moment in a new folder within `folder`.

    Raises InvalidRequestError, OSError.
    """
    backup, entries = read_backup(archive)
    _check_versions(backup, _targets(entries, files, folder))
    with tempfile.TemporaryDirectory(dir=folder, prefix=".backup-check-") as scratch:
        for name, entry in entries.items():
            path = Path(scratch) / name
            _stage(archive, entry, path, name, advance)
            path.unlink()
    return backup


def restore(
    archive: IO[bytes],
    files: Sequence[DatabaseFile],
    data_dir: Path,
    *,
    replace: bool,
    advance: Progress = lambda _: None,
) -> tuple[Backup, Path | None]:
    """Restore `archive`; `files` are those of the data directory. Returns what was restored and where former databases are now.

    Without `replace` there must be no database yet. Raises AlreadyExistsError, InvalidRequestError for an archive that is
    damaged or of a newer release, SettingsError when a server uses the directory, OSError. After an error all is as it was.
    """
    backup, entries = read_backup(archive)
    targets = _targets(entries, files, data_dir)
    _check_versions(backup, targets)
    # Stores that the backup does not have are replaced by nothing. What others keep here, such as a host, stays.
    former = [file for file in files if file.newest is not None or file.name in entries]
    with ExitStack() as stack:
        for file in {file.path: file for file in (*former, *targets.values())}.values():
            file.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            stack.callback(os.close, lock_file(file.path, file.what))
        present = occupied(former)
        unfinished = any(is_restore_unfinished(file.path) for file in targets.values())
        if (present or unfinished) and not replace:
            reason = "a restore into it did not finish" if unfinished else f"it has databases ({present[0].name})"
            raise AlreadyExistsError(f"{data_dir} is not empty, {reason}: restore into an empty one, or give --force")
        staged = {file.path: file.path.with_name(f".{name}.restoring") for name, file in targets.items()}
        try:
            for name, file in targets.items():
                _stage(archive, entries[name], staged[file.path], name, advance)
            kept = _replace(staged, present, data_dir)
        finally:
            for path in staged.values():
                for part in _parts(path):
                    part.unlink(missing_ok=True)
    return backup, kept


def _targets(names: Iterable[str], files: Sequence[DatabaseFile], data_dir: Path) -> dict[str, DatabaseFile]:
    """Where each database of a backup belongs."""
    known = {file.name: file for file in files}
    return {name: known.get(name) or DatabaseFile(name, data_dir / name) for name in names}


def _check_versions(backup: Backup, targets: dict[str, DatabaseFile]) -> None:
    for saved in backup.databases:
        newest = targets[saved.name].newest
        if newest is not None and saved.version > newest:
            raise InvalidRequestError(
                "file",
                f"{saved.name} has version {saved.version} of the schema, newer than {newest}: install meshhost "
                f"{backup.release}, which wrote it",
            )


def _stage(archive: IO[bytes], entry: Entry, path: Path, name: str, advance: Progress) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as target:
        copied(open_entry(archive, entry), target, advance)
        target.flush()
        os.fsync(target.fileno())
    check_copy(path, name)


def _replace(staged: dict[Path, Path], present: Sequence[Path], data_dir: Path) -> Path | None:
    """Move what is present away and what is staged to its place; return where the former databases are."""
    folders = {path.parent for path in (*staged, *present)}
    kept = _free_name(data_dir / time.strftime("replaced-%Y%m%dT%H%M%SZ", time.gmtime())) if present else None
    was_unfinished = any((folder / RESTORING).exists() for folder in folders)
    moved: list[tuple[Path, Path]] = []
    try:
        if kept is not None:
            kept.mkdir(mode=0o700)
        for folder in folders:
            (folder / RESTORING).touch(mode=0o600)
            synced_folder(folder)
        moves = [(path, kept / path.name) for path in present] if kept is not None else []
        for source, target in (*moves, *((new, path) for path, new in staged.items())):
            source.rename(target)
            moved.append((source, target))
        for folder in folders:
            synced_folder(folder)
    except BaseException:
        for source, target in reversed(moved):
            target.rename(source)
        if kept is not None:
            with contextlib.suppress(OSError):
                kept.rmdir()
        if not was_unfinished:
            _unmark(folders)
        raise
    _unmark(folders)
    return kept


def _free_name(folder: Path) -> Path:
    """The folder, or one with a number behind it when there is one of this name already."""
    candidates = (folder, *(folder.with_name(f"{folder.name}-{number}") for number in range(2, 1000)))
    return next((candidate for candidate in candidates if not candidate.exists()), folder)


def _unmark(folders: set[Path]) -> None:
    for folder in folders:
        (folder / RESTORING).unlink(missing_ok=True)
        synced_folder(folder)


def _parts(path: Path) -> list[Path]:
    return [path.with_name(f"{path.name}{part}") for part in _PARTS]

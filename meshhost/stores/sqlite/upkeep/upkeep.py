"""The upkeep of SQLite files, for `meshhost db`: see `meshhost.stores.upkeep` for what each operation promises.

The files of a room server are locked while it runs. To migrate, all of these locks are taken before anything is changed, so a
server of another version is never left with a schema that it does not know.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from meshhost.errors import SettingsError
from meshhost.stores.sqlite.upkeep.backup import Backup, Progress, back_up
from meshhost.stores.sqlite.upkeep.files import DatabaseFile, database_files, inspect, is_locked, version_of
from meshhost.stores.sqlite.upkeep.restore import check_backup, occupied, restore
from meshhost.stores.upkeep import DatabaseReport, Migration

__all__ = ["SqliteUpkeep"]

_RETRY_SECONDS = 0.1


class SqliteUpkeep:
    """Looks after the files in `data_dir`; `queues` is the file of the queues (default: `queues.db` there).

    `wait_seconds` is how long `migrate` waits for another process that holds the files.
    """

    name: Literal["sqlite"] = "sqlite"

    def __init__(self, data_dir: Path, *, queues: Path | None = None, wait_seconds: float = 5.0) -> None:
        self.data_dir = data_dir
        self._queues = queues
        self._wait_seconds = wait_seconds

    @property
    def files(self) -> list[DatabaseFile]:
        """The files of all stores, and then other databases of the directory."""
        return database_files(self.data_dir, self._queues)

    @property
    def has_databases(self) -> bool:
        """Whether a restore would replace something."""
        return bool(occupied(self._stores))

    async def look(self) -> DatabaseReport:
        """See `Upkeep`. A file that cannot be read is a problem in the report, not an error."""
        return await asyncio.to_thread(self._look)

    async def migrate(self) -> list[Migration]:
        """See `Upkeep`. Migrates the stores of a room server; a host migrates its ledger when it starts."""
        return await asyncio.to_thread(self._migrate)

    def back_up(
        self, target: Path, *, release: str, progress: Callable[[int], contextlib.AbstractContextManager[Progress]]
    ) -> Backup:
        """Write a backup; see `backup.back_up`. Blocks."""
        return back_up(self.files, target, release=release, progress=progress)

    def check_backup(
        self, archive: Path, *, progress: Callable[[int], contextlib.AbstractContextManager[Progress]]
    ) -> Backup:
        """Check a backup without restoring it; needs space beside it for its largest database. Blocks."""
        with archive.open("rb") as opened, progress(archive.stat().st_size) as advance:
            return check_backup(opened, self.files, archive.parent, advance=advance)

    def restore(
        self, archive: Path, *, replace: bool, progress: Callable[[int], contextlib.AbstractContextManager[Progress]]
    ) -> tuple[Backup, Path | None]:
        """Put a backup in place; see `restore.restore`. Blocks."""
        with archive.open("rb") as opened, progress(archive.stat().st_size) as advance:
            return restore(opened, self.files, self.data_dir, replace=replace, advance=advance)

    @property
    def _stores(self) -> Sequence[DatabaseFile]:
        return [file for file in self.files if file.newest is not None]

    def _look(self) -> DatabaseReport:
        is_in_use = any(is_locked(file.path) for file in self._stores if not file.is_shared)
        return DatabaseReport(
            "sqlite", str(self.data_dir.absolute()), is_in_use, [inspect(file) for file in self.files]
        )

    def _migrate(self) -> list[Migration]:
        end = time.monotonic() + self._wait_seconds
        while True:
            if not self._pending():
                return []
            with contextlib.ExitStack() as stack:
                stores = [file.opened_as() for file in sorted(self._stores, key=lambda file: file.is_shared)]
                for store in stores:
                    stack.callback(store.close)
                try:
                    for store in stores:
                        store.lock()
                except SettingsError:
                    # Another `migrate` or a server, which migrates too.
                    if time.monotonic() > end:
                        raise
                else:
                    pending = self._pending()
                    for store in stores:
                        store.open()
                    return pending
            time.sleep(_RETRY_SECONDS)

    def _pending(self) -> list[Migration]:
        """What is to be done. Raises SettingsError for a newer file, OSError."""
        report = [(file, version_of(file)) for file in self._stores]
        for file, version in report:
            if version is not None and file.newest is not None and version > file.newest:
                raise SettingsError(
                    f"the {file.what} {file.path} is of version {version}, newer than {file.newest}: install a newer meshhost"
                )
        return [
            Migration(file.store, version or 0, file.newest or 0)
            for file, version in report
            if version is None or version != file.newest
        ]

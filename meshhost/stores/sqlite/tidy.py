"""Gives disk space back while a store has nothing else to do.

SQLite reuses what was deleted but does not shrink by itself: its write-ahead log keeps the size of the largest burst, and the
file that of the largest queue. `SqliteThread` calls `Tidier.step` when no operation came for a moment, until it returns False
or an operation comes. So each step must be short, since that operation waits for it: it moves a few pages, as many as took
about ten milliseconds before, and commits without waiting for the disk, which may lose the step but nothing else. The last
step copies the rest of the log into the file and empties it.

A file can give pages back only if it was made so (`auto_vacuum = INCREMENTAL`). Files of earlier releases are rewritten once,
when they are opened and hold little.
"""

import contextlib
import sqlite3
import time
from pathlib import Path

__all__ = ["Tidier", "prepare_file"]

_STEP_SECONDS = 0.01
_MOST_PAGES = 512
# What may stay free: the next messages take it. More is given back.
_SPARE_PAGES = 256
_SPARE_SHARE = 8
# A log below this size is left alone: emptying it costs the next commits more.
_LOG_BYTES = 1024 * 1024
_INCREMENTAL = 2
# What `file.py` sets.
_BUSY_MILLISECONDS = 10_000
# So much is rewritten in well under a second.
_REWRITE_BYTES = 16 * 1024 * 1024


class Tidier:
    """Tidies the file `path`, step by step."""

    def __init__(self, path: Path) -> None:
        self._log = path.with_name(f"{path.name}-wal")
        self._pages = 32
        self._gave_back = False
        self._is_copied = False

    def step(self, db: sqlite3.Connection) -> bool:
        """Do a little; return whether there is more to do. Raises sqlite3.Error."""
        pages, free, kind = (_pragma(db, name) for name in ("page_count", "freelist_count", "auto_vacuum"))
        if kind == _INCREMENTAL and free > max(_SPARE_PAGES, pages // _SPARE_SHARE):
            self._give_back(db)
            self._gave_back = True
            return True
        # The file shrinks only when the log is copied into it. In two steps, as each waits for the disk.
        if not self._is_copied and (self._gave_back or self._log_size() > _LOG_BYTES):
            self._is_copied = True
            db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            return True
        if self._is_copied:
            # A reader on another connection keeps the log: do not wait for it, the next time is soon enough.
            db.execute("PRAGMA busy_timeout = 0")
            try:
                db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            finally:
                db.execute(f"PRAGMA busy_timeout = {_BUSY_MILLISECONDS}")
        self._gave_back = self._is_copied = False
        return False

    def _log_size(self) -> int:
        try:
            return self._log.stat().st_size
        except FileNotFoundError:
            return 0

    def _give_back(self, db: sqlite3.Connection) -> None:
        began = time.monotonic()
        db.execute("PRAGMA synchronous = NORMAL")
        try:
            # Not `execute`: it makes one step of a statement without columns, and that frees one page.
            db.executescript(f"PRAGMA incremental_vacuum({self._pages})")
        finally:
            db.execute("PRAGMA synchronous = FULL")
        if time.monotonic() - began > _STEP_SECONDS:
            self._pages = max(self._pages // 2, 4)
        else:
            self._pages = min(self._pages * 2, _MOST_PAGES)


def prepare_file(db: sqlite3.Connection) -> None:
    """Make a file that can give pages back; before its first table is made. One that cannot, and is large, is left as it is."""
    db.execute("PRAGMA auto_vacuum = INCREMENTAL")
    if _pragma(db, "auto_vacuum") == _INCREMENTAL:
        return
    used = _pragma(db, "page_count") - _pragma(db, "freelist_count")
    if used * _pragma(db, "page_size") <= _REWRITE_BYTES:
        with contextlib.suppress(sqlite3.OperationalError):  # no room for it, or another process has the file open
            db.execute("PRAGMA auto_vacuum = INCREMENTAL")
            db.execute("VACUUM")


def _pragma(db: sqlite3.Connection, name: str) -> int:
    value: int = db.execute(f"PRAGMA {name}").fetchone()[0]
    return value

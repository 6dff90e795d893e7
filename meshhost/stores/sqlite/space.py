"""How much room a store has left, and who may use the last of it.

A full disk must not stop the work that empties it: leasing, settling and deleting write too, to the write-ahead log at least.
So what adds data asks for room first (`require`), and is refused while a reserve is still free. Room is what the file system
has, or what `PRAGMA max_page_count` leaves if that is less. Asking costs two system calls, so the answer is kept for a moment.
For the thread of the store only.
"""

import sqlite3
import time
from pathlib import Path

from meshhost.stores.disk.space import has_room, reserve_of, storage_full

__all__ = ["FreeSpace"]

# Between checkpoints the log grows to 4 MiB, or by one commit, and a checkpoint lets the file grow by as much.
_LARGEST_SHARE = 0.05


class FreeSpace:
    """The room for a store's file `path`. An answer is kept for `seconds`."""

    def __init__(self, path: Path, *, seconds: float) -> None:
        self._path = path
        self._seconds = seconds
        self._asked_at = float("-inf")
        self._missing = False

    def require(self, db: sqlite3.Connection) -> None:
        """Raise StorageFullError when only the reserve is left."""
        now = time.monotonic()
        if now - self._asked_at >= self._seconds:
            self._asked_at = now
            self._missing = self._is_missing(db)
        if self._missing:
            raise storage_full()

    def _is_missing(self, db: sqlite3.Connection) -> bool:
        if not has_room(self._path.parent):
            return True
        page_size, most, used, unused = (
            db.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_size", "max_page_count", "page_count", "freelist_count")
        )
        left: int = (most - used + unused) * page_size
        size: int = most * page_size
        return left < min(reserve_of(size), size * _LARGEST_SHARE)

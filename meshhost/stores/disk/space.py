"""How much of a disk stays free: the reserve that keeps the work possible which empties it.

Leasing, settling and deleting write too. So what adds data is refused while a reserve is still free: messages and documents
leave one reserve (`stores/sqlite/space.py`), files two, so that a flood of files does not end the sending of messages.
"""

import os
from pathlib import Path

from meshhost.errors import StorageFullError

__all__ = ["FOR_FILES", "has_room", "require_room", "reserve_of", "storage_full"]

_RESERVE_BYTES = 64 * 1024 * 1024
_LEAST_BYTES = 16 * 1024 * 1024
_SHARE = 0.05

FOR_FILES = 2
"""How many reserves files leave free."""


def reserve_of(size: int) -> float:
    """Return the reserve of a disk of this size: 64 MiB, on a small disk a twentieth of it or 16 MiB. All in bytes."""
    return min(_RESERVE_BYTES, max(_LEAST_BYTES, size * _SHARE))


def has_room(folder: Path, size: int = 0, *, reserves: int = 1) -> bool:
    """Whether so many reserves stay free on the folder's disk after `size` more bytes."""
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize - size >= reserves * reserve_of(disk.f_blocks * disk.f_frsize)


def require_room(folder: Path, size: int) -> None:
    """Raise StorageFullError when a file on the folder's disk may not grow by `size` bytes."""
    if not has_room(folder, size, reserves=FOR_FILES):
        raise storage_full()


def storage_full() -> StorageFullError:
    """Return the error for what a full disk prevents."""
    return StorageFullError("storage full: the room server's disk has no room for this")

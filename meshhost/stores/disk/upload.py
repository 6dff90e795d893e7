"""The bytes of a file that is being uploaded, on the disk where it will be kept.

An upload has no name until it is complete (O_TMPFILE), so nothing is left of it when its connection or the server ends. A small
one stays in memory. `add` runs in a thread where it writes; `close` may be called at any time from the event loop, also while
such a thread runs: the thread then closes the file when it has finished. A closed descriptor is never written to.
"""

import asyncio
import os
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO

from meshhost.stores.disk.space import require_room

__all__ = ["MEMORY_BYTES", "Upload", "unnamed_file"]

MEMORY_BYTES = 64 * 1024
"""Up to this size an upload stays in memory."""


def unnamed_file(folder: Path) -> int:
    """Open a file without a name on the folder's disk, to read and write. Returns the descriptor. Raises OSError."""
    try:
        return os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o666)
    except (AttributeError, OSError):  # not on this system, or not on this file system
        descriptor, path = tempfile.mkstemp(dir=folder)
        Path(path).unlink()
        return descriptor


class Upload:
    """Grows until it is complete. Its file, when it needs one, is made in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._memory = bytearray()
        self._descriptor: int | None = None
        self._is_closed = False
        self._using = threading.Lock()
        self.size = 0

    async def add(self, data: bytes) -> None:
        """Append bytes; one call after the other. Raises StorageFullError before the disk is full, OSError."""
        if self._descriptor is None and self.size + len(data) <= MEMORY_BYTES:
            self._memory += data
            self.size += len(data)
        else:
            await asyncio.to_thread(self.use, lambda _: None, data)

    def use(self, work: Callable[[int], None], data: bytes = b"") -> None:
        """Append `data`, and do something with the descriptor of the whole file. For a thread. Raises OSError."""
        try:
            with self._using:
                if self._is_closed:
                    raise OSError("the upload was closed")
                if more := len(data) + len(self._memory):
                    require_room(self._folder, more)
                if self._descriptor is None:
                    self._descriptor = unnamed_file(self._folder)
                    _write(self._descriptor, self._memory)
                    self._memory = bytearray()
                _write(self._descriptor, data)
                self.size += len(data)
                work(self._descriptor)
        finally:
            if self._is_closed:
                self.close()

    def open(self) -> IO[bytes]:
        """Return the bytes as a file of its own, which the caller closes. For a thread. Raises OSError."""
        opened: list[int] = []
        self.use(lambda descriptor: opened.append(os.dup(descriptor)))
        file = os.fdopen(opened[0], "rb")
        file.seek(0)
        return file

    def close(self) -> None:
        """Free what it took. Idempotent; never waits."""
        self._is_closed = True
        if not self._using.acquire(blocking=False):
            return  # the thread that uses it does
        try:
            descriptor, self._descriptor = self._descriptor, None
            if descriptor is not None:
                os.close(descriptor)
        finally:
            self._using.release()


def _write(descriptor: int, data: bytes | bytearray) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]

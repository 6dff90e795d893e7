"""Notices changes of a program's source files, by comparing their times and sizes at intervals.

`service_runner` waits for `changed` when it runs with `--reload`, and then starts the program again. Polling needs no library
and works on every file system, and a program has few source files. The wait runs in the caller's task and may be cancelled; the
files are read in a thread, so that a slow disk does not block the event loop. Invariant: each change is returned once, also one
that was made between two calls.
"""

import asyncio
import os
from pathlib import Path

__all__ = ["SourceWatch"]

# Environments and caches: large, and not edited by hand. Hidden folders are skipped too.
_SKIPPED = {"__pycache__", "node_modules", "site-packages", "venv"}


class SourceWatch:
    """Compares the Python files below `folder` with how they were when this object was made, every `interval` seconds."""

    def __init__(self, folder: Path, *, interval: float) -> None:
        self._folder = folder
        self._interval = interval
        self._seen = _snapshot(folder)

    async def changed(self) -> list[str]:
        """Wait for changes since the last return. Return the files written, made or removed, relative to the folder."""
        while True:
            await asyncio.sleep(self._interval)
            now = await asyncio.to_thread(_snapshot, self._folder)
            if now != self._seen:
                # Editors often save several files at once: report them together.
                await asyncio.sleep(self._interval)
                now = await asyncio.to_thread(_snapshot, self._folder)
                before, self._seen = self._seen, now
                names = before.keys() | now.keys()
                return sorted(name for name in names if before.get(name) != now.get(name))


def _snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    found: dict[str, tuple[int, int]] = {}
    for place, folders, files in os.walk(folder):
        # In place: `os.walk` does not enter the folders that are removed here.
        folders[:] = [name for name in folders if name not in _SKIPPED and not name.startswith(".")]
        for name in files:
            if name.endswith(".py"):
                path = Path(place, name)
                try:
                    status = path.stat()
                except OSError:  # removed meanwhile
                    continue
                found[str(path.relative_to(folder))] = (status.st_mtime_ns, status.st_size)
    return found

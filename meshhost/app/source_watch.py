"""Notices changes of a program's source files, by looking at them twice a second."""

import asyncio
import os
from pathlib import Path

__all__ = ["SourceWatch"]

INTERVAL = 0.5
# Environments and caches: large, and not what one edits.
_SKIPPED = {"__pycache__", "node_modules", "site-packages", "venv"}


class SourceWatch:
    """The Python files below a folder, hidden folders and environments aside, as they were when this was made."""

    def __init__(self, folder: Path, *, interval: float = INTERVAL) -> None:
        self._folder = folder
        self._interval = interval
        self._seen = _snapshot(folder)

    async def changed(self) -> list[str]:
        """Wait for changes since the last return; returns the files (relative to the folder) written, made or removed."""
        while True:
            await asyncio.sleep(self._interval)
            now = await asyncio.to_thread(_snapshot, self._folder)
            if now != self._seen:
                # Several files are often saved together.
                await asyncio.sleep(self._interval)
                now = await asyncio.to_thread(_snapshot, self._folder)
                before, self._seen = self._seen, now
                names = before.keys() | now.keys()
                return sorted(name for name in names if before.get(name) != now.get(name))


def _snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    found: dict[str, tuple[int, int]] = {}
    for place, folders, files in os.walk(folder):
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

"""The names in local folders, in order, from any name on.

The system gives the entries of a folder in no order, so the first page of a large one needs all of its names. `FolderNames`
reads them in a thread, a chunk at a time, and sorts each chunk by itself: a step takes some milliseconds, and neither the event
loop nor the thread is held longer, whatever the folder holds. A page is then merged from the chunks. Sizes and times are read
only for the entries of a page.

The names of a large folder are kept until it changes, which the system tells by its time of change. A folder that changed
within SETTLED_SECONDS is read again for each page, as two changes within one tick of the file system's clock have one time.
"""

import asyncio
import heapq
import os
import time
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, takewhile
from pathlib import Path

from meshhost.stores.disk.folder import LocalFolder, is_of_room

__all__ = ["FolderNames"]

SETTLED_SECONDS = 2.0
"""Older than the coarsest clock of a file system that is in use, FAT's."""
KEPT_NAMES = 500_000
"""Names that are kept in all, about 80 bytes each."""
_LEAST_KEPT = 1000
_CHUNK = 2048
_STEP_SECONDS = 0.008
# Entries between two looks at the clock: where the system does not say what an entry is, each is a call.
_LOOK = 128


@dataclass(frozen=True, slots=True)
class _Names:
    """The keys of a folder, in chunks that are sorted, and what the folder looked like before they were read."""

    mark: tuple[int, int, int] | None
    chunks: Sequence[Sequence[str]]
    count: int

    def after(self, after: str, prefix: str, count: int) -> list[str]:
        """Return the first `count` keys behind `after` that begin with the prefix."""
        parts = [_part(chunk, after, prefix) for chunk in self.chunks]
        return list(islice(takewhile(lambda key: key.startswith(prefix), heapq.merge(*parts)), count))


class FolderNames:
    """The names in the folders of a store. Errors of the system are not translated: OSError."""

    def __init__(self, folder: LocalFolder) -> None:
        self._folder = folder
        self._kept: OrderedDict[str, _Names] = OrderedDict()

    async def after(self, key: str, after: str, prefix: str, count: int) -> list[str]:
        """Return the first `count` keys in a folder behind `after` that begin with the prefix; none of a missing folder."""
        return (await self._names(key)).after(after, prefix, count)

    async def _names(self, key: str) -> _Names:
        path = self._folder.root / key
        mark = await asyncio.to_thread(_mark, path)
        kept = self._kept.get(key)
        if kept is not None and mark is not None and kept.mark == mark:
            self._kept.move_to_end(key)
            return kept
        self._kept.pop(key, None)
        chunks: list[list[str]] = []
        steps = _chunks(path)
        while (chunk := await asyncio.to_thread(next, steps, None)) is not None:
            chunks.append(chunk)
        names = _Names(mark, chunks, sum(map(len, chunks)))
        if mark is not None and names.count >= _LEAST_KEPT:
            self._keep(key, names)
        return names

    def _keep(self, key: str, names: _Names) -> None:
        self._kept[key] = names
        self._kept.move_to_end(key)
        while sum(each.count for each in self._kept.values()) > KEPT_NAMES:
            self._kept.popitem(last=False)


def _part(chunk: Sequence[str], after: str, prefix: str) -> Iterator[str]:
    first = bisect_left(chunk, prefix) if prefix > after else bisect_right(chunk, after)
    return islice(chunk, first, None)


def _mark(path: Path) -> tuple[int, int, int] | None:
    """Return what changes with the entries of a folder; None for one that is missing or changed just now."""
    try:
        state = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    if time.time_ns() - state.st_mtime_ns < SETTLED_SECONDS * 1e9:
        return None
    return (state.st_dev, state.st_ino, state.st_mtime_ns)


def _chunks(path: Path) -> Iterator[list[str]]:
    try:
        with os.scandir(path) as found:
            yield from _sorted_chunks(found)
    except (FileNotFoundError, NotADirectoryError):
        return


def _sorted_chunks(found: Iterator[os.DirEntry[str]]) -> Iterator[list[str]]:
    keys: list[str] = []
    until = time.monotonic() + _STEP_SECONDS
    while some := list(islice(found, _LOOK)):
        keys += [key for key in (f"{each.name}/" if each.is_dir() else each.name for each in some) if is_of_room(key)]
        if len(keys) >= _CHUNK or time.monotonic() >= until:
            yield sorted(keys)
            keys, until = [], time.monotonic() + _STEP_SECONDS
    yield sorted(keys)

"""Copies files between this machine and a room, for `meshhost storage`.

A file is copied in chunks and never held in memory as a whole. A target appears complete or not at all: in a room when its
handle is closed, on this machine by writing to another file that is then renamed.
"""

import asyncio
import codecs
import os
import stat
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

from meshhost.cli.output import printable, working
from meshhost.cli.rest import Download
from meshhost.errors import AlreadyExistsError, RoomError
from meshhost.room.client import RoomClient

__all__ = ["Copied", "Place", "copy", "parse_place", "write_to_stdout"]

CHUNK_BYTES = 1024 * 1024
# A download may take long, but must not stall.
STALLED_SECONDS = 60.0

_PREFIX = "room:"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Place:
    """A path in the room, without leading slashes, or on this machine."""

    path: str
    is_in_room: bool

    def __str__(self) -> str:
        return f"{_PREFIX}{self.path}" if self.is_in_room else self.path

    @property
    def name(self) -> str:
        """The last segment."""
        return self.path.rstrip("/").rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class Copied:
    """The file that was written, and its size in bytes."""

    target: Place
    size: int


def parse_place(text: str) -> Place:
    """Parse `room:PATH` (or `room://PATH`) as a path in the room; everything else, `./room:x` too, is on this machine."""
    if text.startswith(_PREFIX):
        return Place(text.removeprefix(_PREFIX).lstrip("/"), is_in_room=True)
    return Place(text, is_in_room=False)


async def copy(room: RoomClient, source: Place, target: Place, *, overwrite: bool) -> Copied:
    """Copy one file; when the target is a folder, to a file of the same name in it.

    Raises OSError, NotFoundError, AlreadyExistsError and RoomError. A copy that fails leaves no partial file.
    """
    target = await _target_file(room, source, target)
    async with _open(room, source) as (chunks, total):
        with working(source.name, total=total) as advance:
            counted = _counted(chunks, advance)
            if target.is_in_room:
                size = await _write_to_room(room, target.path, counted, overwrite=overwrite)
            else:
                size = await _write_to_file(Path(target.path), counted, overwrite=overwrite)
    return Copied(target, size)


async def write_to_stdout(room: RoomClient, path: str) -> None:
    """Write a file's bytes to standard output; to a terminal as text, without what the terminal would obey."""
    shown = None if not sys.stdout.isatty() else codecs.getincrementaldecoder("utf-8")("replace")
    async with _download(room, path) as (chunks, _):
        async for chunk in chunks:
            if shown is None:
                await asyncio.to_thread(sys.stdout.buffer.write, chunk)
            else:
                await asyncio.to_thread(sys.stdout.write, printable(shown.decode(chunk)))
    sys.stdout.flush()
    sys.stdout.buffer.flush()


async def _target_file(room: RoomClient, source: Place, target: Place) -> Place:
    if target.path and not target.path.endswith("/") and not await _is_folder(room, target):
        return target
    # An empty target is the root of the room, or the current folder.
    return Place(f"{target.path.rstrip('/')}/{source.name}" if target.path else source.name, target.is_in_room)


async def _is_folder(room: RoomClient, place: Place) -> bool:
    if not place.is_in_room:
        return await asyncio.to_thread(Path(place.path).is_dir)
    entry = await room.storage.stat(path=place.path)
    return entry is not None and entry.is_folder


Opened = tuple[AsyncIterator[bytes], int | None]


def _open(room: RoomClient, source: Place) -> AbstractAsyncContextManager[Opened]:
    return _download(room, source.path) if source.is_in_room else _open_file(Path(source.path))


@asynccontextmanager
async def _open_file(path: Path) -> AsyncIterator[Opened]:
    with await asyncio.to_thread(path.open, "rb") as file:
        async with aclosing(_chunks_of(file)) as chunks:
            yield chunks, os.fstat(file.fileno()).st_size


async def _chunks_of(file: BinaryIO) -> AsyncGenerator[bytes, None]:
    while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
        yield chunk


@asynccontextmanager
async def _download(room: RoomClient, path: str) -> AsyncIterator[Opened]:
    url = await room.storage.download_url(path=path)
    download = Download(url, timeout=STALLED_SECONDS)
    try:
        status, length = await _of_download(path, download.start())
        if status != 200:
            raise RoomError(f"the room server refused the download of {path!r} ({status})")
        async with aclosing(_downloaded(path, download)) as chunks:
            yield chunks, length
    finally:
        download.close()


async def _downloaded(path: str, download: Download) -> AsyncGenerator[bytes, None]:
    # Each step by itself: an error of the place that the chunks are written to is not one of the download.
    async with aclosing(download.chunks(CHUNK_BYTES)) as chunks:
        while chunk := await _of_download(path, anext(chunks, b"")):
            yield chunk


async def _of_download(path: str, step: Awaitable[T]) -> T:
    try:
        return await step
    except OSError as error:
        raise RoomError(f"the download of {path!r} failed ({type(error).__name__}): try again") from None


async def _counted(chunks: AsyncIterator[bytes], advance: Callable[[int], None]) -> AsyncIterator[bytes]:
    async for chunk in chunks:
        yield chunk
        advance(len(chunk))


async def _write_to_room(room: RoomClient, path: str, chunks: AsyncIterator[bytes], *, overwrite: bool) -> int:
    size = 0
    async with room.storage.writing(path=path, overwrite=overwrite) as write:
        async for chunk in chunks:
            await write(chunk)
            size += len(chunk)
    return size


async def _write_to_file(path: Path, chunks: AsyncIterator[bytes], *, overwrite: bool) -> int:
    kind = await asyncio.to_thread(_kind_of, path)
    if kind is not None and not overwrite:
        raise AlreadyExistsError(f"{str(path)!r} exists: omit --no-overwrite, or choose another path")
    if kind is not None and not stat.S_ISREG(kind):  # a device or pipe: write to it, never replace it
        return await _write_chunks(path, chunks)
    # Written to another file and renamed: a download that fails leaves the old file as it is.
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        size = await _write_chunks(partial, chunks)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return size


def _kind_of(path: Path) -> int | None:
    try:
        return path.stat().st_mode
    except FileNotFoundError:
        return None


async def _write_chunks(path: Path, chunks: AsyncIterator[bytes]) -> int:
    size = 0
    with await asyncio.to_thread(path.open, "wb") as file:
        async for chunk in chunks:
            size += await asyncio.to_thread(file.write, chunk)
    return size

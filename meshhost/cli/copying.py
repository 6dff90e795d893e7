"""Copies files between this machine and a room, in chunks: a file is never whole in memory."""

import asyncio
import os
import stat
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import aiohttp

from meshhost.cli.output import working
from meshhost.errors import AlreadyExistsError, RoomError
from meshhost.room.client import RoomClient

__all__ = ["Copied", "Place", "copy", "parse_place", "write_to_stdout"]

CHUNK_BYTES = 1024 * 1024
# A download may take long, but not stand still.
STALLED_SECONDS = 60.0

_PREFIX = "room:"


@dataclass(frozen=True, slots=True)
class Place:
    """A path in the room, without slashes at its start, or on this machine."""

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
    """Where the copy is, and how many bytes it has."""

    target: Place
    size: int


def parse_place(text: str) -> Place:
    """`room:PATH` (or `room://PATH`) is in the room, everything else on this machine (`./room:x` too)."""
    if text.startswith(_PREFIX):
        return Place(text.removeprefix(_PREFIX).lstrip("/"), is_in_room=True)
    return Place(text, is_in_room=False)


async def copy(room: RoomClient, source: Place, target: Place, *, overwrite: bool) -> Copied:
    """Copy one file; a target that is a folder gets a file of the same name.

    Raises OSError, NotFoundError, AlreadyExistsError and a room's usual errors. A copy that failed leaves no part.
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
    """Write a file's bytes to standard output."""
    async with _download(room, path) as (chunks, _):
        async for chunk in chunks:
            await asyncio.to_thread(sys.stdout.buffer.write, chunk)
    sys.stdout.buffer.flush()


async def _target_file(room: RoomClient, source: Place, target: Place) -> Place:
    if target.path and not target.path.endswith("/") and not await _is_folder(room, target):
        return target
    # No folder means: the room's root, or here.
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
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=STALLED_SECONDS, sock_read=STALLED_SECONDS)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url) as response:
            if response.status != 200:
                raise RoomError(f"the room server refused the download of {path!r} ({response.status})")
            yield response.content.iter_chunked(CHUNK_BYTES), response.content_length
    except (aiohttp.ClientError, TimeoutError) as error:
        raise RoomError(f"the download of {path!r} broke off ({type(error).__name__}): try again") from None


async def _counted(chunks: AsyncIterator[bytes], advance: Callable[[int], None]) -> AsyncIterator[bytes]:
    async for chunk in chunks:
        yield chunk
        advance(len(chunk))


async def _write_to_room(room: RoomClient, path: str, chunks: AsyncIterator[bytes], *, overwrite: bool) -> int:
    # A handle that is never closed ends with our connection, and what was written goes with it.
    handle = await room.storage.open(path=path, overwrite=overwrite)
    size = 0
    async for chunk in chunks:
        await room.storage.write(handle=handle, data=chunk)
        size += len(chunk)
    await room.storage.close(handle=handle)
    return size


async def _write_to_file(path: Path, chunks: AsyncIterator[bytes], *, overwrite: bool) -> int:
    kind = await asyncio.to_thread(_kind_of, path)
    if kind is not None and not overwrite:
        raise AlreadyExistsError(f"{str(path)!r} exists: leave out --no-overwrite, or take another path")
    if kind is not None and not stat.S_ISREG(kind):  # a device or pipe, which must not be replaced
        return await _write_chunks(path, chunks)
    # Written beside and renamed: a download that breaks off leaves the old file.
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

"""Downloads and uploads archives of tenants and rooms, for `meshhost tenant` and `meshhost room`.

An export is written to another file beside the target and renamed when it is complete and its checksum is right, so the target
is a whole archive or not there. An import is sent as it is read; the server answers when everything is imported. Neither holds
more than a chunk in memory. Progress goes to stderr.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from meshhost.cli.connect import refused, server_url, unreachable
from meshhost.cli.managing import bearer
from meshhost.cli.output import note, working

__all__ = ["export_to", "import_from", "manifest_of"]

_CHUNK = 1024 * 1024
# The server sends and takes what it can; this long without any of it means that it is gone.
_STALLED_SECONDS = 60.0
_CONNECT_SECONDS = 30.0
# Far more than any import takes: a server whose machine has gone does not say so.
_IMPORT_SECONDS = 3600.0
# What takes less is imported before anybody wonders.
_LARGE_BYTES = 8 * 1024 * 1024


def export_to(file: Path, path: str, what: str) -> dict[str, Any]:
    """Download the archive at the path of the REST API; return what `--json` shows.

    Raises AlreadyExistsError when the file exists, OSError, ConnectionLostError, RoomRefusedError, RoomError.
    """
    from meshhost.errors import AlreadyExistsError

    if file.exists():
        raise AlreadyExistsError(f"{str(file)!r} exists: choose another file")
    partial = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        with working(f"exporting {what}", total=None) as advance:
            size = asyncio.run(_download(partial, path, advance))
        _check(partial)
        partial.rename(file)
    finally:
        partial.unlink(missing_ok=True)
    return {"file": str(file), "bytes": size}


def import_from(file: Path, path: str, what: str) -> dict[str, Any]:
    """Upload an archive to the path of the REST API, and wait until it is imported; return the server's answer.

    Raises OSError, ConnectionLostError, RoomRefusedError, RoomError.
    """
    size = file.stat().st_size

    def sent() -> None:
        if size >= _LARGE_BYTES:
            note(f"importing {what}: all {size} bytes are sent, and the room server checks and stores them")

    with working(f"sending {what}", total=size) as advance:
        answer = asyncio.run(_upload(file, path, advance, sent))
    return dict(answer)


def manifest_of(file: Path) -> Any:
    """Return the manifest of an archive. Raises OSError, InvalidRequestError."""
    from meshhost.archives.manifest import read_manifest

    with file.open("rb") as opened:
        return read_manifest(opened)


async def _download(file: Path, path: str, advance: Callable[[int], None]) -> int:
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS, sock_read=_STALLED_SECONDS)
    size, url = 0, server_url()
    try:
        async with (
            aiohttp.ClientSession(headers={"Authorization": f"Bearer {bearer()}"}, timeout=timeout) as session,
            session.get(f"{url}{path}") as response,
        ):
            if response.status != 200:
                raise refused(url, response.status, await response.read())
            with await asyncio.to_thread(file.open, "wb") as opened:
                async for chunk in response.content.iter_chunked(_CHUNK):
                    size += await asyncio.to_thread(opened.write, chunk)
                    advance(len(chunk))
    except aiohttp.ClientPayloadError:
        raise _broken_off() from None
    except (aiohttp.ClientError, TimeoutError) as error:
        raise _broken_off() if size else unreachable(url, error) from None
    return size


async def _upload(file: Path, path: str, advance: Callable[[int], None], sent: Callable[[], None]) -> Any:
    import aiohttp

    from meshhost.errors import RoomError

    async def chunks() -> AsyncIterator[bytes]:
        with await asyncio.to_thread(file.open, "rb") as opened:
            while chunk := await asyncio.to_thread(opened.read, _CHUNK):
                yield chunk
                advance(len(chunk))
        sent()

    # The answer comes when all is imported.
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS, sock_read=_IMPORT_SECONDS)
    url = server_url()
    try:
        async with (
            aiohttp.ClientSession(headers={"Authorization": f"Bearer {bearer()}"}, timeout=timeout) as session,
            session.put(f"{url}{path}", data=chunks()) as response,
        ):
            if response.status != 200:
                raise refused(url, response.status, await response.read())
            return await response.json()
    except aiohttp.ClientConnectorError as error:
        raise unreachable(url, error) from None
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise RoomError(
            f"the connection was lost ({type(error).__name__}): an import that had begun may still end; "
            "look whether the tenant or room is there"
        ) from None


def _check(file: Path) -> None:
    from meshhost.archives.tar import read_entries
    from meshhost.errors import InvalidRequestError

    try:
        with file.open("rb") as opened:
            for _ in read_entries(opened):
                pass
    except InvalidRequestError:
        raise _broken_off() from None


def _broken_off() -> Exception:
    from meshhost.errors import RoomError

    return RoomError("the export broke off and nothing was written: try again; the room server's log says why")

"""Downloads and uploads of archives: everything of a tenant or of a room, as one file.

`GET` streams an archive while it is made. An error that comes after the first byte can only be shown by breaking the connection
off, and a part of an archive has no checksum. `PUT` first writes the body to a temporary file, which has no name and goes with
the request, and then imports it. Its size is bounded by the disk: the upload ends with 507 before the disk is full. Each tenant
has one upload at a time. What an archive takes of the memory while it passes through is counted as bytes in flight of its
tenant, and a reader that takes nothing is left.

The operator may do all of it, an admin's key what concerns the rooms of its tenant (`permissions.py`).
"""

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict
from typing import IO
from urllib.parse import quote

from aiohttp import web

from meshhost.errors import NotFoundError, StorageFullError
from meshhost.identity.tenant import RoomKey, TenantId, check_room_name
from meshhost.quotas.in_flight import InFlight
from meshhost.server.data.exports import Exports
from meshhost.server.data.imports import Imports
from meshhost.server.http.access import Access
from meshhost.server.http.bodies import reserve_room
from meshhost.server.http.files import streamed

__all__ = ["ArchiveRoutes"]

_CHUNK = 1024 * 1024
# A page of an archive, made or written, and the one that is sent or received meanwhile.
_PASSING_BYTES = 2 * _CHUNK
# What an upload leaves of the disk for the stores, and how often it looks.
_RESERVE_BYTES = 1024 * 1024 * 1024
_LOOK_BYTES = 64 * 1024 * 1024
_RETRY_AFTER_SECONDS = 10


class ArchiveRoutes:
    """Serves `/tenants/{tenant}/archive` and `/tenants/{tenant}/rooms/{room_name}/archive`."""

    def __init__(self, access: Access, exports: Exports, imports: Imports, in_flight: InFlight) -> None:
        self._access = access
        self._exports = exports
        self._imports = imports
        self._in_flight = in_flight
        self._uploading: set[str] = set()

    def add_to(self, app: web.Application) -> None:
        """Register the routes."""
        tenant, room = "/tenants/{tenant}/archive", "/tenants/{tenant}/rooms/{room_name}/archive"
        app.add_routes(
            [
                web.get(tenant, self._export_tenant, allow_head=False),
                web.put(tenant, self._import_tenant),
                web.get(room, self._export_room, allow_head=False),
                web.put(room, self._import_room),
            ]
        )

    async def _export_tenant(self, request: web.Request) -> web.StreamResponse:
        self._access.check_operator(request)
        project = await self._access.tenant(request)
        async with self._counted(project.id):
            return await _send(request, self._exports.tenant(project), project.name)

    async def _export_room(self, request: web.Request) -> web.StreamResponse:
        room = await self._room(request)
        if not await self._exports.exists(room):
            raise NotFoundError(f"no room {room.name!r}, or nothing is kept of it")
        async with self._counted(room.tenant):
            return await _send(request, self._exports.room(room), room.name)

    async def _import_tenant(self, request: web.Request) -> web.Response:
        self._access.check_operator(request)
        name = request.match_info["tenant"]
        await self._imports.require_new_tenant(name)
        with self._upload_of("") as is_free:
            if not is_free:
                return _busy()
            async with self._counted(""), _received(request) as file:
                project, summary = await self._imports.tenant(name, file)
        return web.json_response({"id": project.id, "name": project.name, **asdict(summary)})

    async def _import_room(self, request: web.Request) -> web.Response:
        room = await self._room(request)
        await self._imports.require_new_room(room)
        with self._upload_of(room.tenant) as is_free:
            if not is_free:
                return _busy()
            async with self._counted(room.tenant), _received(request) as file:
                summary = await self._imports.room(room, file)
        return web.json_response({"id": room.tenant, "room": room.name, **asdict(summary)})

    async def _room(self, request: web.Request) -> RoomKey:
        project = await self._access.tenant(request)
        return RoomKey(TenantId(project.id), check_room_name(request.match_info["room_name"]))

    @contextlib.asynccontextmanager
    async def _counted(self, tenant: str) -> AsyncIterator[None]:
        """Hold what an archive takes while it passes through. Raises QuotaExceededError when there is no room for it."""
        account = self._in_flight.account(tenant, max_bytes=_PASSING_BYTES)
        try:
            await reserve_room(account, _PASSING_BYTES)
            yield
        finally:
            account.close()

    @contextlib.contextmanager
    def _upload_of(self, tenant: str) -> Iterator[bool]:
        if tenant in self._uploading:
            yield False
            return
        self._uploading.add(tenant)
        try:
            yield True
        finally:
            self._uploading.discard(tenant)


async def _send(request: web.Request, archive: AsyncIterator[bytes], name: str) -> web.StreamResponse:
    headers = {
        "Content-Type": "application/x-tar",
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(name)}.tar",
    }
    return await streamed(request, web.StreamResponse(headers=headers), archive, archive=name)


@contextlib.asynccontextmanager
async def _received(request: web.Request) -> AsyncIterator[IO[bytes]]:
    """Yield the body as a file, complete. Raises StorageFullError."""
    with tempfile.TemporaryFile() as file:
        written, looked_at = 0, -_LOOK_BYTES
        async for chunk in request.content.iter_chunked(_CHUNK):
            if written - looked_at >= _LOOK_BYTES:
                looked_at = written
                if shutil.disk_usage(tempfile.gettempdir()).free < _RESERVE_BYTES + _LOOK_BYTES:
                    raise StorageFullError("the disk for uploads is almost full: nothing was imported")
            await asyncio.to_thread(file.write, chunk)
            written += len(chunk)
        await asyncio.to_thread(file.flush)
        yield file


def _busy() -> web.Response:
    text = "an archive is being imported for this tenant: wait for its end"
    return web.json_response({"error": text}, status=429, headers={"Retry-After": str(_RETRY_AFTER_SECONDS)})

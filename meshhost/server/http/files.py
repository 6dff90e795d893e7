"""Downloads of room files by a signed URL, for clients that cannot speak the room protocol.

The storage service asks `FileRoutes.url_of` for a URL; anyone with the URL can fetch that one file until it expires. The file
is streamed, never held in memory, and never shown as a page of this origin. A reader that takes nothing is dropped.
"""

import asyncio
import logging
from urllib.parse import quote

from aiohttp import web

from meshhost.edge.watched import know_sender
from meshhost.identity.tenant import RoomKey
from meshhost.server.address import Address
from meshhost.server.core.participants import Participant
from meshhost.server.http.access import Access
from meshhost.stores.files import RoomFiles, mime_type_of

__all__ = ["FileRoutes"]

logger = logging.getLogger(__name__)

TAKE_SECONDS = 60.0
"""How long a reader may take for the next part of a file, of some hundred KiB."""


class FileRoutes:
    """Serves `GET /files/{token}` and makes the URLs for it."""

    def __init__(self, files: RoomFiles, access: Access, address: Address) -> None:
        self._files = files
        self._access = access
        self._address = address

    def add_to(self, app: web.Application) -> None:
        """Register the route."""
        app.add_routes([web.get("/files/{token}", self._download)])

    def url_of(self, room: RoomKey, path: str, asked_by: Participant) -> str:
        """A URL that fetches the file for `Access.file_seconds`, while the participant's token and key are valid."""
        return f"{self._address.url}/files/{self._access.sign_file(room, path, asked_by)}"

    async def _download(self, request: web.Request) -> web.StreamResponse:
        room, path = self._access.read_file(request.match_info["token"])
        know_sender(request)
        chunks = await self._files.stream(room, path)
        name = quote(path.rpartition("/")[2])
        response = web.StreamResponse(
            headers={
                "Content-Type": mime_type_of(path),
                # The file may be HTML that anyone has written: a browser must save it, not run it.
                "Content-Disposition": f"attachment; filename*=UTF-8''{name}",
                "X-Content-Type-Options": "nosniff",
            }
        )
        await response.prepare(request)
        try:
            async for chunk in chunks:
                async with asyncio.timeout(TAKE_SECONDS):
                    await response.write(bytes(chunk))
        except TimeoutError:
            logger.info(
                "a download was ended: its reader took nothing", extra={"tenant": room.tenant, "room": room.name}
            )
            if request.transport is not None:
                request.transport.abort()
            return response
        await response.write_eof()
        return response

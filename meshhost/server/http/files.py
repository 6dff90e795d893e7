"""Downloads of room files by a signed URL, for clients that cannot speak the room protocol.

The storage service asks `FileRoutes.url_of` for a URL; anyone with the URL can fetch that one file until it expires. The file
is streamed, never held in memory, and never shown as a page of this origin. Archives and large messages are `streamed` as well.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import aclosing
from urllib.parse import quote

from aiohttp import web

from meshhost.edge.watched import know_sender
from meshhost.errors import MeshhostError
from meshhost.identity.tenant import RoomKey
from meshhost.server.address import Address
from meshhost.server.core.participants import Participant
from meshhost.server.http.access import Access
from meshhost.stores.files import RoomFiles, mime_type_of

__all__ = ["FileRoutes", "streamed"]

logger = logging.getLogger(__name__)

TAKE_SECONDS = 60.0
"""How long a reader may take for the next piece of an answer, of some hundred KiB."""


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
        pieces = (bytes(chunk) async for chunk in chunks)
        return await streamed(request, response, pieces, tenant=room.tenant, room=room.name)


async def streamed(
    request: web.Request, response: web.StreamResponse, pieces: AsyncIterator[bytes], **about: str
) -> web.StreamResponse:
    """Answer with these pieces. The first one is made before the answer begins; what it raises is raised.

    Later only a connection that breaks off says that the answer is not complete: because a piece could not be made, or because
    the reader took nothing of one for TAKE_SECONDS. That is logged with what it is `about`.
    """
    async with aclosing(pieces):  # type: ignore[type-var]
        piece = await anext(pieces, None)
        await response.prepare(request)
        try:
            while piece is not None:
                async with asyncio.timeout(TAKE_SECONDS):
                    await response.write(piece)
                piece = await anext(pieces, None)
        except ConnectionError:  # the reader is gone
            raise
        except (MeshhostError, OSError) as error:
            if isinstance(error, TimeoutError):
                logger.info("an answer was broken off: its reader took nothing", extra=about)
            else:
                logger.exception("an answer was broken off", extra=about)
            if request.transport is not None:
                request.transport.abort()
            return response
    await response.write_eof()
    return response

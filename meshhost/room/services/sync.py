"""Documents that several edit at once (room-protocol §13).

Which task runs when: each open document has one task, its sender. It sends local edits in order, one request at a time; what
is edited meanwhile goes into the next one. After a reconnect the document is connected again, and all of it is sent: the
server takes over what it did not have.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import logging
from typing import TYPE_CHECKING, Any

from meshhost.documents.crdt import merge_updates
from meshhost.documents.document import MeshDocument
from meshhost.documents.schema import MeshSchema
from meshhost.errors import ConnectionLostError, InvalidRequestError, NotFoundError, RequestTimeoutError, RoomError
from meshhost.protocol.connection import MessageReceived
from meshhost.protocol.messages import ErrorResponse
from meshhost.room.errors import error_from, reading
from meshhost.tasks import first_of

if TYPE_CHECKING:
    from meshhost.room.client import RoomClient

__all__ = ["SyncClient"]

logger = logging.getLogger(__name__)

# For the content, when the server has announced it.
STATE_TIMEOUT = 60.0
# Before an edit is sent again that the server could not store.
RETRY_DELAY = 1.0


class _Link:
    """A document that is open here, and what of it is not saved yet."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.count = 0
        self.changing = asyncio.Lock()  # opened, closed and connected by one at a time
        self.document: MeshDocument | None = None
        self.early: list[bytes] = []  # states that came before the document was made
        self.has_state = asyncio.Event()
        self.is_connected = asyncio.Event()
        self.sender: object = None
        self.corrected = asyncio.Event()
        self.error: RoomError | None = None  # why an edit was refused, until somebody hears of it
        self._edits: list[bytes] = []
        self._edited = asyncio.Event()
        self._made = 0  # edits, and how many of them are settled
        self._settled = 0
        self._given_up = 0
        self._progress = asyncio.Event()

    def add(self, edit: bytes) -> None:
        self._edits.append(edit)
        self._made += 1
        self._edited.set()

    def add_first(self, edits: bytes) -> None:
        """What has to be sent, again."""
        self._edits.insert(0, edits)
        self._edited.set()

    async def next_edits(self) -> tuple[bytes, int]:
        """What was edited, as one update, and how many edits are settled with it."""
        while not self._edits or not self.is_connected.is_set():
            await self._edited.wait()
            await self.is_connected.wait()
        edits, self._edits = self._edits, []
        self._edited.clear()
        return merge_updates(edits), self._made

    def settle(self, made: int) -> None:
        self._settled = max(self._settled, made)
        self._progress.set()

    def correct(self) -> None:
        """The server's state took the place of ours. What was edited since goes, too: it may rest upon what was refused."""
        self._edits = []
        self._edited.clear()
        self._given_up = self._made
        self.corrected.set()

    def refuse(self, error: RoomError) -> None:
        """Edits were refused, and the document corrected."""
        self.error = error
        self.settle(self._given_up)
        if self.document is not None:
            self.document.emit("refused", error)

    @property
    def is_saved(self) -> bool:
        return self._settled == self._made

    async def wait_settled(self) -> None:
        made = self._made
        while self._settled < made:
            self._progress.clear()
            await self._progress.wait()

    def raise_refusal(self) -> None:
        error, self.error = self.error, None
        if error is not None:
            raise error


class SyncClient:
    """Open and edit the room's documents.

    A document's schema is the file `.schemas/{extension of its path}.json` of the room. Local edits are sent in the
    background; the document's event `saved` tells that all of them are on the server's disk, `refused` (with the error)
    that the server did not take some: the document then is again what it is on the server. `flush` waits for either.
    Edits that are made while the connection is lost are sent after it. Close or flush a document before leaving the room.
    """

    def __init__(self, *, room: RoomClient) -> None:
        self._room = room
        self._links: dict[str, _Link] = {}
        room.register_handler("room.sync", self._on_sync)
        room.add_restorer(self._restore)

    def get_open_documents(self) -> dict[str, MeshDocument]:
        """The open documents by path."""
        return {path: link.document for path, link in self._links.items() if link.document is not None}

    async def create(self, *, path: str, json: dict[str, Any] | None = None) -> None:
        """Make a document, with a content as of `MeshDocument.to_json`.

        Raises AlreadyExistsError, InvalidRequestError for a content that the schema does not allow, NotFoundError without a
        schema, AccessDeniedError.
        """
        await self._room.send_request("room.create", {"path": path, "json": json})

    async def open(self, *, path: str, create: bool = True) -> MeshDocument:
        """The document with its present content, made if it is missing and `create`. Close it as often as it was opened.

        Raises NotFoundError without a document or schema, AccessDeniedError, InvalidRequestError for a path without an
        extension or a wrong schema, RequestTimeoutError.
        """
        while True:
            link = self._links.setdefault(path, _Link(path))
            async with link.changing:
                if self._links.get(path) is not link:
                    continue  # closed while we waited
                document = link.document or await self._begin(link, create)
                link.count += 1
                return document

    async def close(self, *, path: str) -> None:
        """Save what was edited, and take part no more once nobody here has the document open.

        Raises what `flush` does; the document is closed all the same.
        """
        link = self._link(path)
        async with link.changing:
            link.count -= 1
            if link.count > 0:
                return
            try:
                await self._flush(link)
            finally:
                self._end(link)
                await self._disconnect(path)

    async def flush(self, path: str) -> None:
        """Return when the edits made so far are on the server's disk.

        Raises the error by which the server refused one, or ConnectionLostError when the room was left. An end of the wait
        is the caller's to set: while the connection is lost it waits for the next one.
        """
        await self._flush(self._link(path))

    async def sync(self, *, path: str, data: bytes) -> None:
        """Send an update, base64 as on the wire. Edits of open documents need no such call."""
        await self._room.send_request("room.sync", {"path": path}, data)

    async def _begin(self, link: _Link, create: bool) -> MeshDocument:
        try:
            answer = await self._room.send_request("room.connect", {"path": link.path, "create": create})
            with reading("room.connect"):
                schema = MeshSchema.from_json(answer["schema"])
            link.document = document = MeshDocument(schema=schema, on_update=link.add)
            link.is_connected.set()
            for state in link.early:
                self._apply(link, state)
            async with asyncio.timeout(STATE_TIMEOUT):
                await link.has_state.wait()
        except TimeoutError:
            self._end(link)
            raise RequestTimeoutError(f"the room server sent no content of {link.path!r}") from None
        except BaseException:
            self._end(link)
            raise
        link.sender = self._room.spawn(self._send(link), f"sender of {link.path}")
        return document

    def _end(self, link: _Link) -> None:
        self._links.pop(link.path, None)
        link.document = None
        if isinstance(link.sender, asyncio.Task):
            link.sender.cancel()

    async def _disconnect(self, path: str) -> None:
        if not self._room.is_open:
            return  # it ended with the connection
        try:
            await self._room.send_request("room.disconnect", {"path": path})
        except RoomError as error:
            logger.info("document not disconnected", extra={"document": path, "reason": str(error)})

    async def _flush(self, link: _Link) -> None:
        await first_of(link.wait_settled(), self._room.wait_closed())
        link.raise_refusal()
        if not link.is_saved and self._room.is_closed:
            raise ConnectionLostError("the room was left before the document was saved")

    async def _send(self, link: _Link) -> None:
        while True:
            edits, made = await link.next_edits()
            link.corrected.clear()
            try:
                refusal, state_follows = await self._send_edits(link.path, edits)
            except ConnectionLostError:
                link.is_connected.clear()  # the next connection sends all there is
                link.add_first(edits)
                continue
            except RequestTimeoutError:
                link.add_first(edits)
                continue
            except RoomError as error:
                refusal, state_follows = error, False
            if refusal is None:
                link.settle(made)
                self._tell_saved(link)
            elif type(refusal) is RoomError:  # it is the server that failed
                link.add_first(edits)
                await asyncio.sleep(RETRY_DELAY)
            else:
                await self._take_back(link, refusal, state_follows)

    async def _take_back(self, link: _Link, refusal: RoomError, state_follows: bool) -> None:
        if state_follows:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STATE_TIMEOUT):
                    await link.corrected.wait()
        if not link.corrected.is_set():
            link.correct()
        link.refuse(refusal)

    async def _send_edits(self, path: str, edits: bytes) -> tuple[RoomError | None, bool]:
        """Send an update; returns why the server did not take it, and whether it sends what is true instead."""
        payload = base64.standard_b64encode(edits)
        _, header = await self._room.request("room.sync", {"path": path}, payload)
        refused = header.get("refused")
        if not isinstance(refused, dict):
            return None, False
        error = error_from(ErrorResponse(text=str(refused.get("text")), code=refused.get("code")))
        return error, bool(refused.get("state_follows"))

    async def _restore(self) -> None:
        for link in list(self._links.values()):
            if link.document is not None:
                await self._restore_one(link, link.document)

    async def _restore_one(self, link: _Link, document: MeshDocument) -> None:
        try:
            await self._room.send_request("room.connect", {"path": link.path, "create": True})
        except ConnectionLostError:
            raise
        except RoomError as error:
            logger.warning("document not connected again", extra={"document": link.path, "reason": str(error)})
            if type(error) in (RoomError, RequestTimeoutError):  # it is the server that failed
                self._room.spawn(self._restore_later(link, document), f"connect {link.path}")
                return
            link.correct()
            link.refuse(error)
        else:
            link.add_first(document.get_state())
        link.is_connected.set()

    async def _restore_later(self, link: _Link, document: MeshDocument) -> None:
        await asyncio.sleep(RETRY_DELAY)
        if self._links.get(link.path) is link:
            await self._restore_one(link, document)

    def _on_sync(self, message: MessageReceived) -> None:
        link = self._links.get(str(message.header.get("path")))
        if link is None:
            return  # closed meanwhile
        try:
            update = base64.b64decode(message.payload, validate=True)
        except binascii.Error:
            logger.warning("unreadable document update", extra={"document": link.path})
            return
        if link.document is None:
            link.early.append(update)
        else:
            self._apply(link, update, replaces=bool(message.header.get("replaces")))

    def _apply(self, link: _Link, update: bytes, *, replaces: bool = False) -> None:
        assert link.document is not None
        try:
            if replaces:
                link.correct()  # first: handlers of what the reset changes may edit again
                link.document.reset(update)
            else:
                link.document.apply_update(update)
        except InvalidRequestError as error:
            logger.warning("document update does not apply", extra={"document": link.path, "reason": str(error)})
            return
        link.has_state.set()

    def _tell_saved(self, link: _Link) -> None:
        if link.is_saved and link.document is not None:
            link.document.emit("saved")

    def _link(self, path: str) -> _Link:
        link = self._links.get(path)
        if link is None:
            raise NotFoundError(f"document {path!r} is not open here")
        return link

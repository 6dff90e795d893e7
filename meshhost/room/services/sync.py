"""Documents that several participants edit at once (room-protocol §13).

A document is a CRDT: each side applies the other's updates in any order and both arrive at the same content. `SyncClient` opens
documents, applies the updates that the server sends, and sends the local edits; `open_document.py` keeps the account of what is
saved.

Tasks: each open document has one task of the room, its sender. It sends one request at a time; edits made meanwhile are merged
into the next one. Updates of the server are applied in the task that reads the connection.

Invariants: local edits reach the server in order. After a reconnect the document is connected again and its whole state is
sent, so that an edit whose request was lost with the connection is not lost; the server ignores what it has already.

The code of documents is loaded with the first document: the CRDT takes longer to load than all the rest of a room client, of
which this module is a part.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import logging
from typing import TYPE_CHECKING, Any

from meshhost.errors import ConnectionLostError, InvalidRequestError, NotFoundError, RequestTimeoutError, RoomError
from meshhost.protocol.connection import MessageReceived
from meshhost.protocol.messages import ErrorResponse
from meshhost.room.link import RoomLink
from meshhost.room.replies import error_from, reading
from meshhost.tasks import first_of

if TYPE_CHECKING:
    from meshhost.documents.document import MeshDocument
    from meshhost.room.services.open_document import OpenDocument

__all__ = ["SyncClient"]

logger = logging.getLogger(__name__)

# Seconds before an edit that the server failed to store is sent again.
RETRY_DELAY = 1.0


class SyncClient:
    """Open and edit the room's documents.

    The schema of a document is the file `.schemas/{extension of its path}.json` of the room. Local edits are sent in the
    background. The document emits `saved` when all of them are on the server's disk, and `refused` (with the error) when the
    server did not accept some; the document then has the server's content again. `flush` waits for either. Edits made while
    the connection is lost are sent after the reconnect. Close or flush a document before leaving the room.
    """

    def __init__(self, *, room: RoomLink) -> None:
        self._room = room
        self._open: dict[str, OpenDocument] = {}
        room.register_handler("room.sync", self._on_sync)
        room.add_restorer(self._restore)

    def get_open_documents(self) -> dict[str, MeshDocument]:
        """The open documents by path."""
        return {path: opened.document for path, opened in self._open.items() if opened.document is not None}

    async def create(self, *, path: str, json: dict[str, Any] | None = None) -> None:
        """Create a document, with content in the form of `MeshDocument.to_json`.

        Raises AlreadyExistsError, InvalidRequestError for a content that the schema does not allow, NotFoundError without a
        schema, AccessDeniedError.
        """
        await self._room.send_request("room.create", {"path": path, "json": json})

    async def open(self, *, path: str, create: bool = True) -> MeshDocument:
        """Open the document and return it with its current content; `create` it if it does not exist.

        Opening the same path twice returns the same object; close it as often as it was opened.

        Raises NotFoundError without a document or schema, AccessDeniedError, InvalidRequestError for a path without an
        extension or a wrong schema, RequestTimeoutError.
        """
        from meshhost.room.services.open_document import OpenDocument

        while True:
            opened = self._open.setdefault(path, OpenDocument(path))
            async with opened.changing:
                if self._open.get(path) is not opened:
                    continue  # closed while we waited
                document = opened.document or await self._begin(opened, create)
                opened.count += 1
                return document

    async def close(self, *, path: str) -> None:
        """Close the document. The last `close` of a path saves the edits and ends the subscription.

        Raises what `flush` does; the document is closed in that case too.
        """
        opened = self._opened(path)
        async with opened.changing:
            opened.count -= 1
            if opened.count > 0:
                return
            try:
                await self._flush(opened)
            finally:
                self._end(opened)
                await self._disconnect(path)

    async def flush(self, path: str) -> None:
        """Wait until the edits made so far are on the server's disk.

        Raises the error with which the server refused one, or ConnectionLostError when the room was left. The caller must set a
        timeout: while the connection is lost, this waits for the next one.
        """
        await self._flush(self._opened(path))

    async def sync(self, *, path: str, data: bytes) -> None:
        """Send an update, in base64 as on the wire. Edits of open documents are sent without this."""
        await self._room.send_request("room.sync", {"path": path}, data)

    async def _begin(self, opened: OpenDocument, create: bool) -> MeshDocument:
        from meshhost.documents.document import MeshDocument
        from meshhost.documents.schema import MeshSchema

        try:
            answer = await self._room.send_request("room.connect", {"path": opened.path, "create": create})
            with reading("room.connect"):
                schema = MeshSchema.from_json(answer["schema"])
            opened.document = document = MeshDocument(schema=schema, on_update=opened.add)
            opened.is_connected.set()
            for state in opened.early:
                self._apply(opened, state)
            async with asyncio.timeout(self._room.request_timeout):
                await opened.has_state.wait()
        except TimeoutError:
            self._end(opened)
            raise RequestTimeoutError(f"the room server sent no content of {opened.path!r}") from None
        except BaseException:
            self._end(opened)
            raise
        opened.sender = self._room.spawn(self._send(opened), f"sender of {opened.path}")
        return document

    def _end(self, opened: OpenDocument) -> None:
        self._open.pop(opened.path, None)
        opened.document = None
        if opened.sender is not None:
            opened.sender.cancel()

    async def _disconnect(self, path: str) -> None:
        if not self._room.is_open:
            return  # the subscription ended with the connection
        try:
            await self._room.send_request("room.disconnect", {"path": path})
        except RoomError as error:
            logger.info("document not disconnected", extra={"document": path, "reason": str(error)})

    async def _flush(self, opened: OpenDocument) -> None:
        await first_of(opened.wait_settled(), self._room.wait_closed())
        opened.raise_refusal()
        if not opened.is_saved and self._room.is_closed:
            raise ConnectionLostError("the room was left before the document was saved")

    async def _send(self, opened: OpenDocument) -> None:
        while True:
            edits, made = await opened.next_edits()
            opened.corrected.clear()
            try:
                refusal, state_follows = await self._send_edits(opened.path, edits)
            except ConnectionLostError:
                opened.is_connected.clear()  # after the reconnect the whole state is sent
                opened.add_first(edits)
                continue
            except RequestTimeoutError:
                opened.add_first(edits)
                continue
            except RoomError as error:
                refusal, state_follows = error, False
            if refusal is None:
                opened.settle(made)
                self._emit_saved(opened)
            elif type(refusal) is RoomError:  # the server failed, it did not refuse
                opened.add_first(edits)
                await self._room.clock.sleep(RETRY_DELAY)
            else:
                await self._take_back(opened, refusal, state_follows)

    async def _take_back(self, opened: OpenDocument, refusal: RoomError, state_follows: bool) -> None:
        if state_follows:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._room.request_timeout):
                    await opened.corrected.wait()
        if not opened.corrected.is_set():
            opened.correct()
        opened.refuse(refusal)

    async def _send_edits(self, path: str, edits: bytes) -> tuple[RoomError | None, bool]:
        """Send an update; returns the error if the server refused it, and whether the server's own state will follow."""
        payload = base64.standard_b64encode(edits)
        _, header = await self._room.request("room.sync", {"path": path}, payload)
        refused = header.get("refused")
        if not isinstance(refused, dict):
            return None, False
        error = error_from(ErrorResponse(text=str(refused.get("text")), code=refused.get("code")))
        return error, bool(refused.get("state_follows"))

    async def _restore(self) -> None:
        for opened in list(self._open.values()):
            if opened.document is not None:
                await self._restore_one(opened, opened.document)

    async def _restore_one(self, opened: OpenDocument, document: MeshDocument) -> None:
        try:
            await self._room.send_request("room.connect", {"path": opened.path, "create": True})
        except ConnectionLostError:
            raise
        except RoomError as error:
            logger.warning("document not connected again", extra={"document": opened.path, "reason": str(error)})
            if type(error) in (RoomError, RequestTimeoutError):  # the server failed, it did not refuse
                self._room.spawn(self._restore_later(opened, document), f"connect {opened.path}")
                return
            opened.correct()
            opened.refuse(error)
        else:
            opened.add_first(document.get_state())
        opened.is_connected.set()

    async def _restore_later(self, opened: OpenDocument, document: MeshDocument) -> None:
        await self._room.clock.sleep(RETRY_DELAY)
        if self._open.get(opened.path) is opened:
            await self._restore_one(opened, document)

    def _on_sync(self, message: MessageReceived) -> None:
        opened = self._open.get(str(message.header.get("path")))
        if opened is None:
            return  # closed meanwhile
        try:
            update = base64.b64decode(message.payload, validate=True)
        except binascii.Error:
            logger.warning("unreadable document update", extra={"document": opened.path})
            return
        if opened.document is None:
            opened.early.append(update)
        else:
            self._apply(opened, update, replaces=bool(message.header.get("replaces")))

    def _apply(self, opened: OpenDocument, update: bytes, *, replaces: bool = False) -> None:
        assert opened.document is not None
        try:
            if replaces:
                opened.correct()  # before the reset: handlers of its events may edit again
                opened.document.reset(update)
            else:
                opened.document.apply_update(update)
        except InvalidRequestError as error:
            logger.warning("document update does not apply", extra={"document": opened.path, "reason": str(error)})
            return
        opened.has_state.set()

    def _emit_saved(self, opened: OpenDocument) -> None:
        if opened.is_saved and opened.document is not None:
            opened.document.emit("saved")

    def _opened(self, path: str) -> OpenDocument:
        opened = self._open.get(path)
        if opened is None:
            raise NotFoundError(f"document {path!r} is not open here")
        return opened

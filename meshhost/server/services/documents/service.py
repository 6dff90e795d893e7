"""Answers the requests of the documents service (room-protocol §13).

A document is opened, edited by updates in both directions, and closed. Its schema is a file of the room, named by the
document's extension. The client of SDK 0.6 shapes much of this: it gives up when an update is answered with an error, so a
refused update is answered as if it were taken, and the true state follows as an event; and it waits for ever if the content
arrives before the answer to its `sync.open`.
"""

import asyncio
import json
import logging
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any

from pydantic import Field

from meshhost.documents.crdt import EMPTY_UPDATE
from meshhost.documents.document import MeshDocument
from meshhost.documents.schema import MeshSchema
from meshhost.documents.shipped_schemas import SHIPPED_SCHEMAS
from meshhost.errors import (
    AccessDeniedError,
    AlreadyExistsError,
    InvalidRequestError,
    LimitExceededError,
    NotFoundError,
    RoomError,
    TooLargeError,
)
from meshhost.identity.grants import ApiScope
from meshhost.identity.tenant import RoomKey
from meshhost.protocol.messages import EmptyResponse, JsonResponse
from meshhost.quotas.counts import UNCOUNTED, TenantCounts
from meshhost.quotas.quota import Resource
from meshhost.server.core.participants import Participant
from meshhost.server.core.peer import Event, Peer
from meshhost.server.core.requests import Answer, Body, Operation, Operations, Request
from meshhost.server.core.room import Room
from meshhost.server.core.service import RoomService
from meshhost.server.core.slots import Slot
from meshhost.server.services.documents.open_documents import (
    OpenDocument,
    RoomDocuments,
    decode_update,
    encode_update,
)
from meshhost.stores.documents import DocumentKey, DocumentStore
from meshhost.stores.files import RoomFiles, clean_path
from meshhost.tasks import uninterrupted

__all__ = ["DocumentsService"]

logger = logging.getLogger(__name__)

MAX_OPEN = 256
STORE_TIMEOUT = 30.0
MAX_SCHEMA_BYTES = 256 * 1024
MAX_DOCUMENT_BYTES = 8 * 1024 * 1024


class _Document(Body):
    path: str = Field(max_length=4096)


class _Create(_Document):
    content: dict[str, Any] | None = Field(default=None, alias="json")


class _Connect(_Document):
    create: bool = True


class DocumentsService(RoomService):
    """The documents service. `max_bytes` bounds a document."""

    def __init__(
        self,
        store: DocumentStore,
        files: RoomFiles,
        *,
        max_bytes: int = MAX_DOCUMENT_BYTES,
        counts: TenantCounts = UNCOUNTED,
    ) -> None:
        self._store = store
        self._files = files
        self._max_bytes = max_bytes
        self._counts = counts
        self._rooms = Slot(RoomDocuments)

    def operations(self) -> Operations:
        """See RoomService."""
        return {
            "sync.create": Operation(_Create, self._create, _may_write, _subject),
            "sync.describe": Operation(_Document, self._describe, _may_read, _subject),
            "sync.open": Operation(_Connect, self._connect, _may_read, _subject),
            # Its grant is checked by the handler: a MeshAgent client that gets an error never sends an edit again.
            "sync.update": Operation(_Document, self._sync, frees=True),
            "sync.close": Operation(_Document, self._disconnect),
        }

    def disconnected(self, room: Room, participant: Participant, peer: Peer) -> None:
        """See RoomService."""
        if (documents := self._rooms.get(room)) is not None:
            documents.leave(participant)

    def in_room(self, room: Room) -> RoomDocuments:
        """The open documents of a room."""
        return self._rooms.of(room)

    async def _create(self, request: Request, body: _Create) -> Answer:
        path = clean_path(body.path)
        schema = MeshSchema.from_json(await self._schema(request.room.key, path))
        state = EMPTY_UPDATE
        if body.content is not None:
            state = MeshDocument(schema=schema, json=body.content).get_state()
        await self._add(request, path, state)
        return EmptyResponse()

    async def _describe(self, request: Request, body: _Document) -> Answer:
        path = clean_path(body.path)
        schema = await self._schema(request.room.key, path)
        async with self._hold(request, path) as document:
            state = (await document.shared()).state()
        # A large document takes a while, and what reads it may be used in one thread only.
        content = await asyncio.to_thread(_content, schema, state)
        return JsonResponse(json={"path": path, "schema": schema, "json": content})

    async def _connect(self, request: Request, body: _Connect) -> Answer:
        peer = request.peer
        path = clean_path(body.path)
        schema = await self._schema(request.room.key, path)
        if self._rooms.of(request.room).connected_to(request.participant) >= MAX_OPEN:
            raise LimitExceededError(f"over {MAX_OPEN} documents are open: close some")
        if body.create:
            await self._ensure(request, path)
        async with self._hold(request, path) as document:
            await document.shared()
            # The answer must come first: a MeshAgent client that gets the content before it waits for ever.
            await request.reply(JsonResponse(json={"schema": schema}), {"path": body.path})
            shared = await document.shared()
            # The connection may have ended while we waited; nothing would close the document then.
            if request.participant.peer is peer:
                document.connected[request.participant, body.path] = peer
            peer.tell(Event("sync.update", {"path": body.path}, encode_update(shared.state())))
        return None

    async def _sync(self, request: Request, body: _Document) -> Answer:
        try:
            path = clean_path(body.path)
            update = decode_update(request.message.payload)
            async with self._hold(request, path) as document:
                # What was stored must reach the others, also when the sender's connection ends meanwhile.
                await uninterrupted(self._take(request, document, update), timeout=STORE_TIMEOUT)
        except (RoomError, OSError) as error:
            await self._correct(request, body, error)
            return None
        return EmptyResponse()

    async def _disconnect(self, request: Request, body: _Document) -> Answer:
        async with self._hold(request, clean_path(body.path)) as document:
            document.leave(request.participant, body.path)
        return EmptyResponse()

    async def _take(self, request: Request, document: OpenDocument, update: bytes) -> None:
        sync = request.participant.scope.sync
        if sync is None or not sync.can_write(document.key.path):
            # A client echoes what others wrote; only an edit of its own is refused.
            if sync is None or not (await document.shared()).knows(update):
                raise AccessDeniedError("room.sync", document.key.path)
        elif await document.take(update):
            document.tell(update, but=request.participant)

    async def _correct(self, request: Request, body: _Document, error: RoomError | OSError) -> None:
        """Answer an update that was not taken, and send the true state."""
        # An edit that was only not stored is right: the sender keeps it and may send it again.
        is_final = isinstance(error, RoomError)
        if isinstance(error, RoomError):
            logger.info("document update refused", extra={"document": body.path, "reason": str(error)})
        else:
            logger.error("document update not stored", exc_info=error, extra={"document": body.path})
            error = RoomError("the document store failed; the room server's log says why")
        follows = await self._state_for(request, body) is not None
        refused = {"text": str(error), "code": error.code, "state_follows": follows}
        await request.reply(EmptyResponse(), {"refused": refused})
        # Read again: updates that were sent while we replied must be in it.
        state = await self._state_for(request, body)
        if state is not None:
            request.peer.tell(Event("sync.update", {"path": body.path, "replaces": is_final}, state))

    async def _state_for(self, request: Request, body: _Document) -> bytes | None:
        """The document's content, if the participant has it open."""
        with suppress(RoomError, OSError):
            async with self._hold(request, clean_path(body.path)) as document:
                if (request.participant, body.path) in document.connected:
                    return encode_update((await document.shared()).state())
        return None

    async def _ensure(self, request: Request, path: str) -> None:
        if await self._store.find(DocumentKey(request.room.key, path)) is None:
            sync = request.participant.scope.sync
            if sync is None or not sync.can_write(path):
                raise AccessDeniedError("room.create", path)
            with suppress(AlreadyExistsError):  # another participant created it meanwhile
                await self._add(request, path, EMPTY_UPDATE)

    async def _add(self, request: Request, path: str, state: bytes) -> None:
        if len(state) > self._max_bytes:
            raise TooLargeError(f"a document may have at most {self._max_bytes} bytes")
        key = DocumentKey(request.room.key, path)
        found = await self._files.stat(request.room.key, path)
        # Only a document has no size: one that another participant creates meanwhile is no file in the way.
        if found is not None and (found.is_folder or found.size is not None):
            raise InvalidRequestError("path", f"a file or folder stands at {path!r}")
        await self._create_counted(key, state)
        # A document that was deleted while it was open may still be in memory.
        self._rooms.of(request.room).forget(path)

    async def _create_counted(self, key: DocumentKey, state: bytes) -> None:
        tenant = key.room.tenant
        await self._counts.take(tenant, Resource.DOCUMENTS)
        since = self._counts.mark()
        try:
            await self._store.create(key, state)
        except asyncio.CancelledError:
            self._counts.keep(tenant, Resource.DOCUMENTS, since=since)  # it may have been created
            self._counts.doubt(tenant, Resource.DOCUMENTS)
            raise
        except BaseException:
            self._counts.give_back(tenant, Resource.DOCUMENTS)
            raise
        self._counts.keep(tenant, Resource.DOCUMENTS, since=since)

    async def _schema(self, room: RoomKey, path: str) -> Any:
        stem, _, extension = path.rpartition("/")[2].rpartition(".")
        if not stem or not extension:
            raise InvalidRequestError("path", f"expected an extension that names the schema: {path!r} has none")
        where = f".schemas/{extension}.json"
        try:
            found = json.loads(await self._files.read(room, where, max_bytes=MAX_SCHEMA_BYTES))
            MeshSchema.from_json(found)
        except NotFoundError:
            if extension in SHIPPED_SCHEMAS:
                return SHIPPED_SCHEMAS[extension].to_json()
            raise NotFoundError(f"no schema for {path!r}: put one at {where!r} in the room's files") from None
        except (ValueError, RecursionError):
            raise InvalidRequestError(where, "the schema is not JSON") from None
        except InvalidRequestError as error:
            raise InvalidRequestError(where, f"the schema is wrong: {error}") from None
        return found

    def _hold(self, request: Request, path: str) -> AbstractAsyncContextManager[OpenDocument]:
        key = DocumentKey(request.room.key, path)
        return self._rooms.of(request.room).hold(self._store, key, max_bytes=self._max_bytes)


def _content(schema: Any, state: bytes) -> dict[str, Any]:
    document = MeshDocument(schema=MeshSchema.from_json(schema))
    document.apply_update(state)
    return document.to_json()


def _may_read(scope: ApiScope, body: _Document) -> bool:
    return scope.sync is not None and scope.sync.can_read(clean_path(body.path))


def _may_write(scope: ApiScope, body: _Document) -> bool:
    return scope.sync is not None and scope.sync.can_write(clean_path(body.path))


def _subject(body: _Document) -> str:
    return body.path

"""Documents of the stand-in: it keeps their state and passes changes on to all other readers."""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from doubles.stand_in.member import Member
from doubles.stand_in.storage import Storage, path_of
from meshhost.documents.crdt import SharedDocument
from meshhost.documents.document import MeshDocument
from meshhost.documents.schema import MeshSchema
from meshhost.errors import RoomError
from meshhost.protocol.connection import MessageReceived
from meshhost.protocol.messages import EmptyResponse, JsonResponse, Response

__all__ = ["Documents"]


@dataclass(slots=True)
class _Document:
    schema: MeshSchema
    content: SharedDocument
    readers: set[str] = field(default_factory=set)


class Documents:
    """All documents of a room, by path. Their schemas are files of the room."""

    def __init__(self, members: Mapping[str, Member], storage: Storage) -> None:
        self.documents: dict[str, _Document] = {}
        self._members = members
        self._storage = storage

    def handlers(self) -> dict[str, Any]:
        """What handles each request."""
        return {
            "room.create": self._create_document,
            "room.connect": self._connect_document,
            "room.sync": self._sync,
            "room.disconnect": self._disconnect_document,
        }

    def left(self, member: Member) -> None:
        """It reads no document any more."""
        for document in self.documents.values():
            document.readers.discard(member.id)

    def _schema(self, path: str) -> MeshSchema:
        schema = self._storage.files.get(f".schemas/{path.rpartition('.')[2]}.json")
        if schema is None:
            raise RoomError("no schema for this document")
        return MeshSchema.from_json(json.loads(schema))

    async def _create_document(self, _: Member, message: MessageReceived) -> Response:
        path = path_of(message)
        if path in self.documents:
            raise RoomError("the document exists")
        schema = self._schema(path)
        first = MeshDocument(schema=schema, json=message.header.get("json"))
        content = SharedDocument()
        content.apply_update(first.get_state())
        self.documents[path] = _Document(schema, content)
        return EmptyResponse()

    async def _connect_document(self, member: Member, message: MessageReceived) -> Response | None:
        path = path_of(message)
        if path not in self.documents:
            if not message.header.get("create", True):
                raise RoomError("no such document")
            self.documents[path] = _Document(self._schema(path), SharedDocument())
        document = self.documents[path]
        document.readers.add(member.id)
        # The answer comes first, then the state: the other order stops an SDK client for good.
        await member.reply(message.id, JsonResponse(json={"schema": document.schema.to_json()}))
        await member.tell("room.sync", {"path": path}, base64.b64encode(document.content.state()))
        return None

    async def _sync(self, member: Member, message: MessageReceived) -> Response:
        path = path_of(message)
        document = self.documents[path]
        if document.content.apply_update(base64.b64decode(message.payload)):
            for reader in document.readers - {member.id}:
                await self._members[reader].tell("room.sync", {"path": path}, message.payload)
        return EmptyResponse()

    async def _disconnect_document(self, member: Member, message: MessageReceived) -> Response:
        document = self.documents.get(path_of(message))
        if document is not None:
            document.readers.discard(member.id)
        return EmptyResponse()

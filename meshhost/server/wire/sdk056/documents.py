"""Documents as clients of SDK 0.56 open and create them: with a schema that the client may bring.

This server keeps schemas as files of the room, one for all documents of an extension. A schema that a client brings is stored
there when the room has none. Two clients may open the same new document at once: who comes second finds what the first one
made, and that is what both wanted. The operations of the services decide who may do what.
"""

from contextlib import suppress
from typing import Any

from pydantic import Field

from meshhost.documents.schema import MeshSchema
from meshhost.errors import AccessDeniedError, AlreadyExistsError, InvalidRequestError, RoomError
from meshhost.protocol.json_values import dump_json
from meshhost.protocol.messages import Header
from meshhost.server.core.requests import Answer, Body, Operation, Operations, Request
from meshhost.server.wire.sdk056.asking import Ask, json_of
from meshhost.server.wire.sdk056.chunks import DocumentStart, document_path

__all__ = ["CREATE", "Documents"]

CREATE = "document.create"
"""An operation of the dialect: create a document."""

_MAX_SCHEMA_BYTES = 256 * 1024


class _Create(Body):
    path: str = Field(max_length=4096)
    content: dict[str, Any] | None = Field(default=None, alias="json")
    document_schema: dict[str, Any] | None = Field(default=None, alias="schema")
    schema_path: str | None = None


class Documents:
    """Opens and creates documents."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    def operations(self) -> Operations:
        """The operations by name."""
        return {CREATE: Operation(_Create, self._create)}

    async def open(self, request: Request, path: str, start: DocumentStart) -> bool:
        """Open a document for the stream that the request is of; True when the service has replied already."""
        await self._provide_schema(request, path, start.document_schema, start.schema_path)
        if start.create and start.initial_json is not None:
            # One that exists keeps its content; who may not create one may be allowed to open it.
            with suppress(AlreadyExistsError, AccessDeniedError):
                await self._ask(request, "sync.create", {"path": path, "json": start.initial_json})
        # The service replies with the schema, and then reports the state: the translator makes one chunk of both.
        return await self._ask(request, "sync.open", {"path": path, "create": start.create}) is None

    async def _create(self, request: Request, body: _Create) -> Answer:
        path = document_path(body.path)
        await self._provide_schema(request, path, body.document_schema, body.schema_path)
        return await self._ask(request, "sync.create", {"path": path, "json": body.content})

    async def _provide_schema(
        self, request: Request, path: str, schema: dict[str, Any] | None, schema_path: str | None
    ) -> None:
        """Store the schema that the client brings, if the room has none for documents of this kind."""
        stem, _, extension = path.rpartition("/")[2].rpartition(".")
        where = f".schemas/{extension}.json"
        if schema_path is not None and schema_path.removeprefix("/") != where:
            raise InvalidRequestError(
                "schema_path", f"expected {where!r}: rooms keep the schema of such documents there"
            )
        if schema is None or not stem or not extension:  # the service says what is wrong with the path
            return
        with suppress(AccessDeniedError):  # who may not look may be allowed to open the document
            if json_of(await self._ask(request, "storage.exists", {"path": where}))["exists"]:
                return
            await self._store(request, where, schema)

    async def _store(self, request: Request, where: str, schema: dict[str, Any]) -> None:
        try:
            MeshSchema.from_json(schema)
        except RoomError as error:
            raise InvalidRequestError("schema", str(error)) from None
        text = dump_json(schema).encode()
        if len(text) > _MAX_SCHEMA_BYTES:
            raise InvalidRequestError("schema", f"expected at most {_MAX_SCHEMA_BYTES} bytes")
        with suppress(AlreadyExistsError):  # another client was faster
            handle: Header = {"handle": json_of(await self._ask(request, "storage.open", {"path": where}))["handle"]}
            try:
                await self._ask(request, "storage.write", handle, text)
                await self._ask(request, "storage.close", handle)
            except BaseException:
                await self._ask(request, "storage.abort", handle)
                raise

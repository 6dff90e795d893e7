"""Toolkits with which a model reads and edits documents (MeshAgent's `meshagent.tools.document_tools`).

`DocumentAuthoringToolkit` works on documents of any type, by element ids; `DocumentTypeAuthoringToolkit` makes an insert
tool for each element that a schema allows below the root. Each tool opens the document, edits it and returns only when the
server has stored the edit (`sync.flush`), so that a model never reports work that may be lost.
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from meshhost.documents.document import Element, MeshDocument
from meshhost.documents.schema import ChildProperty, ElementType, MeshSchema
from meshhost.errors import InvalidRequestError, NotFoundError
from meshhost.protocol.messages import EmptyResponse, JsonResponse
from meshhost.tools.tool import Tool, ToolContext
from meshhost.tools.toolkit import Toolkit

if TYPE_CHECKING:
    from meshhost.room.client import RoomClient

__all__ = [
    "DocumentAuthoringToolkit",
    "DocumentCloseTool",
    "DocumentOpenTool",
    "DocumentTypeAuthoringToolkit",
    "GetDocumentJSONTool",
    "RemoveElementTool",
    "RootInsertTool",
    "SetAttributeTool",
]

_PATH = {"type": "string", "description": "path of the document in the room; its extension names its type"}
_ID = {"type": "string", "description": "the $id of the element, as get_document shows it"}


def _schema(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "required": list(properties),
        "properties": properties,
    }


@asynccontextmanager
async def _opened(room: "RoomClient", path: str) -> AsyncIterator[MeshDocument]:
    """Open a document for a block of code; its edits are on the server when the block ends."""
    document = await room.sync.open(path=path)
    try:
        yield document
        await room.sync.flush(path)
    finally:
        await room.sync.close(path=path)


def _element(document: MeshDocument, id: str) -> Element:
    found = document.root.get_node_by_id(id)
    if found is None:
        raise NotFoundError(f"no element {id!r} in the document")
    return found


class DocumentOpenTool(Tool):
    """Opens a document and keeps it open, so that later calls are fast; creates it when it is missing."""

    def __init__(self) -> None:
        super().__init__(
            name="meshagent.document.open",
            title="Open a document",
            description="Opens a document of the room and returns its content",
            input_schema=_schema(path=_PATH),
        )

    async def execute(self, context: ToolContext, path: str) -> JsonResponse:
        """Return the content with the ids of its elements."""
        document = await context.room.sync.open(path=path)
        return JsonResponse(json=document.to_json(include_ids=True))


class DocumentCloseTool(Tool):
    """Closes a document that the open tool opened."""

    def __init__(self) -> None:
        super().__init__(
            name="meshagent.document.close",
            title="Close a document",
            description="Closes a document that was opened before; its edits are kept",
            input_schema=_schema(path=_PATH),
        )

    async def execute(self, context: ToolContext, path: str) -> EmptyResponse:
        """Raises NotFoundError for a document that is not open."""
        if path not in context.room.sync.get_open_documents():
            raise NotFoundError(f"the document {path!r} is not open")
        await context.room.sync.flush(path)
        await context.room.sync.close(path=path)
        return EmptyResponse()


class GetDocumentJSONTool(Tool):
    """Returns a document's content."""

    def __init__(self) -> None:
        super().__init__(
            name="get_document",
            title="Read a document",
            description="Returns the content of a document with the ids of its elements",
            input_schema=_schema(path=_PATH),
        )

    async def execute(self, *, context: ToolContext, path: str, **_: Any) -> JsonResponse:
        """Return the content with the ids of its elements."""
        async with _opened(context.room, path) as document:
            return JsonResponse(json=document.to_json(include_ids=True))


class RemoveElementTool(Tool):
    """Removes an element with everything in it."""

    def __init__(self) -> None:
        super().__init__(
            name="remove_element_by_id",
            title="Remove an element",
            description="Removes an element of a document with everything in it",
            input_schema=_schema(id=_ID, path=_PATH),
        )

    async def execute(self, *, context: ToolContext, path: str, id: str) -> EmptyResponse:
        """Raises NotFoundError for an unknown element."""
        async with _opened(context.room, path) as document:
            _element(document, id).delete()
        return EmptyResponse()


class SetAttributeTool(Tool):
    """Sets an attribute of an element."""

    def __init__(self) -> None:
        super().__init__(
            name="set_attribute",
            title="Set an attribute",
            description="Sets an attribute of an element of a document",
            input_schema=_schema(
                id=_ID,
                attribute_name={"type": "string", "description": "name of the attribute"},
                attribute_value={"type": "string", "description": "its new value; JSON when it is not a text"},
                path=_PATH,
            ),
        )

    async def execute(
        self, *, context: ToolContext, path: str, id: str, attribute_name: str, attribute_value: Any
    ) -> EmptyResponse:
        """Raises NotFoundError for an unknown element, InvalidRequestError for a value that the schema does not allow."""
        async with _opened(context.room, path) as document:
            element = _element(document, id)
            try:
                element.set_attribute(attribute_name, attribute_value)
            except InvalidRequestError:
                # The argument is a text, so a model passes `5` and `true` as texts; the document's schema tells what was meant.
                element.set_attribute(attribute_name, _from_json(attribute_value))
        return EmptyResponse()


class RootInsertTool(Tool):
    """Appends an element of one kind to the root of documents of one type."""

    def __init__(self, *, document_type: str, schema: MeshSchema, element: ElementType) -> None:
        definition = element.to_json()
        super().__init__(
            name=f"{document_type}_insert_{element.tag_name}",
            title=f"Insert {element.tag_name}",
            description=f"Appends to a {document_type}: {element.description or element.tag_name}",
            input_schema=_schema(**{element.tag_name: definition["properties"][element.tag_name]}, path=_PATH),
            defs=schema.to_json()["$defs"],
        )
        self._tag_name = element.tag_name

    async def execute(self, *, context: ToolContext, path: str, **kwargs: Any) -> JsonResponse:
        """Return the id of the new element. Raises InvalidRequestError for content that the schema does not allow."""
        async with _opened(context.room, path) as document:
            made = document.root.append_json({self._tag_name: kwargs[self._tag_name]})
            return JsonResponse(json={"id": made.id})


class DocumentAuthoringToolkit(Toolkit):
    """Opens, reads and edits documents of any type."""

    def __init__(
        self,
        *,
        name: str = "meshagent.document_authoring",
        description: str = "Open, read and edit documents of the room",
        title: str = "Documents",
    ) -> None:
        super().__init__(
            name=name,
            title=title,
            description=description,
            tools=[
                RemoveElementTool(),
                SetAttributeTool(),
                GetDocumentJSONTool(),
                DocumentOpenTool(),
                DocumentCloseTool(),
            ],
        )


class DocumentTypeAuthoringToolkit(Toolkit):
    """Appends elements to the root of documents of one type; `document_type` is the extension of their paths."""

    def __init__(self, *, schema: MeshSchema, document_type: str) -> None:
        children = [child for child in schema.root.properties if isinstance(child, ChildProperty)]
        elements = [schema.element(tag) for child in children for tag in child.child_tag_names]
        super().__init__(
            name=f"meshagent.document_authoring.{document_type}",
            title=document_type,
            description=f"Write documents of type {document_type}",
            rules=[f"the path of a {document_type} ends in .{document_type}"],
            tools=[RootInsertTool(document_type=document_type, schema=schema, element=element) for element in elements],
        )


def _from_json(value: Any) -> Any:
    try:
        return json.loads(value)
    except (TypeError, ValueError):
        return value

"""The schemas that MeshAgent ships, by the name under which a room stores them; `thread` is in `thread_schema.py`.

Programs require them (`RequiredSchema(name="document")`) and take for granted that a room has them, so a room server provides
them. The names of elements and attributes must stay as they are: clients of MeshAgent open the same documents.
"""

from collections.abc import Mapping
from types import MappingProxyType

from meshhost.documents.schema import (
    ChildProperty,
    ElementProperty,
    ElementType,
    MeshSchema,
    SimpleValue,
    ValueProperty,
)
from meshhost.documents.thread_schema import thread_schema

__all__ = [
    "SHIPPED_SCHEMAS",
    "document_schema",
    "gallery_schema",
    "presentation_schema",
    "super_editor_document_schema",
    "transcript_schema",
]


def _value(name: str, description: str | None = None, type: SimpleValue = "string") -> ValueProperty:
    return ValueProperty(name=name, type=type, description=description)


def _children(name: str, *tag_names: str) -> ChildProperty:
    return ChildProperty(name=name, child_tag_names=list(tag_names))


def _element(tag_name: str, description: str, *properties: ElementProperty) -> ElementType:
    return ElementType(tag_name=tag_name, description=description, properties=properties)


document_schema = MeshSchema(
    root_tag_name="document",
    elements=[
        _element("document", "a document", _children("content", "heading", "body", "file")),
        _element("heading", "a heading", _value("text", "text of the heading")),
        _element("body", "running text", _value("text", "the text, in Markdown")),
        _element("file", "a file or picture", _value("name", "path in the room's storage")),
    ],
)

gallery_schema = MeshSchema(
    root_tag_name="gallery",
    elements=[
        _element("gallery", "pictures and other files to look at", _children("content", "file")),
        _element(
            "file",
            "a picture",
            _value("path", "path in the room's storage"),
            _value("description", "what the picture shows"),
        ),
    ],
)

presentation_schema = MeshSchema(
    root_tag_name="presentation",
    elements=[
        _element("presentation", "a presentation", _children("slides", "slide")),
        _element(
            "slide",
            "a slide",
            _value("title", "the title of the slide"),
            _value("background", "path of the picture behind the slide, in the room's storage"),
            _children("lines", "line"),
        ),
        _element("line", "a line of text", _value("line", "the text, one point of the slide")),
    ],
)

transcript_schema = MeshSchema(
    root_tag_name="transcript",
    elements=[
        _element("transcript", "what was said in a call", _children("segments", "segment")),
        _element(
            "segment",
            "what one participant said",
            _value("participant_id", "the id of the participant"),
            _value("participant_name", "the name of the participant"),
            _value("time", "when it was said, as ISO 8601"),
            _value("text", "what was said"),
        ),
    ],
)

super_editor_document_schema = MeshSchema(
    root_tag_name="document",
    elements=[
        _element(
            "document", "a document of Flutter's SuperEditor", _children("children", "block", "horizontalRule", "image")
        ),
        _element(
            "block",
            "a paragraph, an item of a list or a task",
            _value("blockType"),
            _value("textAlign"),
            _value("itemType"),
            _value("indent", type="number"),
            _children("children", "text"),
        ),
        _element(
            "image", "a picture", _value("imageUrl"), _value("width", type="number"), _value("height", type="number")
        ),
        _element("horizontalRule", "a line across the page"),
        _element("text", "a text", _value("text")),
    ],
)

SHIPPED_SCHEMAS: Mapping[str, MeshSchema] = MappingProxyType(
    {
        "document": document_schema,
        "gallery": gallery_schema,
        "presentation": presentation_schema,
        "superdoc": super_editor_document_schema,
        "thread": thread_schema,
        "transcript": transcript_schema,
    }
)
"""By the extension of the documents."""

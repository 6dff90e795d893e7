"""The schema of a plain document: headings, text and files.

Agents write documents of this schema by tools (`meshhost.tools.document_tools`), and agents that require it find it in their
room as `.schemas/document.json`. The names of elements and attributes are those of `meshagent.agents.schemas.document` and must
stay so: both open each other's documents.
"""

from meshhost.documents.schema import ChildProperty, ElementType, MeshSchema, ValueProperty

__all__ = ["document_schema"]

document_schema = MeshSchema(
    root_tag_name="document",
    elements=[
        ElementType(
            tag_name="document",
            description="a document",
            properties=[ChildProperty(name="content", child_tag_names=["heading", "body", "file"])],
        ),
        ElementType(
            tag_name="heading",
            description="a heading",
            properties=[ValueProperty(name="text", type="string", description="text of the heading")],
        ),
        ElementType(
            tag_name="body",
            description="running text",
            properties=[ValueProperty(name="text", type="string", description="the text, in Markdown")],
        ),
        ElementType(
            tag_name="file",
            description="a file or picture",
            properties=[ValueProperty(name="name", type="string", description="path in the room's storage")],
        ),
    ],
)

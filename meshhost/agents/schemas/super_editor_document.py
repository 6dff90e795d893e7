"""The name of `meshagent.agents.schemas.super_editor_document`: the schema of a document of Flutter's SuperEditor.

Re-exports only: the room server needs it, too, so it is data of the documents layer.
"""

from meshhost.documents.shipped_schemas import super_editor_document_schema

__all__ = ["super_editor_document_schema"]

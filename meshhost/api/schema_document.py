"""The names of `meshagent.api.schema_document`: documents and their elements."""

from meshhost.documents.document import Element, MeshDocument, Text

__all__ = ["Element", "MeshDocument", "Text"]

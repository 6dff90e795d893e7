"""The documents of `meshagent.api.schema_document`."""

from meshhost.documents.document import Element, MeshDocument, Text

__all__ = ["Element", "MeshDocument", "Text"]

"""The names of `meshagent.agents.schemas`: the schemas of documents that every room has. Re-exports only."""

from meshhost.documents.shipped_schemas import (
    document_schema,
    gallery_schema,
    presentation_schema,
    super_editor_document_schema,
    transcript_schema,
)

__all__ = [
    "document_schema",
    "gallery_schema",
    "presentation_schema",
    "super_editor_document_schema",
    "transcript_schema",
]

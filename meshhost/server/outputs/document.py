"""The name of `meshagent.server.outputs.document`, where old programs find the schema of plain documents. Re-exports only."""

from meshhost.documents.shipped_schemas import document_schema

__all__ = ["document_schema"]

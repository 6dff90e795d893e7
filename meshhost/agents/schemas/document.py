"""The name of `meshagent.agents.schemas.document`: the schema of a plain document: headings, text and files.

Re-exports only: the room server needs it, too, so it is data of the documents layer.
"""

from meshhost.documents.shipped_schemas import document_schema

__all__ = ["document_schema"]

"""The name of `meshagent.agents.schemas.presentation`: the schema of a presentation: slides with lines.

Re-exports only: the room server needs it, too, so it is data of the documents layer.
"""

from meshhost.documents.shipped_schemas import presentation_schema

__all__ = ["presentation_schema"]

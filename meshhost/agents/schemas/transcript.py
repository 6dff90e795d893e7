"""The name of `meshagent.agents.schemas.transcript`: the schema of what was said in a call.

Re-exports only: the room server needs it, too, so it is data of the documents layer.
"""

from meshhost.documents.shipped_schemas import transcript_schema

__all__ = ["transcript_schema"]

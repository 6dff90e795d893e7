"""The name of `meshagent.agents.schemas.gallery`: the schema of a gallery of pictures.

Re-exports only: the room server needs it, too, so it is data of the documents layer.
"""

from meshhost.documents.shipped_schemas import gallery_schema

__all__ = ["gallery_schema"]

"""The names of `meshagent.api.schema_document`: documents and their elements.

MeshAgent programs import from this path after the package is renamed. It re-exports only; the code is in the package that owns
it, and nothing inside of meshhost imports it. The names may grow, but none may go or move.
"""

from meshhost.documents.document import Element, MeshDocument, Text

__all__ = ["Element", "MeshDocument", "Text"]

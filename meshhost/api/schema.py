"""The names of `meshagent.api.schema`: schemas of documents.

For MeshAgent programs, which import from this path after the package is renamed. It re-exports only: the code is in the package
that owns it. The names may grow, but none may go or move.
"""

from meshhost.documents.schema import (
    ChildProperty,
    ElementProperty,
    ElementType,
    MeshSchema,
    SimpleValue,
    ValueProperty,
)
from meshhost.errors import InvalidRequestError as MeshSchemaException
from meshhost.errors import InvalidRequestError as MeshSchemaValidationException

__all__ = [
    "ChildProperty",
    "ElementProperty",
    "ElementType",
    "MeshSchema",
    "MeshSchemaException",
    "MeshSchemaValidationException",
    "SimpleValue",
    "ValueProperty",
]

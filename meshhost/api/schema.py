"""The names of `meshagent.api.schema`: schemas of documents."""

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

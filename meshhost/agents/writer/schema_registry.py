"""`SchemaRegistry`: an agent that stores schemas of documents in the room that calls it, and does nothing else.

Served by a ServiceHost as `@service.path("/schemas/report")`. The schema of `NAME` is the file `.schemas/NAME.json` of the
room, and documents whose path ends with `.NAME` have its form.
"""

import asyncio
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from meshhost.documents.schema import MeshSchema
from meshhost.errors import InvalidRequestError

if TYPE_CHECKING:
    from meshhost.room.client import RoomClient

__all__ = ["SchemaRegistration", "SchemaRegistry", "deploy_schema", "validate_schema_name"]


def validate_schema_name(name: str) -> None:
    """Raise InvalidRequestError for a name that no schema may have."""
    if not name or "." in name or "/" in name:
        raise InvalidRequestError("name", f"expected the name of a schema without '.' and '/', got {name!r}")


async def deploy_schema(*, room: "RoomClient", schema: MeshSchema, name: str, overwrite: bool = True) -> None:
    """Store a schema in the room, as `.schemas/{name}.json`, for documents whose path ends with `.{name}`.

    Raises InvalidRequestError for the name, and RoomError when there is one already and `overwrite` is false.
    """
    validate_schema_name(name)
    data = json.dumps(schema.to_json()).encode()
    await room.storage.upload(path=f".schemas/{name}.json", data=data, overwrite=overwrite)


class SchemaRegistration:
    """A schema and its name. Raises InvalidRequestError for a name that no schema may have."""

    def __init__(self, *, name: str, schema: MeshSchema) -> None:
        validate_schema_name(name)
        self._name = name
        self._schema = schema

    @property
    def name(self) -> str:
        """The extension of the documents."""
        return self._name

    @property
    def schema(self) -> MeshSchema:
        """The schema."""
        return self._schema


class SchemaRegistry:
    """Stores `schemas` in its room when it starts. Other arguments of MeshAgent are taken: the host that serves it has them."""

    def __init__(self, *, schemas: Sequence[SchemaRegistration], name: str = "schema.registry", **hosting: Any) -> None:
        known = {"path", "app", "host", "port", "webhook_secret", "validate_webhook_secret"}
        if unknown := hosting.keys() - known:
            raise TypeError(f"SchemaRegistry: unknown arguments {', '.join(sorted(unknown))}")
        self._name = name
        self._schemas = list(schemas)

    @property
    def name(self) -> str:
        """Its name, for people."""
        return self._name

    @property
    def schemas(self) -> list[SchemaRegistration]:
        """What it stores."""
        return self._schemas

    async def start(self, *, room: "RoomClient") -> None:
        """Store the schemas; those of the same name are replaced. Raises RoomError."""
        async with asyncio.TaskGroup() as tasks:
            for each in self._schemas:
                tasks.create_task(deploy_schema(room=room, schema=each.schema, name=each.name))

    async def stop(self) -> None:
        """Leave the schemas where they are."""

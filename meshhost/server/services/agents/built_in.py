"""The schemas and toolkits that MeshAgent's agents take for granted.

An agent of the SDK that requires a schema or a toolkit calls for it with `agent.call` at an address on port 8080, also when the
room has it already (room-protocol §11.6). For such a call there is nothing to do: the agents service answers it at once. The
schema of chat threads is stored in the room when it is missing, because every chat agent requires it. Both are for callers that
may read, or write, the schema as a file: to call is no way around the grant for files.
"""

import json
from contextlib import suppress
from io import BytesIO

from meshhost.documents.thread_schema import thread_schema
from meshhost.errors import AlreadyExistsError
from meshhost.identity.grants import ApiScope
from meshhost.identity.tenant import RoomKey
from meshhost.stores.files import RoomFiles, clean_path

__all__ = ["built_in_name", "provide_schema"]

_ADDRESS = "http://localhost:8080/"


def built_in_name(url: str) -> tuple[str, str] | None:
    """The kind (`schemas` or `toolkits`) and name that a URL asks for; None for an address elsewhere."""
    if not url.startswith(_ADDRESS):
        return None
    kind, _, name = url.removeprefix(_ADDRESS).partition("/")
    return kind, name


async def provide_schema(files: RoomFiles, room: RoomKey, name: str, scope: ApiScope) -> bool:
    """Whether the room has this schema now, for who may read it; the one of threads is stored by who may write it."""
    path, storage = clean_path(f".schemas/{name}.json"), scope.storage
    if storage is None or not storage.can_read(path):
        return False
    if await files.stat(room, path) is not None:
        return True
    if name != "thread" or not storage.can_write(path):
        return False
    with suppress(AlreadyExistsError):  # another agent was faster
        schema = BytesIO(json.dumps(thread_schema.to_json()).encode())
        await files.write(room, path, schema, overwrite=False)
    return True

"""Stores the schema of chat threads in a room, where a document type is known only by the schema file in `.schemas/`.

A ChatBot calls this before it checks its requirements, so that chat works in a new room without any set-up.
"""

import json
import logging
from contextlib import suppress
from typing import TYPE_CHECKING

from meshhost.documents.thread_schema import thread_schema
from meshhost.errors import AlreadyExistsError

if TYPE_CHECKING:
    from meshhost.room.client import RoomClient

__all__ = ["SCHEMA_NAME", "SCHEMA_PATH", "ensure_thread_schema"]

logger = logging.getLogger(__name__)

SCHEMA_NAME = "thread"
SCHEMA_PATH = ".schemas/thread.json"


async def ensure_thread_schema(room: "RoomClient") -> None:
    """Store the schema in the room unless it is there; safe to call from several agents at once. Raises AccessDeniedError."""
    if await room.storage.exists(path=SCHEMA_PATH):
        return
    data = json.dumps(thread_schema.to_json()).encode()
    with suppress(AlreadyExistsError):  # another agent stored it since we looked
        await room.storage.upload(path=SCHEMA_PATH, data=data)
        logger.info("stored the schema of threads", extra={"path": SCHEMA_PATH})

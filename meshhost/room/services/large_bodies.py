"""Large bodies and results of messages, sent and fetched in pieces (room-protocol §9).

A header of the wire is small, and a message of a queue is in the header. So `queues.py` and `leased.py` send a value of more
than LARGE_CHARS as an upload beside it, and fetch one that the server does not put into its answer. Servers that cannot do this
are known by their handshake; they get and give every message in the header, as before.

An upload ends with its connection, so a request that was sent again over a new one finds it gone: `with_uploads` begins anew. A
fetch asks for the next piece again. What was fetched is compared with the checksum before it is read.
"""

import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from meshhost.errors import ConnectionLostError, NotFoundError, RoomError
from meshhost.protocol.messages import FileResponse, Header
from meshhost.room.link import RoomLink
from meshhost.room.replies import reading

__all__ = [
    "LARGE_BODIES",
    "LARGE_CHARS",
    "LargeBody",
    "fetch",
    "large_body",
    "offers_large_bodies",
    "upload",
    "with_uploads",
]

T = TypeVar("T")

# The extension of servers that take uploads for messages, and give large ones in pieces.
LARGE_BODIES = "large_bodies"
# As many as a server keeps in its database; ASCII, so the same in bytes.
LARGE_CHARS = 256 * 1024
# Small enough that other requests of the connection are not delayed for long.
_PIECE = 1024 * 1024
_TRIES = 5


@dataclass(frozen=True, slots=True)
class LargeBody:
    """What is known of a large body or result that is not here: its size in bytes, its SHA-256, and its first characters."""

    size: int
    sha256: str
    beginning: str = ""


def large_body(entry: Mapping[str, Any] | None) -> LargeBody | None:
    """Read what a reply says of a large body, if it does."""
    if entry is None:
        return None
    return LargeBody(int(entry["size"]), str(entry["sha256"]), str(entry.get("beginning", "")))


def offers_large_bodies(room: RoomLink) -> bool:
    """Whether the server of the room takes and gives large bodies in pieces."""
    try:
        return LARGE_BODIES in room.extensions.get("extensions", ())
    except RoomError:  # not connected yet
        return False


async def with_uploads(
    room: RoomLink, queue: str, texts: Sequence[str], send: Callable[[Sequence[str]], Awaitable[T]]
) -> T:
    """Upload these JSON texts for a queue, and return what `send` returns for their handles.

    Both are done again when the connection was lost in between: `send` must be safe to repeat.
    """
    tries = 0
    while True:
        tries += 1
        try:
            return await send([await upload(room, queue, text) for text in texts])
        except (ConnectionLostError, NotFoundError) as error:
            is_gone = isinstance(error, ConnectionLostError) or "no such upload" in str(error)
            if not is_gone or room.is_closed or tries == _TRIES:
                raise


async def upload(room: RoomLink, queue: str, text: str) -> str:
    """Upload a JSON text that is to be a message or result of this queue, and return its handle."""
    data = text.encode()
    answer = await room.send_request("queues.upload", {"name": queue, "size": len(data)})
    with reading("queues.upload"):
        handle = str(answer["handle"])
    for start in range(0, len(data), _PIECE):
        await room.send_request("queues.upload_write", {"handle": handle}, data[start : start + _PIECE])
    return handle


async def fetch(room: RoomLink, queue: str, message_id: str, large: LargeBody | None, *, part: str = "body") -> Any:
    """Return the value of a large body or result. `large` is what is known of it, if anything is.

    Raises NotFoundError when it is gone, RoomError when it is not what it was.
    """
    found = bytearray()
    size = None if large is None else large.size
    while size is None or len(found) < size:
        request: Header = {"name": queue, "id": message_id, "part": part, "offset": len(found), "length": _PIECE}
        response, extra = await room.request("queues.body", request, resume=LARGE_BODIES)
        if not isinstance(response, FileResponse):
            raise RoomError("the room server did not answer with a body")
        with reading("queues.body"):
            size = int(extra["size"])
        if not response.data and len(found) < size:
            raise RoomError("the body of the message ended early")
        found += response.data
    if large is not None and hashlib.sha256(found).hexdigest() != large.sha256:
        raise RoomError("the body of the message is not what was sent: its checksum differs")
    return json.loads(found)

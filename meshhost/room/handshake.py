"""The first two messages of a room server (room-protocol §6): `room_ready` and `connected`, in either order.

`keeper.py` makes one `Handshake` per dialled connection, passes it every message until both have arrived, reads the `Welcome`
from it and drops it: a host keeps thousands of idle clients, and none of them should hold the headers of its greeting.
"""

import asyncio
from dataclasses import dataclass
from typing import Any

from meshhost import tenant_names
from meshhost.errors import RequestTimeoutError, RoomError
from meshhost.protocol.connection import MessageReceived
from meshhost.protocol.messages import Header

__all__ = ["Handshake", "Welcome", "learn_tenant"]

_TYPES = ("room_ready", "connected")


@dataclass(frozen=True, slots=True)
class Welcome:
    """The room we are in and our id there. `extensions` is what the server offers beyond the MeshAgent protocol."""

    room_name: str
    room_url: str
    session_id: str
    participant_id: str
    extensions: dict[str, Any]

    def offers(self, extension: str) -> bool:
        """Whether the server offers this extension of the protocol."""
        names = self.extensions.get("extensions")
        return isinstance(names, list) and extension in names


def learn_tenant(said: object) -> None:
    """Take over the name of the room's tenant, as the server says it: `{"id", "name"}`. Anything else is ignored."""
    match said:
        case {"id": str(tenant), "name": str(name)}:
            tenant_names.learn({tenant: name})
        case _:
            pass


class Handshake:
    """Collects the two messages of one connection."""

    def __init__(self) -> None:
        self._headers: dict[str, Header] = {}
        self._complete: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def take(self, message: MessageReceived) -> bool:
        """Take the message if it belongs to the handshake; returns whether it did."""
        if message.type not in _TYPES:
            return False
        # The server also sends `connected` of other kinds; only the kind `init` describes this connection.
        if message.type == "room_ready" or message.header.get("type") == "init":
            self._headers[message.type] = message.header
        if len(self._headers) == len(_TYPES) and not self._complete.done():
            self._complete.set_result(None)
        return True

    async def wait(self, ended: asyncio.Task[RoomError], *, timeout: float) -> None:
        """Wait for both messages, at most `timeout` seconds.

        `ended` is the task that returns the error which ends the connection. Raises that error when the connection ends first,
        RequestTimeoutError when the server does not greet in time.
        """
        waited: set[asyncio.Future[Any]] = {ended, self._complete}
        await asyncio.wait(waited, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        if not self._complete.done():
            raise ended.result() if ended.done() else RequestTimeoutError("the room server did not say hello in time")

    def welcome(self) -> Welcome:
        """What both messages say. Raises RoomError when a member is missing."""
        ready, connected = self._headers["room_ready"], self._headers["connected"]
        extensions = connected.get("meshhost")
        if isinstance(extensions, dict):
            # Not kept with each client: it is the same for all clients of a tenant.
            learn_tenant(extensions.pop("tenant", None))
        try:
            return Welcome(
                room_name=str(ready["room_name"]),
                room_url=str(ready["room_url"]),
                session_id=str(ready["session_id"]),
                participant_id=str(connected["participantId"]),
                extensions=extensions if isinstance(extensions, dict) else {},
            )
        except (KeyError, TypeError, ValueError):
            raise RoomError("the room server's hello lacks a member") from None

    def attributes(self) -> dict[str, Any]:
        """Our own attributes as the server knows them. Raises RoomError when they are missing."""
        attributes = self._headers["connected"].get("attributes")
        if not isinstance(attributes, dict):
            raise RoomError("the room server's hello lacks a member")
        return attributes

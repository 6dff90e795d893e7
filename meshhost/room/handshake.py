"""What a room server says first (room-protocol §6): `room_ready` and `connected`, in either order."""

from dataclasses import dataclass
from typing import Any

from meshhost.errors import RoomError
from meshhost.protocol.connection import MessageReceived
from meshhost.protocol.messages import Header
from meshhost.tasks import LightEvent

__all__ = ["Handshake", "Welcome"]


@dataclass(frozen=True, slots=True)
class Welcome:
    """Where we are and who. `extensions` is what the server offers beyond the MeshAgent protocol."""

    room_name: str
    room_url: str
    session_id: str
    participant_id: str
    extensions: dict[str, Any]


class Handshake:
    """Collects the two messages of one connection; reset for the next."""

    def __init__(self) -> None:
        self._headers: dict[str, Header] = {}
        self.complete = LightEvent()
        """Set when both came."""

    def reset(self) -> None:
        """Begin again."""
        self._headers.clear()
        self.complete.clear()

    def take(self, message: MessageReceived) -> None:
        """Take one of the two; other kinds of `connected` mean nothing."""
        if message.type == "connected" and message.header.get("type") != "init":
            return
        self._headers[message.type] = message.header
        if len(self._headers) == 2:
            self.complete.set()

    def attributes(self) -> dict[str, Any]:
        """Our own, as of now. Raises RoomError when they are missing."""
        attributes = self._headers["connected"].get("attributes")
        if not isinstance(attributes, dict):
            raise RoomError("the room server's hello lacks a member")
        return attributes

    def welcome(self) -> Welcome:
        """What both say. Raises RoomError when a member is missing."""
        ready, connected = self._headers["room_ready"], self._headers["connected"]
        extensions = connected.get("meshhost")
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

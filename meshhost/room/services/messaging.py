"""Messages between participants, and presence (room-protocol §8).

Presence has no messages of its own on the wire: the server sends it as ordinary messages with reserved types
(`participant.enabled` and so on), which `_on_message` takes out and turns into events. The list of participants is replaced,
not merged, whenever the server sends it anew, as it does after a reconnect.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from meshhost.protocol.connection import MessageReceived
from meshhost.room.events import EventEmitter
from meshhost.room.link import RoomLink
from meshhost.room.participants import Participant, RemoteParticipant

__all__ = ["MessagingClient", "RoomMessage"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RoomMessage:
    """A message of another participant: its type, a JSON object, and bytes or None."""

    from_participant_id: str
    type: str
    message: dict[str, Any]
    attachment: bytes | None = field(default=None, repr=False)


class MessagingClient:
    """Send and receive messages, and see which participants are present.

    Messages to this participant arrive always; broadcasts and presence only after `enable()`. Events: `message` (with
    `message`, a RoomMessage), `participant_added`, `participant_removed`, `participant_attributes_updated` (each with
    `participant`), `messaging_enabled`.
    """

    def __init__(self, *, room: RoomLink) -> None:
        self._room = room
        self._events = EventEmitter(room.spawn)
        self._participants: dict[str, RemoteParticipant] = {}
        self._enabled = False
        room.register_handler("messaging.send", self._on_message)
        room.add_restorer(self._restore)

    @property
    def remote_participants(self) -> list[RemoteParticipant]:
        """All other participants that enabled messaging, as of now. Empty before `enable()`."""
        return list(self._participants.values())

    def get_participants(self) -> list[RemoteParticipant]:
        """The same as `remote_participants`."""
        return self.remote_participants

    def get_participant(self, id: str) -> RemoteParticipant | None:
        """The participant with this id, or None when it is not present."""
        return self._participants.get(id)

    def on(self, event_name: str, func: Callable[..., Any]) -> None:
        """Call `func` at each event of this name."""
        self._events.on(event_name, func)

    def off(self, event_name: str, func: Callable[..., Any]) -> None:
        """Undo `on`."""
        self._events.off(event_name, func)

    async def enable(self) -> None:
        """Receive broadcasts and presence, and be visible to others. On return the participants are known."""
        await self._room.send_request("messaging.enable", {})
        self._enabled = True

    async def disable(self) -> None:
        """Undo `enable`."""
        await self._room.send_request("messaging.disable", {})
        self._enabled = False
        self._participants.clear()

    async def send_message(
        self, *, to: Participant, type: str, message: dict[str, Any], attachment: bytes | None = None
    ) -> None:
        """Send to one participant; returns when the server has passed it on. Raises NotFoundError when it has left."""
        request = {"to_participant_id": to.id, "type": type, "message": message}
        await self._room.send_request("messaging.send", request, attachment)

    def send_message_nowait(
        self, *, to: Participant, type: str, message: dict[str, Any], attachment: bytes | None = None
    ) -> None:
        """Send in the background; a failure is logged."""
        self._room.spawn(self.send_message(to=to, type=type, message=message, attachment=attachment), f"send {type}")

    async def broadcast_message(self, *, type: str, message: dict[str, Any], attachment: bytes | None = None) -> None:
        """Send to all other participants that enabled messaging."""
        await self._room.send_request("messaging.broadcast", {"type": type, "message": message}, attachment)

    async def _restore(self) -> None:
        if self._enabled:
            await self.enable()

    def _on_message(self, received: MessageReceived) -> None:
        header = received.header
        message = RoomMessage(
            from_participant_id=header["from_participant_id"],
            type=header["type"],
            message=header["message"],
            attachment=received.payload or None,
        )
        presence = {
            "messaging.enabled": self._on_enabled,
            "participant.enabled": self._on_added,
            "participant.disabled": self._on_removed,
            "participant.attributes": self._on_attributes,
        }.get(message.type)
        if presence is not None:
            presence(message)
        else:
            self._events.emit("message", message=message)

    def _on_enabled(self, message: RoomMessage) -> None:
        # After a reconnect the list replaces what was known; participants that left meanwhile are reported as removed.
        present = {card["id"]: _participant(card) for card in message.message["participants"]}
        before, self._participants = self._participants, present
        for participant_id, participant in before.items():
            if participant_id not in present:
                self._events.emit("participant_removed", participant=participant)
        for participant_id, participant in present.items():
            if participant_id not in before:
                self._events.emit("participant_added", participant=participant)
        self._events.emit("messaging_enabled")

    def _on_added(self, message: RoomMessage) -> None:
        participant = _participant(message.message)
        self._participants[participant.id] = participant
        self._events.emit("participant_added", participant=participant)

    def _on_removed(self, message: RoomMessage) -> None:
        participant = self._participants.pop(message.message["id"], None)
        if participant is not None:
            self._events.emit("participant_removed", participant=participant)

    def _on_attributes(self, message: RoomMessage) -> None:
        participant = self._participants.get(message.from_participant_id)
        if participant is not None:
            participant.update_attributes(message.message["attributes"])
            self._events.emit("participant_attributes_updated", participant=participant)


def _participant(card: dict[str, Any]) -> RemoteParticipant:
    return RemoteParticipant(id=card["id"], role=card.get("role"), attributes=card.get("attributes"))

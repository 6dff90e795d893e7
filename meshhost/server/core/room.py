"""A room while it is open: who is there, what they offer, which calls are under way."""

import asyncio
import logging
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from meshhost.errors import NotFoundError
from meshhost.identity.tenant import RoomKey
from meshhost.server.core.calls import PendingCalls
from meshhost.server.core.participants import Participant
from meshhost.server.services.open_documents import RoomDocuments

__all__ = ["Registration", "Room", "Upload"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Registration:
    """A toolkit or agent that a participant offers. `description` is what it sent, `size` its length as JSON."""

    id: str
    participant: Participant
    name: str
    is_public: bool
    description: dict[str, Any]
    size: int = 0


@dataclass(slots=True)
class Upload:
    """A file being written through a handle."""

    participant: Participant
    path: str
    overwrite: bool
    file: Any  # a SpooledTemporaryFile: small uploads stay in memory
    size: int = 0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(slots=True)
class Room:
    """One life of a room. Members are participants with a connection, or lost for less than the resume time."""

    key: RoomKey
    url: str
    session_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    members: dict[str, Participant] = field(default_factory=dict)
    toolkits: dict[str, Registration] = field(default_factory=dict)
    agents: dict[str, Registration] = field(default_factory=dict)
    uploads: dict[str, Upload] = field(default_factory=dict)
    calls: PendingCalls = field(default_factory=PendingCalls)
    documents: RoomDocuments = field(default_factory=RoomDocuments)
    life: asyncio.Task[None] | None = None
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def changed(self) -> None:
        """Members came or went: let those look who wait for it."""
        self._changed.set()

    async def wait_until(self, holds: Callable[[], bool]) -> None:
        """Return when the condition on the members holds. Whoever calls bounds the wait."""
        while not holds():
            self._changed.clear()
            await self._changed.wait()

    def connected(self) -> Iterable[Participant]:
        """Members that can be told something now."""
        return [member for member in self.members.values() if member.connection is not None]

    def member(self, participant_id: str) -> Participant:
        """The connected member of this id. Raises NotFoundError."""
        member = self.members.get(participant_id)
        if member is None or member.connection is None:
            raise NotFoundError(f"no participant {participant_id!r} in this room")
        return member

    def has_participants_that_count(self) -> bool:
        """Whether the room stays open: for anybody whom it did not call in itself."""
        return any(not member.called_by_service for member in self.members.values())

    def tell(
        self, participants: Iterable[Participant], type: str, header: dict[str, Any], payload: bytes = b""
    ) -> None:
        """Send a message to each, without waiting for any."""
        for participant in participants:
            if participant.connection is not None:
                participant.connection.tell(type, header, payload)

    def visible(self, *, but: Participant) -> list[Participant]:
        """Those who enabled messaging, but one."""
        return [member for member in self.connected() if member.is_visible and member is not but]

    def tell_presence(self, about: Participant, type: str, message: dict[str, Any]) -> None:
        """Tell everybody else who enabled messaging about a participant."""
        header = {"from_participant_id": about.id, "type": type, "message": message}
        self.tell(self.visible(but=about), "messaging.send", header)

    def hide(self, participant: Participant) -> None:
        """The participant no longer takes part in messaging."""
        if participant.is_visible:
            participant.is_visible = False
            self.tell_presence(participant, "participant.disabled", {"id": participant.id})

    def drop_registrations(self, participant: Participant) -> None:
        """What belongs to a connection ends with it (room-protocol §6)."""
        self.hide(participant)
        participant.is_watching = False
        self.calls.fail(participant)
        self.documents.leave(participant)
        for registry in (self.toolkits, self.agents):
            for registration in [entry for entry in registry.values() if entry.participant is participant]:
                del registry[registration.id]
        for handle in [handle for handle, upload in self.uploads.items() if upload.participant is participant]:
            self.uploads.pop(handle).file.close()

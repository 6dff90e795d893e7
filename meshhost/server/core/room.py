"""One open room: its members, and how to reach them.

A `Room` object is one life of a room: a room that ended and started again is another object with another `session_id`. The
`RoomDirectory` makes and ends rooms and adds and removes members; services read the members and send events to them. What a
service knows about the room (registrations, open documents, calls in progress) is in the room's `slots`, never in a field here.
"""

import asyncio
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from meshhost.errors import NotFoundError
from meshhost.identity.tenant import RoomKey
from meshhost.server.core.participants import Participant
from meshhost.server.core.peer import Event
from meshhost.server.core.slots import Slots

__all__ = ["Room"]


@dataclass(slots=True, eq=False, weakref_slot=True)
class Room:
    """One life of a room. Members are participants with a connection, or without one for less than the resume time.

    `url` is the WebSocket address under which clients reach the room. `arriving` counts handshakes in progress: the room stays
    open for them. `is_awake`: the services know that it is open and its agents are called; a room that is only looked at
    sleeps. `has_new_work` is set when a message became ready, and cleared before the directory asks whether there is work.
    """

    key: RoomKey
    url: str
    session_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    members: dict[str, Participant] = field(default_factory=dict)
    arriving: int = 0
    is_awake: bool = False
    has_new_work: bool = False
    slots: Slots = field(default_factory=dict, repr=False)
    _changed: asyncio.Event = field(default_factory=asyncio.Event, repr=False)

    def changed(self) -> None:
        """Wake the tasks in `wait_until`: members joined or left."""
        self._changed.set()

    async def wait_until(self, holds: Callable[[], bool]) -> None:
        """Wait until the condition on the members holds. The caller must set a timeout."""
        while not holds():
            self._changed.clear()
            await self._changed.wait()

    def connected(self) -> list[Participant]:
        """Members that have a connection now."""
        return [member for member in self.members.values() if member.peer is not None]

    def member(self, participant_id: str) -> Participant:
        """The connected member with this id. Raises NotFoundError."""
        member = self.members.get(participant_id)
        if member is None or member.peer is None:
            raise NotFoundError(f"no participant {participant_id!r} in this room")
        return member

    def is_in_use(self) -> bool:
        """Whether someone other than the agents that the server called in is here or arriving."""
        return self.arriving > 0 or any(not member.called_by_service for member in self.members.values())

    @staticmethod
    def tell(participants: Iterable[Participant], event: Event) -> None:
        """Send an event to each connected participant of these, without waiting."""
        for participant in participants:
            if participant.peer is not None:
                participant.peer.tell(event)

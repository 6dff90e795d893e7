"""Which rooms are open, and when a room begins and ends.

A room starts when the first participant joins. It ends when for `linger_seconds` nobody was there who counts (everybody but
agents that the room called in itself), and the agents it called have no message left to work on.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from meshhost.identity.tenant import RoomKey
from meshhost.server.core.participants import Participant
from meshhost.server.core.room import Room
from meshhost.tasks import TaskOwner

__all__ = ["RoomDirectory"]

logger = logging.getLogger(__name__)

CLOSE_GOING_AWAY = 1001
CLOSE_RESUMED_ELSEWHERE = 4000
CLOSE_REVOKED = 4001
CLOSE_ROOM_ENDED = 4004


class RoomDirectory:
    """The open rooms of this server.

    `url_of` makes a room's WebSocket URL. `has_work` tells whether queues of a room hold messages. `on_lost` is told of
    participants that did not resume in time. It, `on_started` and `on_ended` run as background tasks.
    """

    def __init__(
        self,
        *,
        url_of: Callable[[str], str],
        has_work: Callable[[RoomKey], Awaitable[bool]],
        on_lost: Callable[[Participant], Coroutine[Any, Any, None]],
        on_started: Callable[[Room], Coroutine[Any, Any, None]],
        on_ended: Callable[[Room], Coroutine[Any, Any, None]],
        linger_seconds: float,
        resume_seconds: float,
    ) -> None:
        self._url_of = url_of
        self._has_work = has_work
        self._on_lost = on_lost
        self._on_started = on_started
        self._on_ended = on_ended
        self._linger_seconds = linger_seconds
        self._resume_seconds = resume_seconds
        self._rooms: dict[RoomKey, Room] = {}
        self._tasks = TaskOwner("rooms")
        self._timers: set[asyncio.TimerHandle] = set()

    @property
    def rooms(self) -> list[Room]:
        """The open rooms."""
        return list(self._rooms.values())

    def open(self, key: RoomKey) -> Room:
        """The room, started if it is not open."""
        room = self._rooms.get(key)
        if room is None:
            room = self._rooms[key] = Room(key=key, url=self._url_of(key.name))
            logger.info("room started", extra={"tenant": key.tenant, "room": key.name})
            room.life = self._tasks.spawn(self._on_started(room), name=f"room {key.name}")
        return room

    def resume(self, room: Room, resume_token: str | None, joining: Participant) -> Participant:
        """The member that comes back with its resume token, else `joining` as a new member.

        An old connection of that member that is still open is closed.
        """
        for member in room.members.values():
            if resume_token is not None and member.resume_token == resume_token and member.name == joining.name:
                if member.connection is not None:
                    room.drop_registrations(member)
                    member.connection.close(CLOSE_RESUMED_ELSEWHERE, "resumed on another connection")
                member.scope, member.expires_at, member.key_id = joining.scope, joining.expires_at, joining.key_id
                room.changed()
                return member
        room.members[joining.id] = joining
        room.changed()
        return joining

    def left(self, room: Room, participant: Participant, *, gone: bool) -> None:
        """A participant's connection ended. One that is not gone for good may resume for a while."""
        room.drop_registrations(participant)
        participant.connection = None
        if gone:
            self._forget(room, participant)
        else:
            self._later(self._resume_seconds, lambda: self._forget_if_lost(room, participant))
        room.changed()

    async def stop(self, *, timeout: float) -> None:
        """Tell everybody that the server goes away, and wait for their connections to end."""
        for timer in self._timers:
            timer.cancel()
        for room in self.rooms:
            for participant in room.connected():
                if participant.connection is not None:
                    participant.connection.close(CLOSE_GOING_AWAY, "the room server is stopping")
        try:
            async with asyncio.timeout(timeout):
                for room in self.rooms:
                    await room.wait_until(lambda room=room: not any(room.connected()))  # type: ignore[misc]
        except TimeoutError:
            logger.warning("participants did not leave in time")
        await self._tasks.stop(timeout=timeout)
        for timer in self._timers:  # those of participants that left meanwhile
            timer.cancel()

    def close_participants(self, which: Callable[[Participant], bool], reason: str) -> None:
        """Disconnect those whose right to be here has ended."""
        for room in self.rooms:
            for participant in room.connected():
                if participant.connection is not None and which(participant):
                    participant.connection.close(CLOSE_REVOKED, reason)

    def end(self, room: Room) -> None:
        """End the room now."""
        if self._rooms.get(room.key) is not room:
            return
        del self._rooms[room.key]
        if room.life is not None:
            room.life.cancel()
        for participant in room.connected():
            if participant.connection is not None:
                participant.connection.close(CLOSE_ROOM_ENDED, "the room has ended")
        logger.info("room ended", extra={"tenant": room.key.tenant, "room": room.key.name})
        self._tasks.spawn(self._on_ended(room), name=f"end of room {room.key.name}")

    def _forget_if_lost(self, room: Room, participant: Participant) -> None:
        if participant.connection is None:
            self._tasks.spawn(self._on_lost(participant), name="participant lost")
            self._forget(room, participant)
            room.changed()

    def _forget(self, room: Room, participant: Participant) -> None:
        room.members.pop(participant.id, None)
        if not room.has_participants_that_count():
            self._later(self._linger_seconds, lambda: self._tasks.spawn(self._end_if_idle(room), name="linger"))

    async def _end_if_idle(self, room: Room) -> None:
        if self._rooms.get(room.key) is not room or room.has_participants_that_count():
            return
        if room.members and await self._has_work(room.key):
            self._later(self._linger_seconds, lambda: self._tasks.spawn(self._end_if_idle(room), name="linger"))
        elif not room.has_participants_that_count():
            self.end(room)

    def _later(self, seconds: float, do: Callable[[], Any]) -> None:
        def run() -> None:
            self._timers.discard(timer)
            do()

        timer = asyncio.get_running_loop().call_later(seconds, run)
        self._timers.add(timer)

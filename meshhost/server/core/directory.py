"""The open rooms of this server: which exist, who is in them, and when each begins and ends.

A room starts when its first participant arrives, if this server may own it (`ownership.py`). It ends when nobody was in it for
`linger_seconds` except agents that the server called in itself, and those have no work left; or when it is deleted. The
handshake (`http/sockets.py`) calls `opening`, `join`, `attach` and, at the end of the connection, `leave`; REST calls `end` and
`close_participants`. The directory tells the services what happens through their hooks.

All state is changed synchronously in the event loop, so a participant is never half in a room. Three kinds of background task
run here, all owned by the directory and cancelled by `stop`: the services' `opened` hooks, one task per room; the hooks that
follow a room's end or a participant's loss; and the checks of rooms that linger.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from weakref import WeakValueDictionary

from meshhost.errors import MeshhostError
from meshhost.identity.tenant import RoomKey
from meshhost.server.core.ownership import RoomOwnership
from meshhost.server.core.participants import Participant
from meshhost.server.core.peer import Capability, CloseReason, Peer
from meshhost.server.core.room import Room
from meshhost.server.core.service import ServiceSet
from meshhost.tasks import TaskOwner

__all__ = ["RoomDirectory"]

logger = logging.getLogger(__name__)

# A participant whose connection the server ended for one of these must not come back.
_FINAL = frozenset({CloseReason.ACCESS_REVOKED, CloseReason.ROOM_ENDED})


class RoomDirectory:
    """The open rooms of this server. `url_of` makes a room's WebSocket URL from its name."""

    def __init__(
        self,
        services: ServiceSet,
        *,
        ownership: RoomOwnership,
        url_of: Callable[[str], str],
        linger_seconds: float,
        resume_seconds: float,
    ) -> None:
        self._services = services
        self._ownership = ownership
        self._url_of = url_of
        self._linger_seconds = linger_seconds
        self._resume_seconds = resume_seconds
        self._rooms: dict[RoomKey, Room] = {}
        self._opened: dict[Room, asyncio.Task[None]] = {}
        self._claims: WeakValueDictionary[RoomKey, asyncio.Lock] = WeakValueDictionary()
        self._tasks = TaskOwner("rooms")
        self._timers: set[asyncio.TimerHandle] = set()
        self._lost: dict[Participant, asyncio.TimerHandle] = {}
        self._is_stopping = False

    @property
    def rooms(self) -> list[Room]:
        """The open rooms."""
        return list(self._rooms.values())

    @property
    def is_stopping(self) -> bool:
        """Whether nobody may join any more."""
        return self._is_stopping

    def find(self, key: RoomKey) -> Room | None:
        """The room, if it is open."""
        return self._rooms.get(key)

    async def open(self, key: RoomKey) -> Room:
        """The room, started if it is not open. Raises OwnedElsewhereError when another server owns it."""
        room = self._rooms.get(key)
        if room is not None:
            return room
        async with self._claim_lock(key):
            await self._ownership.claim(key)
            # Someone else may have opened it while we waited.
            return self._rooms.get(key) or self._start(key)

    @asynccontextmanager
    async def opening(self, key: RoomKey) -> AsyncIterator[Room]:
        """Open the room, and keep it open during the block, in which a participant arrives. Raises as `open` does."""
        room = await self.open(key)
        room.arriving += 1
        has_arrived = False
        try:
            yield room
            has_arrived = True
        finally:
            room.arriving -= 1
            if not has_arrived:
                self._linger_if_unused(room)

    def join(self, room: Room, joining: Participant, *, resume_token: str | None) -> Participant:
        """Add a participant to the room, or return the member that comes back with its resume token.

        A connection that this member still has is closed.
        """
        for member in room.members.values():
            if resume_token is not None and member.resume_token == resume_token and member.name == joining.name:
                if member.peer is not None:
                    self._services.disconnected(room, member, member.peer)
                    member.peer.close(CloseReason.RESUMED_ELSEWHERE, "resumed on another connection")
                    member.peer = None
                member.scope, member.expires_at, member.key_id = joining.scope, joining.expires_at, joining.key_id
                room.changed()
                return member
        room.members[joining.id] = joining
        room.changed()
        return joining

    def attach(self, room: Room, participant: Participant, peer: Peer) -> None:
        """The participant is reached through this peer from now on."""
        participant.peer = peer
        if timer := self._lost.pop(participant, None):
            timer.cancel()
            self._timers.discard(timer)
        room.changed()
        self._services.joined(room, participant, peer)
        # Both may have happened while the participant's handshake was in progress.
        if self._is_stopping:
            peer.close(CloseReason.SERVER_STOPPING, "the room server is stopping")
        elif self._rooms.get(room.key) is not room:
            peer.close(CloseReason.ROOM_ENDED, "the room has ended")

    async def leave(self, room: Room, participant: Participant, peer: Peer, *, orderly: bool) -> None:
        """The connection of a peer ended. `orderly`: the client closed it on purpose.

        A participant that did not leave on purpose and is able to resume stays a member for the resume time. Returns when the
        services have settled what the connection held.
        """
        is_current = participant.peer is peer  # else it resumed on another connection
        orderly = orderly and is_current
        is_final = orderly or peer.closing in _FINAL or Capability.RESUME not in peer.capabilities
        has_left = is_current and is_final
        if is_current:
            self._services.disconnected(room, participant, peer)
            participant.peer = None
            if has_left:
                self._forget(room, participant)
            else:
                self._lost[participant] = self._later(self._resume_seconds, lambda: self._lose(room, participant))
            room.changed()
        await self._services.settle(room, participant, peer, orderly=orderly)
        if has_left:
            await self._services.left(room, participant)

    async def stop(self, *, timeout: float) -> None:
        """Disconnect all participants, wait until their connections have ended, and stop the background tasks. Idempotent."""
        if self._is_stopping:
            return
        self._is_stopping = True
        self._cancel_timers()
        self._close(lambda _: True, CloseReason.SERVER_STOPPING, "the room server is stopping")
        try:
            async with asyncio.timeout(timeout):
                for room in self.rooms:
                    await room.wait_until(lambda room=room: not room.connected())  # type: ignore[misc]
        except TimeoutError:
            logger.warning("participants did not leave in time")
        await self._tasks.stop(timeout=timeout)
        self._cancel_timers()  # those of participants that left meanwhile

    def close_participants(self, which: Callable[[Participant], bool], reason: str) -> None:
        """Disconnect the participants whose right to be here has ended; they cannot resume."""
        self._close(which, CloseReason.ACCESS_REVOKED, reason)

    def end(self, room: Room) -> None:
        """End the room now. Idempotent."""
        if self._rooms.get(room.key) is not room:
            return
        del self._rooms[room.key]
        self._opened.pop(room).cancel()
        for participant in room.connected():
            if participant.peer is not None:
                participant.peer.close(CloseReason.ROOM_ENDED, "the room has ended")
        logger.info("room ended", extra={"tenant": room.key.tenant, "room": room.key.name})
        self._tasks.spawn(self._ended(room), name=f"end of room {room.key.name}")

    def _start(self, key: RoomKey) -> Room:
        room = self._rooms[key] = Room(key=key, url=self._url_of(key.name))
        logger.info("room started", extra={"tenant": key.tenant, "room": key.name})
        self._opened[room] = self._tasks.spawn(self._services.opened(room), name=f"room {key.name}")
        return room

    async def _ended(self, room: Room) -> None:
        await self._services.ended(room)
        async with self._claim_lock(room.key):
            if room.key not in self._rooms:  # it may have started again
                await self._ownership.release(room.key)

    def _claim_lock(self, key: RoomKey) -> asyncio.Lock:
        # The lock lives as long as someone holds or awaits it.
        return self._claims.setdefault(key, asyncio.Lock())

    def _close(self, which: Callable[[Participant], bool], reason: CloseReason, text: str) -> None:
        for room in self.rooms:
            for participant in room.connected():
                if participant.peer is not None and which(participant):
                    participant.peer.close(reason, text)

    def _lose(self, room: Room, participant: Participant) -> None:
        """The participant did not resume in time."""
        del self._lost[participant]
        self._tasks.spawn(self._services.left(room, participant), name="participant lost")
        self._forget(room, participant)
        room.changed()

    def _forget(self, room: Room, participant: Participant) -> None:
        room.members.pop(participant.id, None)
        self._linger_if_unused(room)

    def _linger_if_unused(self, room: Room) -> None:
        if self._rooms.get(room.key) is room and not room.is_in_use():
            self._later(self._linger_seconds, lambda: self._tasks.spawn(self._end_if_idle(room), name="linger"))

    async def _end_if_idle(self, room: Room) -> None:
        if self._rooms.get(room.key) is not room or room.is_in_use():
            return
        if room.members and await self._has_work(room):
            self._linger_if_unused(room)
        elif not room.is_in_use():  # someone may have come while we waited
            self.end(room)

    async def _has_work(self, room: Room) -> bool:
        try:
            return await self._services.has_work(room)
        except (OSError, TimeoutError, MeshhostError) as error:
            logger.warning("work of a room is not known", extra={"room": room.key.name, "reason": str(error)})
            return True  # ask again later

    def _later(self, seconds: float, do: Callable[[], Any]) -> asyncio.TimerHandle:
        def run() -> None:
            self._timers.discard(timer)
            do()

        timer = asyncio.get_running_loop().call_later(seconds, run)
        self._timers.add(timer)
        return timer

    def _cancel_timers(self) -> None:
        for timer in self._timers:
            timer.cancel()

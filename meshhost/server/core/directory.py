"""The open rooms of this server: which exist, who is in them, and when each begins and ends.

A room starts when its first participant arrives or when there is work for it (`need`), if this server may own it
(`ownership.py`). It ends when nobody was in it for `linger_seconds` except agents that the server called in itself, and no
service has work for them; or when it is deleted. The handshake (`http/sockets.py`) calls `opening`, `join`, `attach` and, at
the end of the connection, `leave`; REST calls `delete` and `close_participants`. The directory tells the services what happens
through their hooks.

A room that is only looked at is open but asleep: its services are not told, so no agent is called and no webhook sent. It wakes
when a participant arrives that does more than look, or when there is work, and else ends with its last participant.

All state is changed synchronously in the event loop, so a participant is never half in a room. Three kinds of background task
run here, all owned by the directory and cancelled by `stop`: the services' `opened` hooks, one task per room; the hooks that
follow a room's end or a participant's loss; and the checks of rooms that linger.
"""

import asyncio
import logging
import time
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
        self._lingering: dict[Room, asyncio.TimerHandle] = {}
        self._waking: set[RoomKey] = set()
        # Deleted rooms: their work does not open them again; a participant does.
        self._deleted: set[RoomKey] = set()
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

    async def open(self, key: RoomKey, *, wakes: bool = True) -> Room:
        """The room, opened if it is not open, and woken. Raises OwnedElsewhereError when another server owns it.

        With `wakes` false, a room that is not awake stays asleep.
        """
        room = self._rooms.get(key)
        if room is None:
            async with self._claim_lock(key):
                await self._ownership.claim(key)
                # Someone else may have opened it while we waited.
                room = self._rooms.get(key)
                if room is None:
                    room = self._rooms[key] = Room(key=key, url=self._url_of(key.name))
        if wakes:
            self.wake(room)
        return room

    @asynccontextmanager
    async def opening(self, key: RoomKey, *, wakes: bool = True) -> AsyncIterator[Room]:
        """Open the room, and keep it open during the block, in which a participant arrives. Raises as `open` does."""
        if wakes:
            self._deleted.discard(key)
        room = await self.open(key, wakes=wakes)
        room.arriving += 1
        try:
            yield room
        finally:
            room.arriving -= 1
            # Nobody may have arrived, or only an agent that the server called in and that came back by itself.
            self._linger_if_unused(room)

    def wake(self, room: Room) -> None:
        """Tell the services that the room is open, so that its agents are called. No effect when it is awake or has ended."""
        if room.is_awake or self._rooms.get(room.key) is not room:
            return
        room.is_awake = True
        logger.info("room started", extra={"tenant": room.key.tenant, "room": room.key.name})
        self._opened[room] = self._tasks.spawn(self._services.opened(room), name=f"room {room.key.name}")

    def need(self, key: RoomKey) -> None:
        """There is work in this room: wake it, opened in the background if it is closed. Does not wait and never raises.

        Called for every message that is sent, so it costs little for a room that is awake.
        """
        room = self._rooms.get(key)
        if room is not None:
            room.has_new_work = True
            self.wake(room)
        elif not (self._is_stopping or key in self._waking or key in self._deleted):
            self._waking.add(key)
            self._tasks.spawn(self._open_for_work(key), name=f"wakes room {key.name}")

    def check_join(self, room: Room, joining: Participant) -> None:
        """Raise the error with which a service refuses a participant that wants to join for the first time."""
        self._services.check_join(room, joining)

    def join(self, room: Room, joining: Participant, *, resume_token: str | None) -> Participant:
        """Add a participant to the room, or return the member that comes back with its resume token.

        A connection that this member still has is closed.
        """
        for member in room.members.values():
            # Rights may change with the token; who it is, and of which kind, may not.
            is_same = (member.name, member.role) == (joining.name, joining.role)
            if resume_token is not None and member.resume_token == resume_token and is_same:
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
        participant.peer, participant.attached_at = peer, time.monotonic()
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

    async def leave(
        self, room: Room, participant: Participant, peer: Peer, *, orderly: bool, may_return: bool = True
    ) -> None:
        """The connection of a peer ended. `orderly`: the client closed it on purpose; `may_return`: it may be resumed.

        A participant that did not leave on purpose and is able to resume stays a member for the resume time. Returns when the
        services have settled what the connection held.
        """
        is_current = participant.peer is peer  # else it resumed on another connection
        orderly = orderly and is_current
        may_return = may_return and Capability.RESUME in peer.capabilities
        is_final = orderly or peer.closing in _FINAL or not may_return
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

    def delete(self, key: RoomKey) -> None:
        """End the room if it is open. Work that it still has does not wake it; a participant that arrives does."""
        self._deleted.add(key)
        if (room := self._rooms.get(key)) is not None:
            self.end(room)

    def end(self, room: Room) -> None:
        """End the room now. Idempotent."""
        if self._rooms.get(room.key) is not room:
            return
        del self._rooms[room.key]
        self._stop_lingering(room)
        if opened := self._opened.pop(room, None):
            opened.cancel()
        for participant in room.connected():
            if participant.peer is not None:
                participant.peer.close(CloseReason.ROOM_ENDED, "the room has ended")
        if room.is_awake:
            logger.info("room ended", extra={"tenant": room.key.tenant, "room": room.key.name})
        self._tasks.spawn(self._ended(room), name=f"end of room {room.key.name}")

    async def _open_for_work(self, key: RoomKey) -> None:
        try:
            room = await self.open(key)
        except (OSError, TimeoutError, MeshhostError) as error:
            # Another server has it, or the next look for work tries again.
            fields = {"tenant": key.tenant, "room": key.name, "reason": str(error)}
            logger.info("room with work is not opened here", extra=fields)
        else:
            self._linger_if_unused(room)
        finally:
            self._waking.discard(key)

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
        if self._rooms.get(room.key) is not room or room.is_in_use():
            return
        if not room.is_awake:
            self.end(room)  # nobody but those who looked knows of it
            return
        # One timer for each room, counted from the last to leave.
        self._stop_lingering(room)
        self._lingering[room] = self._later(self._linger_seconds, lambda: self._check_idle(room))

    def _stop_lingering(self, room: Room) -> None:
        if timer := self._lingering.pop(room, None):
            timer.cancel()
            self._timers.discard(timer)

    def _check_idle(self, room: Room) -> None:
        del self._lingering[room]
        self._tasks.spawn(self._end_if_idle(room), name="linger")

    async def _end_if_idle(self, room: Room) -> None:
        if self._rooms.get(room.key) is not room or room.is_in_use():
            return
        room.has_new_work = False
        has_work = await self._has_work(room)
        # While we waited, someone may have come, or come and left again, or a message may have become ready.
        if room.is_in_use() or room in self._lingering:
            return
        if has_work or room.has_new_work:
            self._linger_if_unused(room)
        else:
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

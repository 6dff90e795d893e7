"""`GET /rooms/{room}/events`: a room as it is now, and again whenever that changes, as server-sent events.

Who watches a room sees its participants, queues and configured services without joining it: nothing is opened or woken. The
first event is the whole state, and at most one comes in a second. What follows is the whole state again, or with `changes=1`
only what has changed; a reader who is too far behind gets the whole state then, too. The state of a room, and what changed in
it, is made once for all who watch it (`fresh.py`, `room_state.py`). The key is checked again each second, and the stream ends
with a reason when it is worth nothing any more.

One task runs here for each stream, that of its request. It ends when the reader is gone, takes nothing for half a minute, or
the server stops.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from aiohttp import web

from meshhost.errors import LimitExceededError, MeshhostError, NotFoundError
from meshhost.identity.tenant import RoomKey, TenantId, check_room_name
from meshhost.queues.service import QueueService
from meshhost.server.core.directory import RoomDirectory
from meshhost.server.core.room import Room
from meshhost.server.fresh import Fresh
from meshhost.server.http.access import Access
from meshhost.server.services import queue_replies as replies
from meshhost.server.studio.room_state import RoomState, event

__all__ = ["EventRoutes"]

logger = logging.getLogger(__name__)

_SECONDS = 1.0
_PING_SECONDS = 15.0
_TAKE_SECONDS = 30.0
# Streams of one tenant at the same time.
MAX_STREAMS = 256


class EventRoutes:
    """Serves the events of rooms. `calls_of` reports the calls of a room's services."""

    def __init__(
        self,
        access: Access,
        directory: RoomDirectory,
        queues: QueueService,
        *,
        calls_of: Callable[[Room], list[dict[str, Any]]],
        seconds: float = _SECONDS,
    ) -> None:
        self._access = access
        self._directory = directory
        self._queues = queues
        self._calls_of = calls_of
        self._seconds = seconds
        self._states: Fresh[RoomKey, RoomState] = Fresh(self._state, seconds=seconds)
        self._streams: Counter[TenantId] = Counter()

    def add_to(self, app: web.Application) -> None:
        """Register the route."""
        app.add_routes([web.get("/rooms/{room}/events", self._watch, allow_head=False)])

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        tenant = TenantId(self._access.project(request))
        room = RoomKey(tenant, check_room_name(request.match_info["room"]))
        if self._access.identity.deleted_rooms.is_known(room):
            raise NotFoundError("the room is being deleted or imported")
        if self._streams[tenant] >= MAX_STREAMS:
            raise LimitExceededError(f"over {MAX_STREAMS} streams of events of this tenant are open")
        self._streams[tenant] += 1
        try:
            return await self._stream(request, room)
        finally:
            self._streams[tenant] -= 1
            if not self._streams[tenant]:
                del self._streams[tenant]

    async def _stream(self, request: web.Request, room: RoomKey) -> web.StreamResponse:
        first = await self._states.of(room)  # so that what fails is answered with a status
        headers = {"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        stream = web.StreamResponse(headers=headers)
        try:
            await stream.prepare(request)
            await _write(stream, first.value.event())
            await self._follow(request, stream, room, seen=first.number)
        except ConnectionError:  # the reader is gone
            pass
        except TimeoutError:
            logger.info(
                "a stream of events was ended: its reader took nothing",
                extra={"tenant": room.tenant, "room": room.name},
            )
            if request.transport is not None:
                request.transport.abort()
        return stream

    async def _follow(self, request: web.Request, stream: web.StreamResponse, room: RoomKey, *, seen: int) -> None:
        """Write an event for each change, until there is no more reason to. Raises ConnectionError, TimeoutError."""
        wants_changes = request.query.get("changes") == "1"
        wrote_at = time.monotonic()
        while request.transport is not None and not request.transport.is_closing():
            await asyncio.sleep(self._seconds)
            reason = self._ending(request, room)
            if reason is not None:
                await _write(stream, event("end", {"reason": reason}))
                return
            try:
                made = await self._states.of(room)
            except (OSError, MeshhostError) as error:
                logger.warning("the state of a room could not be read", extra={"room": room.name}, exc_info=error)
                await _write(stream, event("end", {"reason": "the room server could not read the room's state"}))
                return
            if made.number != seen:
                changes = made.value.changes_since(seen) if wants_changes else None
                seen = made.number
                await _write(stream, made.value.event() if changes is None else changes)
            elif time.monotonic() - wrote_at < _PING_SECONDS:
                continue
            else:
                await _write(stream, b": ping\n\n")
            wrote_at = time.monotonic()

    def _ending(self, request: web.Request, room: RoomKey) -> str | None:
        """Why the stream must end now, or None."""
        if self._directory.is_stopping:
            return "the room server is stopping"
        if self._access.identity.deleted_rooms.is_known(room):
            return "the room was deleted"
        try:
            self._access.key_holder(request)
        except MeshhostError as error:
            return str(error)
        return None

    async def _state(self, key: RoomKey) -> RoomState:
        room = self._directory.find(key)
        return RoomState.made(
            is_open=room is not None and room.is_awake,
            participants=[] if room is None else room.connected(),
            queues=[replies.listed(queue) for queue in await self._queues.stats(key)],
            calls=[] if room is None else self._calls_of(room),
            before=self._states.known(key),
        )


async def _write(stream: web.StreamResponse, data: bytes) -> None:
    async with asyncio.timeout(_TAKE_SECONDS):
        await stream.write(data)

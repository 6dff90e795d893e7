"""Streams that tell MCP clients when the tools of a room change.

A session has one by GET, the stateless generation by the request `subscriptions/listen`. Neither holds its room open: a change
is what the agents service reports, also of a room that ends and begins again meanwhile. Several changes at once are told once,
since all a client learns is that it should list again. A stream ends with its client, its session, the server, or the right to
it, which is looked at as often as the client is.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from aiohttp import web

from meshhost.errors import MeshhostError
from meshhost.identity.tenant import RoomKey
from meshhost.server.mcp.answers import LOOK_SECONDS, EventStream, is_gone

__all__ = ["Changes", "tell_changes"]

# Agents register their toolkits one by one: the first change waits this long for the others.
QUIET_SECONDS = 0.1


class Changes:
    """Who listens to which room."""

    def __init__(self) -> None:
        self._listening: dict[RoomKey, set[asyncio.Event]] = {}

    def changed(self, room: RoomKey) -> None:
        """Something was registered in the room, or is no longer."""
        for event in self._listening.get(room, ()):
            event.set()

    def listen(self, room: RoomKey) -> asyncio.Event:
        """An event that is set when the room's tools change, until `forget`."""
        event = asyncio.Event()
        self._listening.setdefault(room, set()).add(event)
        return event

    def forget(self, room: RoomKey, event: asyncio.Event) -> None:
        """Nobody waits for this event any more."""
        listening = self._listening.get(room, set())
        listening.discard(event)
        if not listening:
            self._listening.pop(room, None)


async def tell_changes(
    request: web.Request,
    changes: Changes,
    room: RoomKey,
    *,
    first: Mapping[str, Any] | None,
    message: Mapping[str, Any],
    is_over: Callable[[], bool],
    check: Callable[[], object],
) -> web.StreamResponse:
    """Answer with `first`, and with `message` for each change, until `is_over` or `check` raises a MeshhostError."""
    stream = EventStream(request, {})
    changed = changes.listen(room)
    try:
        await stream.open()
        if first is not None:
            await stream.write(first)
        while not (is_over() or is_gone(request)):
            try:
                async with asyncio.timeout(LOOK_SECONDS):
                    await changed.wait()
            except TimeoutError:
                check()
                await stream.keep_alive()
                continue
            await asyncio.sleep(QUIET_SECONDS)
            changed.clear()
            check()  # also while changes come one after the other
            await stream.write(message)
        if not is_gone(request):
            await stream.response.write_eof()
    except (MeshhostError, ConnectionError):  # the right to listen has ended, or the client is gone
        if request.transport is not None:
            request.transport.close()
    finally:
        changes.forget(room, changed)
    return stream.response

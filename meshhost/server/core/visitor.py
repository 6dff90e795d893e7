"""A participant without a connection of its own: what an MCP client is in a room for one call, or a web page that talks.

Such a request must have the same rights and the same consequences as one of a program that joined: its grants are checked by
the dispatcher, its provider sees who called, a revoked key ends it, and the room wakes for it. So a call is made by a
`Participant` that joins the room and leaves it when the call is over. Its `Peer` takes what the room reports (that a request
waits for an agent, that a tool got on) to whom it is made for, and answers nothing: a visitor registers no tools.

The task of the HTTP request runs all of it. When it is cancelled, the call is cancelled at its provider, as for any caller.
"""

import asyncio
import itertools
import math
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from meshhost.errors import ConnectionLostError, RoomError
from meshhost.protocol.connection import MessageReceived
from meshhost.protocol.messages import EmptyResponse, Header, Response
from meshhost.server.core.directory import RoomDirectory
from meshhost.server.core.dispatch import Dispatcher, Gatherable
from meshhost.server.core.participants import Participant
from meshhost.server.core.peer import Capability, CloseReason, Event
from meshhost.server.core.requests import Request
from meshhost.server.core.room import Room
from meshhost.server.core.slots import Slots
from meshhost.tasks import LightEvent, Stopped, uninterrupted, until

__all__ = ["Visitor", "visiting"]

T = TypeVar("T")

_ids = itertools.count(1)
# No call takes longer.
_MOST_SECONDS = 24 * 3600.0


class _VisitorPeer:
    """See Peer. `report` takes events."""

    capabilities = frozenset({Capability.PROGRESS})
    heard_at = math.inf

    def __init__(self, report: Callable[[Event], None]) -> None:
        self.slots: Slots = {}
        self.closing: CloseReason | None = None
        self.why_closed = ""
        self.closed = LightEvent()
        self._report = report

    def probe(self, *, patience: float) -> float:
        """See Peer."""
        return 0.0

    def tell(self, event: Event) -> int:
        """See Peer."""
        self._report(event)
        return next(_ids)

    async def send(self, event: Event) -> None:
        """See Peer."""
        self.tell(event)

    async def reply(
        self,
        message_id: int,
        operation: str,
        response: Response,
        extra: Header | None = None,
        *,
        reserved: int = 0,
    ) -> None:
        """See Peer. No operation that a visitor uses replies by itself."""
        raise ConnectionLostError("a visitor takes no answers")

    async def reserve(self, size: int) -> None:
        """See Peer."""

    def give_back(self, size: int) -> None:
        """See Peer."""

    async def flush(self) -> None:
        """See Peer."""

    def close(self, reason: CloseReason, text: str) -> None:
        """See Peer."""
        if self.closing is None:
            self.closing, self.why_closed = reason, text
            self.closed.set()


class Visitor:
    """Makes requests in a room as a participant that is in it."""

    def __init__(self, room: Room, participant: Participant, peer: _VisitorPeer, dispatch: Dispatcher) -> None:
        self.room = room
        self.participant = participant
        self._peer = peer
        self._dispatch = dispatch

    def request(self, operation: str, body: Header, payload: bytes = b"") -> Request:
        """A request of this visitor."""
        message = MessageReceived(next(_ids), operation, body, payload, {})
        return Request(self.room, self.participant, self._peer, message, operation)

    async def ask(self, operation: str, body: Header, payload: bytes = b"") -> Response:
        """The answer to a request. Raises RoomError, and ConnectionLostError when the participant has to leave meanwhile."""
        return await self.within(self._answer(self.request(operation, body, payload)))

    async def within(self, work: Coroutine[Any, Any, T]) -> T:
        """What the work returns, unless the participant has to leave meanwhile. Raises ConnectionLostError then."""
        won = await until(self._peer.closed, work)
        if isinstance(won, Stopped):
            raise ConnectionLostError(self._peer.why_closed)
        return won.result

    async def _answer(self, request: Request) -> Response:
        answer = self._dispatch(request)
        if isinstance(answer, Gatherable):
            raise RoomError(f"{request.operation} is for connections")
        if isinstance(answer, Coroutine):
            try:
                answer = await answer
            except BaseException as error:
                self._dispatch.finished(request, error)
                raise
            self._dispatch.finished(request)
        response = answer[0] if isinstance(answer, tuple) else answer
        return EmptyResponse() if response is None else response


@asynccontextmanager
async def visiting(
    directory: RoomDirectory,
    room: Room,
    participant: Participant,
    dispatch: Dispatcher,
    report: Callable[[Event], None],
) -> AsyncIterator[Visitor]:
    """Be in the room, which must be kept open by the caller, for the time of a block. Raises why it may not be joined."""
    directory.check_join(room, participant)
    peer = _VisitorPeer(report)
    directory.join(room, participant, resume_token=None)
    directory.attach(room, participant, peer)
    expiry = None
    if participant.expires_at is not None:
        seconds = min(participant.expires_at.timestamp() - time.time(), _MOST_SECONDS)
        text = "the token has expired"
        expiry = asyncio.get_running_loop().call_later(seconds, peer.close, CloseReason.ACCESS_REVOKED, text)
    try:
        yield Visitor(room, participant, peer, dispatch)
    finally:
        if expiry is not None:
            expiry.cancel()
        # Not interrupted: a participant that stays a member would keep the room open for ever.
        await uninterrupted(directory.leave(room, participant, peer, orderly=True))

"""Keep a room open across connections.

`RoomClient` must survive lost connections, restarts of the server and renewed tokens. `ConnectionKeeper` does that part: it
dials and shakes hands, notices when the connection ends, decides with `reconnect.is_final` whether another try makes sense, and
dials again with a growing random delay until the server lets us in or refuses. `RoomClient` calls `connect`, `open_session` and
`close`; the keeper calls back with every message (`on_message`) and with each change of state that nobody here asked for
(`on_change`).

Tasks, all owned by the client's `TaskOwner` and cancelled by `close()`:

- *session*, one per connection, runs `RoomSession.run()`. It returns the error that ended the connection and never raises.
- *connection* exists only while the client reconnects. While a connection lasts, no task waits for its end: the done-callback
  of the session task starts the reconnect. A host has thousands of idle rooms, and a waiting task costs 2 KiB.

Invariants: CLOSED is final. A session is set whenever the state is OPEN. It may have ended a moment ago, before the task
*connection* ran; its methods then raise ConnectionLostError.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from meshhost.clock import Clock
from meshhost.errors import ConnectionLostError, RequestTimeoutError, RoomError
from meshhost.protocol.connection import MessageReceived
from meshhost.protocol.frames import Limits
from meshhost.protocol.messages import Header
from meshhost.room.handshake import Handshake, Welcome, learn_tenant
from meshhost.room.link import Reply
from meshhost.room.participants import LocalParticipant
from meshhost.room.reconnect import ReconnectPolicy, is_final
from meshhost.room.session import RoomSession
from meshhost.room.state import CloseReason, RoomState
from meshhost.tasks import LightEvent, TaskOwner
from meshhost.transport.base import ClientProtocol

__all__ = ["HANDSHAKE_TIMEOUT", "REQUEST_TIMEOUT", "ConnectionKeeper"]

logger = logging.getLogger(__name__)

HANDSHAKE_TIMEOUT = 15.0
REQUEST_TIMEOUT = 60.0
_RESUME_PAUSE = 0.05


class ConnectionKeeper:
    """One participant's connection to one room, made again whenever it is lost.

    `on_message` gets every message of the server but the two of the handshake. `on_change` gets RECONNECTING when the
    connection was lost, OPEN when there is a new one, and CLOSED when the room is given up; not the changes made by `connect`
    and `close`.
    """

    __slots__ = (
        "_clock",
        "_dialled_token",
        "_handshake",
        "_handshake_timeout",
        "_limits",
        "_on_change",
        "_on_message",
        "_policy",
        "_protocol",
        "_state_changed",
        "_tasks",
        "closed",
        "participant",
        "reason",
        "request_timeout",
        "session",
        "state",
        "welcome",
    )

    def __init__(
        self,
        protocol: ClientProtocol,
        tasks: TaskOwner,
        *,
        on_message: Callable[[MessageReceived], None],
        on_change: Callable[[RoomState], None],
        policy: ReconnectPolicy,
        clock: Clock,
        limits: Limits,
        request_timeout: float = REQUEST_TIMEOUT,
        handshake_timeout: float = HANDSHAKE_TIMEOUT,
    ) -> None:
        self._protocol = protocol
        self._tasks = tasks
        self._on_message = on_message
        self._on_change = on_change
        self._policy = policy
        self._clock = clock
        self._limits = limits
        self._handshake_timeout = handshake_timeout
        self.request_timeout = request_timeout
        self._handshake: Handshake | None = None
        self._dialled_token = ""
        self._state_changed = LightEvent()
        self.state = RoomState.NEW
        self.closed = LightEvent()
        self.reason: CloseReason | None = None
        self.session: RoomSession | None = None
        self.welcome: Welcome | None = None
        self.participant: LocalParticipant | None = None

    async def connect(self) -> None:
        """Make the first connection. Raises RoomRefusedError, ConnectionLostError or RequestTimeoutError; is CLOSED then."""
        try:
            ended = await self._dial(resume=None)
        except BaseException as error:
            await self._tasks.stop()
            self._close_for(CloseReason(error if isinstance(error, RoomError) else None))
            raise
        self._set_state(RoomState.OPEN)
        ended.add_done_callback(self._session_ended)

    async def close(self) -> None:
        """Leave the room: send what waits, then close the connection. Idempotent; never raises. The caller stops the tasks."""
        session, self.session = self.session, None
        self._close_for(self.reason or CloseReason())
        if session is not None:
            await session.close()

    def break_cycles(self) -> None:
        """Drop the references back to the client. Only for a closed keeper that is not used any more."""
        self.participant = None
        self._on_message = _ignore
        self._on_change = _ignore

    async def open_session(self, timeout: float) -> RoomSession:
        """The session to send with; while reconnecting, wait for the next one at most `timeout` seconds.

        Raises the error for which the room was given up, else ConnectionLostError.
        """
        if self.state is RoomState.RECONNECTING:
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self._wait_reconnected()
        if self.session is not None and self.state is RoomState.OPEN:
            return self.session
        if self.state is RoomState.CLOSED and self.reason is not None and self.reason.error is not None:
            raise self.reason.error
        raise ConnectionLostError(f"the room is not open: it is {self.state.value}")

    async def request(
        self, type: str, header: Header, data: bytes | None, *, timeout: float, resume: str | None = None
    ) -> Reply:
        """Send a request and return its reply; see `RoomLink.request`."""
        end = self._clock.monotonic() + timeout
        lost: ConnectionLostError | None = None
        while True:
            session = self.session
            if session is None or self.state is not RoomState.OPEN:
                session = await self.open_session(end - self._clock.monotonic())
            if lost is not None and not self._may_resume(resume):  # the new server is of an older release
                raise lost
            try:
                return await session.request(type, header, data, timeout=max(end - self._clock.monotonic(), 0.0))
            except ConnectionLostError as error:
                if not self._may_resume(resume) or self._clock.monotonic() >= end:
                    raise
                lost = error.again()
            # The state changes a moment after the connection has ended: do not spin meanwhile.
            await self._clock.sleep(_RESUME_PAUSE)

    def _may_resume(self, extension: str | None) -> bool:
        """Whether a request may be sent again: the server that we know of offers this extension, and we are not closed."""
        if extension is None or self.welcome is None or self.state is RoomState.CLOSED:
            return False
        return self.welcome.offers(extension)

    async def _wait_reconnected(self) -> None:
        while self.state is RoomState.RECONNECTING:
            self._state_changed.clear()
            await self._state_changed.wait()

    def _session_ended(self, ended: asyncio.Task[RoomError]) -> None:
        if self.state is not RoomState.CLOSED and not ended.cancelled():
            self._tasks.spawn(self._recover(ended.result()), name="connection")

    async def _recover(self, error: RoomError) -> None:
        logger.info("room connection lost", extra={"reason": str(error)})
        self.session = None
        # With a token that was renewed meanwhile a try makes sense, although the server refused the old one as expired.
        if is_final(error) and self._protocol.token == self._dialled_token:
            self._give_up(error)
            return
        self._set_state(RoomState.RECONNECTING)
        self._on_change(RoomState.RECONNECTING)
        ended = await self._dial_again()
        if ended is not None:
            self._set_state(RoomState.OPEN)
            self._on_change(RoomState.OPEN)
            ended.add_done_callback(self._session_ended)

    async def _dial_again(self) -> asyncio.Task[RoomError] | None:
        """Dial until there is a connection; None when the room was given up."""
        resume = self.welcome.extensions.get("resume_token") if self.welcome is not None else None
        attempt = 0
        while True:
            attempt += 1
            await self._clock.sleep(self._policy.delay(attempt, random.random))
            try:
                return await self._dial(resume=resume if isinstance(resume, str) else None)
            except RoomError as error:
                is_same = self._protocol.token == self._dialled_token
                if is_final(error) and is_same and not isinstance(error, RequestTimeoutError):
                    self._give_up(error)
                    return None
                logger.info("room connection failed again", extra={"attempt": attempt, "reason": str(error)})

    async def _dial(self, *, resume: str | None) -> asyncio.Task[RoomError]:
        """Connect and shake hands; returns the task that ends with the connection."""
        self._dialled_token = self._protocol.token
        transport = await self._protocol.connect(resume=resume)
        handshake = self._handshake = Handshake()
        session = RoomSession(transport, self._take, limits=self._limits)
        ended = self._tasks.spawn(session.run(), name="session")
        try:
            await handshake.wait(ended, timeout=self._handshake_timeout)
            welcome = handshake.welcome()
            session.can_cancel = welcome.offers("cancel_request")
            self._enter(welcome, handshake.attributes())
        except BaseException:
            ended.cancel()
            await transport.close()
            raise
        finally:
            self._handshake = None
        self.session = session
        return ended

    def _enter(self, welcome: Welcome, attributes: dict[str, Any]) -> None:
        # What we set on an earlier connection stays: the client sends it again when it restores the services.
        if self.participant is not None:
            attributes = {**self.participant.attributes, **attributes}
        self.welcome = welcome
        self.participant = LocalParticipant(id=welcome.participant_id, attributes=attributes, tell=self.send_attributes)

    async def send_attributes(self, changed: dict[str, Any]) -> None:
        """Tell the room that attributes of ours changed."""
        session = await self.open_session(self.request_timeout)
        await session.notify("set_attributes", changed)

    def _take(self, message: MessageReceived) -> None:
        if self._handshake is not None and self._handshake.take(message):
            return
        if message.type == "tenant.renamed":
            learn_tenant(message.header)
        else:
            self._on_message(message)

    def _give_up(self, error: RoomError) -> None:
        self._close_for(CloseReason(error))
        self._on_change(RoomState.CLOSED)

    def _close_for(self, reason: CloseReason) -> None:
        self.reason = reason
        self._set_state(RoomState.CLOSED)
        self.closed.set()

    def _set_state(self, state: RoomState) -> None:
        self.state = state
        self._state_changed.set()


def _ignore(_: object) -> None:
    pass

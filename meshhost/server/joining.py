"""How a participant joins a room, whatever it is connected by: the checks, the greeting, its stay, and its leaving.

`sockets.py` uses it for a WebSocket of its own, `links.py` for a channel of a link. Both find out who comes, ask `place` for a
place in the counts of the tenant, open the room with `opening`, and `stay` until the connection has ended.
"""

import asyncio
import functools
import logging
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from meshhost.errors import ConnectionLostError
from meshhost.identity.tenant import RoomKey
from meshhost.identity.tokens import ParticipantToken
from meshhost.logs import log_context
from meshhost.protocol.connection import NO_RESUME
from meshhost.protocol.frames import SERVER_SLICE
from meshhost.quotas.counts import UNCOUNTED, TenantCounts, held
from meshhost.quotas.in_flight import Account, InFlight
from meshhost.quotas.quota import Resource
from meshhost.quotas.rates import Rates
from meshhost.server.config import ServerConfig
from meshhost.server.core.directory import RoomDirectory
from meshhost.server.core.dispatch import Dispatcher
from meshhost.server.core.participants import Participant
from meshhost.server.core.peer import CloseReason
from meshhost.server.core.requests import Operations
from meshhost.server.core.room import Room
from meshhost.server.metrics import ServerMetrics
from meshhost.server.wire.arriving import Arrivals, Arriving
from meshhost.server.wire.connection import Connection, GivenUp, Pulse
from meshhost.server.wire.dialect import Dialect, Dialects, Handshake, Translator, Welcome
from meshhost.transport.base import Transport

__all__ = ["Joining"]

logger = logging.getLogger(__name__)

# A timer further away than this would overflow some event loops; nobody stays connected for a year.
_MAX_TIMER_SECONDS = 365 * 24 * 3600


class Joining:
    """Lets participants into rooms. `operations` and `given_up` are those of the services; each dialect has a dispatcher."""

    def __init__(
        self,
        config: ServerConfig,
        *,
        directory: RoomDirectory,
        dialects: Dialects,
        operations: Operations,
        given_up: GivenUp,
        metrics: ServerMetrics,
        counts: TenantCounts = UNCOUNTED,
        rates: Rates,
        in_flight: InFlight,
    ) -> None:
        self._config = config
        self._directory = directory
        self._dialects = dialects
        self._dispatchers = {
            dialect.name: Dispatcher(dialect.operations(operations), count=metrics.count_request, rates=rates)
            for dialect in dialects
        }
        self._given_up = given_up
        self._counts = counts
        self._rates = rates
        self._in_flight = in_flight
        self.arrivals = Arrivals(seconds=config.message_seconds, bytes_per_second=config.edge.bytes_per_second)
        self.metrics = metrics

    @property
    def is_stopping(self) -> bool:
        """Whether nobody may join any more."""
        return self._directory.is_stopping

    def dialect(self, handshake: Handshake) -> Dialect:
        """The dialect of who comes. Raises InvalidRequestError."""
        return self._dialects.choose(handshake)

    def place(
        self, key: RoomKey, token: ParticipantToken, resume_token: str | None
    ) -> AbstractAsyncContextManager[None]:
        """The connection's place in the counts of its tenant. Raises QuotaExceededError, also when it is entered."""
        room = self._directory.find(key)
        members = () if room is None or resume_token is None else room.members.values()
        # It takes the place of a connection that has just ended, or is about to: the participant must not be lost for it.
        replaces = any(member.resume_token == resume_token for member in members)
        if not replaces:
            self._rates.connect(key.tenant)
        is_agent = token.role != "user"
        resources = (Resource.CONNECTIONS, Resource.AGENTS) if is_agent else (Resource.CONNECTIONS,)
        return held(self._counts, key.tenant, *resources, may_refuse=not replaces)

    def account(self, tenant: str) -> Account:
        """An account for the bytes that a new connection has in flight in one direction."""
        return self._in_flight.account(tenant, max_bytes=self._config.connection_bytes)

    def opening(self, key: RoomKey, *, wakes: bool) -> AbstractAsyncContextManager[Room]:
        """Open the room, and keep it open during the block. Raises OwnedElsewhereError."""
        return self._directory.opening(key, wakes=wakes)

    def check(self, room: Room, joining: Participant, resume_token: str | None) -> None:
        """Raise the error with which a service refuses a participant that joins for the first time."""
        if resume_token == NO_RESUME:
            self._directory.check_join(room, joining)

    def join(self, room: Room, joining: Participant, resume_token: str | None) -> Participant:
        """Add the participant to the room, or find the member that comes back. `stay` must follow without an await."""
        self.metrics.count_join("accepted")
        return self._directory.join(room, joining, resume_token=resume_token)

    async def stay(
        self,
        room: Room,
        participant: Participant,
        transport: Transport,
        *,
        dialect: Dialect,
        translator: Translator,
        received: Account,
        arriving: Arriving | None = None,
        pulse: Pulse | None = None,
        slice_bytes: int = SERVER_SLICE,
        may_return: Callable[[], bool] = lambda: True,
    ) -> None:
        """Serve a participant that has joined until its connection has ended, and let it leave the room.

        `may_return` is asked then: whether it has the time to resume still before it.
        """
        tenant = room.key.tenant
        connection = Connection(
            transport,
            heartbeat=pulse,
            room=room,
            participant=participant,
            dispatch=self._dispatchers[dialect.name],
            translator=translator,
            limits=self._config.limits,
            max_requests=self._config.max_requests,
            max_waiting_bytes=self._config.max_waiting_bytes,
            received=received,
            sent=self.account(tenant),
            arrivals=self.arrivals,
            arriving=arriving,
            given_up=self._given_up,
            pause=functools.partial(self._rates.pause, tenant),
            slice_bytes=slice_bytes,
        )
        with log_context(tenant=tenant, room=room.key.name, identity=participant.name):
            await self._stay(room, participant, connection, may_return)

    async def _stay(
        self, room: Room, participant: Participant, connection: Connection, may_return: Callable[[], bool]
    ) -> None:
        # Before the room can reach the participant: the greeting must be the first message that it receives.
        connection.greet(self._welcome(room, participant))
        self._directory.attach(room, participant, connection)
        logger.info("participant joined", extra={"role": participant.role})
        expiry = self._close_at_expiry(participant, connection)
        end = ConnectionLostError()
        try:
            end = await connection.serve()
        finally:
            if expiry is not None:
                expiry.cancel()
            orderly = end.clean and connection.closing is None
            logger.info("participant left", extra={"orderly": orderly, "close_code": end.close_code})
            await self._directory.leave(room, participant, connection, orderly=orderly, may_return=may_return())

    def _welcome(self, room: Room, participant: Participant) -> Welcome:
        return Welcome(
            room_name=room.key.name,
            room_url=room.url,
            session_id=room.session_id,
            participant_id=participant.id,
            attributes=participant.attributes,
            resume_token=participant.resume_token,
            resume_seconds=self._config.resume_seconds,
            lease_seconds=self._config.lease_seconds,
            max_message_bytes=self._config.limits.message_bytes,
            tenant=room.key.tenant,
        )

    @staticmethod
    def _close_at_expiry(participant: Participant, connection: Connection) -> asyncio.TimerHandle | None:
        if participant.expires_at is None:
            return None
        seconds = participant.expires_at.timestamp() - time.time()
        if seconds > _MAX_TIMER_SECONDS:
            return None
        loop = asyncio.get_running_loop()
        text = "the token has expired"
        return loop.call_later(max(seconds, 0.0), connection.close, CloseReason.ACCESS_REVOKED, text)

"""The WebSocket of a room: the checks before the upgrade, the handshake, and the participant's stay.

One task per connection runs here, the one of the HTTP request: it chooses the dialect, checks the token, opens the room, makes
the `Connection`, serves it until it ends, and tells the directory. A refusal is answered with an HTTP status before the
upgrade, because that is the only refusal that clients show to their users; which status a client needs is up to its dialect.

Between `opening` the room and joining it the task waits for the upgrade. The room stays open meanwhile; if it is deleted or the
server stops, the participant is greeted and disconnected with the reason.
"""

import asyncio
import functools
import logging
import time
from contextlib import AbstractAsyncContextManager

from aiohttp import web

from meshhost.edge.watched import connection_of
from meshhost.errors import ConnectionLostError, InvalidRequestError, MeshhostError
from meshhost.identity.tenant import RoomKey
from meshhost.identity.tokens import ParticipantToken
from meshhost.logs import log_context
from meshhost.protocol.connection import NO_RESUME
from meshhost.quotas.counts import UNCOUNTED, TenantCounts, held
from meshhost.quotas.in_flight import Account, InFlight
from meshhost.quotas.quota import Resource
from meshhost.quotas.rates import Rates
from meshhost.server.config import ServerConfig
from meshhost.server.core.directory import RoomDirectory
from meshhost.server.core.dispatch import Dispatcher
from meshhost.server.core.participants import Participant
from meshhost.server.core.peer import Capability, CloseReason
from meshhost.server.core.requests import Operations
from meshhost.server.core.room import Room
from meshhost.server.http.access import Access
from meshhost.server.http.errors import INTERNAL_ERROR, error_response, status_of, stopping_response
from meshhost.server.metrics import ServerMetrics
from meshhost.server.wire.arriving import Arrivals, Arriving
from meshhost.server.wire.connection import Connection, GivenUp
from meshhost.server.wire.dialect import Dialect, Dialects, Handshake, Welcome
from meshhost.transport.websocket_server import AiohttpTransport

__all__ = ["RoomSockets"]

logger = logging.getLogger(__name__)

# Clients send slices of up to 64 KiB; a frame may be as large as the one the MeshAgent client would take.
MAX_FRAME_BYTES = 4 * 1024 * 1024
# A timer further away than this would overflow some event loops; nobody stays connected for a year.
_MAX_TIMER_SECONDS = 365 * 24 * 3600


class RoomSockets:
    """Serves `GET /rooms/{name}`. `operations` and `given_up` are those of the services; each dialect has a dispatcher."""

    def __init__(
        self,
        config: ServerConfig,
        *,
        access: Access,
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
        self._access = access
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
        self._arrivals = Arrivals(seconds=config.message_seconds, bytes_per_second=config.edge.bytes_per_second)
        self._metrics = metrics

    def add_to(self, app: web.Application) -> None:
        """Register the route."""
        app.add_routes([web.get("/rooms/{room}", self._handle)])

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        if self._directory.is_stopping:
            return stopping_response()
        handshake = Handshake(request.headers, request.query)
        dialect = self._dialects.choose(handshake)
        try:
            key, token = self._access.participant(request, request.match_info["room"])
            async with self._place(key, token, dialect.resume_token(handshake)):
                return await self._serve(request, key, token, dialect, handshake)
        except MeshhostError as error:
            self._metrics.count_join("refused")
            status = status_of(error)
            if status == INTERNAL_ERROR:
                raise
            return error_response(error, status=dialect.refusal_status(status))

    def _place(
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

    async def _serve(
        self, request: web.Request, key: RoomKey, token: ParticipantToken, dialect: Dialect, handshake: Handshake
    ) -> web.WebSocketResponse:
        """Join the room, stay, leave. Raises OwnedElsewhereError, or why it may not join, before the upgrade."""
        socket = web.WebSocketResponse(autoping=False, max_msg_size=MAX_FRAME_BYTES, compress=False, timeout=5.0)
        if not socket.can_prepare(request):
            await socket.prepare(request)  # raises, so that a plain GET opens no room
        received = self._in_flight.account(key.tenant, max_bytes=self._config.connection_bytes)
        arriving = self._arriving(request, received)
        translator = dialect.translator(handshake)
        wakes = Capability.LOOK not in translator.capabilities
        joining, resume_token = Participant.from_token(token), dialect.resume_token(handshake)
        try:
            async with self._directory.opening(key, wakes=wakes) as room:
                if resume_token == NO_RESUME:
                    self._directory.check_join(room, joining)
                await socket.prepare(request)
                self._metrics.count_join("accepted")
                participant = self._directory.join(room, joining, resume_token=resume_token)
        except BaseException:
            if arriving is not None:
                arriving.close()
            received.close()
            raise
        transport = AiohttpTransport(
            socket, heartbeat_seconds=self._config.heartbeat_seconds, connection=request.transport
        )
        connection = Connection(
            transport,
            heartbeat=transport.heartbeat,
            room=room,
            participant=participant,
            dispatch=self._dispatchers[dialect.name],
            translator=translator,
            limits=self._config.limits,
            max_requests=self._config.max_requests,
            max_waiting_bytes=self._config.max_waiting_bytes,
            received=received,
            sent=self._in_flight.account(key.tenant, max_bytes=self._config.connection_bytes),
            arrivals=self._arrivals,
            arriving=arriving,
            given_up=self._given_up,
            pause=functools.partial(self._rates.pause, key.tenant),
        )
        # No await between joining the room and `serve`, where the participant is certain to leave it again.
        with log_context(tenant=key.tenant, room=key.name, identity=participant.name):
            await self._stay(room, participant, connection)
        return socket

    def _arriving(self, request: web.Request, received: Account) -> Arriving | None:
        """What reserves room for the frames of the connection, from its first one on. Raises InvalidRequestError."""
        connection = connection_of(request)
        if connection is None:  # not a listener of ours
            return None
        arriving = Arriving(connection, received, self._arrivals, most=MAX_FRAME_BYTES)
        if not connection.watch_data(arriving.feed):
            raise InvalidRequestError("frames", "expected none before the answer to the upgrade")
        return arriving

    async def _stay(self, room: Room, participant: Participant, connection: Connection) -> None:
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
            await self._directory.leave(room, participant, connection, orderly=orderly)

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

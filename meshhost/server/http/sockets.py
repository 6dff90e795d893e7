"""The WebSocket of a room: checks, handshake, and the participant's stay."""

import asyncio
import logging
import time

from aiohttp import web

from meshhost.errors import ConnectionLostError, MeshhostError
from meshhost.logs import log_context
from meshhost.protocol.connection import RESUME_HEADER
from meshhost.server.config import ServerConfig
from meshhost.server.core.directory import CLOSE_RESUMED_ELSEWHERE, CLOSE_REVOKED, CLOSE_ROOM_ENDED, RoomDirectory
from meshhost.server.core.dispatch import Dispatcher
from meshhost.server.core.participants import Participant
from meshhost.server.core.room import Room
from meshhost.server.http.access import Access
from meshhost.server.metrics import ServerMetrics
from meshhost.server.services.queues import QueueHandlers
from meshhost.server.wire.connection import Connection
from meshhost.transport.websocket_server import AiohttpTransport

__all__ = ["RoomSockets"]

logger = logging.getLogger(__name__)

PROTOCOL_VERSION = 1
EXTENSIONS = ("leases", "resume", "dead_letters", "cancel")
# Clients send slices of up to 64 KiB; a frame may be as large as the one the MeshAgent client would take.
MAX_FRAME_BYTES = 4 * 1024 * 1024
# After these nobody resumes.
_FINAL_CODES = frozenset({CLOSE_REVOKED, CLOSE_ROOM_ENDED})


class RoomSockets:
    """Serves `GET /rooms/{name}`. Refuses with an HTTP status before the upgrade: the only refusal that clients see."""

    def __init__(
        self,
        *,
        config: ServerConfig,
        access: Access,
        directory: RoomDirectory,
        dispatcher: Dispatcher,
        queues: QueueHandlers,
        metrics: ServerMetrics,
    ) -> None:
        self._config = config
        self._access = access
        self._directory = directory
        self._dispatcher = dispatcher
        self._queues = queues
        self._metrics = metrics
        self.is_stopping = False

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Join the room, stay, leave."""
        if self.is_stopping:
            return web.Response(status=503, text="the room server is stopping", headers={"Retry-After": "1"})
        try:
            key, token = self._access.participant(request, request.match_info["room"])
        except MeshhostError:
            self._metrics.count_join("refused")
            raise
        socket = web.WebSocketResponse(
            heartbeat=self._config.heartbeat_seconds, max_msg_size=MAX_FRAME_BYTES, compress=False, timeout=5.0
        )
        await socket.prepare(request)
        self._metrics.count_join("accepted")
        room = self._directory.open(key)
        resume_token = request.headers.get(RESUME_HEADER)
        participant = self._directory.resume(room, resume_token, Participant.from_token(token))
        participant.can_resume = resume_token is not None
        with log_context(tenant=key.tenant, room=key.name, identity=participant.name):
            await self._stay(socket, room, participant)
        return socket

    async def _stay(self, socket: web.WebSocketResponse, room: Room, participant: Participant) -> None:
        connection = self._connection(socket, room, participant)
        participant.connection = connection
        room.changed()
        self._greet(connection)
        logger.info("participant joined", extra={"role": participant.role})
        expiry = self._close_at_expiry(participant, connection)
        end = ConnectionLostError()
        try:
            end = await connection.serve()
        finally:
            if expiry is not None:
                expiry.cancel()
            await self._leave(room, connection, end)

    async def _leave(self, room: Room, connection: Connection, end: ConnectionLostError) -> None:
        participant = connection.participant
        resumed = end.close_code == CLOSE_RESUMED_ELSEWHERE or participant.connection is not connection
        orderly = end.clean and not connection.is_closing and not resumed
        gone = not resumed and (orderly or end.close_code in _FINAL_CODES or not participant.can_resume)
        if not resumed:
            self._directory.left(room, participant, gone=gone)
        logger.info("participant left", extra={"orderly": orderly, "close_code": end.close_code})
        await self._queues.connection_ended(connection, orderly=orderly)
        if gone:
            await self._queues.participant_gone(participant)

    def _connection(self, socket: web.WebSocketResponse, room: Room, participant: Participant) -> Connection:
        return Connection(
            AiohttpTransport(socket),
            room=room,
            participant=participant,
            dispatch=self._dispatcher,
            limits=self._config.limits,
            max_requests=self._config.max_requests,
            max_waiting_bytes=self._config.max_waiting_bytes,
        )

    def _greet(self, connection: Connection) -> None:
        room, participant = connection.room, connection.participant
        connection.tell("room_ready", {"room_name": room.key.name, "room_url": room.url, "session_id": room.session_id})
        connection.tell(
            "connected",
            {
                "type": "init",
                "participantId": participant.id,
                "attributes": participant.attributes,
                "meshhost": {
                    "version": PROTOCOL_VERSION,
                    "extensions": list(EXTENSIONS),
                    "resume_token": participant.resume_token,
                    "resume_seconds": self._config.resume_seconds,
                    "lease_seconds": self._config.lease_seconds,
                    "max_message_bytes": self._config.limits.message_bytes,
                },
            },
        )

    @staticmethod
    def _close_at_expiry(participant: Participant, connection: Connection) -> asyncio.TimerHandle | None:
        if participant.expires_at is None:
            return None
        loop = asyncio.get_running_loop()
        seconds = participant.expires_at.timestamp() - time.time()
        # A timer further away than this would overflow some event loops; nobody stays connected for a year.
        if seconds > 365 * 24 * 3600:
            return None
        return loop.call_later(max(seconds, 0.0), connection.close, CLOSE_REVOKED, "the token has expired")

"""The WebSocket of a room: the checks before the upgrade, and the handshake.

One task per connection runs here, the one of the HTTP request: it chooses the dialect, checks the token, opens the room, and
hands the participant to `joining.py` until its connection ends. A refusal is answered with an HTTP status before the upgrade,
because that is the only refusal that clients show to their users; which status a client needs is up to its dialect.

Between `opening` the room and joining it the task waits for the upgrade. The room stays open meanwhile; if it is deleted or the
server stops, the participant is greeted and disconnected with the reason.
"""

from aiohttp import web

from meshhost.edge.watched import connection_of
from meshhost.errors import InvalidRequestError, MeshhostError
from meshhost.identity.tenant import RoomKey
from meshhost.identity.tokens import ParticipantToken
from meshhost.quotas.in_flight import Account
from meshhost.server.config import ServerConfig
from meshhost.server.core.participants import Participant
from meshhost.server.core.peer import Capability
from meshhost.server.http.access import Access
from meshhost.server.http.errors import INTERNAL_ERROR, error_response, status_of, stopping_response
from meshhost.server.joining import Joining
from meshhost.server.wire.arriving import Arriving
from meshhost.server.wire.dialect import Dialect, Handshake
from meshhost.transport.websocket_server import AiohttpTransport

__all__ = ["RoomSockets", "arriving_for"]

# Clients send slices of up to 64 KiB; a frame may be as large as the one the MeshAgent client would take.
MAX_FRAME_BYTES = 4 * 1024 * 1024


class RoomSockets:
    """Serves `GET /rooms/{name}`."""

    def __init__(self, config: ServerConfig, *, access: Access, joining: Joining) -> None:
        self._config = config
        self._access = access
        self._joining = joining

    def add_to(self, app: web.Application) -> None:
        """Register the route."""
        app.add_routes([web.get("/rooms/{room}", self._handle)])

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        if self._joining.is_stopping:
            return stopping_response()
        handshake = Handshake(request.headers, request.query)
        dialect = self._joining.dialect(handshake)
        try:
            key, token = self._access.participant(request, request.match_info["room"])
            async with self._joining.place(key, token, dialect.resume_token(handshake)):
                return await self._serve(request, key, token, dialect, handshake)
        except MeshhostError as error:
            self._joining.metrics.count_join("refused")
            status = status_of(error)
            if status == INTERNAL_ERROR:
                raise
            return error_response(error, status=dialect.refusal_status(status))

    async def _serve(
        self, request: web.Request, key: RoomKey, token: ParticipantToken, dialect: Dialect, handshake: Handshake
    ) -> web.WebSocketResponse:
        """Join the room, stay, leave. Raises OwnedElsewhereError, or why it may not join, before the upgrade."""
        socket = web.WebSocketResponse(autoping=False, max_msg_size=MAX_FRAME_BYTES, compress=False, timeout=5.0)
        if not socket.can_prepare(request):
            await socket.prepare(request)  # raises, so that a plain GET opens no room
        received = self._joining.account(key.tenant)
        arriving = arriving_for(request, received, self._joining, most=MAX_FRAME_BYTES)
        translator = dialect.translator(handshake)
        wakes = Capability.LOOK not in translator.capabilities
        joining, resume_token = Participant.from_token(token), dialect.resume_token(handshake)
        try:
            async with self._joining.opening(key, wakes=wakes) as room:
                self._joining.check(room, joining, resume_token)
                await socket.prepare(request)
                participant = self._joining.join(room, joining, resume_token)
        except BaseException:
            if arriving is not None:
                arriving.close()
            received.close()
            raise
        transport = AiohttpTransport(
            socket, heartbeat_seconds=self._config.heartbeat_seconds, connection=request.transport
        )
        # No await between joining the room and staying, where the participant is certain to leave it again.
        await self._joining.stay(
            room,
            participant,
            transport,
            dialect=dialect,
            translator=translator,
            received=received,
            arriving=arriving,
            pulse=transport.heartbeat,
        )
        return socket


def arriving_for(request: web.Request, received: Account, joining: Joining, *, most: int) -> Arriving | None:
    """What reserves room for the frames of the connection, from its first one on. Raises InvalidRequestError."""
    connection = connection_of(request)
    if connection is None:  # not a listener of ours
        return None
    arriving = Arriving(connection, received, joining.arrivals, most=most)
    if not connection.watch_data(arriving.feed):
        raise InvalidRequestError("frames", "expected none before the answer to the upgrade")
    return arriving

"""`GET /rooms/{room}/voice/{agent}`: the checks before a web page may talk with an agent.

The page shows a participant token of the room, as `Authorization: Bearer` or, because browsers cannot set headers here, as
`?token=`. No cookie counts, so a page of somebody else has no rights. `?rate=` is that of the sound in both directions and
`?transcript_path=` a thread for the transcript. A refusal is an HTTP status, before the upgrade; what goes wrong later is the
reason of the last message, `{"type": "end", "reason"}`.
"""

from aiohttp import web

from meshhost.errors import AccessDeniedError, InvalidRequestError, MeshhostError
from meshhost.identity.tokens import ParticipantToken
from meshhost.protocol.voice_messages import MAX_RATE, MIN_RATE, RATE_STEP
from meshhost.quotas.counts import TenantCounts, held
from meshhost.quotas.quota import Resource
from meshhost.quotas.rates import Rates
from meshhost.server.core.directory import RoomDirectory
from meshhost.server.core.dispatch import Dispatcher
from meshhost.server.core.participants import Participant
from meshhost.server.core.visitor import visiting
from meshhost.server.http.access import Access
from meshhost.server.http.errors import stopping_response
from meshhost.server.voice.call import WebCall
from meshhost.stores.files import clean_path

__all__ = ["VoiceRoutes"]

# Half a second of sound at the highest rate is 48 KB.
_MAX_MESSAGE_BYTES = 64 * 1024
_HEARTBEAT_SECONDS = 20.0
_DEFAULT_RATE = 16_000
_MAX_PATH_CHARS = 1_000


class VoiceRoutes:
    """Serves voice calls of web pages. `dispatch` has the operations of messaging."""

    def __init__(
        self, access: Access, directory: RoomDirectory, dispatch: Dispatcher, counts: TenantCounts, rates: Rates
    ) -> None:
        self._access = access
        self._directory = directory
        self._dispatch = dispatch
        self._counts = counts
        self._rates = rates

    def add_to(self, app: web.Application) -> None:
        """Register the route."""
        app.add_routes([web.get("/rooms/{room}/voice/{agent}", self._handle)])

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        if self._directory.is_stopping:
            return stopping_response()
        key, token = self._access.participant(request, request.match_info["room"])
        participant = _participant(token)
        rate, path = _rate_in(request), _path_in(request, participant)
        socket = web.WebSocketResponse(max_msg_size=_MAX_MESSAGE_BYTES, heartbeat=_HEARTBEAT_SECONDS, compress=False)
        if not socket.can_prepare(request):
            await socket.prepare(request)  # raises, so that a plain GET opens no room
        self._rates.connect(key.tenant)
        call = WebCall(socket, request.match_info["agent"], rate, path)
        async with held(self._counts, key.tenant, Resource.CONNECTIONS), self._directory.opening(key) as room:
            self._directory.check_join(room, participant)
            await socket.prepare(request)
            reason: str | None = None
            try:
                async with visiting(self._directory, room, participant, self._dispatch, call.report) as visitor:
                    await call.run(visitor)
            except MeshhostError as error:
                reason = str(error)
            await call.close(reason)
        return socket


def _participant(token: ParticipantToken) -> Participant:
    """A new participant with the rights of the token. Raises AccessDeniedError when they do not include talking."""
    participant = Participant.from_token(token)
    messaging = participant.scope.messaging
    if messaging is None or not (messaging.send and messaging.list):
        raise AccessDeniedError(
            "call", "an agent by voice (the token does not grant messaging.send and messaging.list)"
        )
    return participant


def _rate_in(request: web.Request) -> int:
    text = request.query.get("rate", str(_DEFAULT_RATE))
    # Looked at for its length first: Python refuses to read a number of thousands of digits.
    is_number = len(text) <= 6 and text.isascii() and text.isdigit()
    if not (is_number and MIN_RATE <= int(text) <= MAX_RATE and int(text) % RATE_STEP == 0):
        raise InvalidRequestError(
            "rate", f"expected a multiple of {RATE_STEP} from {MIN_RATE} to {MAX_RATE}, got {text[:20]!r}"
        )
    return int(text)


def _path_in(request: web.Request, participant: Participant) -> str | None:
    """Where the transcript goes. The agent writes it, with its own rights, so the page's are checked here."""
    path = request.query.get("transcript_path")
    if path is None:
        return None
    if not 0 < len(path) <= _MAX_PATH_CHARS:
        raise InvalidRequestError("transcript_path", "expected the path of a thread")
    sync = participant.scope.sync
    if sync is None or not sync.can_write(clean_path(path)):
        raise AccessDeniedError("call", f"transcript_path {path!r} (the token does not grant sync to write it)")
    return path

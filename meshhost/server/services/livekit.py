"""Voice sessions: a participant asks where the LiveKit server of its room is, and gets a token to join one session there.

The room server carries no sound itself. With `LivekitConfig` it signs tokens for a LiveKit server, which the participant then
joins by itself; the agent that speaks with it asks for the same `breakout_room` and so arrives in the same session.

Invariants: the name of the session is derived with the API secret from tenant, room and breakout room, so that two tenants
never meet however they name theirs, and nobody can guess one; every server of a room derives the same. The token opens that one
session, only for as long as the participant's own token is good, and grants nothing else of LiveKit.
"""

import hashlib
import hmac
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
from pydantic import Field

from meshhost.clock import Clock, SystemClock
from meshhost.errors import RoomError
from meshhost.identity.grants import ApiScope
from meshhost.identity.tenant import RoomKey
from meshhost.protocol.messages import JsonResponse
from meshhost.server.config import LivekitConfig
from meshhost.server.core.participants import Participant
from meshhost.server.core.requests import Answer, Body, Operation, Operations, Request
from meshhost.server.core.service import RoomService

__all__ = ["LivekitService", "session_name"]

# A token is for joining: LiveKit itself renews it for those who are connected.
_TOKEN_SECONDS = 3600.0
# Clocks of two servers differ by less.
_LEEWAY = timedelta(seconds=10)


class _Connect(Body):
    breakout_room: str | None = Field(None, max_length=256)


class LivekitService(RoomService):
    """Tokens for voice sessions on a LiveKit server."""

    def __init__(self, config: LivekitConfig, *, clock: Clock | None = None) -> None:
        self._config = config
        self._clock = clock or SystemClock()

    def operations(self) -> Operations:
        """See RoomService."""
        return {"livekit.connect": Operation(_Connect, self._connect, _may_join, lambda body: body.breakout_room or "")}

    def _connect(self, request: Request, body: _Connect) -> Answer:
        missing = self._config.missing()
        if missing:
            raise RoomError(
                f"livekit.connect: this room server has no LiveKit: its operator sets {', '.join(missing)}"
                " (voice through a WebSocket needs none)"
            )
        session = session_name(str(self._config.api_secret), request.room.key, body.breakout_room or "")
        return JsonResponse(json={"url": self._config.url, "token": self._token(request.participant, session)})

    def _token(self, participant: Participant, session: str) -> str:
        now = datetime.fromtimestamp(self._clock.time(), UTC)
        end = now + timedelta(seconds=_TOKEN_SECONDS)
        if participant.expires_at is not None:
            end = min(end, participant.expires_at)
        is_agent = participant.role == "agent"
        claims: dict[str, Any] = {
            "iss": self._config.api_key,
            "sub": participant.id,
            "name": participant.name,
            "nbf": now - _LEEWAY,
            "exp": end,
            **({"kind": "agent"} if is_agent else {}),
            "metadata": json.dumps({"participant_id": participant.id, "role": participant.role}),
            "video": {
                "room": session,
                "roomJoin": True,
                "canPublish": True,
                "canSubscribe": True,
                "canPublishData": True,
                # An agent shows what it does as an attribute.
                **({"canUpdateOwnMetadata": True} if is_agent else {}),
            },
        }
        return jwt.encode(claims, key=str(self._config.api_secret), algorithm="HS256")


def session_name(secret: str, room: RoomKey, breakout_room: str) -> str:
    """The name at LiveKit of the session of a breakout room."""
    # As JSON: however the names are chosen, different ones stay different.
    named = json.dumps([room.tenant, room.name, breakout_room]).encode()
    return f"meshhost-{hmac.new(secret.encode(), named, hashlib.sha256).hexdigest()[:32]}"


def _may_join(scope: ApiScope, body: _Connect) -> bool:
    return scope.livekit is not None and scope.livekit.can_join_breakout_room(body.breakout_room or "")

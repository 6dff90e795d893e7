"""Authentication of HTTP requests: participant tokens, API keys, and what the server signs itself.

Every route asks `Access` who the caller is before it does anything else. The tenant comes from here and from nowhere else: from
the verified token or key, never from a name in the request. The identity store knows the keys; this module checks signatures
and scopes, and signs file URLs and logins with a secret that lives as long as the process.
"""

import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
from aiohttp import web

from meshhost.errors import AccessDeniedError, InvalidTokenError
from meshhost.gateway.provider import Caller
from meshhost.identity.keys import ApiKey, parse_api_key
from meshhost.identity.tenant import RoomKey, TenantId, check_room_name
from meshhost.identity.tokens import ParticipantToken
from meshhost.server.core.participants import Participant
from meshhost.stores.identity_service import IdentityService

__all__ = ["Access", "bearer_of"]

_ALGORITHM = "HS256"
DEFAULT_PROJECT = "default"
FILE_URL_SECONDS = 3600
OAUTH_SECONDS = 24 * 3600


def bearer_of(request: web.Request) -> str:
    """The bearer token of the request. Raises InvalidTokenError."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise InvalidTokenError("expected the header Authorization: Bearer <token>")
    return token.strip()


@dataclass(slots=True)
class Access:
    """Checks tokens and keys against the identity store. `own_secret` signs file URLs and logins."""

    identity: IdentityService
    own_secret: str = field(default_factory=lambda: secrets.token_hex(32), repr=False)

    def participant(self, request: web.Request, room_name: str) -> tuple[RoomKey, ParticipantToken]:
        """The room that a participant asks for and its token, from the `Authorization` header or the `token` parameter.

        Raises InvalidRequestError for a room name, TokenError for a token, AccessDeniedError for another room's token.
        """
        check_room_name(room_name)
        text = request.query.get("token") or bearer_of(request)
        token = ParticipantToken.verified(text, secret_for=self.identity.secret_for)
        if token.grant_scope("room") != room_name:
            raise AccessDeniedError("room", room_name)
        # A token without a key id is signed with the server's own secret, which speaks for one project only.
        tenant = token.project_id if token.api_key_id is not None else None
        return RoomKey(TenantId(tenant or DEFAULT_PROJECT), room_name), token

    def project(self, request: web.Request) -> str:
        """The project of the API key or login that the request shows. Raises TokenError."""
        bearer = bearer_of(request)
        if not bearer.startswith("ma-"):
            return str(self._read(bearer, "login")["project"])
        key = parse_api_key(bearer)
        if not self.identity.is_key(key):
            raise InvalidTokenError("the API key is unknown or was revoked")
        return key.project_id

    async def gateway_caller(self, request: web.Request) -> Caller:
        """Who asks the LLM gateway. Raises as `participant` does, and AccessDeniedError without the grant `llm`."""
        key, token = self.participant(request, request.match_info["room"])
        scope = token.get_api_grant()
        if scope is None or not scope.can_use_llm:
            raise AccessDeniedError("use", "llm")
        return Caller(tenant=key.tenant, room=key, identity=token.name)

    def key_for(self, project_id: str) -> ApiKey:
        """A key that signs participant tokens of the project. Raises TokenError when it has none."""
        key = self.identity.signing_key(project_id)
        if key is None:
            raise InvalidTokenError("the project has no API key")
        return key

    def sign_login(self, project_id: str) -> str:
        """An access token for the REST API."""
        return self._sign("login", {"project": project_id}, OAUTH_SECONDS)

    def sign_file(self, room: RoomKey, path: str, asked_by: Participant) -> str:
        """A token that fetches one file for FILE_URL_SECONDS, but no longer than the token and the key of who asks for it."""
        seconds: float = FILE_URL_SECONDS
        if asked_by.expires_at is not None:
            seconds = min(seconds, (asked_by.expires_at - datetime.now(UTC)).total_seconds())
        claims = {"tenant": room.tenant, "room": room.name, "path": path, "key": asked_by.key_id}
        return self._sign("file", claims, seconds)

    def read_file(self, token: str) -> tuple[RoomKey, str]:
        """The file that a token fetches. Raises TokenError, also when the key was revoked with which it was asked for."""
        claims = self._read(token, "file")
        if claims["key"] is not None:
            self.identity.secret_for(claims["key"], claims["tenant"])
        return RoomKey(TenantId(claims["tenant"]), claims["room"]), claims["path"]

    def _sign(self, kind: str, claims: dict[str, Any], seconds: float) -> str:
        payload = {"kind": kind, "exp": datetime.now(UTC) + timedelta(seconds=seconds), **claims}
        return jwt.encode(payload, key=self.own_secret, algorithm=_ALGORITHM)

    def _read(self, token: str, kind: str) -> dict[str, Any]:
        try:
            claims: dict[str, Any] = jwt.decode(token, key=self.own_secret, algorithms=[_ALGORITHM])
        except (jwt.PyJWTError, ValueError):  # PyJWT raises it for texts that are not Unicode
            raise InvalidTokenError("the token is wrong or has expired") from None
        if claims.get("kind") != kind:
            raise InvalidTokenError("the token is not meant for this")
        return claims

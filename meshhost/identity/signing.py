"""Signs the claims of a participant token, for those who only make tokens.

`ParticipantToken` reads and writes tokens with everything in them, and loads the models of all grants for it, by pydantic. A
command makes a token with all rights or with those of an agent, which are known here as they are on the wire (`FULL_SCOPE`,
`AGENT_SCOPE`: a test compares them with `ApiScope`), and signs it. `ParticipantToken.to_jwt` signs by the same function.
Room-protocol §7.1 has the claims.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt

from meshhost.errors import InvalidTokenError
from meshhost.identity.keys import parse_api_key

__all__ = [
    "AGENT_SCOPE",
    "ALGORITHM",
    "DEFAULT_LIFETIME",
    "FORM_VERSION",
    "FULL_SCOPE",
    "NO_EXPIRATION",
    "room_token",
    "sign",
]

DEFAULT_LIFETIME = timedelta(days=1)
# Asks for a token that never expires; servers may refuse those.
NO_EXPIRATION = datetime.max.replace(tzinfo=UTC)
# The MeshAgent token form that we write; below 0.6.0 a missing `api` grant means a default scope.
FORM_VERSION = "0.6.13"
ALGORITHM = "HS256"

Scope = Mapping[str, Mapping[str, Any]]

_AGENT_SECTIONS = ["livekit", "queues", "messaging", "database", "sync", "storage", "containers", "developer", "agents"]
# An empty section grants what its defaults say.
AGENT_SCOPE: Scope = {name: {} for name in _AGENT_SECTIONS}
FULL_SCOPE: Scope = {**AGENT_SCOPE, "admin": {}, "secrets": {}}


def room_token(
    api_key: str, room: str, *, name: str, role: str = "user", scope: Scope, expiration: datetime | None = None
) -> str:
    """Return a token for the room with these rights, signed with the API key. Raises InvalidApiKeyError."""
    key = parse_api_key(api_key)
    grants = [{"name": "room", "scope": room}, {"name": "role", "scope": role}, {"name": "api", "scope": scope}]
    claims = {"name": name, "grants": grants, "version": FORM_VERSION, "sub": key.project_id, "kid": key.id}
    return sign(claims, secret=key.secret, expiration=expiration)


def sign(claims: Mapping[str, Any], *, secret: str, expiration: datetime | None) -> str:
    """Return the claims as a signed JWT that expires then: by default after DEFAULT_LIFETIME, with NO_EXPIRATION never.

    Raises InvalidTokenError when the secret is empty.
    """
    if not secret:
        raise InvalidTokenError("the secret to sign with is empty")
    now = datetime.now(UTC)
    # With milliseconds: a room that is deleted and made again tells a token from before by it.
    claims = {**claims, "iat": round(now.timestamp(), 3)}
    if expiration != NO_EXPIRATION:
        claims["exp"] = int((expiration or now + DEFAULT_LIFETIME).timestamp())
    return jwt.encode(claims, key=secret, algorithm=ALGORITHM)

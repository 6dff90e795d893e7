"""Participant tokens: who joins which room, and what they may do there, signed by a tenant's API key (room-protocol §7.1).

Programs and the CLI sign tokens; the room server verifies one at each connection (`ParticipantToken.verified`), which first
reads the unverified key id to find the secret and then checks signature and expiry. Invariants: only HS256 is accepted,
nothing of a token is used before its signature was checked except to find the key, and texts of errors are fit for an
unauthenticated caller.
"""

from __future__ import annotations

import json
import math
import re
from base64 import urlsafe_b64decode
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

import jwt

from meshhost.client_settings import read_client_settings
from meshhost.errors import ExpiredTokenError, InvalidTokenError
from meshhost.identity.grants import ApiScope
from meshhost.identity.keys import parse_api_key
from meshhost.identity.refused_tokens import RefusedTokens
from meshhost.identity.signing import ALGORITHM, DEFAULT_LIFETIME, FORM_VERSION, NO_EXPIRATION, sign

__all__ = [
    "DEFAULT_LIFETIME",
    "NO_EXPIRATION",
    "ForgedTokenError",
    "ParticipantGrant",
    "ParticipantToken",
    "TokenClaims",
    "unverified_claims",
]

_VERSION_WHEN_MISSING = "0.5.3"
_FIRST_WITH_API_GRANT = (0, 6)
_VERSION = re.compile(r"([0-9]{1,9})\.([0-9]{1,9})(?![0-9])")
_OWN_CLAIMS = frozenset({"name", "grants", "sub", "kid", "version", "exp", "iat"})

_WRONG = "the token is malformed or its signature is wrong"

TokenClaims = Mapping[str, Any]


class ForgedTokenError(InvalidTokenError):
    """The token is not what its secret signs, and never will be."""

    def __init__(self) -> None:
        super().__init__(_WRONG)


class ParticipantGrant:
    """One permission: its name (`room`, `role`, `api`, `tunnel_ports`) and scope (a text; an ApiScope for `api`)."""

    def __init__(self, *, name: str, scope: str | ApiScope | None = None) -> None:
        self.name = name
        self.scope = scope

    def to_json(self) -> dict[str, Any]:
        """Return the wire form, `{"name", "scope"}`."""
        scope = self.scope.to_json() if isinstance(self.scope, ApiScope) else self.scope
        return {"name": self.name, "scope": scope}

    @staticmethod
    def from_json(data: dict[str, Any]) -> ParticipantGrant:
        """Read the wire form. Raises ValueError, TypeError or KeyError when it is not one."""
        name, scope = data["name"], data.get("scope")
        if not isinstance(name, str):
            raise TypeError("the name of a grant is a text")
        if name == "api":
            scope = ApiScope.model_validate(scope if scope is not None else {})
        elif scope is not None and not isinstance(scope, str):
            raise ValueError("the scope of a grant is a text")
        return ParticipantGrant(name=name, scope=scope)


class ParticipantToken:
    """An identity and its grants.

    `project_id` and `api_key_id` say whose key signs; they are filled in from the key when signing with an API key.
    `extra_payload` are further claims, which cannot override the token's own.
    """

    def __init__(
        self,
        *,
        name: str,
        project_id: str | None = None,
        api_key_id: str | None = None,
        grants: list[ParticipantGrant] | None = None,
        extra_payload: dict[str, Any] | None = None,
        version: str | None = None,
    ) -> None:
        self.name = name
        self.project_id = project_id
        self.api_key_id = api_key_id
        self.grants = [] if grants is None else grants
        self.extra_payload = {} if extra_payload is None else extra_payload
        self.version = FORM_VERSION if version is None else version
        self.expires_at: datetime | None = None
        self.signed_at: float | None = None

    @property
    def role(self) -> str:
        """The first role that is not `user`, else `user`."""
        roles = (grant.scope for grant in self.grants if grant.name == "role")
        return next((role for role in roles if isinstance(role, str) and role != "user"), "user")

    @property
    def is_user(self) -> bool:
        """Whether the participant is a person or a program rather than an agent or tool."""
        return self.role == "user"

    def add_role_grant(self, role: Literal["user", "agent", "tool"] | str) -> None:
        """Add a role, which says what kind of participant this is."""
        self.grants.append(ParticipantGrant(name="role", scope=role))

    def add_room_grant(self, room_name: str) -> None:
        """Permit joining this room."""
        self.grants.append(ParticipantGrant(name="room", scope=room_name))

    def add_api_grant(self, grant: ApiScope) -> None:
        """Permit these room operations."""
        self.grants.append(ParticipantGrant(name="api", scope=grant))

    def add_tunnel_grant(self, ports: Sequence[int]) -> None:
        """Permit tunnels to these ports."""
        self.grants.append(ParticipantGrant(name="tunnel_ports", scope=",".join(map(str, ports))))

    def grant_scope(self, name: str) -> str | ApiScope | None:
        """Return the scope of the first grant of this name, or None."""
        return next((grant.scope for grant in self.grants if grant.name == name), None)

    def get_api_grant(self) -> ApiScope | None:
        """Return the permitted room operations. Tokens of versions below 0.6.0 without an `api` grant have a default."""
        scope = self.grant_scope("api")
        if isinstance(scope, ApiScope):
            return scope
        return ApiScope.agent_default() if _predates_api_grants(self.version) else None

    def to_json(self) -> dict[str, Any]:
        """Return the claims without the expiry."""
        claims: dict[str, Any] = {key: value for key, value in self.extra_payload.items() if key not in _OWN_CLAIMS}
        claims |= {
            "name": self.name,
            "grants": [grant.to_json() for grant in self.grants],
            "version": self.version,
        }
        if self.project_id is not None:
            claims["sub"] = self.project_id
        if self.api_key_id is not None:
            claims["kid"] = self.api_key_id
        return claims

    @staticmethod
    def from_json(data: TokenClaims) -> ParticipantToken:
        """Read claims. Raises InvalidTokenError when a member is missing or has a wrong type."""
        name, grants = data.get("name"), data.get("grants", [])
        if not isinstance(name, str) or not name or not isinstance(grants, list):
            raise InvalidTokenError("the token lacks a name or a list of grants")
        try:
            parsed = [ParticipantGrant.from_json(grant) for grant in grants]
        except (ValueError, KeyError, TypeError, AttributeError):
            raise InvalidTokenError("a grant of the token is malformed") from None
        kid, sub = _signer(data)
        token = ParticipantToken(
            name=name,
            project_id=sub,
            api_key_id=kid,
            grants=parsed,
            extra_payload={key: value for key, value in data.items() if key not in _OWN_CLAIMS},
            version=str(data.get("version") or _VERSION_WHEN_MISSING),
        )
        token.expires_at = _expiry(data)
        signed_at = data.get("iat")
        is_time = isinstance(signed_at, int | float) and not isinstance(signed_at, bool) and math.isfinite(signed_at)
        token.signed_at = signed_at if is_time else None
        return token

    def to_jwt(
        self,
        *,
        token: str | None = None,
        expiration: datetime | None = None,
        api_key: str | None = None,
    ) -> str:
        """Sign the token and return it as a JWT.

        The key is, in this order: `api_key`, MESHHOST_API_KEY, the secret `token`, MESHHOST_SECRET (then without a key
        id), as in the MeshAgent API. The token expires at `expiration`, by default after DEFAULT_LIFETIME.
        Raises InvalidApiKeyError for a malformed key and InvalidTokenError when there is none.
        """
        claims = self.to_json()
        secret = _sign_with(claims, api_key=api_key, secret=token)
        return sign(claims, secret=secret, expiration=expiration)

    @staticmethod
    def from_jwt(jwt_str: str, *, token: str | None = None, validate: bool | None = True) -> ParticipantToken:
        """Read a signed token.

        `token` is the signing secret (default: the environment's, as in `to_jwt`). With `validate=False` neither
        signature nor expiry are checked. Raises ExpiredTokenError or InvalidTokenError.
        """
        if not validate:
            return ParticipantToken.from_json(_decode(jwt_str, secret=None))
        if token is None:
            token = _sign_with({}, api_key=None, secret=None)
        return ParticipantToken.from_json(_decode(jwt_str, secret=token))

    @staticmethod
    def verified(
        jwt_str: str, *, secret_for: Callable[[str | None, str | None], str], refused: RefusedTokens | None = None
    ) -> ParticipantToken:
        """Read a token whose secret is looked up by its (unverified) key id and project id.

        `secret_for(kid, sub)` returns the secret or raises TokenError. Signature and expiry are then checked, unless the token
        is one of those that were `refused` before. Raises ExpiredTokenError or InvalidTokenError, whose text is fit for an
        unauthenticated caller.
        """
        signer = _signer(unverified_claims(jwt_str))
        secret = secret_for(*signer)
        if refused is not None and (jwt_str, secret) in refused:
            raise ForgedTokenError
        try:
            claims = _decode(jwt_str, secret=secret)
        except ForgedTokenError:
            if refused is not None:
                refused.add(jwt_str, secret)
            raise
        if _signer(claims) != signer:
            raise ForgedTokenError
        return ParticipantToken.from_json(claims)


def unverified_claims(jwt_str: str) -> dict[str, Any]:
    """The claims of a token of which nothing was checked: to find the key that checks it. Raises InvalidTokenError.

    This reads one segment, once. PyJWT, which checks the token then, looks at each character of all of it.
    """
    try:
        _, payload, _ = jwt_str.split(".")
        claims = json.loads(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (ValueError, RecursionError):
        raise ForgedTokenError from None
    if not isinstance(claims, dict):
        raise ForgedTokenError
    return claims


def _sign_with(claims: dict[str, Any], *, api_key: str | None, secret: str | None) -> str:
    settings = read_client_settings()
    if api_key is None and settings.api_key is not None:
        api_key = settings.api_key.get_secret_value()
    if api_key is not None:
        key = parse_api_key(api_key)
        claims |= {"kid": key.id, "sub": key.project_id}
        return key.secret
    if secret is not None:
        return secret
    if settings.secret is None:
        raise InvalidTokenError("no key to sign with: pass api_key or set MESHHOST_API_KEY")
    claims.pop("kid", None)
    return settings.secret.get_secret_value()


def _signer(claims: TokenClaims) -> tuple[str | None, str | None]:
    kid, sub = claims.get("kid"), claims.get("sub")
    if not isinstance(kid, str | None) or not isinstance(sub, str | None):
        raise InvalidTokenError("the key id or project id of the token is not a text")
    return kid, sub


def _expiry(claims: TokenClaims) -> datetime | None:
    exp = claims.get("exp")
    if exp is None:
        return None
    try:
        return datetime.fromtimestamp(float(exp), UTC)
    except (TypeError, ValueError, OverflowError, OSError):
        raise InvalidTokenError("the expiry of the token is not a time") from None


def _decode(text: str, *, secret: str | None) -> dict[str, Any]:
    # Some releases of PyJWT take an empty key, which anybody can sign with.
    if secret == "":
        raise InvalidTokenError("the secret to check the token with is empty")
    # `sub` may be any text and `exp` is checked whenever it is there; nothing else is ours to judge.
    options: dict[str, Any] = {"verify_sub": False, "verify_iat": False, "verify_aud": False}
    if secret is None:
        options |= {"verify_signature": False, "verify_exp": False}
    try:
        return jwt.decode(text, key=secret or "", algorithms=[ALGORITHM], options=options)  # type: ignore[arg-type]
    except jwt.ExpiredSignatureError:
        raise ExpiredTokenError("the token has expired: ask for a new one") from None
    except (jwt.DecodeError, jwt.InvalidAlgorithmError):
        raise ForgedTokenError from None
    # What PyJWT lets through of the parsers below it, for tokens of strange text, depth or expiry.
    except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError):
        raise InvalidTokenError(_WRONG) from None


def _predates_api_grants(version: str) -> bool:
    # Compared as numbers: as text, "0.10.0" would be older than "0.6.0". What cannot be read gets no default scope.
    match = _VERSION.match(version)
    return match is not None and (int(match[1]), int(match[2])) < _FIRST_WITH_API_GRANT

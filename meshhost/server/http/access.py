"""Authentication of HTTP requests: participant tokens, API keys, sessions of Studio, and what the server signs itself.

Every route asks `Access` who the caller is before it does anything else. The tenant comes from here and from nowhere else: from
the verified token or key, never from a name in the request. The identity store knows the keys; this module checks signatures
and scopes, and signs file URLs and logins with a secret that lives as long as the process. What the role of a key permits is
the table of `permissions.py`. The operator's key is no tenant's: it manages tenants, and opens no room and no project. A
session of Studio (`sessions.py`) is its key by another name: wherever a key is taken, its session is.
"""

import hmac
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
from aiohttp import web

from meshhost.edge.watched import know_sender
from meshhost.errors import AccessDeniedError, InvalidTokenError, NotFoundError
from meshhost.gateway.provider import Caller
from meshhost.identity.keys import ApiKey, parse_api_key
from meshhost.identity.refused_tokens import RefusedTokens
from meshhost.identity.roles import Role
from meshhost.identity.tenant import RoomKey, TenantId, check_room_name
from meshhost.identity.tokens import ParticipantToken, unverified_claims
from meshhost.quotas.rates import Rates
from meshhost.server.core.participants import Participant
from meshhost.server.http.permissions import OPERATOR, needed_for
from meshhost.server.http.sessions import Session, Sessions
from meshhost.stores.identity import Project
from meshhost.stores.identity_service import IdentityService

__all__ = ["Access", "KeyHolder", "bearer_of"]

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


@dataclass(frozen=True, slots=True)
class KeyHolder:
    """Who shows an API key, its session, or what has no key of its own: a login, a session of a person."""

    project: str
    role: Role
    key_id: str | None


@dataclass(slots=True)
class Access:
    """Checks tokens and keys against the identity store. `own_secret` signs file URLs and logins.

    Without an `operator_key` nobody is the operator. A file URL is good for `file_seconds`. Requests are counted in `rates`
    once their tenant is known: every method that returns a tenant, room or file raises QuotaExceededError, too. The connection
    of a request that passes all that may be used for another one (`edge.watched`). With `requires_expiry` participant tokens
    that never expire are refused.
    """

    identity: IdentityService
    own_secret: str = field(default_factory=lambda: secrets.token_hex(32), repr=False)
    operator_key: str | None = field(default=None, repr=False)
    rates: Rates | None = field(default=None, repr=False)
    file_seconds: float = FILE_URL_SECONDS
    requires_expiry: bool = False
    sessions: Sessions | None = None
    _refused: RefusedTokens = field(default_factory=RefusedTokens, repr=False)

    def participant(self, request: web.Request, room_name: str) -> tuple[RoomKey, ParticipantToken]:
        """The room that a participant asks for and its token, from the `Authorization` header or the `token` parameter.

        Raises InvalidRequestError for a room name, TokenError for a token, AccessDeniedError for another room's token or one
        of a viewer's key, TenantSuspendedError.
        """
        check_room_name(room_name)
        text = request.query.get("token") or bearer_of(request)
        if self.is_login(text):
            raise InvalidTokenError(
                f"this is a login, which joins no room: get a token from POST /accounts/projects/…/rooms/{room_name}/connect"
            )
        found = self.token_holder(text, room_name)
        know_sender(request, found[0].tenant)
        return found

    def token_holder(self, text: str, room_name: str | None = None) -> tuple[RoomKey, ParticipantToken]:
        """The room of a participant token, which must be this one if it is named, and the token. Raises as `participant`
        does."""
        room, token = self._verified(text, room_name)
        self._count(room.tenant)
        return room, token

    def _verified(self, text: str, room_name: str | None) -> tuple[RoomKey, ParticipantToken]:
        token = ParticipantToken.verified(text, secret_for=self.identity.secret_for, refused=self._refused)
        if self.requires_expiry and token.expires_at is None:
            raise InvalidTokenError("the token never expires, which this room server does not take: sign one with exp")
        # A token without a key id is signed with the server's own secret, which speaks for one project only.
        tenant = token.project_id if token.api_key_id is not None else None
        self.identity.check_tenant(tenant or DEFAULT_PROJECT)
        if token.api_key_id is not None:
            self.identity.check_use(token.api_key_id)
            _check_role(self.identity.role_of(token.api_key_id), Role.DEVELOPER)
        granted = token.grant_scope("room")
        granted = granted if isinstance(granted, str) else ""
        if room_name is not None and granted != room_name:
            raise AccessDeniedError("room", room_name)
        room = RoomKey(TenantId(tenant or DEFAULT_PROJECT), check_room_name(granted))
        self.identity.deleted_rooms.check(room, token.signed_at)
        return room, token

    def is_login(self, bearer: str) -> bool:
        """Whether this was signed here as a login, which may have expired since."""
        try:
            # Most tokens are none, which shows before the signature is checked.
            is_claimed = unverified_claims(bearer).get("kind") == "login"
            return is_claimed and self._claims(bearer, verify_exp=False).get("kind") == "login"
        except InvalidTokenError:
            return False

    def session(self, request: web.Request) -> Session | None:
        """The session by which the request is made, or None. Raises TokenError, AccessDeniedError as `Sessions.of` does."""
        session = None if self.sessions is None else self.sessions.of(request)
        if session is not None:
            know_sender(request)
        return session

    def shows_key(self, request: web.Request) -> bool:
        """Whether the request shows an API key, a session or a login, and not a participant token. Raises as `session` does."""
        if self.session(request) is not None:
            return True
        bearer = bearer_of(request)
        return bearer.startswith("ma-") or self.is_login(bearer)

    def key_holder(self, request: web.Request) -> KeyHolder:
        """Who makes the request. Raises TokenError, TenantSuspendedError, AccessDeniedError for the operator's session."""
        session = self.session(request)
        if session is not None:
            if session.project is None:
                raise AccessDeniedError("this needs an API key of a tenant, and the operator has none")
            if session.key_id is None or session.role is not None:  # of a person whom a provider named
                self.identity.check_tenant(session.project)
                return KeyHolder(session.project, session.role or Role.VIEWER, None)
            key_id, project = session.key_id, session.project
        else:
            bearer = bearer_of(request)
            if not bearer.startswith("ma-"):
                project = str(self._read(bearer, "login")["project"])
                self.identity.check_tenant(project)
                return KeyHolder(project, Role.ADMIN, None)
            key = parse_api_key(bearer)
            if not self.identity.is_key(key):
                raise InvalidTokenError("the API key is unknown or was revoked")
            key_id, project = key.id, key.project_id
        self.identity.check_tenant(project)
        self.identity.check_use(key_id)
        return KeyHolder(project, self.identity.role_of(key_id), key_id)

    def project(self, request: web.Request) -> str:
        """The project of the API key, session or login that the request shows, when its role may use the route.

        Raises TokenError, TenantSuspendedError, AccessDeniedError for the role.
        """
        return self.permitted(request).project

    def permitted(self, request: web.Request) -> KeyHolder:
        """Who makes the request, when the role may use the route. Raises as `project` does."""
        holder = self.key_holder(request)
        _check_role(holder.role, needed_for(request))
        self._count(holder.project)
        know_sender(request, holder.project)
        return holder

    def signer(self, request: web.Request) -> ApiKey:
        """The key that signs tokens for who shows an API key or a login: that key itself, so that they end with it.

        Raises as `project` does, and AccessDeniedError for a person of a tenant that has no key.
        """
        holder = self.permitted(request)
        if holder.key_id is None and self.identity.signing_key(holder.project) is None:
            # Not a 401: the session is valid, and must not end over this.
            raise AccessDeniedError(
                "join: the tenant has no API key to sign tokens with, an admin or the operator makes one"
            )
        return self.key_for(holder.project, holder.key_id)

    def is_operator(self, request: web.Request) -> bool:
        """Whether the request shows the operator's key or session. Raises TokenError when it shows nothing, or as `session`."""
        session = self.session(request)
        if session is not None:
            return session.is_operator
        shown = bearer_of(request).encode(errors="surrogatepass")
        if self.operator_key is None or not hmac.compare_digest(self.operator_key.encode(), shown):
            return False
        know_sender(request)
        return True

    def check_operator(self, request: web.Request) -> None:
        """Raise AccessDeniedError for a tenant's key, TokenError for everything else that is not the operator's key."""
        if not self.is_operator(request):
            self.project(request)
            raise AccessDeniedError("this needs the operator's key")

    async def tenant(self, request: web.Request) -> Project:
        """The tenant that the path names, by name or id: any for the operator, else the key's own.

        Raises TokenError, AccessDeniedError, NotFoundError; OSError.
        """
        wanted = request.match_info["tenant"]
        if self.is_operator(request):
            return await self.identity.find_project(wanted)
        found = await self.identity.find_project(self.project(request))
        if wanted not in {found.id, found.name}:
            raise NotFoundError(f"no tenant {wanted!r}")
        return found

    async def gateway_caller(self, request: web.Request) -> Caller:
        """Who asks the LLM gateway. Raises as `participant` does, and AccessDeniedError without the grant `llm`."""
        key, token = self.participant(request, request.match_info["room"])
        scope = token.get_api_grant()
        if scope is None or not scope.can_use_llm:
            raise AccessDeniedError("use", "llm")
        return Caller(tenant=key.tenant, room=key, identity=token.name)

    async def check_gateway_caller(self, request: web.Request) -> None:
        """Raise as `gateway_caller` does when who began a request may not go on with it. It is not counted."""
        scope = self._verified(request.query.get("token") or bearer_of(request), request.match_info["room"])[
            1
        ].get_api_grant()
        if scope is None or not scope.can_use_llm:
            raise AccessDeniedError("use", "llm")

    def key_for(self, project_id: str, key_id: str | None = None) -> ApiKey:
        """The project's key of this id, or without one any, to sign participant tokens with. Raises TokenError."""
        key = self.identity.signing_key(project_id, key_id)
        if key is None:
            raise InvalidTokenError(
                "the project has no API key" if key_id is None else "the API key was revoked, or may sign no tokens"
            )
        return key

    def mcp_login(self, request: web.Request, room: str) -> tuple[RoomKey, datetime] | None:
        """The room for which `sign_mcp` made the token, and its end; None when the request shows something else.

        Raises InvalidTokenError for one of another room, or from before the room was deleted, TenantSuspendedError,
        QuotaExceededError.
        """
        scheme, _, bearer = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        try:
            claims = unverified_claims(bearer.strip())
            if claims.get("kind") == "mcp":  # most tokens are none, which shows before the signature is checked
                claims = self._claims(bearer.strip())
        except InvalidTokenError:
            return None
        if claims.get("kind") != "mcp":
            return None
        if claims["room"] != room:
            raise InvalidTokenError("the token is for MCP of another room")
        key = RoomKey(TenantId(str(claims["project"])), room)
        self.identity.check_tenant(key.tenant)
        self.identity.deleted_rooms.check(key, claims["iat"])
        self._count(key.tenant)
        know_sender(request, key.tenant)
        return key, datetime.fromtimestamp(claims["exp"], UTC)

    def sign_mcp(self, project_id: str, room: str) -> str:
        """An access token for MCP of one room, and for nothing else."""
        claims = {"project": project_id, "room": room, "iat": datetime.now(UTC).timestamp()}
        return self._sign("mcp", claims, OAUTH_SECONDS)

    def sign_login(self, project_id: str) -> str:
        """An access token for the REST API."""
        return self._sign("login", {"project": project_id}, OAUTH_SECONDS)

    def sign_file(self, room: RoomKey, path: str, asked_by: Participant) -> str:
        """A token that fetches one file for `file_seconds`, but no longer than the token and the key of who asks for it."""
        seconds = self.file_seconds
        if asked_by.expires_at is not None:
            seconds = min(seconds, (asked_by.expires_at - datetime.now(UTC)).total_seconds())
        claims: dict[str, Any] = {"tenant": room.tenant, "room": room.name, "path": path, "key": asked_by.key_id}
        claims["iat"] = datetime.now(UTC).timestamp()
        return self._sign("file", claims, seconds)

    def read_file(self, token: str) -> tuple[RoomKey, str]:
        """The file that a token fetches.

        Raises TenantSuspendedError, and TokenError, also when the key with which the file was asked for was revoked or expired.
        """
        claims = self._read(token, "file")
        self.identity.check_tenant(claims["tenant"])
        if claims["key"] is not None:
            self.identity.secret_for(claims["key"], claims["tenant"])
            self.identity.check_use(claims["key"])
        room = RoomKey(TenantId(claims["tenant"]), claims["room"])
        self.identity.deleted_rooms.check(room, claims["iat"])
        self._count(room.tenant)
        return room, claims["path"]

    def _count(self, tenant: str) -> None:
        if self.rates is not None:
            self.rates.take(tenant)

    def _sign(self, kind: str, claims: dict[str, Any], seconds: float) -> str:
        payload = {"kind": kind, "exp": datetime.now(UTC) + timedelta(seconds=seconds), **claims}
        return jwt.encode(payload, key=self.own_secret, algorithm=_ALGORITHM)

    def _read(self, token: str, kind: str) -> dict[str, Any]:
        claims = self._claims(token)
        if claims.get("kind") != kind:
            raise InvalidTokenError("the token is not meant for this")
        return claims

    def _claims(self, token: str, *, verify_exp: bool = True) -> dict[str, Any]:
        try:
            # `iat` is ours to judge: a clock that is set back must not shut out what was signed before.
            options: Any = {"verify_iat": False, "verify_exp": verify_exp}
            claims: dict[str, Any] = jwt.decode(token, key=self.own_secret, algorithms=[_ALGORITHM], options=options)
        except (jwt.PyJWTError, ValueError):  # PyJWT raises it for texts that are not Unicode
            raise InvalidTokenError("the token is wrong or has expired") from None
        return claims


def _check_role(role: Role, needed: Role | str) -> None:
    if needed == OPERATOR:
        raise AccessDeniedError("this needs the operator's key")
    if not role.includes(Role(needed)):
        raise AccessDeniedError(f"this needs a key of the role {needed}, and yours is of the role", role)

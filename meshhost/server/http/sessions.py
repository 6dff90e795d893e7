"""Sessions of Studio: a browser that proved to have a key, and shows a cookie instead of it from then on.

A session is bound to its key and is worth what the key is worth. The cookie is a token that is signed with a secret derived
from that key, so nothing is stored, every server over the same store takes it, and a session outlives a restart; when the key
is revoked or expires, or its tenant is suspended, the session is refused at once like the key itself. The role is looked up at
each request and is never in the cookie. The operator's session is bound to the operator's key in the same way. A person whom a
provider of OpenID Connect named has no key: that session is signed with a secret derived from the operator's key, and has a
role.

Browsers send cookies along with requests that other pages make. So a request by cookie also needs the header X-Meshhost-Csrf
with a value that only the page of the session knows, and must not come from another origin; a change must prove by Origin or
Sec-Fetch-Site, which browsers set, that it comes from this one. A request with an `Authorization` header is not looked at here.
"""

import hashlib
import hmac
import re
import secrets
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

import jwt
from aiohttp import web

from meshhost.clock import Clock, SystemClock
from meshhost.errors import AccessDeniedError, InvalidApiKeyError, InvalidTokenError
from meshhost.identity.keys import parse_api_key
from meshhost.identity.roles import Role
from meshhost.identity.tokens import unverified_claims
from meshhost.stores.identity_service import IdentityService

__all__ = ["CSRF_HEADER", "SESSION_SECONDS", "Session", "Sessions"]

CSRF_HEADER = "X-Meshhost-Csrf"
SESSION_SECONDS = 24 * 3600.0
PERSON_SECONDS = 8 * 3600.0
"""A provider says who is in which group at the sign-in only."""
# What a secret is derived for: no token that a key signs, or for another purpose, is ever taken for a session.
_SESSION, _PERSON, _PENDING = b"meshhost studio session", b"meshhost studio person", b"meshhost studio sign-in"
# Sessions that were signed out are remembered until they would have ended, at most so many of a project or the operator.
_MOST_ENDED = 1_000
_ALGORITHM = "HS256"
_SAFE = frozenset({"GET", "HEAD"})
_HOST = re.compile(r"[A-Za-z0-9.\-]{1,253}(?::[0-9]{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](?::[0-9]{1,5})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Session:
    """One signed-in browser. Without a project it is the operator's; `key_id` is the key of the project it is bound to.

    A person who signed in by a provider has a `name`; in a project it has a role of its own instead of a key.
    """

    id: str
    project: str | None
    key_id: str | None
    expires_at: float
    csrf: str = field(repr=False)
    role: Role | None = None
    name: str | None = None

    @property
    def is_operator(self) -> bool:
        """Whether the operator signed in."""
        return self.project is None


class Sessions:
    """Begins, reads and ends sessions. `own_url` returns the address of this server."""

    def __init__(
        self,
        identity: IdentityService,
        *,
        operator_key: str | None = None,
        own_url: Callable[[], str] = lambda: "",
        clock: Clock | None = None,
    ) -> None:
        self._identity = identity
        self._operator_key = operator_key
        self._own_url = own_url
        self._clock = clock or SystemClock()
        self._ended: dict[str | None, OrderedDict[str, float]] = {}

    def begin(self, key: str) -> tuple[Session, str]:
        """Begin a session for who shows this key, an API key or the operator's. Returns it and its cookie's value.

        Raises TokenError for a key that is wrong, revoked or expired, TenantSuspendedError.
        """
        operator_key = self._operator_key
        if operator_key is not None and hmac.compare_digest(operator_key.encode(), _bytes(key)):
            return self._begin(None, None)
        try:
            shown = parse_api_key(key.strip())
        except InvalidApiKeyError as error:
            raise InvalidTokenError(str(error)) from None
        if not self._identity.is_key(shown):
            raise InvalidTokenError("the API key is unknown or was revoked")
        return self.begin_for(shown.project_id, shown.id)

    def begin_for(self, project: str | None, key_id: str | None) -> tuple[Session, str]:
        """Begin a session of a key that was verified before; without a project, of the operator. Raises as `begin` does."""
        if project is not None and key_id is not None:
            self._identity.check_tenant(project)
            self._identity.check_use(key_id)
        return self._begin(project, key_id)

    def begin_for_person(self, project: str | None, role: Role | None, name: str) -> tuple[Session, str]:
        """Begin a session of a person whom a provider named. Raises InvalidTokenError, TenantSuspendedError."""
        if project is not None:
            self._identity.check_tenant(project)
        return self._begin(project, None, role=role, name=name, seconds=PERSON_SECONDS)

    def sign_pending(self, pending: Mapping[str, str], seconds: float) -> str:
        """A token for what a browser must bring back within these seconds. Raises InvalidTokenError without operator's key."""
        claims = {**pending, "exp": int(self._clock.time() + seconds)}
        return jwt.encode(claims, key=self._own_secret(_PENDING), algorithm=_ALGORITHM)

    def read_pending(self, text: str) -> dict[str, str]:
        """What `sign_pending` signed. Raises InvalidTokenError."""
        try:
            claims = jwt.decode(
                text, key=self._own_secret(_PENDING), algorithms=[_ALGORITHM], options={"verify_exp": False}
            )
        except (jwt.PyJWTError, ValueError):
            claims = {"exp": 0}
        if claims.pop("exp") < self._clock.time():
            raise InvalidTokenError("this sign-in was not begun in this browser, or took too long: begin again")
        return {name: str(value) for name, value in claims.items()}

    def renewed(self, session: Session) -> tuple[Session, str] | None:
        """The session with a later end, and its cookie, when half of its time is over; else None."""
        if session.name is not None or session.expires_at - self._clock.time() > SESSION_SECONDS / 2:
            return None
        return self._signed(replace(session, expires_at=self._end_in(SESSION_SECONDS)))

    def end(self, session: Session) -> None:
        """Sign out: this server takes the cookie no more."""
        ended = self._ended.setdefault(session.project, OrderedDict())
        ended[session.id] = session.expires_at + SESSION_SECONDS
        now = self._clock.time()
        while len(ended) > _MOST_ENDED or next(iter(ended.values())) < now:
            ended.popitem(last=False)

    def of(self, request: web.Request) -> Session | None:
        """The session whose cookie makes this request; None for a request without one, or with an `Authorization` header.

        Raises TokenError when it has ended, AccessDeniedError when the request may be another page's.
        """
        if "Authorization" in request.headers:
            return None
        session = self.shown(request)
        if session is None:
            return None
        self.check_same_origin(request, must_prove=request.method not in _SAFE)
        if not hmac.compare_digest(session.csrf.encode(), _bytes(request.headers.get(CSRF_HEADER, ""))):
            raise AccessDeniedError(f"a request with a session's cookie needs its value in the header {CSRF_HEADER}")
        return session

    def shown(self, request: web.Request) -> Session | None:
        """The session of the cookie alone, which another page may have had sent; None without one. Raises TokenError."""
        text = request.cookies.get(self._cookie_name(request))
        return self._read(text) if text else None

    def check_same_origin(self, request: web.Request, *, must_prove: bool = False) -> None:
        """Raise AccessDeniedError for a request that another origin's page made.

        With `must_prove` also for one that does not say: each browser says it of requests that change something.
        """
        site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
        foreign = site is not None and site != "same-origin"
        if origin is not None:
            foreign = foreign or not self._is_own(origin, request)
        if foreign or (must_prove and site is None and origin is None):
            raise AccessDeniedError("this needs a request of a page of this server")

    def is_secure(self, request: web.Request) -> bool:
        """Whether the browser reaches this server by HTTPS, itself or through a proxy."""
        return self._own_url().startswith("https:") or request.headers.get("Origin", "").startswith("https:")

    def set_cookie(self, request: web.Request, response: web.Response, value: str) -> None:
        """Have the browser keep the session."""
        response.set_cookie(
            self._cookie_name(request),
            value,
            max_age=int(SESSION_SECONDS),
            path="/",
            httponly=True,
            samesite="Strict",
            secure=self.is_secure(request),
        )

    def forget_cookie(self, request: web.Request, response: web.Response) -> None:
        """Have the browser forget the session."""
        response.del_cookie(
            self._cookie_name(request), path="/", httponly=True, samesite="Strict", secure=self.is_secure(request)
        )

    def _cookie_name(self, request: web.Request) -> str:
        """The name of the session's cookie.

        Under an address with HTTPS a browser takes a cookie of this name from this very server only, by HTTPS: no other server
        of the domain, and nobody on the way, can give it a session that is not its own. Elsewhere the port is part of the name:
        cookies do not tell ports apart, and several servers may run on one machine.
        """
        if self._own_url().startswith("https:"):
            return "__Host-meshhost-studio"
        port = host_of(request).rpartition(":")[2]
        return f"meshhost-studio-{port}" if port.isdecimal() else "meshhost-studio"

    def _is_own(self, origin: str, request: web.Request) -> bool:
        own = urlsplit(self._own_url())
        scheme, _, host = origin.partition("://")
        return origin == f"{own.scheme}://{own.netloc}" or (scheme in ("http", "https") and host == host_of(request))

    def _begin(
        self,
        project: str | None,
        key_id: str | None,
        *,
        role: Role | None = None,
        name: str | None = None,
        seconds: float = SESSION_SECONDS,
    ) -> tuple[Session, str]:
        csrf, session_id = secrets.token_urlsafe(24), secrets.token_urlsafe(12)
        return self._signed(Session(session_id, project, key_id, self._end_in(seconds), csrf, role, name))

    def _end_in(self, seconds: float) -> float:
        return float(int(self._clock.time() + seconds))

    def _signed(self, session: Session) -> tuple[Session, str]:
        claims = {
            "jti": session.id,
            "csrf": session.csrf,
            "exp": int(session.expires_at),
            "sub": session.project,
            "kid": session.key_id,
            "role": session.role,
            "person": session.name,
        }
        return session, jwt.encode(
            {claim: value for claim, value in claims.items() if value is not None},
            key=self._secret(session.project, session.key_id, session.name),
            algorithm=_ALGORITHM,
        )

    def _read(self, text: str) -> Session:
        try:
            unverified = unverified_claims(text)
            project, key_id, name = (unverified.get(claim) for claim in ("sub", "kid", "person"))
            if not all(isinstance(value, str | None) for value in (project, key_id, name)):
                raise InvalidTokenError("the session is malformed")
            # The clock of this object judges the end; `iat` is not used.
            options: Any = {"verify_exp": False, "verify_sub": False}
            key = self._secret(project, key_id, name)
            claims: dict[str, Any] = jwt.decode(text, key=key, algorithms=[_ALGORITHM], options=options)
            if (project, key_id, name) != tuple(claims.get(claim) for claim in ("sub", "kid", "person")):
                raise InvalidTokenError("the session is malformed")
            role = None if project is None or name is None else Role(claims["role"])
            session = Session(
                str(claims["jti"]), project, key_id, float(claims["exp"]), str(claims["csrf"]), role, name
            )
        # The last ones: who has the key can sign anything.
        except (jwt.PyJWTError, ValueError, RecursionError, KeyError, TypeError, OverflowError):
            raise InvalidTokenError("the session has ended: sign in again") from None
        if session.expires_at < self._clock.time() or session.id in self._ended.get(session.project, {}):
            raise InvalidTokenError("the session has ended: sign in again")
        return session

    def _secret(self, project: str | None, key_id: str | None, person: str | None) -> bytes:
        """What signs sessions of this key, or of a person. Raises InvalidTokenError when there is no such key any more."""
        if person is not None:
            return self._own_secret(_PERSON)
        if project is None and key_id is None:
            return self._own_secret(_SESSION)
        if project is None or key_id is None:
            raise InvalidTokenError("the session is malformed")
        return _derived(self._identity.secret_for(key_id, project), _SESSION)

    def _own_secret(self, purpose: bytes) -> bytes:
        """What signs what is bound to no key of a tenant. Raises InvalidTokenError without an operator's key."""
        if self._operator_key is None:
            raise InvalidTokenError("this server has no operator's key")
        return _derived(self._operator_key, purpose)


def host_of(request: web.Request) -> str:
    """The name and port under which the browser reaches this server, or an empty text for what cannot be one."""
    host = request.headers.get("Host", "")
    return host if _HOST.fullmatch(host) else ""


def _derived(secret: str, purpose: bytes) -> bytes:
    return hmac.digest(secret.encode(), purpose, hashlib.sha256)


def _bytes(text: str) -> bytes:
    # Header bytes that are not text arrive as lone surrogates.
    return text.encode(errors="surrogatepass")

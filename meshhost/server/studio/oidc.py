"""Signing in to Studio with OpenID Connect: any provider that publishes its configuration, and roles by its groups.

The authorization code flow with PKCE. `GET /studio/api/oidc/start` sends the browser to the provider; what belongs to this one
sign-in (state, nonce, verifier, where to go on) is in a cookie that the server signed, so that nothing is kept and any server
may answer the callback. `GET /studio/api/oidc/callback` exchanges the code, checks the ID token (signature by the provider's
published keys, issuer, audience, times, nonce), and finds the tenant and role of the first group that the configuration names.
The session is signed with a secret derived from the operator's key: there is no key of a tenant that it could be bound to. It
ends after eight hours; who leaves a group keeps what it has until then.

The provider's configuration and keys are read when they are first needed and again after an hour; keys also when a token names
one that is not known, but not more often than every ten seconds. A person who asks while the provider cannot be reached is told
so at once: only one waits for its answer.
"""

import asyncio
import logging
import re
import secrets
import time
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Self
from urllib.parse import quote, urlencode, urlsplit

import aiohttp
import jwt
from aiohttp import web

from meshhost.errors import AccessDeniedError, InvalidTokenError, MeshhostError, NotFoundError
from meshhost.identity.roles import Role
from meshhost.loopback import is_loopback
from meshhost.server.address import Address
from meshhost.server.config import OidcConfig
from meshhost.server.http.sessions import Sessions
from meshhost.server.studio.json_answers import json_object_of
from meshhost.stores.identity_service import IdentityService

__all__ = ["OidcRoutes"]

logger = logging.getLogger(__name__)

_PATH = "/studio/api/oidc"
_COOKIE = "meshhost-studio-signing-in"
_STATE_SECONDS = 600
_FRESH_SECONDS, _KEYS_SECONDS = 3600.0, 10.0
# Anybody may begin a sign-in: a provider that cannot be reached is asked, and failures are logged, at most this often.
_RETRY_SECONDS, _LOG_SECONDS = 5.0, 5.0
_SECONDS = 10.0
_MAX_ANSWER = 1024 * 1024
# Signatures that anybody can check with a published key; never a shared secret, and never none.
_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
_RETURN = re.compile(r"/studio(/[A-Za-z0-9._~!$&'()*+,;=:@%?/-]*)?", re.ASCII)
_NO_STORE = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}


class OidcRoutes:
    """Serves `/studio/api/oidc`, which answers 404 without a `config`; a context manager, which holds its HTTP client."""

    def __init__(
        self, config: OidcConfig | None, sessions: Sessions, identity: IdentityService, address: Address
    ) -> None:
        self._configured = config
        self._sessions = sessions
        self._identity = identity
        self._address = address
        self._session: aiohttp.ClientSession | None = None
        self._lock = asyncio.Lock()
        self._provider: Mapping[str, Any] = {}
        self._keys: Mapping[str | None, jwt.PyJWK] = {}
        self._read_at = self._keys_at = self._failed_at = self._logged_at = float("-inf")
        self._unlogged = 0

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
        return self

    async def __aexit__(self, *_: object) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def add_to(self, app: web.Application) -> None:
        """Register the routes."""
        app.add_routes([web.get(f"{_PATH}/start", self._start), web.get(f"{_PATH}/callback", self._callback)])

    async def _start(self, request: web.Request) -> web.Response:
        config = self._config
        target = request.query.get("return", "/studio/")
        pending = {
            "state": secrets.token_urlsafe(24),
            "nonce": secrets.token_urlsafe(24),
            "verifier": secrets.token_urlsafe(48),
            "return": target if _RETURN.fullmatch(target) else "/studio/",
        }
        try:
            provider = await self._configuration()
        except (OSError, TimeoutError, aiohttp.ClientError, MeshhostError) as error:
            return self._failed(error)
        challenge = urlsafe_b64encode(sha256(pending["verifier"].encode()).digest()).decode().rstrip("=")
        asked = {
            "response_type": "code",
            "client_id": config.client_id,
            "redirect_uri": self._redirect_uri,
            "scope": config.scopes,
            "state": pending["state"],
            "nonce": pending["nonce"],
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        start = str(provider["authorization_endpoint"])
        location = f"{start}{'&' if '?' in start else '?'}{urlencode(asked)}"
        response = web.Response(status=302, headers={"Location": location, **_NO_STORE})
        # The provider sends the browser back from another site, with which a strict cookie would not come.
        response.set_cookie(
            _COOKIE,
            self._sessions.sign_pending(pending, _STATE_SECONDS),
            max_age=_STATE_SECONDS,
            path=_PATH,
            httponly=True,
            samesite="Lax",
            secure=self._sessions.is_secure(request),
        )
        return response

    async def _callback(self, request: web.Request) -> web.Response:
        config = self._config
        try:
            response = await self._signed_in(request, config)
        except (OSError, TimeoutError, aiohttp.ClientError, MeshhostError) as error:
            response = self._failed(error)
        response.del_cookie(_COOKIE, path=_PATH)
        return response

    async def _signed_in(self, request: web.Request, config: OidcConfig) -> web.Response:
        """Raises MeshhostError, and what the HTTP client raises."""
        pending = self._sessions.read_pending(request.cookies.get(_COOKIE, ""))
        if not secrets.compare_digest(pending["state"].encode(), request.query.get("state", "").encode()):
            raise AccessDeniedError("this sign-in was not begun in this browser: begin again")
        if "error" in request.query:
            raise AccessDeniedError(f"{config.name} refused: {request.query['error'][:100]}")
        claims = await self._claims(request.query.get("code", ""), pending)
        project, role, name = await self._rights(claims)
        _, cookie = self._sessions.begin_for_person(project, role, name)
        response = web.Response(status=302, headers={"Location": pending["return"], **_NO_STORE})
        self._sessions.set_cookie(request, response, cookie)
        return response

    async def _claims(self, code: str, pending: Mapping[str, str]) -> Mapping[str, Any]:
        """The checked claims of the ID token for this code. Raises InvalidTokenError, and what the HTTP client raises."""
        provider = await self._configuration()
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._redirect_uri,
            "client_id": self._config.client_id,
            "code_verifier": pending["verifier"],
        }
        headers = {}
        if self._config.client_secret is not None:
            if "client_secret_basic" in provider.get("token_endpoint_auth_methods_supported", ["client_secret_basic"]):
                headers["Authorization"] = _basic(self._config.client_id, self._config.client_secret)
            else:
                form["client_secret"] = self._config.client_secret
        answer = await self._ask("POST", str(provider["token_endpoint"]), data=form, headers=headers)
        token = answer.get("id_token")
        if not isinstance(token, str):
            raise InvalidTokenError(f"{self._config.name} gave no ID token: {str(answer.get('error', ''))[:100]}")
        try:
            key = await self._key_for(jwt.get_unverified_header(token).get("kid"))
            claims: dict[str, Any] = jwt.decode(
                token,
                key=key,
                algorithms=list(_ALGORITHMS),
                audience=self._config.client_id,
                issuer=self._config.issuer,
                leeway=60,
                options={"require": ["exp", "iat", "sub", "aud", "iss", "nonce"]},
            )
        except (jwt.PyJWTError, ValueError, TypeError) as error:
            logger.info("an ID token was refused", extra={"reason": type(error).__name__})
            raise InvalidTokenError(f"the ID token of {self._config.name} is not valid") from None
        if not secrets.compare_digest(str(claims["nonce"]).encode(), pending["nonce"].encode()):
            raise InvalidTokenError(f"the ID token of {self._config.name} is for another sign-in")
        return claims

    async def _rights(self, claims: Mapping[str, Any]) -> tuple[str | None, Role | None, str]:
        """The project, role and name of a person. Raises AccessDeniedError when none of its groups has a role."""
        found = claims.get(self._config.groups_claim, [])
        listed = [found] if isinstance(found, str) else found if isinstance(found, list) else []
        groups = {each for each in listed if isinstance(each, str)}
        name = next((str(claims[each]) for each in ("email", "preferred_username", "name") if claims.get(each)), "sub")
        name = "".join(character for character in name if character.isprintable())[:64] or "somebody"
        for each in self._config.roles:
            if each.group in groups:
                if each.tenant is None:
                    return None, None, name
                try:
                    return (await self._identity.find_project(each.tenant)).id, each.role, name
                except NotFoundError:
                    raise AccessDeniedError(f"the tenant {each.tenant!r} of your group does not exist") from None
        raise AccessDeniedError("none of your groups has a role here: ask the operator")

    async def _configuration(self) -> Mapping[str, Any]:
        """The provider's configuration. Raises what the HTTP client raises, InvalidTokenError for one that cannot be used."""
        async with self._lock:
            if time.monotonic() - self._read_at > _FRESH_SECONDS:
                url = f"{self._config.issuer.rstrip('/')}/.well-known/openid-configuration"
                if time.monotonic() - self._failed_at < _RETRY_SECONDS:
                    raise ConnectionError("it could not be reached just now")
                try:
                    found = await self._ask("GET", url)
                except (OSError, TimeoutError, aiohttp.ClientError):
                    self._failed_at = time.monotonic()
                    raise
                if found.get("issuer") != self._config.issuer:
                    raise InvalidTokenError(f"{url} is the configuration of another issuer")
                for name in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
                    _check_url(found.get(name))
                self._provider, self._read_at = found, time.monotonic()
            return self._provider

    async def _key_for(self, key_id: str | None) -> jwt.PyJWK:
        """The provider's key of this id. Raises InvalidTokenError, and what the HTTP client raises."""
        async with self._lock:
            age = time.monotonic() - self._keys_at
            if age > _FRESH_SECONDS or (key_id not in self._keys and age > _KEYS_SECONDS):
                answer = await self._ask("GET", str(self._provider["jwks_uri"]))
                self._keys_at = time.monotonic()
                self._keys = _keys_in(answer)
        found = self._keys.get(key_id)
        if found is None and key_id is None and len(self._keys) == 1:
            found = next(iter(self._keys.values()))
        if found is None:
            raise InvalidTokenError("the ID token is signed with a key that the provider does not publish")
        return found

    async def _ask(self, method: str, url: str, **options: Any) -> dict[str, Any]:
        if self._session is None:
            raise RuntimeError("the provider is asked inside of the context manager only")
        _check_url(url)
        timeout = aiohttp.ClientTimeout(total=_SECONDS)
        async with self._session.request(method, url, allow_redirects=False, timeout=timeout, **options) as response:
            answer = await json_object_of(response, most=_MAX_ANSWER)
        if answer is None:
            raise InvalidTokenError(f"{self._config.name} answered {response.status} without a JSON object")
        return answer

    @property
    def _config(self) -> OidcConfig:
        """Raises NotFoundError without one."""
        if self._configured is None:
            raise NotFoundError("no provider of OpenID Connect is configured here")
        return self._configured

    @property
    def _redirect_uri(self) -> str:
        return f"{self._address.url}{_PATH}/callback"

    def _failed(self, error: BaseException) -> web.Response:
        """Back to the page, which says what went wrong."""
        text = str(error) if isinstance(error, MeshhostError) else f"{self._config.name} cannot be reached"
        now = time.monotonic()
        if now - self._logged_at >= _LOG_SECONDS:
            more = {"others": self._unlogged} if self._unlogged else {}
            logger.warning("a sign-in with OpenID Connect failed", extra={"reason": text, **more})
            self._logged_at, self._unlogged = now, 0
        else:
            self._unlogged += 1
        location = f"/studio/?sign_in_error={quote(text[:300])}"
        return web.Response(status=302, headers={"Location": location, **_NO_STORE})


def _keys_in(answer: Mapping[str, Any]) -> dict[str | None, jwt.PyJWK]:
    """The keys of a key set that sign; those of a kind that is not known here are left out."""
    found: dict[str | None, jwt.PyJWK] = {}
    for each in answer.get("keys", []):
        if isinstance(each, dict) and each.get("use", "sig") == "sig":
            try:
                found[each.get("kid")] = jwt.PyJWK(each)
            except jwt.PyJWTError:
                continue
    return found


def _check_url(url: Any) -> None:
    """Raise InvalidTokenError for an address to which a code and a secret must not be sent."""
    parts = urlsplit(url) if isinstance(url, str) else None
    if parts is None or not (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname))):
        raise InvalidTokenError("the provider's addresses must be https")


def _basic(user: str, password: str) -> str:
    shown = f"{quote(user, safe='')}:{quote(password, safe='')}"
    return f"Basic {b64encode(shown.encode()).decode()}"

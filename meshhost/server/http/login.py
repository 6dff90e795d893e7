"""The login that the MeshAgent CLI's `setup` opens in a browser, for users of the machine that the server runs on.

It is OAuth's authorization code with PKCE, without a page to log in on: a program that reaches the server from this machine is
trusted. So only loopback callers are served, and only a loopback address gets the code; PKCE binds the code to the CLI that
asked for it. Codes are kept in memory, few of them and for five minutes. `ServerConfig.oauth` turns all of it off.
"""

import base64
import hashlib
import html
import secrets
import time
from dataclasses import dataclass
from urllib.parse import urlencode, urlsplit

from aiohttp import web

from meshhost.errors import InvalidRequestError, NotFoundError
from meshhost.loopback import is_loopback
from meshhost.server.http.access import OAUTH_SECONDS, Access

__all__ = ["LoginRoutes"]

CODE_SECONDS = 300.0
MAX_CODES = 100


@dataclass(frozen=True, slots=True)
class _Code:
    project: str
    challenge: str
    redirect_uri: str
    client_id: str
    expires_at: float


class LoginRoutes:
    """Serves `/oauth/authorize` and `/oauth/token`."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._codes: dict[str, _Code] = {}

    def add_to(self, app: web.Application) -> None:
        """Register the routes."""
        app.add_routes([web.get("/oauth/authorize", self._authorize), web.post("/oauth/token", self._token)])

    async def _authorize(self, request: web.Request) -> web.Response:
        _check_loopback(request)
        query = request.query
        redirect_uri = query.get("redirect_uri", "")
        if not redirect_uri.isprintable() or not is_loopback(_hostname(redirect_uri)):
            raise InvalidRequestError("redirect_uri", "expected an address on this machine")
        challenge = query.get("code_challenge", "")
        if query.get("code_challenge_method") != "S256" or not challenge or not challenge.isascii():
            raise InvalidRequestError("code_challenge", "expected PKCE with S256")
        projects = await self._access.identity.projects()
        if not projects:
            raise NotFoundError("no project here yet: run `meshhost setup` on this machine")
        code = self._remember(
            _Code(
                project=projects[0].id,
                challenge=challenge,
                redirect_uri=redirect_uri,
                client_id=query.get("client_id", ""),
                expires_at=time.monotonic() + CODE_SECONDS,
            )
        )
        target = f"{redirect_uri}?{urlencode({'code': code, 'state': query.get('state', '')})}"
        page = f'<p>Logging in… <a href="{html.escape(target)}">continue</a></p>'
        return web.Response(status=302, headers={"Location": target}, text=page, content_type="text/html")

    async def _token(self, request: web.Request) -> web.Response:
        _check_loopback(request)
        form = await request.post()
        code = self._codes.pop(str(form.get("code", "")), None)
        verifier = str(form.get("code_verifier", ""))
        digest = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")
        if (
            code is None
            or code.expires_at < time.monotonic()
            or not secrets.compare_digest(digest, code.challenge)
            or code.redirect_uri != form.get("redirect_uri")
            or code.client_id != form.get("client_id", "")
        ):
            return web.json_response({"error": "invalid_grant"}, status=400)
        token = self._access.sign_login(code.project)
        return web.json_response({"access_token": token, "token_type": "Bearer", "expires_in": OAUTH_SECONDS})

    def _remember(self, code: _Code) -> str:
        while len(self._codes) >= MAX_CODES:  # the oldest goes first
            del self._codes[next(iter(self._codes))]
        text = secrets.token_urlsafe(32)
        self._codes[text] = code
        return text


def _check_loopback(request: web.Request) -> None:
    if not is_loopback(request.remote):
        raise NotFoundError("not found")


def _hostname(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None

"""The login that the MeshAgent CLI's `setup` opens in a browser, for the user of the machine that the server runs on.

It is OAuth's authorization code with PKCE. There are no passwords: the user proves to be the operator by typing a one-time code
that the server shows on its console, which another user of the machine, a web page and a proxied caller cannot read. Each of
the steps is for programs of this machine only (`edge/same_machine.py`), and the result goes to an address of this machine only.

`GET /oauth/authorize` checks the request, shows a code on the console and answers with a page that asks for it; the page posts
it back to the same path, which redirects to the CLI with an authorization code; `POST /oauth/token` exchanges that for an
access token. What is pending is kept in memory, little of it and for five minutes. `ServerConfig.oauth` turns all of it off; it
is off by default behind a public URL.
"""

import base64
import hashlib
import html
import re
import secrets
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

from aiohttp import web

from meshhost.clock import Clock, SystemClock
from meshhost.edge.same_machine import is_local_program
from meshhost.errors import AccessDeniedError, InvalidRequestError, NotFoundError
from meshhost.server.http.access import OAUTH_SECONDS, Access
from meshhost.server.http.bodies import form_of

__all__ = ["LoginRoutes", "loopback_redirect"]

CODE_SECONDS = 300.0
MAX_CODES = 100
# Wrong console codes after which a login has to begin again: 5 of 10^8 possible ones.
MAX_TRIES = 5
_REDIRECT = re.compile(r"http://(localhost|127\.0\.0\.1|\[::1\])(?::([0-9]{1,5}))?(/[A-Za-z0-9._~/-]*)?", re.ASCII)
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
}
_PAGE = """<!doctype html><title>meshhost login</title>
<p>A program on this machine asks for access to this room server. If it was you (<code>setup</code>), type the code that the
server shows on its console.</p>
<form method="post" action="/oauth/authorize"><input type="hidden" name="login" value="{login}">
<input name="console_code" autocomplete="off" autofocus> <button>Log in</button></form>{note}
"""


@dataclass(frozen=True, slots=True)
class _Login:
    """A login in progress: before the console code was typed (`console_code`), and after it (an authorization code)."""

    project: str
    challenge: str
    asked_redirect: str
    target: str
    state: str
    client_id: str
    expires_at: float
    console_code: str = ""
    tries: int = 0
    room: str = ""


def show_on_console(text: str) -> None:
    """Write a line to where the server was started; not to the log, which others may collect."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


class LoginRoutes:
    """Serves `/oauth/authorize` and `/oauth/token`. `show` shows a line to the operator (None: on the server's console).

    `room_of` returns the room whose MCP server has an address, or raises InvalidRequestError: a login that names one as
    `resource` gets a token for it alone. `own_url` is the issuer that is named with each code (RFC 9207).
    """

    def __init__(
        self,
        access: Access,
        *,
        show: Callable[[str], None] | None = None,
        clock: Clock | None = None,
        own_url: Callable[[], str] = lambda: "",
        room_of: Callable[[str], str] = lambda _: "",
    ) -> None:
        self._access = access
        self._own_url = own_url
        self._room_of = room_of
        self._clock = clock or SystemClock()
        self._show = show
        self._asked: dict[str, _Login] = {}
        self._granted: dict[str, _Login] = {}

    def add_to(self, app: web.Application) -> None:
        """Register the routes."""
        app.add_routes(
            [
                web.get("/oauth/authorize", self._ask),
                web.post("/oauth/authorize", self._grant),
                web.post("/oauth/token", self._token),
            ]
        )

    async def _ask(self, request: web.Request) -> web.Response:
        _check_same_machine(request)
        query = request.query
        target = loopback_redirect(query.get("redirect_uri", ""))
        challenge = query.get("code_challenge", "")
        if query.get("code_challenge_method") != "S256" or not challenge or not challenge.isascii():
            raise InvalidRequestError("code_challenge", "expected PKCE with S256")
        project = await self._access.identity.own_project()
        if project is None:
            # Several tenants and no sign of which one is meant: a login must not open somebody else's.
            raise NotFoundError("no project of this machine's user: run `meshhost setup` on this machine")
        digits = f"{secrets.randbelow(10**8):08d}"
        login = _Login(
            project=project.id,
            challenge=challenge,
            asked_redirect=query.get("redirect_uri", ""),
            target=target,
            state=query.get("state", ""),
            client_id=query.get("client_id", ""),
            expires_at=self._clock.monotonic() + CODE_SECONDS,
            console_code=digits,
            room=self._room_of(query["resource"]) if "resource" in query else "",
        )
        name = _remember(self._asked, login)
        (self._show or show_on_console)(f"login requested from this machine; its code is {digits[:4]}-{digits[4:]}")
        return _page(name)

    async def _grant(self, request: web.Request) -> web.Response:
        _check_same_machine(request)
        form = await form_of(request)
        name = str(form.get("login", ""))
        login = self._asked.pop(name, None)
        if login is None or login.expires_at < self._clock.monotonic():
            raise AccessDeniedError("log in", "this login is over; begin again")
        typed = re.sub(r"[\s-]", "", str(form.get("console_code", "")))
        if not secrets.compare_digest(typed.encode(errors="replace"), login.console_code.encode()):
            if login.tries + 1 >= MAX_TRIES:
                raise AccessDeniedError("log in", "this login is over; begin again")
            self._asked[name] = replace(login, tries=login.tries + 1)
            return _page(name, status=403, note="<p>This is not the code.</p>")
        code = _remember(self._granted, login)
        location = f"{login.target}?{urlencode({'code': code, 'state': login.state, 'iss': self._own_url()})}"
        return web.Response(status=303, headers={"Location": location, **_HEADERS})

    async def _token(self, request: web.Request) -> web.Response:
        _check_same_machine(request)
        form = await form_of(request)
        login = self._granted.pop(str(form.get("code", "")), None)
        verifier = str(form.get("code_verifier", ""))
        digest = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")
        if (
            login is None
            or login.expires_at < self._clock.monotonic()
            or not secrets.compare_digest(digest, login.challenge)
            or login.asked_redirect != form.get("redirect_uri")
            or login.client_id != form.get("client_id", "")
        ):
            return web.json_response({"error": "invalid_grant"}, status=400)
        access, project = self._access, login.project
        token = access.sign_mcp(project, login.room) if login.room else access.sign_login(project)
        answer: dict[str, Any] = {"access_token": token, "token_type": "Bearer", "expires_in": OAUTH_SECONDS}
        return web.json_response(answer, headers={"Cache-Control": "no-store"})


def loopback_redirect(text: str) -> str:
    """The address to redirect to, put together anew from its parts. Raises InvalidRequestError.

    Parsers disagree about user names, backslashes and white space in URLs, so a URL with anything but a loopback host, a port
    and a plain path is refused, and what is sent is made of the parts that were checked.
    """
    match = _REDIRECT.fullmatch(text)
    port = 80 if match is None or match[2] is None else int(match[2])
    if match is None or not 0 < port < 65536:
        raise InvalidRequestError("redirect_uri", "expected an address on this machine: http://localhost:PORT/PATH")
    return f"http://{match[1]}:{port}{match[3] or '/'}"


def _check_same_machine(request: web.Request) -> None:
    if not is_local_program(request, own_page=True):
        raise NotFoundError("not found")


def _remember(logins: dict[str, _Login], login: _Login) -> str:
    while len(logins) >= MAX_CODES:  # the oldest goes first
        del logins[next(iter(logins))]
    name = secrets.token_urlsafe(32)
    logins[name] = login
    return name


def _page(login: str, *, status: int = 200, note: str = "") -> web.Response:
    text = _PAGE.format(login=html.escape(login), note=note)
    return web.Response(status=status, text=text, content_type="text/html", headers=_HEADERS)

"""Signing in to Studio, and tokens for its page to join rooms with: `/studio/api`.

`POST /studio/api/session` takes an API key, the operator's key or a one-time code and answers with a cookie, which is the
session from then on (`http/sessions.py`). The page asks `GET` first, which is answered without a session too, and says by which
ways one can sign in. A page joins a room by the WebSocket of every participant, with a token of its own that
`POST /studio/api/rooms/{room}/token` signs with the session's key, for an hour.
"""

from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from typing import Any
from urllib.parse import quote

from aiohttp import web

from meshhost.errors import AccessDeniedError, InvalidRequestError, MeshhostError, TokenError
from meshhost.identity.grants import ApiScope
from meshhost.identity.keys import encode_api_key
from meshhost.identity.tenant import check_room_name
from meshhost.identity.tokens import ParticipantGrant, ParticipantToken
from meshhost.server.address import Address
from meshhost.server.http.access import Access
from meshhost.server.http.bodies import UNKNOWN_SENDER_BYTES, json_object, text_of
from meshhost.server.http.sessions import Session, Sessions
from meshhost.server.studio.codes import CODE_SECONDS, CodeOf, OneTimeCodes
from meshhost.tenant_names import name_of

__all__ = ["SigningIn", "link_with"]

TOKEN_SECONDS = 3600.0
_MAX_NAME = 64
_VERSION = version("meshhost")
_NO_STORE = {"Cache-Control": "no-store"}


def link_with(url: str, code: str) -> str:
    """The address that signs in with this code."""
    return f"{url}/studio/#code={quote(code)}"


class SigningIn:
    """Serves `/studio/api`. `oidc_name` is the provider's name, where one can sign in by it."""

    def __init__(
        self, access: Access, sessions: Sessions, codes: OneTimeCodes, address: Address, *, oidc_name: str | None = None
    ) -> None:
        self._oidc_name = oidc_name
        self._access = access
        self._sessions = sessions
        self._codes = codes
        self._address = address

    def add_to(self, app: web.Application) -> None:
        """Register the routes."""
        app.add_routes(
            [
                web.get("/studio/api/session", self._show),
                web.post("/studio/api/session", self._sign_in),
                web.delete("/studio/api/session", self._sign_out),
                web.post("/studio/api/link", self._link),
                web.post("/studio/api/rooms/{room}/token", self._token),
            ]
        )

    async def _show(self, request: web.Request) -> web.Response:
        """The session of the cookie, if it is one; renewed when half of its time is over."""
        self._sessions.check_same_origin(request)
        try:
            session = self._sessions.shown(request)
            if session is None:
                return web.json_response(self._nobody(), headers=_NO_STORE)
            body = await self._shown(session)
        except MeshhostError as error:  # it has ended, with its key, its tenant or its time
            response = web.json_response({**self._nobody(), "ended": str(error)}, headers=_NO_STORE)
            self._sessions.forget_cookie(request, response)
            return response
        renewed = self._sessions.renewed(session)
        if renewed is None:
            return web.json_response(body, headers=_NO_STORE)
        response = web.json_response({**body, "expires": renewed[0].expires_at}, headers=_NO_STORE)
        self._sessions.set_cookie(request, response, renewed[1])
        return response

    async def _sign_in(self, request: web.Request) -> web.Response:
        self._sessions.check_same_origin(request)
        body = await json_object(request, most_bytes=UNKNOWN_SENDER_BYTES)
        if ("key" in body) == ("code" in body):
            raise InvalidRequestError("key", "expected an API key as `key`, or a one-time code as `code`")
        if "key" in body:
            session, cookie = self._sessions.begin(text_of(body, "key"))
        else:
            of = self._codes.use(text_of(body, "code"))
            session, cookie = self._sessions.begin_for(of.project, of.key_id)
        response = web.json_response(await self._shown(session), headers=_NO_STORE)
        self._sessions.set_cookie(request, response, cookie)
        return response

    async def _sign_out(self, request: web.Request) -> web.Response:
        response = web.Response(status=204, headers=_NO_STORE)
        try:
            session = self._sessions.of(request)
        except TokenError:  # it has ended already
            session = None
        if session is not None:
            self._sessions.end(session)
        self._sessions.forget_cookie(request, response)
        return response

    async def _link(self, request: web.Request) -> web.Response:
        """A link that signs a browser in as who shows the key."""
        session = self._access.session(request)
        if session is not None and session.name is not None:
            raise AccessDeniedError("a link stands for a key, and you have none: sign in by your provider there too")
        if self._access.is_operator(request):
            of = CodeOf(None, None)
        else:
            holder = self._access.permitted(request)
            key_id = holder.key_id or self._access.key_for(holder.project).id
            of = CodeOf(holder.project, key_id)
        url = link_with(self._address.url, self._codes.make(of))
        return web.json_response({"url": url, "expires_in": CODE_SECONDS}, headers=_NO_STORE)

    async def _token(self, request: web.Request) -> web.Response:
        """A token for the page to join a room with, as a person of this name. It ends with the session and its key."""
        key = self._access.signer(request)
        room = check_room_name(request.match_info["room"])
        body = await json_object(request) if request.can_read_body else {}
        session = self._access.session(request)
        person = None if session is None else session.name
        name = person or text_of(body, "name", "studio")
        if len(name) > _MAX_NAME or not name.isprintable():
            raise InvalidRequestError("name", f"expected at most {_MAX_NAME} printable characters")
        expires = datetime.now(UTC) + timedelta(seconds=TOKEN_SECONDS)
        if session is not None:
            expires = min(expires, datetime.fromtimestamp(session.expires_at, UTC))
        token = ParticipantToken(
            name=name,
            grants=[
                ParticipantGrant(name="room", scope=room),
                ParticipantGrant(name="role", scope="user"),
                ParticipantGrant(name="api", scope=ApiScope.full()),
            ],
        )
        jwt = token.to_jwt(api_key=encode_api_key(key), expiration=expires)
        answer = {"jwt": jwt, "name": name, "room": room, "expires": int(expires.timestamp())}
        return web.json_response(answer, headers=_NO_STORE)

    async def _shown(self, session: Session) -> dict[str, Any]:
        """The session as the page sees it. Raises TokenError, TenantSuspendedError when it has ended."""
        more: dict[str, Any] = {"role": "operator", "name": session.name or "operator", "tenant": None}
        identity = self._access.identity
        if session.project is not None:
            identity.check_tenant(session.project)
            tenant = {"id": session.project, "name": name_of(session.project)}
            more |= {"role": session.role, "tenant": tenant}
        if session.project is not None and session.key_id is not None:
            identity.check_use(session.key_id)
            keys = {key.id: key.name for key in await identity.keys(session.project)}
            more |= {"role": identity.role_of(session.key_id).value, "name": keys.get(session.key_id, "own key")}
        # A person whom a provider named has no key, so no link can stand for it.
        more |= {"expires": session.expires_at, "csrf": session.csrf, "may_link": session.name is None}
        return {**self._nobody(), **more}

    def _nobody(self) -> dict[str, Any]:
        ways = ["key", "code", *(["oidc"] if self._oidc_name else [])]
        oidc = {"name": self._oidc_name} if self._oidc_name else None
        return {"role": None, "sign_in": ways, "oidc": oidc, "version": _VERSION}

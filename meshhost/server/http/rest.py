"""The REST calls that `setup`, `room`, `queue` and `service` of the MeshAgent CLI make (room-protocol §20).

Calls it makes beyond those are answered with 501 and a reason.
"""

import base64
import hashlib
import html
import json
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlencode, urlsplit

from aiohttp import web

from meshhost.errors import InvalidRequestError, NotFoundError
from meshhost.identity.grants import ApiScope
from meshhost.identity.keys import encode_api_key
from meshhost.identity.tenant import check_room_name
from meshhost.identity.tokens import ParticipantGrant, ParticipantToken
from meshhost.server.core.directory import RoomDirectory
from meshhost.server.core.room import Room
from meshhost.server.http.access import Access
from meshhost.stores.identity import RoomInfo

__all__ = ["LoginRoutes", "RestRoutes"]

_MAX_LIMIT = 1000
_MAX_DIGITS = 15
_CODE_SECONDS = 300.0
_MAX_CODES = 100


class RestRoutes:
    """Projects, API keys and rooms. Every request shows an API key (or a login), and sees its own project only."""

    def __init__(
        self,
        access: Access,
        directory: RoomDirectory,
        *,
        url_of: Callable[[str], str],
        calls_of: Callable[[Room], list[dict[str, Any]]],
    ) -> None:
        self._access = access
        self._identity = access.identity
        self._directory = directory
        self._url_of = url_of
        self._calls_of = calls_of

    def add_to(self, app: web.Application) -> None:
        """Register the routes."""
        project = "/accounts/projects/{project}"
        app.add_routes(
            [
                web.get("/accounts/projects", self._projects),
                web.post(f"{project}/api-keys", self._create_key),
                web.get(f"{project}/api-keys", self._keys),
                web.delete(f"{project}/api-keys/{{id}}", self._delete_key),
                web.post(f"{project}/rooms", self._create_room),
                web.get(f"{project}/rooms", self._rooms),
                web.get(f"{project}/rooms/{{name}}", self._room),
                web.delete(f"{project}/rooms/{{id}}", self._delete_room),
                web.post(f"{project}/rooms/{{name}}/connect", self._connect),
                web.get(f"{project}/rooms/{{name}}/calls", self._calls),
                web.get(f"{project}/sessions/active", self._active),
                web.route("*", f"{project}/{{what}}", self._not_offered),
                web.route("*", f"{project}/{{what}}/{{rest:.*}}", self._not_offered),
            ]
        )

    async def _projects(self, request: web.Request) -> web.Response:
        mine = self._access.project(request)
        projects = [project for project in await self._identity.projects() if project.id == mine]
        return web.json_response({"projects": [{"id": project.id, "name": project.name} for project in projects]})

    async def _create_key(self, request: web.Request) -> web.Response:
        project, body = self._project(request), await _json_object(request)
        key = await self._identity.create_key(
            project, name=_text(body, "name", "key"), description=_text(body, "description", "")
        )
        return web.json_response({"id": key.id, "value": encode_api_key(key), "name": _text(body, "name", "key")})

    async def _keys(self, request: web.Request) -> web.Response:
        keys = await self._identity.keys(self._project(request))
        return web.json_response(
            {"keys": [{"id": key.id, "name": key.name, "description": key.description} for key in keys]}
        )

    async def _delete_key(self, request: web.Request) -> web.Response:
        key_id = request.match_info["id"]
        await self._identity.delete_key(self._project(request), key_id)
        # What the key has signed ends with it.
        self._directory.close_participants(lambda participant: participant.key_id == key_id, "the API key was revoked")
        return web.Response(status=204)

    async def _create_room(self, request: web.Request) -> web.Response:
        project, body = self._project(request), await _json_object(request)
        name = check_room_name(_text(body, "name"))
        metadata = body.get("metadata") or {}
        if not isinstance(metadata, dict):
            raise InvalidRequestError("metadata", "expected an object or null")
        room = await self._identity.create_room(
            project, name, metadata=json.dumps(metadata), if_not_exists=bool(body.get("if_not_exists"))
        )
        return web.json_response(_room(room))

    async def _rooms(self, request: web.Request) -> web.Response:
        project = self._project(request)
        limit, offset = _number(request, "limit", 50), _number(request, "offset", 0)
        rooms = await self._identity.rooms(project, limit=min(limit, _MAX_LIMIT), offset=offset)
        return web.json_response({"rooms": [_room(room) for room in rooms]})

    async def _room(self, request: web.Request) -> web.Response:
        room = await self._identity.find_room(self._project(request), request.match_info["name"])
        if room is None:
            raise NotFoundError("no such room")
        return web.json_response(_room(room))

    async def _delete_room(self, request: web.Request) -> web.Response:
        project = self._project(request)
        room = await self._identity.delete_room(project, request.match_info["id"])
        for opened in self._directory.rooms:
            if (opened.key.tenant, opened.key.name) == (project, room.name):
                self._directory.end(opened)
        return web.Response(status=204)

    async def _connect(self, request: web.Request) -> web.Response:
        project = self._project(request)
        name = check_room_name(request.match_info["name"])
        token = ParticipantToken(
            name="cli",
            grants=[
                ParticipantGrant(name="room", scope=name),
                ParticipantGrant(name="role", scope="user"),
                ParticipantGrant(name="api", scope=ApiScope.full()),
            ],
        )
        jwt = token.to_jwt(api_key=encode_api_key(self._access.key_for(project)))
        return web.json_response({"jwt": jwt, "room_name": name, "project_id": project, "room_url": self._url_of(name)})

    async def _calls(self, request: web.Request) -> web.Response:
        """What became of the calls of the room's services. None for a room that is not open: nobody is called into it."""
        project = self._project(request)
        name = check_room_name(request.match_info["name"])
        opened = [room for room in self._directory.rooms if (room.key.tenant, room.key.name) == (project, name)]
        if not opened and await self._identity.find_room(project, name) is None:
            raise NotFoundError("no such room")
        return web.json_response({"calls": [call for room in opened for call in self._calls_of(room)]})

    async def _active(self, request: web.Request) -> web.Response:
        project = self._project(request)
        rooms = [room for room in self._directory.rooms if room.key.tenant == project]
        return web.json_response(
            {
                "sessions": [
                    {
                        "id": room.session_id,
                        "room_name": room.key.name,
                        "participants": [{"name": member.name, "role": member.role} for member in room.connected()],
                    }
                    for room in sorted(rooms, key=lambda room: room.key.name)
                ]
            }
        )

    async def _not_offered(self, request: web.Request) -> web.Response:
        """What else MeshAgent's REST API has. Its client shows the reason phrase and drops the body."""
        self._project(request)
        what = request.match_info["what"]
        shown = what if what.replace("-", "").isalnum() and what.isascii() else "this"
        text = f"meshhost does not offer {request.method} {shown}: see From MeshAgent in its README"
        return web.json_response({"error": text}, status=501, reason=text)

    def _project(self, request: web.Request) -> str:
        project = self._access.project(request)
        # Another tenant's project looks like one that does not exist.
        if request.match_info["project"] != project:
            raise NotFoundError("no such project")
        return project


@dataclass(frozen=True, slots=True)
class _Code:
    project: str
    challenge: str
    redirect_uri: str
    client_id: str
    expires_at: float


class LoginRoutes:
    """The login that the MeshAgent CLI's `setup` opens in a browser, for the user of this machine only.

    Only loopback callers are served, and only a loopback address gets the code; PKCE binds it to the CLI that asked.
    """

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
        if not redirect_uri.isprintable() or not _is_loopback(_hostname(redirect_uri)):
            raise InvalidRequestError("redirect_uri", "expected an address on this machine")
        challenge = query.get("code_challenge", "")
        if query.get("code_challenge_method") != "S256" or not challenge or not challenge.isascii():
            raise InvalidRequestError("code_challenge", "expected PKCE with S256")
        projects = await self._access.identity.projects()
        if not projects:
            raise NotFoundError("no project here yet: run `meshhost setup` on this machine")
        code = self._remember(
            _Code(
                projects[0].id,
                challenge,
                redirect_uri,
                query.get("client_id", ""),
                time.monotonic() + _CODE_SECONDS,
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
        return web.json_response({"access_token": token, "token_type": "Bearer", "expires_in": 24 * 3600})

    def _remember(self, code: _Code) -> str:
        while len(self._codes) >= _MAX_CODES:
            del self._codes[next(iter(self._codes))]
        text = secrets.token_urlsafe(32)
        self._codes[text] = code
        return text


def _check_loopback(request: web.Request) -> None:
    if not _is_loopback(request.remote):
        raise NotFoundError("not found")


def _hostname(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def _is_loopback(host: str | None) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host or "").is_loopback
    except ValueError:
        return False


def _room(room: RoomInfo) -> dict[str, Any]:
    return {"id": room.id, "name": room.name, "metadata": json.loads(room.metadata)}


async def _json_object(request: web.Request) -> dict[str, Any]:
    try:
        body = await request.json()
    except (ValueError, RecursionError):
        raise InvalidRequestError("body", "expected JSON") from None
    if not isinstance(body, dict):
        raise InvalidRequestError("body", "expected a JSON object")
    return body


def _text(body: dict[str, Any], name: str, default: str | None = None) -> str:
    value = body.get(name) or default
    if not isinstance(value, str) or any("\ud800" <= character <= "\udfff" for character in value):
        raise InvalidRequestError(name, "expected a text")
    return value


def _number(request: web.Request, name: str, default: int) -> int:
    text = request.query.get(name, str(default))
    if not text.isdecimal() or len(text) > _MAX_DIGITS:
        raise InvalidRequestError(name, "expected a number")
    return int(text)

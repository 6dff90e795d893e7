"""The REST API: projects, API keys, rooms, and what goes on in them (room-protocol §20).

These are the calls that `setup`, `room`, `queue` and `service` of the MeshAgent CLI make; others of MeshAgent's API are
answered with 501 and a reason. A request shows an API key or a login and sees the project of that key only: another tenant's
project looks like one that does not exist. Changes take effect in open rooms at once: a revoked key disconnects its
participants, a deleted room ends.
"""

import json
from collections.abc import Callable
from typing import Any

from aiohttp import web

from meshhost.errors import InvalidRequestError, NotFoundError
from meshhost.identity.grants import ApiScope
from meshhost.identity.keys import encode_api_key
from meshhost.identity.tenant import RoomKey, TenantId, check_room_name
from meshhost.identity.tokens import ParticipantGrant, ParticipantToken
from meshhost.protocol.json_values import dump_json
from meshhost.queues.service import QueueService
from meshhost.server.core.directory import RoomDirectory
from meshhost.server.core.room import Room
from meshhost.server.http.access import Access
from meshhost.server.http.bodies import json_object, query_number, text_of
from meshhost.stores.identity import RoomInfo

__all__ = ["RestRoutes"]

_MAX_LIMIT = 1000
_ALL = 2**31
# The member of the metadata in which the annotations of a room are kept.
_ANNOTATIONS = "meshhost.annotations"


class RestRoutes:
    """Serves `/accounts/projects`. `url_of` makes a room's WebSocket URL; `calls_of` reports the calls of a room's services."""

    def __init__(
        self,
        access: Access,
        directory: RoomDirectory,
        queues: QueueService,
        *,
        url_of: Callable[[str], str],
        calls_of: Callable[[Room], list[dict[str, Any]]],
    ) -> None:
        self._access = access
        self._identity = access.identity
        self._directory = directory
        self._url_of = url_of
        self._calls_of = calls_of
        self._queues = queues

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
                web.put(f"{project}/rooms/{{id}}", self._change_room),
                web.delete(f"{project}/rooms/{{id}}", self._delete_room),
                web.get(f"{project}/rooms/{{name}}/status", self._status),
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
        project, body = self.project(request), await json_object(request)
        key = await self._identity.create_key(
            project, name=text_of(body, "name", "key"), description=text_of(body, "description", "")
        )
        return web.json_response({"id": key.id, "value": encode_api_key(key), "name": text_of(body, "name", "key")})

    async def _keys(self, request: web.Request) -> web.Response:
        keys = await self._identity.keys(self.project(request))
        return web.json_response(
            {"keys": [{"id": key.id, "name": key.name, "description": key.description} for key in keys]}
        )

    async def _delete_key(self, request: web.Request) -> web.Response:
        key_id = request.match_info["id"]
        await self._identity.delete_key(self.project(request), key_id)
        # The identity service reports the revocation, which ends the connections of the key's tokens (`assembly.py`).
        return web.Response(status=204)

    async def _create_room(self, request: web.Request) -> web.Response:
        project, body = self.project(request), await json_object(request)
        name = check_room_name(text_of(body, "name"))
        if body.get("permissions"):
            raise InvalidRequestError("permissions", "expected null: who has a key of the project may use its rooms")
        room = await self._identity.create_room(
            project, name, metadata=_metadata_in(body), if_not_exists=bool(body.get("if_not_exists"))
        )
        return web.json_response(_room(room))

    async def _change_room(self, request: web.Request) -> web.Response:
        """Replace metadata and annotations. A room keeps its name, under which its queues and files are."""
        project, body, room_id = self.project(request), await json_object(request), request.match_info["id"]
        metadata = _metadata_in(body)
        known = await self._identity.rooms(project, limit=_ALL, offset=0)
        found = next((room for room in known if room.id == room_id), None)
        if found is None:
            raise NotFoundError("no such room")
        if text_of(body, "name", found.name) != found.name:
            error = InvalidRequestError("name", f"expected {found.name!r}: a room keeps its name")
            # MeshAgent's client shows the reason phrase and drops the body.
            return web.json_response({"error": str(error)}, status=400, reason="a room keeps its name")
        return web.json_response(_room(await self._identity.change_room(project, room_id, metadata=metadata)))

    async def _status(self, request: web.Request) -> web.Response:
        """Whether a room is open, in MeshAgent's words."""
        project, name = self.project(request), check_room_name(request.match_info["name"])
        is_open = self._open(project, name)["open"]
        if not is_open and await self._identity.find_room(project, name) is None:
            raise NotFoundError("no such room")
        return web.json_response({"status": "Allocated" if is_open else "Unallocated"})

    async def _rooms(self, request: web.Request) -> web.Response:
        project = self.project(request)
        limit, offset = query_number(request, "limit", 50), query_number(request, "offset", 0)
        if "page_size" in request.query:
            return await self._page_of_rooms(request, project)
        if request.query.get("all") not in ("1", "true"):
            rooms = await self._identity.rooms(project, limit=min(limit, _MAX_LIMIT), offset=offset)
            return web.json_response({"rooms": [_room(room) | self._open(project, room.name) for room in rooms]})
        known = await self._known_rooms(project)
        page = sorted(known)[offset : offset + min(limit, _MAX_LIMIT)]
        return web.json_response({"rooms": [known[name] | self._open(project, name) for name in page]})

    async def _page_of_rooms(self, request: web.Request, project: str) -> web.Response:
        """A page as clients of SDK 0.56 ask for it: `filter` is a part of names, the token is where the page begins."""
        size, start = query_number(request, "page_size", 50), query_number(request, "continuation_token", 0)
        part = request.query.get("filter", "").strip().casefold()
        known = await self._identity.rooms(project, limit=_ALL, offset=0)
        found = [room for room in known if part in room.name.casefold()]
        end = start + max(1, min(size, _MAX_LIMIT))
        rooms = [_room(room) | self._open(project, room.name) for room in found[start:end]]
        token = str(end) if end < len(found) else None
        return web.json_response({"rooms": rooms, "total": len(found), "continuation_token": token})

    async def _known_rooms(self, project: str) -> dict[str, dict[str, Any]]:
        """All rooms by name: recorded, open, or with a queue, but none that is being deleted or imported.

        A room that was never recorded has no id.
        """
        tenant = TenantId(project)
        names = {room.key.name for room in self._directory.rooms if room.key.tenant == tenant and room.is_awake}
        names |= set(await self._queues.rooms_of(tenant))
        known: dict[str, dict[str, Any]] = {name: {"id": None, "name": name, "metadata": {}} for name in names}
        known |= {room.name: _room(room) for room in await self._identity.rooms(project, limit=_ALL, offset=0)}
        in_between = self._identity.deleted_rooms
        return {name: room for name, room in known.items() if not in_between.is_known(RoomKey(tenant, name))}

    def _open(self, project: str, name: str) -> dict[str, bool]:
        room = self._directory.find(RoomKey(TenantId(project), name))
        return {"open": room is not None and room.is_awake}

    async def _room(self, request: web.Request) -> web.Response:
        room = await self._identity.find_room(self.project(request), request.match_info["name"])
        if room is None:
            raise NotFoundError("no such room")
        return web.json_response(_room(room))

    async def _delete_room(self, request: web.Request) -> web.Response:
        project = self.project(request)
        room = await self._identity.delete_room(project, request.match_info["id"])
        self._directory.delete(RoomKey(TenantId(project), room.name))
        return web.Response(status=204)

    async def _connect(self, request: web.Request) -> web.Response:
        project = self.project(request)
        key = self._access.signer(request)
        name = check_room_name(request.match_info["name"])
        token = ParticipantToken(
            name="cli",
            grants=[
                ParticipantGrant(name="room", scope=name),
                ParticipantGrant(name="role", scope="user"),
                ParticipantGrant(name="api", scope=ApiScope.full()),
            ],
        )
        jwt = token.to_jwt(api_key=encode_api_key(key))
        return web.json_response({"jwt": jwt, "room_name": name, "project_id": project, "room_url": self._url_of(name)})

    async def _calls(self, request: web.Request) -> web.Response:
        """The calls of the room's services and their outcomes. Empty for a room that is not open."""
        project = self.project(request)
        name = check_room_name(request.match_info["name"])
        opened = self._directory.find(RoomKey(TenantId(project), name))
        if opened is None and await self._identity.find_room(project, name) is None:
            raise NotFoundError("no such room")
        return web.json_response({"calls": [] if opened is None else self._calls_of(opened)})

    async def _active(self, request: web.Request) -> web.Response:
        project = self.project(request)
        rooms = [room for room in self._directory.rooms if room.key.tenant == project and room.is_awake]
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
        """Refuse the rest of MeshAgent's REST API. Its client shows the reason phrase and drops the body."""
        self.project(request)
        what = request.match_info["what"]
        shown = what if what.replace("-", "").isalnum() and what.isascii() else "this"
        text = f"meshhost does not offer {request.method} {shown}: see Migrate from MeshAgent in its documentation"
        return web.json_response({"error": text}, status=501, reason=text)

    def project(self, request: web.Request) -> str:
        """The project of a request. Raises TokenError for its key, NotFoundError for a path of another project."""
        project = self._access.project(request)
        if request.match_info["project"] != project:
            raise NotFoundError("no such project")
        return project


def _metadata_in(body: dict[str, Any]) -> str:
    """Metadata and annotations of a body, as they are kept. Raises InvalidRequestError."""
    metadata, annotations = body.get("metadata") or {}, body.get("annotations") or {}
    if not isinstance(metadata, dict):
        raise InvalidRequestError("metadata", "expected an object or null")
    if not isinstance(annotations, dict) or not all(isinstance(each, str) for each in annotations.values()):
        raise InvalidRequestError("annotations", "expected an object of texts, or null")
    return dump_json(metadata | ({_ANNOTATIONS: annotations} if annotations else {}))


def _room(room: RoomInfo) -> dict[str, Any]:
    metadata = json.loads(room.metadata)
    annotations = metadata.pop(_ANNOTATIONS, {})
    return {"id": room.id, "name": room.name, "metadata": metadata, "annotations": annotations}

"""Services over REST, as both generations of MeshAgent: of a project, and of one room.

`POST` answers with the whole spec: the client of 0.6 reads its `id`, that of 0.56 all of it. Register the routes before
`RestRoutes`, whose last route answers everything else.
"""

from collections.abc import Callable

from aiohttp import web

from meshhost.errors import NotFoundError
from meshhost.identity.tenant import RoomKey, TenantId, check_room_name
from meshhost.server.configured.services import Services
from meshhost.server.http.access import Access
from meshhost.server.http.bodies import json_object
from meshhost.stores.configuration.contract import WHOLE_TENANT

__all__ = ["ServiceRoutes"]


class ServiceRoutes:
    """Serves services. `project_of` returns the project of a request, or raises."""

    def __init__(self, access: Access, services: Services, project_of: Callable[[web.Request], str]) -> None:
        self._access = access
        self._services = services
        self._project_of = project_of

    def add_to(self, app: web.Application) -> None:
        """Register the routes."""
        project = "/accounts/projects/{project}"
        for path in (f"{project}/services", f"{project}/rooms/{{room}}/services"):
            app.add_routes(
                [
                    web.post(path, self._create),
                    web.get(path, self._list),
                    web.get(f"{path}/by-name/{{id}}", self._show),
                    web.get(f"{path}/{{id}}", self._show),
                    web.put(f"{path}/{{id}}", self._update),
                    web.delete(f"{path}/{{id}}", self._delete),
                ]
            )

    async def _create(self, request: web.Request) -> web.Response:
        tenant, room, by = self._who(request)
        item = await self._services.create(tenant, await json_object(request), room=room, by=by)
        return web.json_response(self._services.shown(item))

    async def _list(self, request: web.Request) -> web.Response:
        tenant, room, _ = self._who(request)
        found = await self._services.list(tenant, room=room)
        return web.json_response({"services": [self._services.shown(item) for item in found]})

    async def _show(self, request: web.Request) -> web.Response:
        tenant, room, _ = self._who(request)
        return web.json_response(
            self._services.shown(await self._services.get(tenant, request.match_info["id"], room=room))
        )

    async def _update(self, request: web.Request) -> web.Response:
        tenant, room, by = self._who(request)
        body = await json_object(request)
        changed = await self._services.update(tenant, request.match_info["id"], body, room=room, by=by)
        return web.json_response(self._services.shown(changed))

    async def _delete(self, request: web.Request) -> web.Response:
        tenant, room, by = self._who(request)
        await self._services.delete(tenant, request.match_info["id"], room=room, by=by)
        return web.Response(status=204)

    def _who(self, request: web.Request) -> tuple[TenantId, str, str | None]:
        tenant, name = TenantId(self._project_of(request)), request.match_info.get("room")
        key_id = self._access.key_holder(request).key_id
        if name is None:
            return tenant, WHOLE_TENANT, key_id
        if self._access.identity.deleted_rooms.is_known(RoomKey(tenant, check_room_name(name))):
            raise NotFoundError("the room is being deleted or imported")
        return tenant, name, key_id

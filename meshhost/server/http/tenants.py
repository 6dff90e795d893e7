"""The REST API of tenants: making, renaming, suspending and deleting them, and their API keys.

For the operator of the server, who shows the operator's key; the table of `permissions.py` says what a tenant's own key may do
here, for its own tenant only. A path names a tenant by name or by id. A tenant is what the MeshAgent API calls a project: the
same keys and rooms are at `/accounts/projects`. `meshhost tenant` and `meshhost key` are the callers.

Changes take effect at once on this server and within two seconds on others over the same store: the identity service tells
which tenants are closed, and `Deletions` ends their rooms.
"""

from typing import Any

from aiohttp import web

from meshhost.errors import InvalidRequestError
from meshhost.identity.keys import encode_api_key
from meshhost.identity.roles import Role
from meshhost.identity.tenant import RoomKey, TenantId, check_room_name
from meshhost.quotas.counts import TenantCounts
from meshhost.quotas.quota import Resource, check_limit
from meshhost.server.core.directory import RoomDirectory
from meshhost.server.core.participants import Participant
from meshhost.server.core.peer import Capability, Event
from meshhost.server.data.deletion import Deletions
from meshhost.server.http.access import Access
from meshhost.server.http.bodies import json_object, query_number, text_of, time_of
from meshhost.stores.identity import KeyInfo, KeyRights, Project
from meshhost.tenant_names import name_of

__all__ = ["TenantRoutes"]

_MAX_LIMIT = 1000
_MAX_REASON = 200
DEFAULT_LIMIT = "default"
# A request for a deletion waits this long for its end.
_DELETE_SECONDS = 10.0


def tell_name(directory: RoomDirectory, tenant: str) -> None:
    """Tell the participants of a tenant its present name, for their logs and tables; clients that can resume know the event."""
    event = Event("tenant.renamed", {"id": tenant, "name": name_of(tenant)})
    for room in directory.rooms:
        if room.key.tenant == tenant:
            room.tell((each for each in room.connected() if _knows_names(each)), event)


class TenantRoutes:
    """Serves `/tenants`."""

    def __init__(self, access: Access, deletions: Deletions, directory: RoomDirectory, counts: TenantCounts) -> None:
        self._access = access
        self._directory = directory
        self._counts = counts
        self._deletions = deletions
        self._identity = access.identity

    def add_to(self, app: web.Application) -> None:
        """Register the routes."""
        tenant = "/tenants/{tenant}"
        app.add_routes(
            [
                web.post("/tenants", self._create),
                web.get("/tenants", self._list),
                web.get(tenant, self._show),
                web.patch(tenant, self._rename),
                web.patch(f"{tenant}/quota", self._set_quota),
                web.delete(tenant, self._delete),
                web.delete(f"{tenant}/rooms/{{room_name}}", self._delete_room),
                web.post(f"{tenant}/suspend", self._suspend),
                web.post(f"{tenant}/resume", self._resume),
                web.get(f"{tenant}/keys", self._keys),
                web.post(f"{tenant}/keys", self._create_key),
                web.delete(f"{tenant}/keys/{{id}}", self._revoke_key),
            ]
        )

    async def _create(self, request: web.Request) -> web.Response:
        self._access.check_operator(request)
        body = await json_object(request)
        return web.json_response(_tenant(await self._identity.create_project(text_of(body, "name"))))

    async def _list(self, request: web.Request) -> web.Response:
        self._access.check_operator(request)
        limit, offset = query_number(request, "limit", _MAX_LIMIT), query_number(request, "offset", 0)
        found = (await self._identity.projects())[offset : offset + min(limit, _MAX_LIMIT)]
        return web.json_response({"tenants": [_tenant(project) for project in found]})

    async def _show(self, request: web.Request) -> web.Response:
        return web.json_response(await self._with_quota(await self._access.tenant(request)))

    async def _set_quota(self, request: web.Request) -> web.Response:
        """Set limits: a number, null for no limit, or "default"."""
        self._access.check_operator(request)
        body, project = await json_object(request), await self._access.tenant(request)
        unset = [name for name, limit in body.items() if limit == DEFAULT_LIMIT]
        for name in unset:
            check_limit(name, None)
        limits = {name: limit for name, limit in body.items() if limit != DEFAULT_LIMIT}
        await self._identity.set_quota(project.id, limits, unset=unset)
        return web.json_response(await self._with_quota(project))

    async def _with_quota(self, project: Project) -> dict[str, Any]:
        used = await self._counts.use(project.id)
        use = {resource.value: used.get(resource) for resource in Resource}
        use[Resource.KEYS.value] = self._identity.key_count(project.id)
        quota = self._identity.quota_of(project.id)
        return {**_tenant(project), "quota": quota.as_json(), "use": use}

    async def _rename(self, request: web.Request) -> web.Response:
        self._access.check_operator(request)
        body, project = await json_object(request), await self._access.tenant(request)
        await self._identity.rename_project(project.id, text_of(body, "name"))
        tell_name(self._directory, project.id)
        return web.json_response(_tenant(await self._identity.find_project(project.id)))

    async def _suspend(self, request: web.Request) -> web.Response:
        self._access.check_operator(request)
        body, project = await json_object(request), await self._access.tenant(request)
        reason = text_of(body, "reason", "by the operator")
        if len(reason) > _MAX_REASON or not reason.isprintable():
            raise InvalidRequestError("reason", f"expected at most {_MAX_REASON} printable characters")
        await self._identity.suspend_project(project.id, reason)
        return web.json_response(_tenant(await self._identity.find_project(project.id)))

    async def _resume(self, request: web.Request) -> web.Response:
        self._access.check_operator(request)
        project = await self._access.tenant(request)
        await self._identity.resume_project(project.id)
        return web.json_response(_tenant(await self._identity.find_project(project.id)))

    async def _delete(self, request: web.Request) -> web.Response:
        self._access.check_operator(request)
        project = await self._access.tenant(request)
        is_done = await self._deletions.delete_tenant(TenantId(project.id), wait_seconds=_DELETE_SECONDS)
        return _deleted(project, is_done=is_done)

    async def _delete_room(self, request: web.Request) -> web.Response:
        project = await self._access.tenant(request)
        room = RoomKey(TenantId(project.id), check_room_name(request.match_info["room_name"]))
        is_done = await self._deletions.delete_room(room, wait_seconds=_DELETE_SECONDS)
        return _deleted(project, is_done=is_done, room=room.name)

    async def _keys(self, request: web.Request) -> web.Response:
        project = await self._access.tenant(request)
        return web.json_response({"keys": [_key(key) for key in await self._identity.keys(project.id)]})

    async def _create_key(self, request: web.Request) -> web.Response:
        body, project = await json_object(request), await self._access.tenant(request)
        name, description = text_of(body, "name", "key"), text_of(body, "description", "")
        rights = KeyRights(_role(text_of(body, "role", Role.ADMIN)), time_of(body, "expires_at"))
        key = await self._identity.create_key(project.id, name=name, description=description, rights=rights)
        return web.json_response(
            {**_key(KeyInfo(key.id, name, description, rights)), "value": encode_api_key(key), "tenant": project.name}
        )

    async def _revoke_key(self, request: web.Request) -> web.Response:
        project = await self._access.tenant(request)
        await self._identity.delete_key(project.id, request.match_info["id"])
        return web.Response(status=204)


def _knows_names(participant: Participant) -> bool:
    return participant.peer is not None and Capability.RESUME in participant.peer.capabilities


def _tenant(project: Project) -> dict[str, Any]:
    return {"id": project.id, "name": project.name, "suspended": project.suspended}


def _deleted(project: Project, *, is_done: bool, **more: str) -> web.Response:
    """202 for a deletion that goes on: the same request waits for it again."""
    body = {"id": project.id, "name": project.name, **more, "deleted": is_done}
    return web.json_response(body, status=200 if is_done else 202)


def _key(key: KeyInfo) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "description": key.description,
        "role": key.rights.role.value,
        "expires_at": key.rights.expires_at,
        "last_used_at": key.last_used_at,
    }


def _role(text: str) -> Role:
    try:
        return Role(text)
    except ValueError:
        raise InvalidRequestError("role", f"expected one of {', '.join(Role)}") from None

"""Secrets over REST, as MeshAgent's 0.6: `/accounts/projects/{project}/secrets`.

What is shown of a secret is its name, type and times; `data` is there, and empty, since MeshAgent's client reads it. Pull
secrets (`docker`) are refused with 501: nothing here pulls images. Register the routes before `RestRoutes`, whose last route
answers everything else.
"""

from collections.abc import Callable
from typing import Any

from aiohttp import web

from meshhost.errors import InvalidRequestError
from meshhost.identity.tenant import TenantId
from meshhost.server.configured.secrets import SECRET_TYPE, Secrets
from meshhost.server.http.access import Access
from meshhost.server.http.bodies import json_object, text_of

__all__ = ["SecretRoutes"]

_NO_CONTAINERS = "meshhost pulls no images: it needs no docker secrets"
_MEMBERS = frozenset({"id", "name", "type", "data"})


class SecretRoutes:
    """Serves secrets. `project_of` returns the project of a request, or raises."""

    def __init__(self, access: Access, secrets: Secrets, project_of: Callable[[web.Request], str]) -> None:
        self._access = access
        self._secrets = secrets
        self._project_of = project_of

    def add_to(self, app: web.Application) -> None:
        """Register the routes."""
        path = "/accounts/projects/{project}/secrets"
        app.add_routes(
            [
                web.post(path, self._create),
                web.get(path, self._list),
                web.put(f"{path}/{{id}}", self._update),
                web.delete(f"{path}/{{id}}", self._delete),
            ]
        )

    async def _create(self, request: web.Request) -> web.Response:
        tenant, by = self._who(request)
        body = await json_object(request)
        if body.get("type") == "docker":
            return _not_offered()
        name, data = _parts(body)
        return web.json_response(self._secrets.shown(await self._secrets.create(tenant, name, data, by=by)))

    async def _list(self, request: web.Request) -> web.Response:
        tenant, _ = self._who(request)
        return web.json_response({"secrets": [self._secrets.shown(item) for item in await self._secrets.list(tenant)]})

    async def _update(self, request: web.Request) -> web.Response:
        tenant, by = self._who(request)
        body = await json_object(request)
        if body.get("type") == "docker":
            return _not_offered()
        name, data = _parts(body)
        changed = await self._secrets.update(tenant, request.match_info["id"], name, data, by=by)
        return web.json_response(self._secrets.shown(changed))

    async def _delete(self, request: web.Request) -> web.Response:
        tenant, by = self._who(request)
        await self._secrets.delete(tenant, request.match_info["id"], by=by)
        return web.Response(status=204)

    def _who(self, request: web.Request) -> tuple[TenantId, str | None]:
        tenant = TenantId(self._project_of(request))
        return tenant, self._access.key_holder(request).key_id


def _parts(body: dict[str, Any]) -> tuple[str, Any]:
    for member in body.keys() - _MEMBERS:
        raise InvalidRequestError(member, "not a name that is known here")
    if body.get("type", SECRET_TYPE) != SECRET_TYPE:
        raise InvalidRequestError("type", f"expected {SECRET_TYPE}")
    return text_of(body, "name"), body.get("data")


def _not_offered() -> web.Response:
    # MeshAgent's client shows the reason phrase and drops the body.
    return web.json_response({"error": _NO_CONTAINERS}, status=501, reason=_NO_CONTAINERS)

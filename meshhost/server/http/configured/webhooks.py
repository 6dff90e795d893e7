"""Webhooks over REST, as MeshAgent's 0.6: `/accounts/projects/{project}/webhooks`.

The answer to `POST` has the secret that signs what is sent, which is never shown again. One webhook is shown with its last
deliveries. Register the routes before `RestRoutes`, whose last route answers everything else.
"""

from collections.abc import Callable

from aiohttp import web

from meshhost.identity.tenant import TenantId
from meshhost.server.configured.webhooks import Webhooks
from meshhost.server.http.access import Access
from meshhost.server.http.bodies import json_object

__all__ = ["WebhookRoutes"]


class WebhookRoutes:
    """Serves webhooks. `project_of` returns the project of a request, or raises."""

    def __init__(self, access: Access, webhooks: Webhooks, project_of: Callable[[web.Request], str]) -> None:
        self._access = access
        self._webhooks = webhooks
        self._project_of = project_of

    def add_to(self, app: web.Application) -> None:
        """Register the routes."""
        path = "/accounts/projects/{project}/webhooks"
        app.add_routes(
            [
                web.post(path, self._create),
                web.get(path, self._list),
                web.get(f"{path}/{{id}}", self._show),
                web.put(f"{path}/{{id}}", self._update),
                web.delete(f"{path}/{{id}}", self._delete),
            ]
        )

    async def _create(self, request: web.Request) -> web.Response:
        tenant, by = self._who(request)
        item, secret = await self._webhooks.create(tenant, await json_object(request), by=by)
        return web.json_response({**self._webhooks.shown(item), "secret": secret})

    async def _list(self, request: web.Request) -> web.Response:
        tenant, _ = self._who(request)
        found = await self._webhooks.list(tenant)
        return web.json_response({"webhooks": [self._webhooks.shown(item) for item in found]})

    async def _show(self, request: web.Request) -> web.Response:
        tenant, _ = self._who(request)
        item = await self._webhooks.get(tenant, request.match_info["id"])
        deliveries = [*await self._webhooks.deliveries(item)]
        return web.json_response({**self._webhooks.shown(item), "deliveries": deliveries})

    async def _update(self, request: web.Request) -> web.Response:
        tenant, by = self._who(request)
        changed = await self._webhooks.update(tenant, request.match_info["id"], await json_object(request), by=by)
        return web.json_response(self._webhooks.shown(changed))

    async def _delete(self, request: web.Request) -> web.Response:
        tenant, by = self._who(request)
        await self._webhooks.delete(tenant, request.match_info["id"], by=by)
        return web.Response(status=204)

    def _who(self, request: web.Request) -> tuple[TenantId, str | None]:
        tenant = TenantId(self._project_of(request))
        return tenant, self._access.key_holder(request).key_id

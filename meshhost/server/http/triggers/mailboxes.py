"""Mailboxes over REST, as MeshAgent's: `/accounts/projects/{project}/mailboxes`, and those of a room.

An address is in the path as it is, or quoted. Another tenant's mailbox looks like one that does not exist. Register it before
`RestRoutes`, whose last route answers everything else with 501.
"""

from collections.abc import Callable
from typing import Any

from aiohttp import web

from meshhost.errors import NotFoundError
from meshhost.identity.tenant import RoomKey, TenantId, check_room_name
from meshhost.server.http.access import Access
from meshhost.server.http.bodies import json_object, query_number, text_of
from meshhost.server.http.triggers.callers import key_of
from meshhost.triggers.mailboxes import Mailbox, Mailboxes, MailboxSpec

__all__ = ["MailboxRoutes"]

_MOST = 1000


class MailboxRoutes:
    """Serves mailboxes. `project_of` returns the project of a request, or raises."""

    def __init__(self, access: Access, mailboxes: Mailboxes, project_of: Callable[[web.Request], str]) -> None:
        self._access = access
        self._mailboxes = mailboxes
        self._project_of = project_of

    def add_to(self, app: web.Application) -> None:
        """Register the routes."""
        project = "/accounts/projects/{project}"
        app.add_routes(
            [
                web.post(f"{project}/mailboxes", self._create),
                web.get(f"{project}/mailboxes", self._list),
                web.get(f"{project}/mailboxes/{{address}}", self._show),
                web.put(f"{project}/mailboxes/{{address}}", self._update),
                web.delete(f"{project}/mailboxes/{{address}}", self._delete),
                web.get(f"{project}/mailboxes/{{address}}/deliveries", self._deliveries),
                web.get(f"{project}/rooms/{{name}}/mailboxes", self._of_room),
            ]
        )

    async def _create(self, request: web.Request) -> web.Response:
        tenant, body = TenantId(self._project_of(request)), await json_object(request)
        address = text_of(body, "address")
        room = self._room_in(tenant, body)
        spec = _spec_in(body)
        mailbox = await self._mailboxes.create(room, address, spec, maker=key_of(self._access, request))
        return web.json_response(self._mailboxes.shown(mailbox))

    async def _list(self, request: web.Request) -> web.Response:
        """`room_id` is an id or a name. `after` is the last address of the page before."""
        tenant, room = TenantId(self._project_of(request)), request.query.get("room_id")
        if room is not None:
            names = {each.id: each.name for each in await self._access.identity.rooms(tenant, limit=_MOST, offset=0)}
            room = names.get(room, room)
        return await self._page(request, tenant, room)

    async def _of_room(self, request: web.Request) -> web.Response:
        tenant = TenantId(self._project_of(request))
        return await self._page(request, tenant, check_room_name(request.match_info["name"]))

    async def _page(self, request: web.Request, tenant: TenantId, room: str | None) -> web.Response:
        if {"page_size", "count"} & request.query.keys():
            return await self._page_by_place(request, tenant, room)
        limit = min(query_number(request, "limit", _MOST), _MOST)
        found = await self._mailboxes.list(tenant, room, after=request.query.get("after", ""), limit=limit)
        return web.json_response({"mailboxes": [self._mailboxes.shown(each) for each in found], "total": len(found)})

    async def _page_by_place(self, request: web.Request, tenant: TenantId, room: str | None) -> web.Response:
        """A page as clients of SDK 0.56 ask for it: `filter` is a part of addresses, the token is where the page begins."""
        size = query_number(request, "page_size", query_number(request, "count", _MOST))
        start = query_number(request, "continuation_token", query_number(request, "offset", 0))
        part = request.query.get("filter", "").strip().casefold()
        all_of_them = await self._mailboxes.list(tenant, room, limit=_MOST)
        found = [each for each in all_of_them if part in each.address.casefold()]
        end = start + max(1, min(size, _MOST))
        token = str(end) if end < len(found) else None
        page = [self._mailboxes.shown(each) for each in found[start:end]]
        return web.json_response({"mailboxes": page, "total": len(found), "continuation_token": token})

    async def _show(self, request: web.Request) -> web.Response:
        shown = self._mailboxes.shown(await self._found(request))
        return web.json_response({**shown, "mailbox": shown})  # clients of SDK 0.56 look for the member

    async def _update(self, request: web.Request) -> web.Response:
        mailbox, body = await self._found(request), await json_object(request)
        body.pop("address", None)
        room = self._room_in(mailbox.room.tenant, body)
        changed = await self._mailboxes.change(mailbox, room, _spec_in(body), maker=key_of(self._access, request))
        return web.json_response(self._mailboxes.shown(changed))

    async def _delete(self, request: web.Request) -> web.Response:
        await self._mailboxes.delete(await self._found(request))
        return web.Response(status=204)

    async def _deliveries(self, request: web.Request) -> web.Response:
        mailbox = await self._found(request)
        return web.json_response({"deliveries": [*await self._mailboxes.deliveries(mailbox)]})

    async def _found(self, request: web.Request) -> Mailbox:
        return await self._mailboxes.get(TenantId(self._project_of(request)), request.match_info["address"])

    def _room_in(self, tenant: TenantId, body: dict[str, Any]) -> RoomKey:
        room = RoomKey(tenant, check_room_name(text_of(body, "room")))
        if self._access.identity.deleted_rooms.is_known(room):
            raise NotFoundError("the room is being deleted or imported")
        return room


def _spec_in(body: dict[str, Any]) -> MailboxSpec:
    return MailboxSpec.parse({name: value for name, value in body.items() if name not in ("address", "room")})

"""Who may start work in a room over REST: a tenant by its API key or a login, or a participant token with the grant for the
queue.

A key or a login says the tenant, and its role is checked against the table of routes (`permissions.py`). A token says the room,
and its grant `queues` says to which queues its owner may send. Of schedules and hooks a participant manages and sees those that
it made itself; all of its room only with the grant `admin`. A viewer's key sees when something is sent, and not what.
"""

from dataclasses import dataclass

from aiohttp import web

from meshhost.errors import AccessDeniedError, NotFoundError
from meshhost.identity.grants import ApiScope
from meshhost.identity.roles import Role
from meshhost.identity.tenant import RoomKey, TenantId, check_room_name
from meshhost.server.http.access import Access, KeyHolder
from meshhost.server.services.queue_access import sender_of
from meshhost.triggers.makers import Maker

__all__ = ["RoomCaller", "key_of", "may_see_contents", "room_caller"]


@dataclass(frozen=True, slots=True)
class RoomCaller:
    """The room that a request is about, and who asks. Without a scope it is an API key or a login.

    `sees_contents` is whether it may see the contents of what it may see at all.
    """

    room: RoomKey
    scope: ApiScope | None
    maker: Maker
    sees_contents: bool = True

    def may_send(self, queue: str) -> bool:
        """Whether the caller may send to this queue."""
        return self.scope is None or (self.scope.queues is not None and self.scope.queues.can_send(queue))

    def sends_as(self, queue: str) -> str | None:
        """Who sends, for a participant that may read of this queue only what it sent; None for those that may read all."""
        if self.scope is None or (self.scope.queues is not None and self.scope.queues.can_receive(queue)):
            return None
        return sender_of(self.maker.name, self.maker.key_id)

    def check_send(self, queue: str) -> None:
        """Raise AccessDeniedError when the caller may not send to this queue."""
        if not self.may_send(queue):
            raise AccessDeniedError("send to queue", queue)

    def may_manage(self, queue: str, maker: Maker) -> bool:
        """Whether the caller may see and change what somebody made that sends to this queue."""
        if self.scope is None or self.scope.admin is not None:
            return True
        return self.may_send(queue) and maker == self.maker  # every token has a name, and no API key has


def room_caller(access: Access, request: web.Request) -> RoomCaller:
    """Return who asks. Raises InvalidRequestError for the room's name, TokenError, AccessDeniedError, NotFoundError."""
    name = check_room_name(request.match_info["room"])
    if not access.shows_key(request):
        room, token = access.participant(request, name)
        return RoomCaller(room, token.get_api_grant() or ApiScope(), Maker(token.name, token.api_key_id))
    holder = access.permitted(request)
    room = RoomKey(TenantId(holder.project), name)
    if access.identity.deleted_rooms.is_known(room):
        raise NotFoundError("the room is being deleted or imported")
    return RoomCaller(room, None, Maker(key_id=holder.key_id), sees_contents=_sees_contents(holder))


def key_of(access: Access, request: web.Request) -> Maker:
    """Who makes something with the API key, session or login that was verified for this request."""
    return Maker(key_id=access.key_holder(request).key_id)


def may_see_contents(access: Access, request: web.Request) -> bool:
    """Whether an API key, session or login that was verified for this request may see contents: a viewer's may not."""
    return _sees_contents(access.key_holder(request))


def _sees_contents(holder: KeyHolder) -> bool:
    return holder.role.includes(Role.DEVELOPER)

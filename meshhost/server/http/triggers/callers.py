"""Who may start work in a room over REST: an API key of its tenant, or a participant token with the grant for the queue.

A key says the tenant, and its role is checked against the table of routes (`permissions.py`). A token says the room, and its
grant `queues` says to which queues its owner may send; it may manage what sends to those queues and sees nothing else.
"""

from dataclasses import dataclass

from aiohttp import web

from meshhost.errors import AccessDeniedError, NotFoundError
from meshhost.identity.grants import ApiScope
from meshhost.identity.tenant import RoomKey, TenantId, check_room_name
from meshhost.server.http.access import Access, bearer_of

__all__ = ["RoomCaller", "room_caller"]


@dataclass(frozen=True, slots=True)
class RoomCaller:
    """The room that a request is about, and the scope and name of its token; None and "" for an API key."""

    room: RoomKey
    scope: ApiScope | None
    name: str = ""

    def may_send(self, queue: str) -> bool:
        """Whether the caller may send to this queue."""
        return self.scope is None or (self.scope.queues is not None and self.scope.queues.can_send(queue))

    def check_send(self, queue: str) -> None:
        """Raise AccessDeniedError when the caller may not send to this queue."""
        if not self.may_send(queue):
            raise AccessDeniedError("send to queue", queue)


def room_caller(access: Access, request: web.Request) -> RoomCaller:
    """Return who asks. Raises InvalidRequestError for the room's name, TokenError, AccessDeniedError, NotFoundError."""
    name = check_room_name(request.match_info["room"])
    if not bearer_of(request).startswith("ma-"):
        room, token = access.participant(request, name)
        return RoomCaller(room, token.get_api_grant() or ApiScope(), token.name)
    room = RoomKey(TenantId(access.project(request)), name)
    if access.identity.deleted_rooms.is_known(room):
        raise NotFoundError("the room is being deleted or imported")
    return RoomCaller(room, None)

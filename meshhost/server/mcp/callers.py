"""Who asks a room for tools over MCP, and which requests a web page may not make.

A participant token says the room, the name and the grants; an API key or a session of Studio, whose role must be developer or
more, acts as the participant `mcp` with all grants; so does a token that the loopback login gave out for this room's address
(`Access.sign_mcp`), which is good for nothing else. A page that a browser shows may ask only when it is one of this server or
of this machine: another page could otherwise reach a server of this machine by a name of its own (DNS rebinding).
"""

from dataclasses import dataclass
from datetime import datetime

from aiohttp import web
from yarl import URL

from meshhost.edge.same_machine import LOOPBACK_NAMES
from meshhost.errors import AccessDeniedError, NotFoundError
from meshhost.identity.grants import ApiScope
from meshhost.identity.tenant import RoomKey, TenantId, check_room_name
from meshhost.identity.tokens import ParticipantToken
from meshhost.server.core.participants import Participant
from meshhost.server.http.access import Access
from meshhost.server.mcp.sessions import Owner

__all__ = ["McpCaller", "check_origin", "mcp_caller"]

_NAME = "mcp"


@dataclass(frozen=True, slots=True)
class McpCaller:
    """The room that a request is about, and who asks: by a token, or by a key with all grants."""

    room: RoomKey
    token: ParticipantToken | None
    key_id: str | None
    expires_at: datetime | None = None

    @property
    def owner(self) -> Owner:
        """To whom a session belongs."""
        return self.room, _NAME if self.token is None else f"token {self.token.name}", self.key_id

    def participant(self) -> Participant:
        """A new participant with the caller's rights. Raises AccessDeniedError when they include neither tools nor agents."""
        if self.token is not None:
            joining = Participant.from_token(self.token)
        else:
            joining = Participant(
                name=_NAME,
                role="user",
                scope=ApiScope.full(),
                key_id=self.key_id,
                expires_at=self.expires_at,
                attributes={"name": _NAME},
            )
        agents = joining.scope.agents
        if agents is None or not (agents.use_tools or agents.use_agents):
            raise AccessDeniedError("use", "tools (the token grants neither use_tools nor use_agents)")
        return joining


def mcp_caller(access: Access, request: web.Request) -> McpCaller:
    """Return who asks. Raises InvalidRequestError for the room's name, TokenError, AccessDeniedError, NotFoundError."""
    name = check_room_name(request.match_info["room"])
    if (login := access.mcp_login(request, name)) is not None:
        return McpCaller(login[0], None, None, expires_at=login[1])
    if "token" in request.query or not access.shows_key(request):
        room, token = access.participant(request, name)
        return McpCaller(room, token, token.api_key_id)
    holder = access.permitted(request)
    room = RoomKey(TenantId(holder.project), name)
    if access.identity.deleted_rooms.is_known(room):
        raise NotFoundError("the room is being deleted or imported")
    return McpCaller(room, None, holder.key_id)


def check_origin(request: web.Request, own_url: str) -> None:
    """Raise AccessDeniedError for a request of a page of another server."""
    for origin in request.headers.getall("Origin", []):
        try:
            given = URL(origin)
            is_allowed = given.host in LOOPBACK_NAMES or given.origin() == URL(own_url).origin()
        except ValueError:
            is_allowed = False
        if not is_allowed:
            raise AccessDeniedError("use MCP", "a page of another server (header Origin)")

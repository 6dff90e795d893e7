"""Where a room is and who joins it, from the environment: for `RoomClient()`, and for programs that name them.

MeshAgent programs that a platform starts in a room are given the room's name and a token, and make their client of nothing
else. Programs with an API key use `meshhost.connect`, which signs a token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from meshhost.client_settings import read_client_settings
from meshhost.errors import SettingsError

if TYPE_CHECKING:
    from meshhost.transport.websocket_client import WebSocketClientProtocol

__all__ = ["protocol_for", "protocol_of_environment"]


def protocol_of_environment() -> WebSocketClientProtocol:
    """The room MESHHOST_ROOM at MESHHOST_API_URL, joined with MESHHOST_TOKEN. Raises SettingsError when one is missing."""
    # At first use: a host's agents and commands bring their own.
    from meshhost.transport.websocket_client import WebSocketClientProtocol

    settings = read_client_settings()
    if settings.room is None or settings.token is None:
        missing = "MESHHOST_ROOM" if settings.room is None else "MESHHOST_TOKEN"
        raise SettingsError(
            f"{missing} is not set: RoomClient() takes room and token from the environment; "
            "with an API key use meshhost.connect(room), else pass protocol=WebSocketClientProtocol(url=…, token=…)"
        )
    url = f"{settings.api_url.rstrip('/')}/rooms/{quote(settings.room)}"
    return WebSocketClientProtocol(url=url, token=settings.token.get_secret_value())


def protocol_for(*, participant_name: str, room_name: str, role: str | None = None) -> WebSocketClientProtocol:
    """A room at MESHHOST_API_URL, joined with MESHHOST_TOKEN, else with a token for this participant and role.

    The token may do everything but administration and secrets, and is signed with MESHHOST_API_KEY or MESHHOST_SECRET. Raises
    InvalidTokenError when there is none of them.
    """
    # At first use: a command brings its own token.
    from meshhost.identity.grants import ApiScope
    from meshhost.identity.tokens import ParticipantToken
    from meshhost.transport.websocket_client import WebSocketClientProtocol

    settings = read_client_settings()
    if settings.token is not None:
        jwt = settings.token.get_secret_value()
    else:
        token = ParticipantToken(name=participant_name)
        token.add_api_grant(ApiScope.agent_default())
        token.add_room_grant(room_name)
        if role is not None:
            token.add_role_grant(role)
        jwt = token.to_jwt()
    return WebSocketClientProtocol(url=f"{settings.api_url.rstrip('/')}/rooms/{quote(room_name)}", token=jwt)

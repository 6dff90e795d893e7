"""Where a room is and who joins it, from the environment: for `RoomClient()` without arguments.

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

__all__ = ["protocol_of_environment"]


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

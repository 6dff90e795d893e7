"""The functions of `meshagent.api.helpers`: URLs of a room server, and the check of room names.

For MeshAgent programs, which import them from this path after the package is renamed; meshhost itself does not use them. Names
and arguments are MeshAgent's and must stay so.
"""

from urllib.parse import quote

from meshhost.errors import InvalidRequestError
from meshhost.identity.tenant import check_room_name
from meshhost.settings import read_settings

__all__ = ["is_valid_room_name", "meshhost_base_url", "websocket_room_url"]


def meshhost_base_url(base_url: str | None = None) -> str:
    """Return the room server's URL without a last slash: the argument, else MESHHOST_API_URL with its default."""
    return (base_url or read_settings().api_url).rstrip("/")


def websocket_room_url(*, room_name: str, base_url: str | None = None) -> str:
    """Return the WebSocket URL of a room at a room server (default: MESHHOST_API_URL)."""
    base = meshhost_base_url(base_url)
    for http, websocket in (("https:", "wss:"), ("http:", "ws:")):
        if base.startswith(http):
            base = websocket + base.removeprefix(http)
    return f"{base}/rooms/{quote(room_name)}"


def is_valid_room_name(room_name: str) -> bool:
    """Return whether a room may have this name: 1 to 63 of a-z, 0-9 and '-', with no '-' at either end."""
    try:
        check_room_name(room_name)
    except InvalidRequestError:
        return False
    return True

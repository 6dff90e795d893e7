"""Small conveniences of `meshagent.api.helpers`."""

from urllib.parse import quote

from meshhost.errors import InvalidRequestError
from meshhost.identity.tenant import check_room_name
from meshhost.settings import read_settings

__all__ = ["is_valid_room_name", "meshhost_base_url", "websocket_room_url"]


def meshhost_base_url(base_url: str | None = None) -> str:
    """The room server's URL: the argument, else MESHHOST_API_URL, else this machine's."""
    return (base_url or read_settings().api_url).rstrip("/")


def websocket_room_url(*, room_name: str, base_url: str | None = None) -> str:
    """The WebSocket URL of a room at a room server (default: MESHHOST_API_URL)."""
    base = meshhost_base_url(base_url)
    for http, websocket in (("https:", "wss:"), ("http:", "ws:")):
        if base.startswith(http):
            base = websocket + base.removeprefix(http)
    return f"{base}/rooms/{quote(room_name)}"


def is_valid_room_name(room_name: str) -> bool:
    """Whether a room may have this name."""
    try:
        check_room_name(room_name)
    except InvalidRequestError:
        return False
    return True

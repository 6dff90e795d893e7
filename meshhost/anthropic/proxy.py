"""An Anthropic client for the room's gateway, for programs that call the API themselves. Needs the extra `anthropic`."""

from typing import TYPE_CHECKING

from meshhost.errors import SettingsError
from meshhost.openai.proxy import gateway_url

if TYPE_CHECKING:
    from anthropic import AsyncAnthropic

    from meshhost.room.client import RoomClient

__all__ = ["get_client"]


def get_client(*, room: "RoomClient") -> "AsyncAnthropic":
    """Return a client for the room's gateway, which the caller must close. It does not retry unless it is told to.

    Raises SettingsError when Anthropic's library is not installed, or the room's address is not a WebSocket or HTTP URL.
    """
    try:
        from anthropic import AsyncAnthropic
    except ImportError:
        raise SettingsError("Anthropic's library is not installed: pip install 'meshhost[anthropic]'") from None
    # Its own paths begin with the version of the API.
    base_url = gateway_url(room.room_url).removesuffix("/v1")
    client = AsyncAnthropic(base_url=base_url, auth_token=room.protocol.token, max_retries=0)
    # The library reads the key of the environment, which is meant for Anthropic: it must not go to the room server.
    client.api_key = None
    return client

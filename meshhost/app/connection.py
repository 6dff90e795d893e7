"""`meshhost.connect`: joins a room from a program of the user, with what `meshhost setup` stored.

A participant needs the URL of a room server and a token for the room. Both come from where the command line has them: the
environment, else the stored project. `MESHHOST_TOKEN` is a ready-made token, for programs that have no API key; else a token is
signed here with the key.
"""

from urllib.parse import quote

from meshhost.app.project import api_key_of, api_url_of
from meshhost.client_settings import ClientValues, read_client_settings
from meshhost.errors import SettingsError
from meshhost.identity.grants import ApiScope
from meshhost.identity.tenant import check_room_name
from meshhost.identity.tokens import ParticipantToken
from meshhost.room.client import RoomClient
from meshhost.transport.websocket_client import WebSocketClientProtocol

__all__ = ["connect", "room_token", "signed_room_token"]


def connect(
    room: str | None = None, *, name: str = "program", role: str = "user", permissions: ApiScope | None = None
) -> RoomClient:
    """A client for the room, which joins it as `async with meshhost.connect("my-room") as room:` begins.

    `room` is by default MESHHOST_ROOM. The room server is the one at MESHHOST_API_URL, else that of `meshhost setup`. The
    participant is called `name`, a `user` (or `agent`, or `tool`), and may do everything but administration and secrets unless
    `permissions` says otherwise. With MESHHOST_TOKEN set, that token says all of this.

    Raises SettingsError when there is neither key nor token, or no room; entering the block raises RoomRefusedError or
    ConnectionLostError.
    """
    settings = read_client_settings()
    room_name = room or settings.room
    if room_name is None:
        raise SettingsError('no room: connect("my-room"), or set MESHHOST_ROOM')
    token = room_token(settings, check_room_name(room_name), name=name, role=role, permissions=permissions)
    url = f"{api_url_of(settings)}/rooms/{quote(room_name)}"
    return RoomClient(protocol=WebSocketClientProtocol(url=url, token=token))


def room_token(
    settings: ClientValues, room: str, *, name: str, role: str = "user", permissions: ApiScope | None = None
) -> str:
    """Return MESHHOST_TOKEN, else a token for the room that is signed with the API key. Raises SettingsError."""
    if settings.token is not None:
        return settings.token.get_secret_value()
    scope = ApiScope.agent_default() if permissions is None else permissions
    return signed_room_token(api_key_of(settings), room, name=name, role=role, permissions=scope)


def signed_room_token(api_key: str, room: str, *, name: str, role: str, permissions: ApiScope) -> str:
    """Return a token for the room, signed with the API key."""
    token = ParticipantToken(name=name)
    token.add_room_grant(room)
    token.add_role_grant(role)
    token.add_api_grant(permissions)
    return token.to_jwt(api_key=api_key)

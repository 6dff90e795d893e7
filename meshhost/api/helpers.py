"""The functions of `meshagent.api.helpers`: URLs of a room server, tokens for it, schemas, and the check of room names.

For MeshAgent programs, which import them from this path after the package is renamed; meshhost itself does not use them. Names
and arguments are MeshAgent's and must stay so.
"""

from urllib.parse import quote

from meshhost.agents.writer.schema_registry import deploy_schema, validate_schema_name
from meshhost.errors import InvalidRequestError
from meshhost.identity.grants import ApiScope
from meshhost.identity.tenant import check_room_name
from meshhost.identity.tokens import ParticipantToken
from meshhost.settings import read_settings
from meshhost.transport.websocket_client import WebSocketClientProtocol

__all__ = [
    "deploy_schema",
    "is_valid_room_name",
    "meshhost_base_url",
    "participant_token",
    "validate_schema_name",
    "websocket_protocol",
    "websocket_room_url",
]


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
    """Return whether a room may have this name: 1 to 63 of a-z, 0-9, '-' and '_', with a letter or digit at both ends."""
    try:
        check_room_name(room_name)
    except InvalidRequestError:
        return False
    return True


def participant_token(*, participant_name: str, room_name: str, role: str | None = None) -> ParticipantToken:
    """Return a token for the room, not signed yet, that may do everything but administration and secrets.

    Its project is MESHHOST_PROJECT_ID; signing with an API key sets project and key (`to_jwt`).
    """
    token = ParticipantToken(name=participant_name, project_id=read_settings().project_id)
    token.add_api_grant(ApiScope.agent_default())
    token.add_room_grant(room_name)
    if role is not None:
        token.add_role_grant(role)
    return token


def websocket_protocol(*, participant_name: str, room_name: str, role: str | None = None) -> WebSocketClientProtocol:
    """Return a connection to the room for `RoomClient(protocol=…)`.

    It joins with MESHHOST_TOKEN, else with a token that is signed with MESHHOST_API_KEY or MESHHOST_SECRET. Raises
    InvalidTokenError when there is none of them.
    """
    given = read_settings().token
    if given is not None:
        jwt = given.get_secret_value()
    else:
        jwt = participant_token(participant_name=participant_name, room_name=room_name, role=role).to_jwt()
    return WebSocketClientProtocol(url=websocket_room_url(room_name=room_name), token=jwt)

"""Calls the agents of a service host into one room, and asks who is in it.

`service_runner` uses it for `meshhost service run`. It does what a room server does for its configured services: it signs a
token for the agent and posts a `room.call` webhook to the host. A call is idempotent: the host starts no second agent for the
same room, path and identity, but takes the fresh token. So calls may be repeated at any time.
"""

from typing import Any

import aiohttp

from meshhost.app.host_api import Endpoint, get_json
from meshhost.identity.grants import ApiScope
from meshhost.identity.keys import parse_api_key
from meshhost.identity.tokens import ParticipantGrant, ParticipantToken
from meshhost.server.calling.webhooks import WebhookSender

__all__ = ["RoomCalls", "http_url", "websocket_url"]

# As whom the room server is asked for its models; it joins no room.
_ASKING = "service-run"


class RoomCalls:
    """Calls into `room` of the room server at `api_url`, signed with an API key and, for hosts that check it, a secret."""

    def __init__(
        self, session: aiohttp.ClientSession, *, api_url: str, room: str, api_key: str, webhook_secret: str | None
    ) -> None:
        self._session = session
        self._api_url = api_url
        self._room = room
        self._api_key = api_key
        self._webhook_secret = webhook_secret
        self._sender = WebhookSender(session)

    async def call(self, host_url: str, endpoint: Endpoint) -> None:
        """Call the agent of an endpoint into the room. Raises CallRefusedError."""
        data: dict[str, Any] = {
            "room_name": self._room,
            "room_url": f"{websocket_url(self._api_url)}/rooms/{self._room}",
            "token": self._token(endpoint.identity, endpoint.scope),
            "arguments": {},
        }
        await self._sender.send(host_url + endpoint.path, "room.call", data, secret=self._webhook_secret)

    async def present(self) -> set[str]:
        """Return the identities that are in the room now; none when the room server does not answer."""
        project = parse_api_key(self._api_key).project_id
        url = f"{http_url(self._api_url)}/accounts/projects/{project}/sessions/active"
        answer = await get_json(self._session, url, {"Authorization": f"Bearer {self._api_key}"})
        sessions = answer.get("sessions", []) if isinstance(answer, dict) else []
        return {
            participant["name"]
            for session in sessions
            if session["room_name"] == self._room
            for participant in session["participants"]
        }

    async def models(self) -> list[str] | None:
        """Return the models that the room server offers in this room; None when it does not say."""
        token = self._token(_ASKING, ApiScope.agent_default())
        url = f"{http_url(self._api_url)}/rooms/{self._room}/v1/models"
        answer = await get_json(self._session, url, {"Authorization": f"Bearer {token}"})
        data = answer.get("data") if isinstance(answer, dict) else None
        if not isinstance(data, list):
            return None
        return [str(model.get("id")) for model in data if isinstance(model, dict)]

    def _token(self, identity: str, scope: ApiScope) -> str:
        token = ParticipantToken(
            name=identity,
            grants=[
                ParticipantGrant(name="room", scope=self._room),
                ParticipantGrant(name="role", scope="agent"),
                ParticipantGrant(name="api", scope=scope),
            ],
        )
        return token.to_jwt(api_key=self._api_key)


def http_url(api_url: str) -> str:
    """Return the http or https URL of a room server, which may be given with a WebSocket scheme."""
    return api_url.replace("ws://", "http://", 1).replace("wss://", "https://", 1)


def websocket_url(api_url: str) -> str:
    """Return the ws or wss URL of a room server, which may be given with an HTTP scheme."""
    return api_url.replace("http://", "ws://", 1).replace("https://", "wss://", 1)

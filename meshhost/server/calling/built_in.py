"""Calls the built-in agents into rooms, at a service host of the server's own.

Where that is, and that it runs, is the business of the program around the server (`BuiltInHosts`); this module makes the token
that an agent joins with and sends the call. The token is signed with a key of the room's tenant and grants only what that agent
needs; it marks the agent as called by the server, so that it does not keep the room open by itself.
"""

import logging
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from meshhost.errors import CallRefusedError, TokenError, ToolError
from meshhost.identity.called import ASKED_ADDRESS_CLAIM, SERVICE_CLAIM
from meshhost.identity.grants import ApiScope
from meshhost.identity.keys import encode_api_key
from meshhost.identity.tokens import ParticipantGrant, ParticipantToken
from meshhost.server.calling.caller import TOKEN_LIFETIME, KeyFor
from meshhost.server.calling.webhooks import WebhookSender
from meshhost.server.config import BuiltInHosts, CalledAt
from meshhost.server.core.room import Room

__all__ = ["BuiltInCaller"]

logger = logging.getLogger(__name__)


class BuiltInCaller:
    """`local_room_url` returns the URL at which programs of this machine join a room."""

    def __init__(
        self,
        sender: WebhookSender,
        *,
        hosts: BuiltInHosts,
        key_for: KeyFor,
        local_room_url: Callable[[str], str],
        count: Callable[[str], None],
    ) -> None:
        self._sender = sender
        self._hosts = hosts
        self._key_for = key_for
        self._local_room_url = local_room_url
        self._count = count

    async def bring(self, room: Room, identity: str, path: str, scope: ApiScope, mark: str) -> None:
        """Call the agent at `path` into the room, as `identity`; `mark` stands in its token. Raises ToolError."""
        try:
            data: dict[str, Any] = {
                "room_name": room.key.name,
                "room_url": self._local_room_url(room.key.name),
                "token": self._token(room, identity, scope, mark),
                "arguments": {},
            }
        except TokenError as error:
            raise ToolError(f"{identity} cannot be called into the room: {error}") from None
        at = await self._hosts.address()
        try:
            await self._send(at, path, data)
        except CallRefusedError as error:
            if error.status != 503 or error.__context__ is None:
                raise ToolError(f"{identity} cannot be called into the room: {error}") from None
            # It ended a moment ago, because nobody needed it: the next one takes the call.
            try:
                await self._send(await self._hosts.address(but=at), path, data)
            except CallRefusedError as again:
                raise ToolError(f"{identity} cannot be called into the room: {again}") from None

    async def _send(self, at: CalledAt, path: str, data: dict[str, Any]) -> None:
        try:
            await self._sender.send(at.url + path, "room.call", data, secret=at.secret)
        except CallRefusedError:
            self._count("refused")
            raise
        self._count("accepted")

    def _token(self, room: Room, identity: str, scope: ApiScope, mark: str) -> str:
        token = ParticipantToken(
            name=identity,
            grants=[
                ParticipantGrant(name="room", scope=room.key.name),
                ParticipantGrant(name="role", scope="agent"),
                ParticipantGrant(name="api", scope=scope),
            ],
            extra_payload={SERVICE_CLAIM: True, ASKED_ADDRESS_CLAIM: mark, "jti": uuid.uuid4().hex},
        )
        key = self._key_for(room.key.tenant, None)
        return token.to_jwt(api_key=encode_api_key(key), expiration=datetime.now(UTC) + TOKEN_LIFETIME)

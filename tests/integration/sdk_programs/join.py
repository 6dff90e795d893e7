"""Joins with a token that the SDK mints from the API key, and tells what a room refuses."""

import asyncio

from aiohttp import WSServerHandshakeError
from lines import given, say
from meshagent.api import ApiScope, ParticipantToken, RoomClient, WebSocketClientProtocol


def mint() -> str:
    token = ParticipantToken(name="ada")
    token.add_room_grant(given["room"])
    token.add_role_grant("agent")
    token.add_api_grant(ApiScope.agent_default())
    return token.to_jwt(api_key=given["api_key"])


async def main() -> None:
    for url, token in given["refused"]:
        try:
            async with RoomClient(protocol=WebSocketClientProtocol(url=url, token=token)):
                say(status=None)
        except WSServerHandshakeError as error:
            say(status=error.status)
    async with RoomClient(protocol=WebSocketClientProtocol(url=given["url"], token=mint())) as room:
        say(
            room_name=room.room_name,
            room_url=room.room_url,
            session_id=room.session_id,
            id=room.local_participant.id,
            name=room.local_participant.get_attribute("name"),
        )


asyncio.run(main())

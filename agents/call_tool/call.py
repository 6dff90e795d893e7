"""Uses a tool and asks an agent, as a program would: `python call.py ROOM tool TEXT` or `python call.py ROOM ask TEXT`."""

import asyncio
import json
import os
import sys

from meshhost.api import (
    ApiScope,
    ParticipantGrant,
    ParticipantToken,
    RoomClient,
    RoomException,
    WebSocketClientProtocol,
)
from meshhost.api.helpers import websocket_room_url


def connect(room_name: str) -> RoomClient:
    token = ParticipantToken(
        name="call-tool",
        grants=[
            ParticipantGrant(name="room", scope=room_name),
            ParticipantGrant(name="role", scope="user"),
            ParticipantGrant(name="api", scope=ApiScope.agent_default()),
        ],
    ).to_jwt(api_key=os.getenv("MESHHOST_API_KEY"))
    return RoomClient(protocol=WebSocketClientProtocol(url=websocket_room_url(room_name=room_name), token=token))


async def call(room_name: str, what: str, text: str) -> None:
    async with connect(room_name) as room:
        try:
            if what == "tool":
                arguments = {"text": text, "top": 3}
                answer = await room.agents.invoke_tool(toolkit="text", tool="count_words", arguments=arguments)
                print(json.dumps(answer.json))
            else:
                print(json.dumps(await room.agents.ask(agent="sorter", arguments={"prompt": text})))
        except RoomException as error:
            # Nobody offers it, an argument is wrong, or the other side failed: the text says which.
            raise SystemExit(f"{what} failed: {error}") from None


if __name__ == "__main__":
    room_name, what, text = sys.argv[1:]
    asyncio.run(call(room_name, what, text))

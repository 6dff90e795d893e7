"""A program that calls a tool or asks an agent in a room.

Shows: a participant token with its grants, a `RoomClient`, `invoke_tool`, `ask`, and how their errors arrive.

Run it:  python agents/call_tool/call.py ROOM tool TEXT    calls `count_words` of agents/toolkit/main.py
         python agents/call_tool/call.py ROOM ask TEXT     asks the sorter of agents/task_runner/main.py

Set MESHHOST_API_KEY to the key that `meshhost setup --json` prints, and have the toolkit or the sorter running in the room. You
see the answer as JSON, or one line that says what failed.
"""

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
            # No such tool or agent in the room, a wrong argument, or a failure on the other side: the text says which.
            raise SystemExit(f"{what} failed: {error}") from None


if __name__ == "__main__":
    room_name, what, text = sys.argv[1:]
    asyncio.run(call(room_name, what, text))

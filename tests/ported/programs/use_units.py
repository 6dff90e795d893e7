"""Uses the tools of units_toolkit.py from code. Prints one line of JSON per answer."""
# ruff: noqa: T201 - what it prints is what it is for

import asyncio
import json
import os

from meshagent.api import (
    ApiScope,
    ParticipantGrant,
    ParticipantToken,
    RoomClient,
    RoomException,
    WebSocketClientProtocol,
)
from meshagent.api.helpers import websocket_room_url


def protocol(room_name: str) -> WebSocketClientProtocol:
    token = ParticipantToken(
        name="use-units",
        grants=[
            ParticipantGrant(name="room", scope=room_name),
            ParticipantGrant(name="role", scope="user"),
            ParticipantGrant(name="api", scope=ApiScope.agent_default()),
        ],
    )
    url = websocket_room_url(room_name=room_name, base_url=os.getenv("MESHAGENT_API_URL"))
    return WebSocketClientProtocol(url=url, token=token.to_jwt(api_key=os.getenv("MESHAGENT_API_KEY")))


async def main():
    async with RoomClient(protocol=protocol(os.getenv("MESHAGENT_ROOM", "room"))) as room:
        for toolkit in await room.agents.list_toolkits():
            print(json.dumps({"toolkit": toolkit.name, "tools": sorted(tool.name for tool in toolkit.tools)}))
        miles = await room.agents.invoke_tool(toolkit="units", tool="to_miles", arguments={"kilometres": 10})
        print(json.dumps(miles.json))
        heat = await room.agents.invoke_tool(toolkit="units", tool="to_fahrenheit", arguments={"celsius": 20})
        print(json.dumps({"text": heat.text}))
        try:
            await room.agents.invoke_tool(toolkit="units", tool="to_miles", arguments={"kilometres": "far"})
        except RoomException as error:
            print(json.dumps({"refused": str(error)}))


if __name__ == "__main__":
    asyncio.run(main())

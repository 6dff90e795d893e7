"""Asks the agents that every room has; they need not be there before."""
# ruff: noqa: T201 - what it prints is what it is for

import asyncio
import json

from meshagent.agents.utils import generate_json
from meshagent.api import RoomClient, websocket_protocol

SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["first", "last"],
    "properties": {"first": {"type": "string"}, "last": {"type": "string"}},
}


async def main() -> None:
    async with RoomClient(protocol=websocket_protocol(participant_name="asker", room_name="room")) as room:
        answer = await room.agents.ask(agent="meshagent.planner", arguments={"prompt": "plan a walk"})
        print(json.dumps({"plan": answer["result"]}), flush=True)
        name = await generate_json(room=room, prompt="who wrote Emma?", output_schema=SCHEMA)
        print(json.dumps({"name": [name["first"], name["last"]]}), flush=True)
        await room.agents.ask(
            agent="meshagent.document-writer", arguments={"path": "walk.document", "prompt": "describe the walk"}
        )
        document = await room.sync.open(path="walk.document", create=False)
        await asyncio.sleep(0.5)  # the SDK shows the content a moment after it is open
        print(json.dumps({"written": document.root.to_json()}), flush=True)


if __name__ == "__main__":
    asyncio.run(main())

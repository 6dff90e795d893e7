"""A program that sends one instruction to the queue of the storage worker.

Shows: a participant token with its grants, a `RoomClient`, and `queues.send`. It is what `meshhost queue send` does.

Run it:  python agents/storage_worker/push_queue.py [ROOM [INSTRUCTIONS]]

Set MESHHOST_API_KEY to the key that `meshhost setup --json` prints; a room server must run (`meshhost service run` starts one).
You see the id of the message once it is on the server's disk. WORKER_QUEUE names the queue, `jobs` by default.
"""

import asyncio
import os
import sys

from meshhost.api import ApiScope, ParticipantGrant, ParticipantToken, RoomClient, WebSocketClientProtocol
from meshhost.api.helpers import websocket_room_url
from meshhost.otel import otel_config

otel_config(service_name="push-queue")


async def push(room_name: str, instructions: str) -> None:
    token = ParticipantToken(
        name="push-queue",
        grants=[
            ParticipantGrant(name="room", scope=room_name),
            ParticipantGrant(name="role", scope="user"),
            ParticipantGrant(name="api", scope=ApiScope.agent_default()),
        ],
    ).to_jwt(api_key=os.getenv("MESHHOST_API_KEY"))
    protocol = WebSocketClientProtocol(url=websocket_room_url(room_name=room_name), token=token)
    async with RoomClient(protocol=protocol) as room:
        message_id = await room.queues.send(
            name=os.getenv("WORKER_QUEUE", "jobs"), message={"instructions": instructions}
        )
        print(f"sent message {message_id} to room {room.room_name}")


if __name__ == "__main__":
    room_name, instructions = (*sys.argv[1:], "queue-test", "save a poem about ai to poem.txt")[:2]
    asyncio.run(push(room_name, instructions))

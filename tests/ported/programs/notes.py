"""Keeps a note in the room's files and tells everybody of it; waits for somebody to say that it was read."""
# ruff: noqa: T201 - what it prints is what it is for

import asyncio
import os

from meshagent.api import (
    ApiScope,
    ParticipantGrant,
    ParticipantToken,
    RoomClient,
    RoomMessage,
    WebSocketClientProtocol,
)
from meshagent.api.helpers import websocket_room_url


def token(room_name: str, name: str) -> str:
    return ParticipantToken(
        name=name,
        grants=[
            ParticipantGrant(name="room", scope=room_name),
            ParticipantGrant(name="role", scope="agent"),
            ParticipantGrant(name="api", scope=ApiScope.agent_default()),
        ],
    ).to_jwt(api_key=os.getenv("MESHAGENT_API_KEY"))


async def write(room: RoomClient, path: str, text: str):
    handle = await room.storage.open(path=path, overwrite=True)
    try:
        await room.storage.write(handle=handle, data=text.encode())
    finally:
        await room.storage.close(handle=handle)


async def main():
    room_name = os.getenv("MESHAGENT_ROOM", "room")
    url = websocket_room_url(room_name=room_name)
    was_read = asyncio.get_running_loop().create_future()

    def on_message(message: RoomMessage):
        if message.type == "read" and not was_read.done():
            was_read.set_result(message.from_participant_id)

    async with RoomClient(protocol=WebSocketClientProtocol(url=url, token=token(room_name, "notes"))) as room:
        room.messaging.on("message", on_message)
        await room.messaging.enable()
        await room.local_participant.set_attribute("state", "writing")
        await write(room, "notes/today.txt", "Buy bread.")
        print("exists:", await room.storage.exists(path="notes/today.txt"))
        print("files:", [entry.name for entry in await room.storage.list(path="notes")])
        print("text:", (await room.storage.download(path="notes/today.txt")).data.decode())
        await room.messaging.broadcast_message(type="note", message={"path": "notes/today.txt"})
        reader_id = await asyncio.wait_for(was_read, 30)
        [reader] = [other for other in room.messaging.get_participants() if other.id == reader_id]
        print("read by:", reader.get_attribute("name"))
        await room.messaging.send_message(to=reader, type="thanks", message={"path": "notes/today.txt"})
        await room.storage.delete("notes/today.txt")
        print("in the room:", room.room_name, room.local_participant.get_attribute("name"))


if __name__ == "__main__":
    asyncio.run(main())

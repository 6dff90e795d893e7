"""Makes a room and a mailbox by REST, and shows what the server says of them."""
# ruff: noqa: T201 - what it prints is what it is for

import asyncio
import json
import os

import aiohttp
from meshagent.api import Meshagent

project = os.environ["MESHAGENT_PROJECT_ID"]


async def main() -> None:
    client = Meshagent()
    try:
        [mine] = (await client.list_projects())["projects"]
        room = await client.create_room(project_id=project, name="garden", metadata={"open": True}, if_not_exists=True)
        found = await client.get_room(project_id=project, name="garden")
        print(json.dumps({"project": mine["id"] == project, "room": [room.name, found.metadata]}))
        await client.create_mailbox(project_id=project, address="me@example.com", room="garden", queue="mail")
        boxes = await client.list_mailboxes(project_id=project)
        print(json.dumps({"boxes": [[box.address, box.room, box.queue] for box in boxes]}))
        joining = await client.connect_room(project_id=project, room="garden")
        print(json.dumps({"joining": [joining.room_name, joining.jwt.count(".")]}))
        try:
            await client.create_mailbox(project_id=project, address="me@example.com", room="garden", queue="mail")
        except aiohttp.ClientResponseError as error:
            print(json.dumps({"status": error.status}))
        await client.delete_mailbox(project_id=project, address="me@example.com")
    finally:
        await client.close()


if __name__ == "__main__":
    asyncio.run(main())

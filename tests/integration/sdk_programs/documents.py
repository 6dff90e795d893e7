"""Opens documents with one or two clients, edits them as it is told, and tells what they show."""

import asyncio
from typing import Any

from lines import error_of, given, heard, room_client, say
from meshagent.api import RoomClient


async def act(room: RoomClient, documents: dict[str, Any], command: dict[str, Any]) -> Any:
    document = documents.get(given["path"])
    match command["do"]:
        case "open":
            documents[given["path"]] = await room.sync.open(path=given["path"])
        case "add":
            document.root.append_child(command["tag"], command["attributes"])
        case "set":
            document.root.get_children()[command["index"]].set_attribute(command["name"], command["value"])
        case "write":
            document.root.get_children()[command["index"]].get_children()[0].insert(command["at"], command["text"])
        case "delete":
            document.root.get_children()[command["index"]].delete()
        case "create":
            await room.sync.create(path=command["path"], json=command["json"])
        case "error":
            return await error_of(room.sync.open(path=command["path"]))
        case "alive":
            return await room.storage.exists(path="nothing")
        case "shown":
            return document.to_json()
    return True


async def main() -> None:
    async with room_client() as room:
        documents: dict[str, Any] = {}
        say(joined=True)
        while (command := await heard()) is not None:
            async with asyncio.timeout(20):
                say(done=await act(room, documents, command))


asyncio.run(main())

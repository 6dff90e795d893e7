"""Talks with a chat bot in a thread, as clients of the SDK do."""

import asyncio
import json
from typing import Any

from lines import given, heard, room_client, say


def texts(document: Any) -> list[list[Any]]:
    """Who said what in the thread."""
    [messages] = [each for each in document.root.get_children() if each.tag_name == "messages"]
    return [
        [child.get_attribute("author_name"), child.get_attribute("text")]
        for child in messages.get_children()
        if child.tag_name == "message"
    ]


async def main() -> None:
    path = given["path"]
    async with room_client() as room:
        own = room.local_participant.get_attribute("name")
        await room.messaging.enable()
        document = await room.sync.open(path=path)
        if not document.root.get_children():
            members = document.root.append_child("members", {})
            for name in (own, "bot"):
                members.append_child("member", {"name": name})
            document.root.append_child("messages", {})
        [messages] = [each for each in document.root.get_children() if each.tag_name == "messages"]

        def on_change(*_: Any) -> None:
            say(thread=texts(document))

        def on_message(message: Any) -> None:
            say(message=message.type, body=message.message)

        for event in ("updated", "inserted", "deleted"):
            document.on(event)(on_change)
        room.messaging.on("message", on_message)
        say(ready=True)
        while (order := await heard()) is not None:
            [bot] = [each for each in room.messaging.get_participants() if each.get_attribute("name") == "bot"]
            if order["type"] == "chat":
                element = messages.append_child(
                    "message",
                    {"id": "x", "text": order["text"], "author_name": own, "created_at": "2026-01-01T00:00:00Z"},
                )
                for attachment in order.get("attachments", []):
                    element.append_child("file", attachment)
            message = {key: value for key, value in order.items() if key != "type"} | {"path": path}
            await room.messaging.send_message(to=bot, type=order["type"], message=json.loads(json.dumps(message)))


asyncio.run(main())

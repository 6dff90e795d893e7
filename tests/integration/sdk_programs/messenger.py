"""Enables messaging, tells every event, and does what the test tells it."""

import asyncio
from typing import Any

from lines import error_of, given, heard, room_client, say


async def obey(room: Any, order: dict[str, Any]) -> None:
    messaging = room.messaging
    match order["do"]:
        case "send":
            to = messaging.get_participant(order["to"])
            attachment = bytes(range(256))
            await messaging.send_message(to=to, type="hello", message={"n": 1}, attachment=attachment)
        case "broadcast":
            await messaging.broadcast_message(type="news", message={"n": 2}, attachment=b"ab")
        case "attribute":
            await room.local_participant.set_attribute("mood", "fine")
        case "forge":
            to = messaging.get_participant(order["to"])
            text = await error_of(messaging.send_message(to=to, type="participant.disabled", message={"id": "x"}))
            say(error=text)
        case "send to nobody":
            to = messaging.get_participant(order["to"])
            to._id = "nobody"
            say(error=await error_of(messaging.send_message(to=to, type="hello", message={})))
        case "stream":
            writer = await messaging.create_stream(to=messaging.get_participant(order["to"]), header={"of": "bytes"})
            await writer.close()
        case "disable":
            await messaging.disable()


async def main() -> None:
    async with room_client() as room:

        def cards() -> list[list[Any]]:
            return [[each.id, each.role, each.get_attribute("name")] for each in room.messaging.remote_participants]

        def on_message(message: Any) -> None:
            data = list(message.attachment or b"")
            say(message=message.type, by=message.from_participant_id, body=message.message, attachment=data)

        def on_attributes(participant: Any) -> None:
            say(event="attributes", id=participant.id, mood=participant.get_attribute("mood"))

        events = room.messaging.on
        events("message", on_message)
        events("participant_added", lambda participant: say(event="added", id=participant.id))
        events("participant_removed", lambda participant: say(event="removed", id=participant.id))
        events("participant_attributes_updated", on_attributes)
        if given.get("enable", True):
            await room.messaging.enable()
        # Filled when `enable` returns: nothing else tells who is there.
        say(id=room.local_participant.id, participants=cards())
        while (order := await heard()) is not None:
            await obey(room, order)


asyncio.run(main())

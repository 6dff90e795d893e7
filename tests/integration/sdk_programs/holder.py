"""Receives when it is told to, and leaves in order when it is told nothing any more."""

import asyncio

from lines import given, heard, room_client, say


async def main() -> None:
    async with room_client() as room:
        say(id=room.local_participant.id)
        while await heard() is not None:
            say(message=await room.queues.receive(name=given["queue"], wait=given["wait"]))


asyncio.run(main())

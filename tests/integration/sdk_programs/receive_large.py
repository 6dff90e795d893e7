"""Receives a message that is larger than the server's limit of headers, and says how large it is."""

import asyncio

from lines import room_client, say


async def main() -> None:
    async with room_client() as room:
        for wait in (True, False):
            message = await room.queues.receive(name="jobs", wait=wait)
            say(received=[len(message["text"]), message["text"][:2]])


asyncio.run(main())

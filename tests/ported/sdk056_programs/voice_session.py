"""Asks where a voice session is, as callers and voice agents do."""

import asyncio

from lines import room_client, say


async def main() -> None:
    async with room_client() as room:
        info = await room.livekit.get_connection_info(breakout_room="b")
        say(url=info.url, token=info.token)


asyncio.run(main())

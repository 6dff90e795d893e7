"""The suite of `room.database`, run by the SDK."""

import asyncio

from database_suite import run
from lines import room_client, say
from meshagent.api import room_server_client


async def main() -> None:
    async with room_client() as room:
        say(**await run(room.database, room_server_client))


asyncio.run(main())

"""Watches the developer log and writes into it."""

import asyncio

from lines import heard, room_client, say


async def main() -> None:
    async with room_client() as room:
        room.developer.on("log", lambda **event: say(log=event["type"], data=event["data"]))
        await room.developer.log(type="unseen", data={})
        await room.developer.enable()
        await room.developer.log(type="own", data={"n": 1})
        say(watching=True)
        await heard()
        await room.developer.disable()
        await room.developer.log(type="unseen", data={})
        say(watching=False)


asyncio.run(main())

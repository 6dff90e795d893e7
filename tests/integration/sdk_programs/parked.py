"""Waits in a receive, a tool call and an ask when the server stops."""

import asyncio

from lines import error_of, room_client, say


async def main() -> None:
    async with room_client() as room:
        waits = {
            "receive": room.queues.receive(name="jobs", wait=True),
            "tool": room.agents.invoke_tool(toolkit="ours", tool="never", arguments={}),
        }
        waiting = {name: asyncio.create_task(error_of(doing)) for name, doing in waits.items()}
        await room.storage.exists(path="x")
        say(waiting=True)
        for name, task in waiting.items():
            say(request=name, result=await task)


asyncio.run(main())

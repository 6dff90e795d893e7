"""Requests that a meshhost room does not offer; the connection lives on after each."""

import asyncio

from lines import error_of, room_client, say


async def main() -> None:
    async with room_client() as room:
        requests = {
            "containers": room.containers.list(),
            "livekit": room.livekit.get_connection_info(),
            "secrets": room.secrets.list_user_secrets(),
            "unknown": room.send_request("no.such.request", {}),
            "bad": room.send_request("queues.send", {"message": {}}),
        }
        for name, doing in requests.items():
            async with asyncio.timeout(10):
                text = await error_of(doing)
            say(request=name, error=text, lives=not await room.storage.exists(path="x"))


asyncio.run(main())

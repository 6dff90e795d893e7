"""Joins many participants to a room and stays: `python participants.py URL ROOM API_KEY COUNT`.

It prints a line when all are there. Each is a WebSocket connection that reads its greeting and then answers pings only, as an
idle agent does.
"""

import asyncio
import sys
from contextlib import AsyncExitStack

import aiohttp

from meshhost.identity.grants import ApiScope
from meshhost.identity.tokens import ParticipantGrant, ParticipantToken

PARALLEL = 50
# So that a pause of the server under load does not end connections that nobody measures.
SECONDS = 120.0


def _token(name: str, room: str, api_key: str) -> str:
    grants = [
        ParticipantGrant(name="room", scope=room),
        ParticipantGrant(name="role", scope="agent"),
        ParticipantGrant(name="api", scope=ApiScope.agent_default()),
    ]
    return ParticipantToken(name=name, grants=grants).to_jwt(api_key=api_key)


async def main() -> None:
    """Join, say so, and stay until this process is ended."""
    url, room, api_key, count = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
    gate = asyncio.Semaphore(PARALLEL)
    connector = aiohttp.TCPConnector(limit=0)
    async with (
        AsyncExitStack() as stack,
        aiohttp.ClientSession(connector=connector) as http,
        asyncio.TaskGroup() as tasks,
    ):

        async def join(number: int) -> None:
            headers = {"Authorization": f"Bearer {_token(f'agent-{number:05}', room, api_key)}"}
            address = f"{url}/rooms/{room}"
            async with gate:
                timeout = aiohttp.ClientWSTimeout(ws_receive=None, ws_close=SECONDS)
                socket = await stack.enter_async_context(http.ws_connect(address, headers=headers, timeout=timeout))
                await socket.receive()
            tasks.create_task(_read(socket))

        await asyncio.gather(*(join(number) for number in range(count)))
        print("joined", flush=True)


async def _read(socket: aiohttp.ClientWebSocketResponse) -> None:
    async for _ in socket:
        pass


asyncio.run(main())

"""Two room servers over one identity store: what one records or revokes, the other obeys. Real time, real sockets."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest

from meshhost.errors import RoomRefusedError
from meshhost.identity.keys import ApiKey, parse_api_key
from meshhost.testing.server import RunningServer

# The promise is two seconds, measured with a clock of our own in tests/unit/stores; this one only must not hang.
PATIENCE = 30.0


async def status_of(http: aiohttp.ClientSession, server: RunningServer, key: str, project: str) -> int:
    headers = {"Authorization": f"Bearer {key}"}
    async with http.get(f"{server.url}/accounts/projects/{project}/rooms", headers=headers) as response:
        return response.status


async def until_status(http: aiohttp.ClientSession, server: RunningServer, key: str, project: str, status: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while await status_of(http, server, key, project) != status:  # noqa: ASYNC110 - another server's moment
            await asyncio.sleep(0.05)


async def test_a_key_revoked_on_one_server_is_dead_on_the_other(
    serve: Any, stack: AsyncExitStack, http: aiohttp.ClientSession
) -> None:
    first = await stack.enter_async_context(serve())
    second = await stack.enter_async_context(serve())
    project = first.key.project_id
    keys = f"{first.url}/accounts/projects/{project}/api-keys"
    headers = {"Authorization": f"Bearer {first.api_key}"}
    async with http.post(keys, json={"name": "n", "description": ""}, headers=headers) as response:
        assert response.status == 200, await response.text()
        created = await response.json()
    key: ApiKey = parse_api_key(created["value"])
    await until_status(http, second, created["value"], project, 200)
    participant = RunningServer(second.server, key)
    async with participant.client("room"):
        pass
    async with http.delete(f"{keys}/{key.id}", headers=headers) as response:
        assert response.status in {200, 204}
    assert await status_of(http, first, created["value"], project) == 401
    await until_status(http, second, created["value"], project, 401)
    with pytest.raises(RoomRefusedError):
        await participant.client("room").__aenter__()

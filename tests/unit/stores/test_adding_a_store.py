"""Adding a store is cheap: an engine is one entry in a table, and a real room server runs on it."""

import os
from pathlib import Path

import aiohttp
import pytest

from meshhost.app.embedded import ServerOptions, open_room_server
from meshhost.app.engines import ENGINES, EngineRequest, make_engine
from meshhost.errors import SettingsError
from meshhost.gateway.provider import ProviderTable
from meshhost.identity.keys import encode_api_key, new_api_key
from meshhost.stores.engine import Engine
from meshhost.stores.memory.engine import memory_engine
from meshhost.stores.queues import QueueLimits
from meshhost.testing.server import RunningServer

KEY = new_api_key("11111111-2222-3333-4444-555555555555")


def toy_engine(request: EngineRequest) -> Engine:
    assert request.url == "toy://anything"
    return memory_engine(limits=request.limits)


async def test_a_room_server_runs_on_an_engine_that_was_registered(tmp_path: Path) -> None:
    options = ServerOptions(
        port=0,
        data_dir=tmp_path,
        database_url="toy://anything",
        engines={**ENGINES, "toy": toy_engine},  # all that it takes
        providers=ProviderTable({}),
        extra_keys=lambda: [KEY],
    )
    async with open_room_server(options) as server, aiohttp.ClientSession() as http:
        running = RunningServer(server, KEY)
        headers = {"Authorization": f"Bearer {encode_api_key(KEY)}"}
        async with http.post(
            f"{server.url}/accounts/projects/{KEY.project_id}/rooms", json={"name": "lobby"}, headers=headers
        ) as response:
            assert response.status == 200, await response.text()
        async with running.client("lobby") as room:
            await room.queues.send(name="jobs", message={"n": 1})
            message = await room.queues.receive(name="jobs", create=False, wait=False)
            assert message is not None
            assert message["n"] == 1
    assert not [name for name in os.listdir(tmp_path) if name.endswith(".db")]  # noqa: PTH208


def test_an_engine_that_is_not_registered_is_refused() -> None:
    with pytest.raises(SettingsError, match="MESHHOST_DATABASE_URL"):
        make_engine(EngineRequest("toy://anything", Path(), QueueLimits()))

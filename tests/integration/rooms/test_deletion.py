"""Deleting rooms and tenants of a running server: everything goes, at once, and for good."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest

from meshhost.errors import ConnectionLostError, RoomRefusedError
from meshhost.identity.keys import parse_api_key
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.room.client import RoomClient
from meshhost.stores.files import RoomFiles
from meshhost.testing.server import RunningServer
from tests.integration.rooms.test_tenants_rest import OPERATOR_KEY, Rest


@pytest.fixture
async def rest(serve: Any, stack: AsyncExitStack, http: aiohttp.ClientSession) -> Rest:
    return Rest(http, await stack.enter_async_context(serve(operator_key=OPERATOR_KEY)))


async def fill(room: RoomClient) -> str:
    """Put something of every kind into a room; returns the URL of a file."""
    await room.queues.send(name="jobs", message=1)
    handle = await room.storage.open(path="notes.txt")
    await room.storage.write(handle=handle, data=b"secret")
    await room.storage.close(handle=handle)
    return str(await room.storage.download_url(path="notes.txt"))


async def content(server: RunningServer, key: RoomKey) -> list[Any]:
    """What the stores hold of a room."""
    engines = server.server.engines
    files: RoomFiles = engines.files
    return [*await engines.queues.stats(key), *await engines.documents.list(key, ""), *await files.list(key, "")]


async def test_a_deleted_room_ends_and_is_empty_when_it_is_made_again(rest: Rest) -> None:
    server, http = rest.server, rest.http
    tenant, token = server.key.project_id, server.token("room")
    async with server.client("room") as room, server.client("other") as neighbour:
        url = await fill(room)
        kept = await fill(neighbour)
        assert (await http.get(url)).status == 200
        path = f"/tenants/{tenant}/rooms/room"
        status, answer = await rest(server.api_key, "DELETE", path)
        assert (status, answer["deleted"], answer["room"]) == (200, True, "room")
        async with asyncio.timeout(20):
            end = await room.wait_closed()
        assert isinstance(end.error, ConnectionLostError)
        assert end.error.close_code == 4001
        assert "deleted" in str(end.error)
        assert (await http.get(url)).status == 401
        assert (await http.get(kept)).status == 200
        assert len(await content(server, RoomKey(TenantId(tenant), "other"))) == 2
    assert await content(server, RoomKey(TenantId(tenant), "room")) == []
    # The same name again: empty, and closed to what was signed before.
    async with server.client("room") as again:
        assert await again.queues.list() == []
        assert await again.storage.list(path="") == []
        assert (await http.get(f"{server.url}/rooms/room?token={token}")).status == 403
        assert (await http.get(url)).status == 401
    assert (await rest(server.api_key, "DELETE", path))[0] == 200  # also a room that holds nothing


async def test_a_deleted_tenant_leaves_nothing_and_its_neighbour_all(rest: Rest) -> None:
    tenant = await rest.tenant("acme")
    key = await rest.key("acme")
    acme = RunningServer(rest.server.server, parse_api_key(key))
    async with acme.client("room") as room, rest.server.client("room") as neighbour:
        url = await fill(room)
        await fill(neighbour)
        assert (await rest(key, "DELETE", "/tenants/acme"))[0] == 403
        assert (await rest(OPERATOR_KEY, "DELETE", "/tenants/none"))[0] == 404
        status, answer = await rest(OPERATOR_KEY, "DELETE", "/tenants/acme")
        assert (status, answer["deleted"]) == (200, True)
        async with asyncio.timeout(20):
            end = await room.wait_closed()
        assert "the tenant was deleted" in str(end.error)
        assert (
            len(await content(rest.server, neighbour_key := RoomKey(TenantId(rest.server.key.project_id), "room"))) == 2
        )
    assert neighbour_key.tenant != tenant
    assert await content(rest.server, RoomKey(TenantId(tenant), "room")) == []
    assert (await rest.http.get(url)).status == 401
    assert (await rest(key, "GET", "/accounts/projects"))[0] == 401
    with pytest.raises(RoomRefusedError):
        await acme.client("room").__aenter__()
    assert (await rest(OPERATOR_KEY, "GET", "/tenants/acme"))[0] == 404
    assert await rest.tenant("acme") != tenant


async def test_a_deletion_that_was_interrupted_goes_on_at_the_next_start(rest: Rest) -> None:
    tenant = await rest.tenant("acme")
    acme = RunningServer(rest.server.server, parse_api_key(await rest.key("acme")))
    async with acme.client("room") as room, rest.server.client("room") as other:
        await fill(room)
        await fill(other)
    parts, engines = rest.server.server.parts, rest.server.server.engines
    # As if the server were killed after the records were written and before anything was deleted.
    await rest.server.server.stop()
    own = RoomKey(TenantId(rest.server.key.project_id), "room")
    await engines.identity.close_project(tenant)
    await engines.identity.begin_room_deletion(own)
    assert await content(rest.server, own) != []
    run = asyncio.create_task(parts.deletions.run())
    try:
        async with asyncio.timeout(30):
            while engines.identity.deleted_rooms.unfinished:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        assert await content(rest.server, own) == []
        assert await content(rest.server, RoomKey(TenantId(tenant), "room")) == []
        assert tenant not in {project.id for project in await engines.identity.projects()}
    finally:
        run.cancel()

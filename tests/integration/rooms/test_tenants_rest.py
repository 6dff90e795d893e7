"""Tenants over REST: the operator's routes, roles of keys, suspension of open connections on this server and another."""

import asyncio
import time
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from meshhost.errors import ConnectionLostError, RoomRefusedError
from meshhost.identity.keys import parse_api_key
from meshhost.server.http.permissions import NEEDED, OPERATOR
from meshhost.testing.server import RunningServer

OPERATOR_KEY = "mo-0123456789abcdef"


class Rest:
    def __init__(self, http: aiohttp.ClientSession, server: RunningServer) -> None:
        self.http, self.server = http, server

    async def __call__(self, bearer: str, method: str, path: str, **options: Any) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {bearer}"}
        async with self.http.request(method, self.server.url + path, headers=headers, **options) as response:
            is_stream = response.content_type == "text/event-stream"  # which does not end
            return response.status, None if is_stream else await response.json(content_type=None)

    async def tenant(self, name: str) -> str:
        status, made = await self(OPERATOR_KEY, "POST", "/tenants", json={"name": name})
        assert status == 200, made
        return str(made["id"])

    async def key(self, tenant: str, **body: Any) -> str:
        status, made = await self(OPERATOR_KEY, "POST", f"/tenants/{tenant}/keys", json=body)
        assert status == 200, made
        return str(made["value"])


@pytest.fixture
async def rest(serve: Any, stack: AsyncExitStack, http: aiohttp.ClientSession) -> Rest:
    return Rest(http, await stack.enter_async_context(serve(operator_key=OPERATOR_KEY)))


def api_routes(server: RunningServer) -> set[tuple[str, str]]:
    """The routes of tenants and projects of a running server."""
    router: web.UrlDispatcher = server.server.parts.app.router
    found = {(route.method, route.resource.canonical) for route in router.routes() if route.resource is not None}
    keyed = (
        "/accounts",
        "/tenants",
        "/schedules",
        "/rooms/{room}/schedules",
        "/rooms/{room}/queues",
        "/rooms/{room}/queue-series",
        "/rooms/{room}/hooks",
        "/rooms/{room}/mcp",
        "/studio/api",
        "/link",
        "/overview",
        "/hosts",
        "/usage",
        "/rooms/{room}/log",
        "/rooms/{room}/traces",
        "/search",
        "/rooms/{room}/events",
    )
    # The session's own routes are for everybody: they say who one is.
    return {
        (method, path)
        for method, path in found
        if path.startswith(keyed)
        and method != "HEAD"
        and not path.startswith(("/studio/api/session", "/studio/api/oidc"))
    }


async def test_the_table_of_roles_has_every_route(rest: Rest) -> None:
    assert api_routes(rest.server) == set(NEEDED)


@pytest.mark.parametrize("role", ["viewer", "developer", "admin"])
async def test_each_role_may_use_exactly_the_routes_of_the_table(rest: Rest, role: str) -> None:
    tenant = await rest.tenant("acme")
    key = await rest.key("acme", role=role)
    order = ["viewer", "developer", "admin", OPERATOR]
    for (method, path), needed in NEEDED.items():
        real = (
            path.replace("{project}", tenant).replace("{tenant}", "acme").replace("{what}", "x").replace("{rest}", "y")
        )
        real = real.replace("{id}", "none").replace("{name}", "room").replace("{room_name}", "gone")
        real = real.replace("{room}", "room").replace("{queue}", "jobs")
        real = real.replace("{trace}", "none").replace("{host}", "none").replace("{path}", "agents")
        real = real.replace("{address}", "a@example.com")
        status, body = await rest(key, "GET" if method == "*" else method, real, json={})
        may = order.index(role) >= order.index(needed)
        assert (status == 403) is not may, (method, path, body)


async def test_every_route_of_tenants_refuses_who_is_not_known(rest: Rest) -> None:
    await rest.tenant("acme")
    for method, path in NEEDED:
        if path.startswith("/tenants"):
            real = path.replace("{tenant}", "acme").replace("{id}", "none").replace("{room_name}", "room")
            for bearer in ("mo-fedcba9876543210", "x", "ma-x", rest.server.token("room")):
                assert (await rest(bearer, method, real, json={}))[0] == 401, (method, path)


async def test_a_tenant_sees_itself_only(rest: Rest) -> None:
    acme, rival = await rest.tenant("acme"), await rest.tenant("rival")
    key = await rest.key("acme")
    assert (await rest(key, "GET", f"/tenants/{acme}"))[1]["name"] == "acme"
    for other in (rival, "rival"):
        for method, path in (("GET", ""), ("GET", "/keys"), ("POST", "/keys"), ("DELETE", "/keys/x")):
            assert (await rest(key, method, f"/tenants/{other}{path}", json={}))[0] == 404


async def test_the_operators_key_opens_no_project_and_no_room(rest: Rest) -> None:
    tenant = await rest.tenant("acme")
    assert (await rest(OPERATOR_KEY, "GET", f"/accounts/projects/{tenant}/rooms"))[0] == 401
    assert (await rest(OPERATOR_KEY, "GET", "/rooms/room"))[0] == 401


async def test_without_an_operators_key_nobody_is_the_operator(
    server: RunningServer, http: aiohttp.ClientSession
) -> None:
    for bearer in ("None", "", "mo-", server.api_key):
        assert (await Rest(http, server)(bearer, "GET", "/tenants"))[0] in {401, 403}


async def test_tenants_are_listed_and_renamed(rest: Rest) -> None:
    await rest.tenant("b")
    await rest.tenant("a")
    assert (await rest(OPERATOR_KEY, "POST", "/tenants", json={"name": "a"}))[0] == 409
    assert (await rest(OPERATOR_KEY, "POST", "/tenants", json={"name": "a b"}))[0] == 400
    status, renamed = await rest(OPERATOR_KEY, "PATCH", "/tenants/a", json={"name": "c"})
    assert (status, renamed["name"]) == (200, "c")
    _, listed = await rest(OPERATOR_KEY, "GET", "/tenants")
    assert [tenant["name"] for tenant in listed["tenants"]] == ["b", "c", "default", "default-99999999"]
    _, listed = await rest(OPERATOR_KEY, "GET", "/tenants?limit=1&offset=1")
    assert [tenant["name"] for tenant in listed["tenants"]] == ["c"]


async def test_a_key_has_a_role_an_end_and_a_last_use(rest: Rest) -> None:
    await rest.tenant("acme")
    end = time.time() + 1.5
    value = await rest.key("acme", name="ci", role="viewer", expires_at=end)
    assert (await rest(value, "GET", "/accounts/projects"))[0] == 200
    async with asyncio.timeout(10):
        while True:
            _, listed = await rest(OPERATOR_KEY, "GET", "/tenants/acme/keys")
            if listed["keys"][0]["last_used_at"] is not None:
                break
            await asyncio.sleep(0.05)
        assert (listed["keys"][0]["role"], listed["keys"][0]["expires_at"]) == ("viewer", end)
        while (status := (await rest(value, "GET", "/accounts/projects"))[0]) == 200:  # noqa: ASYNC110 - real time
            await asyncio.sleep(0.05)
    assert status == 401
    for wrong in ({"role": "root"}, {"expires_at": 1}, {"expires_at": "soon"}, {"expires_at": True}):
        assert (await rest(OPERATOR_KEY, "POST", "/tenants/acme/keys", json=wrong))[0] == 400


async def test_a_token_of_a_viewers_key_joins_no_room(rest: Rest) -> None:
    await rest.tenant("acme")
    viewer = RunningServer(rest.server.server, parse_api_key(await rest.key("acme", role="viewer")))
    with pytest.raises(RoomRefusedError, match="developer"):
        await viewer.client("room").__aenter__()


async def test_a_suspension_ends_connections_on_every_server_and_leaves_neighbours_alone(
    rest: Rest, serve: Any, stack: AsyncExitStack
) -> None:
    second = await stack.enter_async_context(serve(operator_key=OPERATOR_KEY))
    await rest.tenant("acme")
    key = await rest.key("acme")
    here, there = (RunningServer(server.server, parse_api_key(key)) for server in (rest.server, second))
    async with asyncio.timeout(30):
        while (await Rest(rest.http, second)(key, "GET", "/accounts/projects"))[0] != 200:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    async with here.client("room") as a, there.client("room") as b, rest.server.client("room") as neighbour:
        status, body = await rest(OPERATOR_KEY, "POST", "/tenants/acme/suspend", json={"reason": "unpaid"})
        assert (status, body["suspended"]) == (200, "unpaid")
        for client in (a, b):
            async with asyncio.timeout(30):
                end = await client.wait_closed()
            assert isinstance(end.error, ConnectionLostError)
            assert end.error.close_code == 4001
        status, body = await rest(key, "GET", "/accounts/projects")
        assert (status, body["error"]) == (403, "the tenant is suspended: unpaid")
        for server in (here, there):
            with pytest.raises(RoomRefusedError, match="the tenant is suspended: unpaid") as refused:
                await server.client("room").__aenter__()
            assert refused.value.status == 403
        await neighbour.queues.list()
        assert (await rest(OPERATOR_KEY, "POST", "/tenants/acme/resume", json={}))[0] == 200
        async with here.client("room") as back:
            await back.queues.list()


async def test_participants_learn_the_name_of_their_tenant_and_its_renames(
    rest: Rest, stack: AsyncExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    learned: asyncio.Queue[Any] = asyncio.Queue()
    # The names of a process are shared by the server and the client of this test.
    monkeypatch.setattr("meshhost.room.keeper.learn_tenant", learned.put_nowait)
    monkeypatch.setattr("meshhost.room.handshake.learn_tenant", learned.put_nowait)
    tenant = await rest.tenant("acme")
    server = RunningServer(rest.server.server, parse_api_key(await rest.key(tenant)))
    room = await stack.enter_async_context(server.client())
    assert await learned.get() == {"id": tenant, "name": "acme"}
    assert (await rest(OPERATOR_KEY, "PATCH", f"/tenants/{tenant}", json={"name": "acme-inc"}))[0] == 200
    async with asyncio.timeout(5):
        assert await learned.get() == {"id": tenant, "name": "acme-inc"}
    await room.queues.list()

"""Service hosts seen through a room server: real hosts, for the operator only, and no address but the known ones."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from meshhost.app.config_file import ServerFile
from meshhost.app.running_hosts import announced
from meshhost.hosting.service_host import ServiceHost
from meshhost.settings import Settings
from meshhost.testing.agents import QuietAgent
from meshhost.testing.server import RunningServer, running_server

OPERATOR_KEY = "operator-key-of-more-than-thirty-two-characters"
ADMIN_KEY = "admin-key"


class Poet(QuietAgent):
    """An agent that stays in its room."""

    made = []  # noqa: RUF012


@pytest.fixture
async def host() -> AsyncIterator[ServiceHost]:
    made = ServiceHost(port=0, webhook_secret="", admin_key=ADMIN_KEY, allowed_room_urls=["http://127.0.0.1"])
    made.add_path("/poet", cls=Poet, identity="poet")
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    for field in Settings.model_fields.values():
        for name in getattr(field.validation_alias, "choices", [field.validation_alias]):
            monkeypatch.delenv(str(name), raising=False)
    monkeypatch.setenv("MESHHOST_CONFIG_DIR", str(tmp_path / "config"))
    return monkeypatch


@asynccontextmanager
async def asking(server: RunningServer, key: str = OPERATOR_KEY) -> AsyncIterator[Any]:
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}) as http:

        async def ask(path: str, method: str = "GET", **options: Any) -> tuple[int, Any]:
            async with http.request(method, server.url + path, **options) as answer:
                return answer.status, await answer.json(content_type=None)

        yield ask


def services(*hosts: str) -> ServerFile:
    entries = [{"url": url, "paths": [{"path": "/poet", "identity": "poet"}], "rooms": "den"} for url in hosts]
    return ServerFile.model_validate({"services": entries})


async def test_the_operator_sees_the_hosts_of_services_and_their_agents(
    host: ServiceHost, environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    environment.setenv("MESHHOST_ADMIN_KEY", ADMIN_KEY)
    url, gone = f"http://127.0.0.1:{host.port}", "http://user:secret@127.0.0.1:9"
    async with (
        running_server(tmp_path / "data", operator_key=OPERATOR_KEY, file=services(url, gone)) as server,
        asking(server) as ask,
        server.client("den"),
    ):
        status, answer = await ask("/hosts")
        one, other = answer["hosts"]
        assert (status, one["url"], one["reachable"], one["ready"], one["error"]) == (200, url, True, True, None)
        assert (one["rooms"], one["local"]) == ("den", False)
        assert (other["url"], other["reachable"]) == ("http://127.0.0.1:9", False)
        assert other["error"]
        status, agents = await ask(f"/hosts/{one['id']}/agents?state=failed")
        assert (status, agents) == (200, {"agents": []})
        status, logs = await ask(f"/hosts/{one['id']}/agents/logs?limit=1")
        assert (status, "records" in logs) == (200, True)
        assert (await ask(f"/hosts/{one['id']}/tenants/a%20b/freeze", "POST", json={"reason": "x"}))[0] == 200
        _, tenants = await ask(f"/hosts/{one['id']}/tenants")
        assert [each["tenant"] for each in tenants["tenants"]] == ["a b"]
        assert (await ask(f"/hosts/{one['id']}/agents/none", "DELETE"))[0] == 404
        assert (await ask(f"/hosts/{other['id']}/agents"))[0] == 502
        for path in ("metrics", "poet", "agents/a/b", "agents/..%2f..%2flivez", "tenants/x/delete"):
            assert (await ask(f"/hosts/{one['id']}/{path}"))[0] == 404, path
        assert (await ask("/hosts/none/agents"))[0] == 404
        async with asking(server, server.api_key) as as_tenant:
            assert (await as_tenant("/hosts"))[0] == 403
            assert (await as_tenant(f"/hosts/{one['id']}/agents"))[0] == 403


async def test_a_host_that_does_not_take_the_servers_key_is_shown_with_that(host: ServiceHost, tmp_path: Path) -> None:
    file = services(f"http://127.0.0.1:{host.port}")
    async with (
        running_server(tmp_path / "data", operator_key=OPERATOR_KEY, file=file) as server,
        asking(server) as ask,
    ):
        [one] = (await ask("/hosts"))[1]["hosts"]
        assert (one["reachable"], "admin key" in one["error"]) == (True, True)
        assert (await ask(f"/hosts/{one['id']}/agents"))[0] == 502, "a session must not end by it"


@asynccontextmanager
async def foreign(tenants: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[str]:
    """The address of a server that is ready, and answers so when it is asked for its tenants."""

    async def ready(_: web.Request) -> web.Response:
        return web.json_response({"status": "ready"})

    app = web.Application()
    app.add_routes([web.get("/readyz", ready), web.get("/tenants", tenants)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_an_answer_of_a_host_that_comes_in_pieces_is_read_to_its_end(tmp_path: Path) -> None:
    async def tenants(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        await answer.write(b'{"tenants": [')
        await asyncio.sleep(0.1)
        await answer.write(b"]}")
        return answer

    async with (
        foreign(tenants) as url,
        running_server(tmp_path / "data", operator_key=OPERATOR_KEY, file=services(url)) as server,
        asking(server) as ask,
    ):
        [one] = (await ask("/hosts"))[1]["hosts"]
        assert (one["reachable"], one["error"]) == (True, None)
        assert await ask(f"/hosts/{one['id']}/tenants") == (200, {"tenants": []})


async def test_what_answers_and_is_no_host_is_shown_with_that(tmp_path: Path) -> None:
    async def tenants(_: web.Request) -> web.Response:
        return web.Response(text="<h1>It works!</h1>", content_type="text/html")

    async with (
        foreign(tenants) as url,
        running_server(tmp_path / "data", operator_key=OPERATOR_KEY, file=services(url)) as server,
        asking(server) as ask,
    ):
        [one] = (await ask("/hosts"))[1]["hosts"]
        assert (one["reachable"], "is it a service host?" in (one["error"] or "")) == (True, True)
        assert (await ask(f"/hosts/{one['id']}/tenants"))[0] == 502


async def test_hosts_that_service_run_started_here_are_known(
    host: ServiceHost, environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    environment.setenv("MESHHOST_ADMIN_KEY", ADMIN_KEY)
    with announced(tmp_path / "config", f"http://127.0.0.1:{host.port}", room="cave"):
        async with running_server(tmp_path / "data", operator_key=OPERATOR_KEY) as server, asking(server) as ask:
            [one] = (await ask("/hosts"))[1]["hosts"]
            assert (one["local"], one["rooms"], one["ready"]) == (True, "cave", True)

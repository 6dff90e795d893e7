"""Services that tenants configure by REST while the server runs: called as those of the file are, only where they may be."""

import asyncio
import copy
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import aiohttp
import pytest
from doubles.ports import free_port

from meshhost.hosting.service_host import ServiceHost
from meshhost.identity.keys import ApiKey, encode_api_key
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.room.call import CallContext
from meshhost.server.config import CallTimes
from meshhost.stores.configuration.contract import ConfigurationItem, ItemKind
from meshhost.testing.agents import QuietAgent
from meshhost.testing.server import RunningServer

SECRET = "a-webhook-secret-of-more-than-32-bytes"
Until = Callable[[Callable[[], bool]], Awaitable[None]]
OPEN = {"linger_seconds": 0.05, "call_times": CallTimes(first_delay=0.01, max_delay=0.05)}


class Told(QuietAgent):
    """Remembers with which arguments it was called."""

    arguments: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self, call: CallContext) -> None:
        super().__init__()
        Told.arguments = dict(call.arguments)


@pytest.fixture
def port() -> int:
    """Where the room server will listen: the host must know before it runs."""
    return free_port()


@pytest.fixture
async def host(port: int) -> AsyncIterator[ServiceHost]:
    made = ServiceHost(port=0, webhook_secret=SECRET, allowed_room_urls=[f"http://127.0.0.1:{port}"])
    made.add_path("/first", cls=QuietAgent, identity="first")
    made.add_path("/told", cls=Told, identity="told")
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def server(serve: Any, port: int) -> AsyncIterator[RunningServer]:
    async with serve(port=port, **OPEN) as running:
        yield running


class Rest:
    """Asks as a tenant."""

    def __init__(self, http: aiohttp.ClientSession, server: RunningServer, key: ApiKey | None = None) -> None:
        self._http = http
        own = key or server.key
        self._url = f"{server.url}/accounts/projects/{own.project_id}"
        self._headers = {"Authorization": f"Bearer {encode_api_key(own)}"}

    async def __call__(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        async with self._http.request(method, self._url + path, json=body, headers=self._headers) as response:
            return response.status, await response.json() if response.content_length else None


@pytest.fixture
async def rest(http: aiohttp.ClientSession, server: RunningServer) -> Rest:
    made = Rest(http, server)
    await made("POST", "/secrets", {"name": "signing", "type": "keys", "data": {"secret": SECRET}})
    return made


def spec(host: ServiceHost, *paths: str, name: str = "mine", **more: Any) -> dict[str, Any]:
    endpoints = [{"path": f"/{path}", "meshagent": {"identity": path}} for path in paths]
    return {
        "version": "v1",
        "kind": "Service",
        "metadata": {"name": name, "annotations": {"meshhost.secret": "signing"}},
        "ports": [{"num": host.port, "endpoints": endpoints}],
        "external": {"url": "http://127.0.0.1"},
    } | more


def agents(host: ServiceHost) -> list[tuple[str, str]]:
    """Rooms and paths of the host's agents."""
    return sorted((agent.key.room.name, agent.key.path) for agent in host.agents)


async def test_a_service_is_called_into_open_rooms_and_those_that_open_later(
    server: RunningServer, host: ServiceHost, rest: Rest, until: Until
) -> None:
    async with server.client("one"):
        status, made = await rest("POST", "/services", spec(host, "first"))
        assert status == 200
        await until(lambda: agents(host) == [("one", "/first")])
        async with server.client("two"):
            await until(lambda: agents(host) == [("one", "/first"), ("two", "/first")])

            status, _ = await rest("DELETE", f"/services/{made['id']}")

            assert status == 204
            await until(lambda: agents(host) == [])


async def test_a_service_of_a_room_is_for_that_room_alone(
    server: RunningServer, host: ServiceHost, rest: Rest, until: Until
) -> None:
    async with server.client("one"), server.client("two"):
        _, made = await rest("POST", "/rooms/two/services", spec(host, "first"))
        await until(lambda: agents(host) == [("two", "/first")])

    assert (await rest("GET", "/services"))[1] == {"services": []}
    assert (await rest("GET", f"/services/{made['id']}"))[0] == 404
    assert (await rest("GET", f"/rooms/two/services/{made['id']}"))[1]["metadata"]["name"] == "mine"
    assert (await rest("GET", "/rooms/two/services/by-name/mine"))[1]["id"] == made["id"]
    assert (await rest("DELETE", f"/rooms/one/services/{made['id']}"))[0] == 404


async def test_another_tenant_has_nothing_of_it(
    server: RunningServer, host: ServiceHost, rest: Rest, until: Until, http: aiohttp.ClientSession, other_key: ApiKey
) -> None:
    other = Rest(http, server, other_key)
    _, made = await rest("POST", "/services", spec(host, "first"))
    theirs = RunningServer(server.server, other_key)
    async with theirs.client("one"), server.client("two"):
        await until(lambda: agents(host) == [("two", "/first")])

    assert (await other("GET", "/services"))[1] == {"services": []}
    for method, body in (("GET", None), ("PUT", spec(host, "first")), ("DELETE", None)):
        assert (await other(method, f"/services/{made['id']}", body))[0] == 404


async def test_a_change_counts_at_once_and_what_stays_is_not_interrupted(
    server: RunningServer, host: ServiceHost, rest: Rest, until: Until
) -> None:
    async with server.client("one"):
        _, made = await rest("POST", "/services", spec(host, "first"))
        await until(lambda: agents(host) == [("one", "/first")])
        [before] = host.agents
        # As MeshAgent's client sends it, with all that is not set.
        sent = spec(host, "first", "told", container=None, agents=None, id=made["id"])
        sent["ports"][0]["endpoints"][0]["mcp"] = None
        sent["ports"][0] |= {"liveness": None, "type": "http"}

        status, changed = await rest("PUT", f"/services/{made['id']}", sent)

        assert (status, changed["id"]) == (200, made["id"])
        await until(lambda: agents(host) == [("one", "/first"), ("one", "/told")])
        assert before.id in [agent.id for agent in host.agents]
        await rest("PUT", f"/services/{made['id']}", spec(host, "first") | {"enabled": False})
        await until(lambda: agents(host) == [])


async def test_secrets_and_variables_are_in_the_arguments_of_the_call(
    server: RunningServer, host: ServiceHost, rest: Rest, until: Until
) -> None:
    _, weather = await rest("POST", "/secrets", {"name": "weather", "data": {"WEATHER_KEY": "w-1", "WEATHER_URL": "u"}})
    await rest("POST", "/secrets", {"name": "mail", "data": {"password": "p-1"}})
    variables = [
        {"name": "MODE", "value": "fast"},
        {"name": "MAIL_PASSWORD", "secret": {"id": "mail"}},
    ]
    body = spec(host, "told", container={"image": "", "environment": variables, "secrets": [weather["id"]]})
    body["metadata"]["annotations"]["meshhost.arguments"] = '{"language": "en"}'

    Told.arguments = {}
    async with server.client("one"):
        status, shown = await rest("POST", "/services", body)
        await until(lambda: bool(Told.arguments))

    assert Told.arguments == {
        "language": "en",
        "environment": {"MODE": "fast", "MAIL_PASSWORD": "p-1", "WEATHER_KEY": "w-1", "WEATHER_URL": "u"},
    }
    assert status == 200
    assert "p-1" not in str(shown)


async def test_a_call_whose_secret_is_missing_is_not_made_and_says_so(
    server: RunningServer, host: ServiceHost, rest: Rest, until: Until
) -> None:
    body = spec(host, "first", container={"image": "", "secrets": ["later"]})
    async with server.client("one"):
        await rest("POST", "/services", body)
        [room] = server.server.rooms
        calls = server.server.parts.caller.calls
        await until(lambda: bool(calls(room)) and calls(room)[0]["outcome"] == "no_secret")
        assert calls(room)[0]["error"] == "the tenant has no secret 'later'"
        await rest("POST", "/secrets", {"name": "later", "data": {"KEY": "x"}})
        await until(lambda: agents(host) == [("one", "/first")])


async def test_what_is_out_is_refused_by_its_name(host: ServiceHost, rest: Rest) -> None:
    good = spec(host, "first")
    with_mcp, without_paths, odd = copy.deepcopy(good), copy.deepcopy(good), copy.deepcopy(good)
    with_mcp["ports"][0]["endpoints"][0]["mcp"] = {"label": "x"}
    without_paths["ports"] = []
    odd["ports"][0]["endpoints"][0]["path"] = "first"
    wrong: list[tuple[dict[str, Any], str]] = [
        (good | {"container": {"image": "docker.io/x"}}, "container.image: meshhost runs no containers"),
        (
            good | {"container": {"image": "", "storage": {"room": [{"path": "/d"}]}}},
            "container.storage: meshhost runs",
        ),
        (
            good | {"container": {"image": "", "environment": [{"name": "A"}]}},
            "container.environment.A: expected either",
        ),
        (good | {"files": [{"path": "a", "text": "b"}]}, "files: meshhost runs no containers"),
        (good | {"kind": "ServiceTemplate"}, "kind: a template"),
        (good | {"external": None}, "external.url: expected"),
        (with_mcp, "ports.0.endpoints.0.mcp: meshhost calls no MCP servers"),
        (without_paths, "ports: expected 1 to 64 endpoints"),
        (odd, "ports.0.endpoints.0.path"),
        (good | {"metadata": {"name": ""}}, "metadata.name: expected"),
        (good | {"metadata": {"name": "x", "annotations": {"meshhost.arguments": "[]"}}}, "meshhost.arguments"),
        (good | {"wrong": 1}, "wrong: not a name that is known here"),
        (good | {"external": {"url": "http://10.0.0.1"}}, "external.url: expected an http or https URL on the public"),
        (good | {"external": {"url": "http://169.254.169.254"}}, "external.url: expected an http or https URL"),
        (good | {"external": {"url": "file:///etc/passwd"}}, "external.url: expected an http or https URL"),
        (good | {"external": {"url": "nothing"}}, "external.url: expected an http or https URL"),
        (good | {"external": {"url": "http://user:x@example.com"}}, "external.url: expected an http or https URL"),
    ]
    for body, text in wrong:
        status, answer = await rest("POST", "/services", body)
        assert status == 400, body
        assert text in answer["error"]


async def test_a_name_is_taken_once(host: ServiceHost, rest: Rest) -> None:
    assert (await rest("POST", "/services", spec(host, "first")))[0] == 200
    status, answer = await rest("POST", "/services", spec(host, "told"))
    assert (status, answer["error"]) == (409, "there is a service 'mine' already")


async def test_a_server_that_others_reach_calls_this_machine_only_where_its_operator_says_so(
    serve: Any, host: ServiceHost, http: aiohttp.ClientSession
) -> None:
    public = "https://rooms.example.com"
    async with serve(public_url=public) as running:
        url = running.server.parts.configured.reach
        with pytest.raises(Exception, match="expected an http or https URL on the public internet"):
            url.check("url", f"http://127.0.0.1:{host.port}")
        with pytest.raises(Exception, match="public internet"):
            url.check("url", "http://localhost:8080")
        url.check("url", "https://agents.example.com")
    async with serve(public_url=public, call_urls=[f"http://127.0.0.1:{host.port}"]) as running:
        running.server.parts.configured.reach.check("url", f"http://127.0.0.1:{host.port}/x")


async def test_a_service_of_a_room_goes_with_it(server: RunningServer, host: ServiceHost, rest: Rest) -> None:
    await rest("POST", "/rooms/one/services", spec(host, "first"))
    await rest("POST", "/services", spec(host, "told"))
    room = RoomKey(TenantId(server.key.project_id), "one")

    assert await server.server.parts.deletions.delete_room(room, wait_seconds=20.0)

    left = await server.server.engines.configuration.list(room.tenant, ItemKind.SERVICE)
    assert [(item.name, item.room) for item in left] == [("mine", "")]


async def test_a_change_of_another_server_over_the_same_store_counts_within_two_seconds(
    server: RunningServer, host: ServiceHost, rest: Rest, until: Until
) -> None:
    async with server.client("one"):
        store = server.server.engines.configuration
        tenant = TenantId(server.key.project_id)
        item = ConfigurationItem("id", ItemKind.SERVICE, tenant, "mine", json.dumps(spec(host, "first")), 1.0, 1.0)

        await store.add(item, most=10)
        async with asyncio.timeout(2):
            await until(lambda: agents(host) == [("one", "/first")])

        # What a newer release stored cannot be called, and holds up nothing.
        await store.add(replace(item, id="newer", name="newer", content="{}"), most=10)
        await store.delete(tenant, "id")
        await until(lambda: agents(host) == [])


async def test_a_store_that_cannot_be_read_leaves_what_was_known(
    server: RunningServer, host: ServiceHost, rest: Rest, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with server.client("one"):
        await rest("POST", "/services", spec(host, "first"))
        await until(lambda: agents(host) == [("one", "/first")])
        asked = asyncio.Event()

        async def fail(*_: object) -> None:
            asked.set()
            raise OSError("the disk is gone")

        monkeypatch.setattr(server.server.engines.configuration, "read", fail)
        await asked.wait()
        await asyncio.sleep(0)
        assert agents(host) == [("one", "/first")]

"""A ServiceHost with several tenants over real sockets: quotas, quarantine, freezing, the operator's routes, the ledger."""

import asyncio
import contextlib
import json
import os
import re
import sqlite3
import stat
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from typer.testing import CliRunner

from meshhost.cli.main import run, whole_app
from meshhost.errors import CallRefusedError, SettingsError
from meshhost.hosting.service_host import ServiceHost
from meshhost.hosting.tenants.quarantine import QuarantinePolicy
from meshhost.hosting.tenants.quotas import TenantQuota
from meshhost.identity.keys import new_api_key
from meshhost.identity.webhooks import sign_webhook, webhook_body
from meshhost.server.calling.webhooks import WebhookSender
from meshhost.supervision.agent import SupervisedAgent
from meshhost.supervision.policy import RestartPolicy
from meshhost.supervision.state import State
from meshhost.testing.agents import CrashingAgent, QuietAgent, SlowAgent
from meshhost.testing.server import RunningServer, running_server

ACME = "aaaaaaaa-1111-2222-3333-444444444444"
OTHER = "bbbbbbbb-1111-2222-3333-444444444444"
AT_ONCE = RestartPolicy(first_delay=0.0, max_delay=0.0)
ADMIN_KEY = "the-key-of-the-operator"
QUICK = QuarantinePolicy(failures=3, crashes=5, window_seconds=60, first_hold=30)


async def soon(awaitable: Awaitable[Any], seconds: float = 15.0) -> Any:
    async with asyncio.timeout(seconds):
        return await awaitable


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("MESHHOST_", "MESHAGENT_")):
            monkeypatch.delenv(name)
    # Commands run in this process here, and must not redirect its log.
    monkeypatch.setattr("meshhost.cli.log_output.log_for_command", lambda: None)


@pytest.fixture
async def acme(tmp_path: Path) -> AsyncIterator[RunningServer]:
    async with running_server(tmp_path / "acme", key=new_api_key(ACME)) as running:
        yield running


@pytest.fixture
async def other(tmp_path: Path) -> AsyncIterator[RunningServer]:
    async with running_server(tmp_path / "other", key=new_api_key(OTHER)) as running:
        yield running


@dataclass
class Answer:
    status: int
    json: Any
    headers: Any


@dataclass
class Hosted:
    """A host that listens, and how it is called and administered."""

    url: str
    http: aiohttp.ClientSession
    host: ServiceHost | None = None
    key: str | None = None
    headers: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.headers = {} if self.key is None else {"Authorization": f"Bearer {self.key}"}

    async def ask(self, method: str, path: str, **options: Any) -> Answer:
        options = {"headers": self.headers, **options}
        async with self.http.request(method, self.url + path, **options) as response:
            return Answer(response.status, await response.json(), response.headers)

    async def call(
        self, server: RunningServer, *, path: str = "/agent", room: str = "room", identity: str = "agent", **token: Any
    ) -> Answer:
        data = {
            "room_name": room,
            "room_url": server.server.room_url(room),
            "token": server.token(room, name=identity, role="agent", **token),
        }
        return await self.ask("POST", path, data=webhook_body("room.call", data), headers={})

    def spawn(self, answer: Answer) -> SupervisedAgent:
        assert answer.status == 200, answer.json
        found = self.host.parts.supervisor.find(answer.json["spawn_id"])
        assert found is not None
        return found

    async def started(self, server: RunningServer, **call: Any) -> SupervisedAgent:
        spawn = self.spawn(await self.call(server, **call))
        await soon(spawn.wait_state(State.RUNNING))
        return spawn

    async def agents(self) -> list[dict[str, Any]]:
        return (await self.ask("GET", "/agents")).json["agents"]


async def present(server: RunningServer, http: aiohttp.ClientSession) -> Counter[tuple[str, str]]:
    """(room, name) of everybody in a room of the server, and how often."""
    url = f"{server.url}/accounts/projects/{server.key.project_id}/sessions/active"
    async with http.get(url, headers={"Authorization": f"Bearer {server.api_key}"}) as response:
        sessions = (await response.json())["sessions"]
    return Counter((session["room_name"], one["name"]) for session in sessions for one in session["participants"])


Serve = Callable[..., Awaitable[Hosted]]


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
async def serve(acme: RunningServer, other: RunningServer, http: aiohttp.ClientSession) -> AsyncIterator[Serve]:
    """`serve({"/agent": QuietAgent}, **of the host)` starts a host, stopped after the test."""
    async with AsyncExitStack() as stack:

        async def make(paths: dict[str, Any] | None = None, *, key: str | None = None, **options: Any) -> Hosted:
            host = ServiceHost(
                port=0,
                webhook_secret="",
                allowed_room_urls=[acme.url, other.url],
                drain_seconds=5.0,
                admin_key=key or "",
                **options,
            )
            for path, cls in (paths or {"/agent": quiet()}).items():
                host.add_path(path, cls=cls, restart=AT_ONCE)
            await host.start()
            stack.push_async_callback(host.stop)
            return Hosted(f"http://127.0.0.1:{host.port}", http, host, key)

        yield make


def quiet() -> type[QuietAgent]:
    return type("Quiet", (QuietAgent,), {})


# Quotas


async def test_a_tenant_over_its_quota_gets_429_and_its_neighbour_an_agent(
    serve: Serve, acme: RunningServer, other: RunningServer
) -> None:
    hosted = await serve(quotas={ACME: TenantQuota(max_agents=1)})
    await hosted.started(acme)
    refused = await hosted.call(acme, identity="second")
    assert (refused.status, refused.headers["Retry-After"]) == (429, "5")
    assert "max_agents: 1" in refused.json["error"]
    assert (await hosted.call(acme)).status == 200
    for number in range(3):
        await hosted.started(other, identity=f"n{number}")


async def test_starts_per_second_say_when_to_come_again(serve: Serve, acme: RunningServer) -> None:
    hosted = await serve(default_quota=TenantQuota(starts_per_second=0.1))
    await hosted.started(acme)
    refused = await hosted.call(acme, identity="second")
    assert refused.status == 429
    assert "starts_per_second: 0.1" in refused.json["error"]
    assert 8 <= int(refused.headers["Retry-After"]) <= 10


async def test_one_tenants_hanging_starts_do_not_keep_another_waiting(
    serve: Serve, acme: RunningServer, other: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MESHHOST_MAX_STARTS", "4")
    slow = type("Slow", (SlowAgent,), {})
    hosted = await serve({"/slow": slow, "/agent": quiet()})
    for number in range(10):
        assert (await hosted.call(acme, path="/slow", identity=f"s{number}")).status == 200
    await soon(slow.wait_made(3))
    await hosted.started(other)
    assert len(slow.made) == 3
    tenants = (await hosted.ask("GET", "/tenants")).json
    assert tenants["starts"] == {"waiting": 7, "running": 3}
    waiting = [agent for agent in await hosted.agents() if agent["waits_for"] == "its turn to start"]
    assert len(waiting) == 7
    for agent in waiting:
        assert (await hosted.ask("DELETE", f"/agents/{agent['id']}")).status == 202
    for agent in slow.made:
        agent.release.set()
    for spawn in hosted.host.agents:
        with contextlib.suppress(Exception):
            await soon(spawn.wait_state(State.RUNNING, State.STOPPED))
    assert len(slow.made) == 3


# Quarantine and freezing


async def test_a_crash_looping_tenant_gets_429_and_its_neighbour_notices_nothing(
    serve: Serve, acme: RunningServer, other: RunningServer
) -> None:
    class CrashesForAcme(CrashingAgent):
        async def start(self, *, room: Any) -> None:
            if self.call.tenant == ACME:
                await super().start(room=room)
            else:
                await QuietAgent.start(self, room=room)

    hosted = await serve({"/agent": CrashesForAcme, "/other": quiet()}, quarantine=QUICK)
    neighbour = await hosted.started(other)
    looping = hosted.spawn(await hosted.call(acme))
    await soon(looping.wait_state(State.QUARANTINED))
    again, new = await hosted.call(acme), await hosted.call(acme, room="elsewhere")
    for refused in (again, new):
        assert refused.status == 429
        assert refused.json["error"] == "this path is in quarantine: 5 crashes within 60 s"
        assert 20 <= int(refused.headers["Retry-After"]) <= 30
    await hosted.started(acme, path="/other")
    await hosted.started(other, identity="more")
    assert (neighbour.state, neighbour.restarts) == (State.RUNNING, 0)
    [agent] = [agent for agent in await hosted.agents() if agent["state"] == "quarantined"]
    assert (agent["waits_for"], agent["reason"]) == ("the end of a quarantine", "5 crashes within 60 s")
    [tenant] = [one for one in (await hosted.ask("GET", "/tenants")).json["tenants"] if one["tenant"] == ACME]
    [hold] = tenant["quarantine"]
    assert (hold["path"], hold["on_probation"], hold["hold"]) == ("/agent", False, 1)

    CrashesForAcme.crashes = 0
    release = {"tenant": ACME, "path": "/agent"}
    assert (await hosted.ask("POST", "/quarantine/release", json=release)).json["released"][0]["path"] == "/agent"
    await soon(looping.wait_state(State.RUNNING))
    assert (await hosted.ask("POST", "/quarantine/release", json=release)).status == 404
    async with hosted.http.get(f"{hosted.url}/metrics") as response:
        metrics = await response.text()
    assert "meshhost_quarantine_holds 0.0" in metrics
    assert "meshhost_load " in metrics
    assert re.findall(r'meshhost_tenant_crashes_total\{tenant="(.*)"\}', metrics) == [ACME]


async def test_a_frozen_tenant_gets_429_by_call_and_by_socket_until_it_is_thawed(
    serve: Serve, acme: RunningServer, other: RunningServer
) -> None:
    hosted = await serve()
    spawn = await hosted.started(acme)
    frozen = (await hosted.ask("POST", f"/tenants/{ACME}/freeze", json={"reason": " a secret of ours "})).json
    since = frozen["freeze"].pop("since")
    freeze = {"reason": "a secret of ours", "until_restart": True}
    assert frozen == {"ok": True, "tenant": ACME, "frozen": True, "freeze": freeze}
    [tenant] = (await hosted.ask("GET", "/tenants")).json["tenants"]
    assert (tenant["frozen"], tenant["freeze"]) == (True, {"since": since, **freeze})
    refused = await hosted.call(acme)
    assert (refused.status, refused.headers["Retry-After"]) == (429, "60")
    assert refused.json == {"error": "this tenant is frozen by the host's operator"}
    assert spawn.state is State.RUNNING
    data = {"room_name": "room", "room_url": acme.server.room_url("room"), "token": acme.token("room", role="agent")}
    event = webhook_body("room.call", data).decode()
    with pytest.raises(aiohttp.WSServerHandshakeError) as upgrade:
        await hosted.http.ws_connect(f"{hosted.url}/agent", headers={"Meshhost-Webhook": event})
    assert upgrade.value.status == 429
    await hosted.started(other)
    assert (await hosted.ask("POST", f"/tenants/{ACME}/thaw")).status == 200
    assert (await hosted.call(acme)).json["spawn_id"] == spawn.id


async def test_an_overloaded_host_says_so_in_readyz_and_refuses_new_agents(serve: Serve, acme: RunningServer) -> None:
    hosted = await serve()
    await hosted.started(acme)
    hosted.host.parts.watchdog.stop()
    hosted.host.parts.tenancy.load.observe_lag(3.0)
    ready, refused, joined = (
        await hosted.ask("GET", "/readyz"),
        await hosted.call(acme, identity="new"),
        await hosted.call(acme),
    )
    assert (ready.status, ready.json["reasons"], ready.json["load"]["lag"]) == (503, ["lag"], 3.0)
    assert (refused.status, refused.headers["Retry-After"]) == (503, "10")
    assert "the event loop is late" in refused.json["error"]
    assert joined.status == 200


# The operator's routes


async def test_the_operator_sees_agents_and_dismisses_them(serve: Serve, acme: RunningServer) -> None:
    class CrashesOnce(CrashingAgent):
        crashes = 1

    hosted = await serve({"/agent": quiet(), "/crash": CrashesOnce}, key=ADMIN_KEY)
    first, second = await hosted.started(acme), await hosted.started(acme, path="/crash", identity="crasher")
    one, two = await hosted.agents()
    assert one.pop("age_seconds") >= one.pop("state_seconds") >= 0
    assert one == {
        "id": first.id,
        "state": "running",
        "tenant": ACME,
        "tenant_name": "default",
        "room": "room",
        "identity": "agent",
        "path": "/agent",
        "isolation": "task",
        "restarts": 0,
        "waits_for": None,
        "activity": None,
        "leave_seconds": None,
        "reason": "",
        "last_error": None,
        "memory_bytes": None,
    }
    assert (two["restarts"], two["last_error"]) == (1, {"type": "RuntimeError", "text": "the agent crashed"})
    assert (await hosted.ask("GET", "/agents?tenant=nobody")).json == {"agents": []}
    described = (await hosted.ask("GET", f"/agents/{second.id}")).json
    assert "RuntimeError: the agent crashed" in described["last_error"]["traceback"]
    assert (await hosted.ask("GET", "/agents/unknown")).status == 404

    assert (await hosted.ask("DELETE", f"/agents/{first.id}")).json == {
        "ok": True,
        "spawn_id": first.id,
        "called_again": False,
        "paused_seconds": None,
    }
    await soon(first.wait_state(State.STOPPED))
    assert (await hosted.ask("DELETE", f"/agents/{second.id}?abort=1")).status == 202
    await soon(second.wait_state(State.STOPPED))
    assert second.aborted
    assert not first.aborted
    assert (await hosted.ask("DELETE", f"/agents/{first.id}")).status == 202
    assert (await hosted.ask("GET", f"/agents/{first.id}")).json["state"] == "stopped"


ADMIN_ROUTES = [
    ("GET", "/agents"),
    ("GET", "/agents/x"),
    ("DELETE", "/agents/x"),
    ("GET", "/tenants"),
    ("POST", "/tenants/x/freeze"),
    ("POST", "/tenants/x/thaw"),
    ("POST", "/quarantine/release"),
    ("POST", "/drain"),
]


@pytest.mark.parametrize("key", [None, ADMIN_KEY])
async def test_a_room_servers_call_administers_nothing(serve: Serve, key: str | None) -> None:
    hosted = await serve(key=key)
    await hosted.ask("POST", "/tenants/x/freeze")
    refused, names = [], ("Meshhost-Call", "Meshhost-Signature", "Meshagent-Signature", "Meshhost-Webhook")
    event = webhook_body("room.call", {"room_name": "room", "room_url": "ws://127.0.0.1", "token": "t"})
    for method, path in ADMIN_ROUTES:
        refused += [await hosted.ask(method, path, headers={**hosted.headers, name: "x"}) for name in names]
        refused.append(await hosted.ask(method, path, data=event))  # of a room server that does not mark its calls
    if key is None:
        with pytest.raises(CallRefusedError, match="answered 403"):
            await WebhookSender(hosted.http).send(f"{hosted.url}/drain", "room.call", {}, secret=None)
    assert {answer.status for answer in refused} == {403}
    assert hosted.host.parts.intake.refuses is None
    assert "x" in hosted.host.parts.tenancy.frozen


@pytest.mark.parametrize(
    "authorization", [None, "Bearer wrong", "Bearer ", f"Basic {ADMIN_KEY}", ADMIN_KEY, "Bearer ü"]
)
async def test_without_the_key_nothing_is_administered(serve: Serve, authorization: str | None) -> None:
    hosted = await serve(key=ADMIN_KEY)
    headers = {} if authorization is None else {"Authorization": authorization}
    for method, path in ADMIN_ROUTES:
        answer = await hosted.ask(method, path, headers=headers)
        assert (answer.status, ADMIN_KEY in json.dumps(answer.json)) == (401, False), path
    assert hosted.host.parts.intake.refuses is None
    assert not hosted.host.parts.tenancy.frozen


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "http://evil.example"}, {"X-Forwarded-For": "10.0.0.1"}, {"Host": "evil.example"}],
    ids=lambda headers: next(iter(headers)),
)
async def test_without_a_key_no_browser_and_no_proxy_is_let_in(serve: Serve, headers: dict[str, str]) -> None:
    hosted = await serve()
    assert (await hosted.ask("GET", "/agents")).json == {"agents": []}
    for method, path in ADMIN_ROUTES:
        assert (await hosted.ask(method, path, headers=headers)).status == 401, path
    assert hosted.host.parts.intake.refuses is None


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"tenant": ""}', b'{"tenant": "a", "more": 1}'])
async def test_a_malformed_release_is_refused(serve: Serve, body: bytes) -> None:
    hosted = await serve()
    answer = await hosted.ask("POST", "/quarantine/release", data=body)
    assert answer.status == 400
    assert set(answer.json) == {"error"}


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b"nonsense", "body"),
        (b"[]", "body"),
        (b'{"why": "x"}', "why"),
        (b'{"reason": 1}', "reason"),
        (b'{"reason": null}', "reason"),
        (b'{"reason": "\\ud800"}', "body"),
        (json.dumps({"reason": "x" * 501}).encode(), "reason"),
    ],
)
async def test_a_malformed_freeze_is_refused_and_freezes_nobody(serve: Serve, body: bytes, named: str) -> None:
    hosted = await serve()
    answer = await hosted.ask("POST", f"/tenants/{ACME}/freeze", data=body)
    assert answer.status == 400
    assert answer.json["error"].startswith(f"{named}: ")
    assert not hosted.host.parts.tenancy.frozen
    assert (await hosted.ask("POST", f"/tenants/{ACME}/freeze", data=b"{}")).json["freeze"]["reason"] is None


async def test_agents_are_listed_in_pages_and_only_those_are_looked_at(
    serve: Serve, acme: RunningServer, other: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosted = await serve()
    spawns = [await hosted.started(acme, identity=f"a{number}") for number in range(5)]
    spawns.append(await hosted.started(other, room="hall"))
    looked_at: list[str] = []
    monkeypatch.setattr(hosted.host.parts.admin, "_memory_of", lambda spawn: looked_at.append(spawn.id))
    first = (await hosted.ask("GET", "/agents?limit=2")).json
    assert [agent["id"] for agent in first["agents"]] == looked_at == [spawn.id for spawn in spawns[:2]]
    await hosted.ask("DELETE", f"/agents/{spawns[1].id}?abort=1")
    await soon(spawns[1].wait_state(State.STOPPED))
    second = (await hosted.ask("GET", "/agents", params={"limit": "3", "after": first["next"]})).json
    assert [agent["id"] for agent in second["agents"]] == [spawn.id for spawn in spawns[2:5]]
    rest = (await hosted.ask("GET", f"/agents?after={spawns[4].id}")).json
    assert ([agent["id"] for agent in rest["agents"]], "next" in rest) == ([spawns[5].id], False)
    for query in (f"tenant={OTHER}", "room=hall", "room=hall&path=/agent&state=running", f"id={spawns[5].id[:8]}"):
        assert [agent["id"] for agent in (await hosted.ask("GET", f"/agents?{query}")).json["agents"]] == [spawns[5].id]
    assert (await hosted.ask("GET", "/agents?state=failed")).json == {"agents": []}


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=10001", "limit=x", "after=x", f"after={'f' * 32}", "state=x", "id=abc", "tennant=x"]
)
async def test_a_bad_question_for_agents_is_refused_by_the_name_of_its_field(serve: Serve, query: str) -> None:
    hosted = await serve()
    answer = await hosted.ask("GET", f"/agents?{query}")
    assert answer.status == 400
    assert answer.json["error"].startswith(f"{query.partition('=')[0]}: ")


async def test_the_command_line_releases_a_tenant_from_quarantine(serve: Serve, acme: RunningServer) -> None:
    class Crashes(CrashingAgent):
        pass

    hosted = await serve({"/agent": Crashes}, quarantine=QUICK)
    looping = hosted.spawn(await hosted.call(acme))
    await soon(looping.wait_state(State.QUARANTINED))
    assert "/agent: 5 crashes within 60 s" in await cli("tenants", "--url", hosted.url)
    Crashes.crashes = 0
    assert await cli("release", ACME, "--path", "/agent", "--url", hosted.url) == (
        f"tenant {ACME} was released from quarantine: /agent\n"
    )
    await soon(looping.wait_state(State.RUNNING))


async def test_a_host_is_drained_by_its_operator_and_goes_on_answering(serve: Serve, acme: RunningServer) -> None:
    hosted = await serve()
    spawns = [await hosted.started(acme, identity=f"a{number}") for number in range(3)]
    assert (await hosted.ask("POST", "/drain")).json == {"ok": True, "agents": 3, "seconds": 5.0}
    for spawn in spawns:
        await soon(spawn.wait_state(State.STOPPED))
    assert not any(spawn.aborted for spawn in spawns)
    assert (await hosted.call(acme)).status == 503
    assert (await hosted.ask("GET", "/readyz")).json["reason"] == "draining"
    assert (await hosted.ask("GET", "/livez")).status == 200
    assert (await hosted.ask("POST", "/drain")).json == {"ok": True, "agents": 0, "seconds": 0.0}


@pytest.mark.parametrize(
    "path", ["/agents", "/agents/mine", "/tenants", "/tenants/x/freeze", "/drain", "/quarantine/release"]
)
def test_the_operators_paths_are_taken(path: str) -> None:
    with pytest.raises(SettingsError, match="host's own"):
        ServiceHost().add_path(path, cls=QuietAgent)
    ServiceHost().add_path("/drainage", cls=QuietAgent)


async def test_tenants_may_have_a_secret_of_their_own(serve: Serve, acme: RunningServer) -> None:
    secret = "the-own-secret-of-one-tenant-of-acme!"
    hosted = await serve(webhook_secrets={ACME: secret})
    assert (await hosted.call(acme)).status == 401
    data = {"room_name": "room", "room_url": acme.server.room_url("room"), "token": acme.token("room", role="agent")}
    body = webhook_body("room.call", data)
    signature = sign_webhook(body, secret=secret, now=datetime.now(UTC).timestamp())
    signed = await hosted.ask("POST", "/agent", data=body, headers={"Meshhost-Signature": signature})
    assert signed.status == 200
    replayed = await hosted.ask("POST", "/agent", data=body, headers={"Meshhost-Signature": signature})
    assert (replayed.status, replayed.json["spawn_id"]) == (200, signed.json["spawn_id"])
    assert len(hosted.host.agents) == 1


# The command line


async def cli(*arguments: str) -> Any:
    result = await asyncio.to_thread(CliRunner().invoke, whole_app(), ["host", *arguments])
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


async def test_the_command_line_shows_and_steers_a_host(
    serve: Serve, acme: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosted = await serve(key=ADMIN_KEY)
    monkeypatch.setenv("MESHHOST_HOST_URL", hosted.url)
    monkeypatch.setenv("MESHHOST_ADMIN_KEY", ADMIN_KEY)
    first, second = await hosted.started(acme), await hosted.started(acme, identity="second")
    listed = (await cli("ps")).splitlines()
    assert [line.split("\t")[:6] for line in listed] == [
        [spawn.id[:12], "running", "default", "room", identity, "/agent"]  # the tenant by its name
        for spawn, identity in ((first, "agent"), (second, "second"))
    ]
    assert [agent["id"] for agent in json.loads(await cli("ps", "--json", "--tenant", ACME))] == [first.id, second.id]
    assert f"id: {first.id}" in await cli("describe", first.id[:12])
    assert json.loads(await cli("describe", first.id, "--json"))["state"] == "running"
    assert "2 agents of 1 tenants" in (await cli("top")).splitlines()[0]
    assert json.loads(await cli("top", "--json"))["tenants"][0]["tenant"] == ACME
    assert await cli("stop", first.id[:12]) == f"agent {first.id} was asked to leave\n"
    await soon(first.wait_state(State.STOPPED))
    assert json.loads(await cli("kill", second.id, "--json"))["ok"]
    await soon(second.wait_state(State.STOPPED))
    said = f"tenant {ACME} is frozen until this host restarts: it has no ledger\n"
    assert await cli("freeze", ACME, "--force", "--reason", "abuse") == said
    assert "\tabuse\t" in await cli("tenants")
    assert (await hosted.call(acme)).status == 429
    await cli("thaw", ACME)
    assert (await hosted.call(acme)).status == 200
    await cli("drain", "--url", hosted.url)
    assert hosted.host.parts.intake.refuses is not None


@pytest.mark.parametrize(
    ("arguments", "environment", "said"),
    [
        (["ps"], {}, "cannot reach the service host at http://127.0.0.1:8081: is it running? see MESHHOST_HOST_URL"),
        (["ps", "--url", "ftp://x"], {}, "expected a URL"),
        (["ps"], {"MESHHOST_PORT": "1"}, "cannot reach the service host at http://127.0.0.1:1"),
        (["ps"], {"MESHHOST_HOST_URL": "{host}", "MESHHOST_ADMIN_KEY": "wrong"}, "401: the admin key is wrong"),
        (["describe", "x" * 32], {"MESHHOST_HOST_URL": "{host}"}, "404: no agent with this id"),
        (["describe", "abc"], {"MESHHOST_HOST_URL": "{host}"}, "at least 6 characters"),
        (["describe", "abcdef"], {"MESHHOST_HOST_URL": "{host}"}, "no agent with an id that begins like this"),
        (["ps", "--state", "asleep"], {"MESHHOST_HOST_URL": "{host}"}, "400: state: Input should be 'starting'"),
        (["release", ACME], {"MESHHOST_HOST_URL": "{host}"}, "404: this tenant is not in quarantine"),
        (["release", ACME, "--path", "/x"], {"MESHHOST_HOST_URL": "{host}"}, "404: this path of the tenant is not in"),
        (
            ["freeze", ACME, "--force", "--reason", "x" * 501],
            {"MESHHOST_HOST_URL": "{host}"},
            "400: reason: String should have",
        ),
        (["ps", "--url", "{server}"], {}, "is it a service host?"),
    ],
)
async def test_the_command_line_says_what_is_wrong(
    serve: Serve,
    acme: RunningServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    environment: dict[str, str],
    said: str,
) -> None:
    hosted = await serve(key=ADMIN_KEY)
    monkeypatch.setenv("MESHHOST_ADMIN_KEY", ADMIN_KEY)
    for name, value in environment.items():
        monkeypatch.setenv(name, value.replace("{host}", hosted.url))
    words = ["host", *(word.replace("{server}", acme.url) for word in arguments)]
    assert await asyncio.to_thread(run, words) in (1, 2)
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.err.count("\n") == 1, captured.err
    assert ADMIN_KEY not in captured.err


# The ledger


async def test_agents_come_back_with_the_host_and_those_that_ended_do_not(
    serve: Serve, acme: RunningServer, tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    ledger = tmp_path / "ledger.db"
    first = await serve(ledger=ledger)
    kept, ended = await first.started(acme, identity="kept"), await first.started(acme, identity="ended")
    await first.ask("DELETE", f"/agents/{ended.id}")
    await soon(ended.wait_state(State.STOPPED))
    await first.host.stop()
    assert kept.state is State.STOPPED

    cls = quiet()
    second = await serve({"/agent": cls}, ledger=str(ledger))
    [spawn] = second.host.agents
    await soon(spawn.wait_state(State.RUNNING))
    assert spawn.key == kept.key
    assert (await second.call(acme, identity="kept")).json["spawn_id"] == spawn.id
    assert len(cls.made) == 1
    assert await present(acme, http) == {("room", "kept"): 1}


async def test_what_cannot_live_any_more_is_dropped_and_logged(
    serve: Serve, acme: RunningServer, other: RunningServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = tmp_path / "ledger.db"
    first = await serve({"/agent": quiet(), "/gone": quiet()}, ledger=ledger)
    await first.started(acme, identity="expires", expiration=datetime.now(UTC) + timedelta(hours=1))
    await first.started(acme, path="/gone")
    await first.host.stop()
    with contextlib.closing(sqlite3.connect(ledger)) as connection, connection:
        rows = connection.execute(
            "SELECT id, call FROM spawns WHERE expires_at IS NOT NULL AND path = '/agent'"
        ).fetchall()
        for row, call in rows:
            expired = json.dumps(json.loads(call) | {"expires_at": 1.0})
            connection.execute("UPDATE spawns SET call = ? WHERE id = ?", (expired, row))

    second = await serve(ledger=ledger)
    assert second.host.agents == ()
    reasons = {record.reason for record in caplog.records if record.msg == "agent of the ledger is dropped"}
    assert reasons == {"its token has expired", "no agent at its path"}
    await second.host.stop()
    with contextlib.closing(sqlite3.connect(ledger)) as connection:
        assert connection.execute("SELECT count(*) FROM spawns").fetchone() == (0,)


async def test_agents_there_is_no_room_for_stay_in_the_ledger(
    serve: Serve, acme: RunningServer, tmp_path: Path
) -> None:
    ledger = tmp_path / "ledger.db"
    first = await serve(ledger=ledger)
    for number in range(3):
        await first.started(acme, identity=f"a{number}")
    await first.host.stop()
    small = await serve(ledger=ledger, max_agents=1)
    assert len(small.host.agents) == 1
    await small.host.stop()
    large = await serve(ledger=ledger)
    assert len(large.host.agents) == 3


async def test_a_ledger_that_is_in_use_or_none_keeps_a_host_from_starting(serve: Serve, tmp_path: Path) -> None:
    await serve(ledger=tmp_path / "ledger.db")
    with pytest.raises(SettingsError, match="in use"):
        await serve(ledger=tmp_path / "ledger.db")
    (tmp_path / "no.db").write_text("this is no database, but a text of some length" * 100)
    with pytest.raises(SettingsError, match="no host ledger"):
        await serve(ledger=tmp_path / "no.db")
    (tmp_path / "directory").mkdir()
    with pytest.raises(SettingsError, match="see MESHHOST_LEDGER"):
        await serve(ledger=tmp_path / "directory")


async def test_freezes_that_cannot_be_read_keep_a_host_from_starting_and_free_the_ledger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = ServiceHost(port=0, webhook_secret="", ledger=tmp_path / "ledger.db")

    async def fails() -> None:
        raise OSError("disk")

    monkeypatch.setattr(host.parts.tenancy.frozen, "restore", fails)
    with pytest.raises(SettingsError, match="ledger cannot be used: disk"):
        await host.start()
    again = ServiceHost(port=0, webhook_secret="", ledger=tmp_path / "ledger.db")
    await again.start()
    await again.stop()


async def test_the_ledger_is_off_or_in_the_data_directory_as_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MESHHOST_DATA_DIR", str(tmp_path / "data"))
    assert ServiceHost().parts.ledger is None
    monkeypatch.setenv("MESHHOST_LEDGER", "on")
    assert ServiceHost(ledger="").parts.ledger is None
    host = ServiceHost(port=0, webhook_secret="")
    await host.start()
    await host.stop()
    assert stat.S_IMODE((tmp_path / "data" / "host-ledger.db").stat().st_mode) == 0o600


PROGRAM = """
import asyncio
from meshhost.api.services import ServiceHost
from meshhost.testing.agents import QuietAgent

host = ServiceHost()


@host.path("/agent")
class Agent(QuietAgent):
    pass


@host.path("/isolated", isolation="process")
class Isolated(QuietAgent):
    pass


async def main():
    await host.start()
    print(host.port, flush=True)
    await asyncio.Event().wait()


asyncio.run(main())
"""


@asynccontextmanager
async def host_process(
    tmp_path: Path, server: RunningServer, http: aiohttp.ClientSession
) -> AsyncIterator[tuple[Any, Hosted]]:
    """A host with a ledger in a process of its own."""
    (tmp_path / "main.py").write_text(PROGRAM)
    environment = {
        **os.environ,
        "MESHHOST_API_URL": server.url,
        "MESHHOST_LEDGER": str(tmp_path / "ledger.db"),
        "MESHHOST_PORT": "0",
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "main.py", cwd=tmp_path, env=environment, stdout=asyncio.subprocess.PIPE
    )
    try:
        port = int(await soon(process.stdout.readline(), 30))
        yield process, Hosted(f"http://127.0.0.1:{port}", http)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def until_ready(hosted: Hosted) -> None:
    async with asyncio.timeout(30):
        while (await hosted.ask("GET", "/readyz")).status != 200:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.05)


async def all_running(hosted: Hosted, number: int) -> list[dict[str, Any]]:
    async with asyncio.timeout(30):
        while True:
            agents = await hosted.agents()
            if [agent["state"] for agent in agents] == ["running"] * number:
                return agents
            await asyncio.sleep(0.05)


@pytest.mark.slow
async def test_a_host_killed_under_its_agents_comes_back_with_exactly_those(
    acme: RunningServer, tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    keys = {("room-" + str(number % 4), f"agent-{number}") for number in range(100)}
    async with host_process(tmp_path, acme, http) as (process, hosted):
        calls = [hosted.call(acme, room=room, identity=identity) for room, identity in keys]
        calls += [hosted.call(acme, room=room, identity=identity) for room, identity in keys]
        assert {answer.status for answer in await asyncio.gather(*calls)} == {200}
        gone = (await hosted.call(acme, room="room-0", identity="gone")).json["spawn_id"]
        before = await all_running(hosted, 101)
        await hosted.ask("DELETE", f"/agents/{gone}")
        await all_running(hosted, 100)
        process.kill()
        await process.wait()
    async with host_process(tmp_path, acme, http) as (process, hosted):
        after = await all_running(hosted, 100)
        assert {(agent["room"], agent["identity"]) for agent in after} == keys
        assert {agent["id"] for agent in before}.isdisjoint(agent["id"] for agent in after)
        again = [await hosted.call(acme, room=room, identity=identity) for room, identity in keys]
        assert {answer.json["spawn_id"] for answer in again} == {agent["id"] for agent in after}
        async with asyncio.timeout(30):
            while await present(acme, http) != dict.fromkeys(keys, 1):  # noqa: ASYNC110 - asks another process
                await asyncio.sleep(0.05)


@pytest.mark.slow
async def test_what_was_answered_with_200_survives_a_kill_in_the_midst_of_calls(
    acme: RunningServer, tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    answered: set[str] = set()
    async with host_process(tmp_path, acme, http) as (process, hosted):

        async def one(identity: str) -> None:
            with contextlib.suppress(aiohttp.ClientError):
                if (await hosted.call(acme, identity=identity)).status == 200:
                    answered.add(identity)
                    if len(answered) == 10:
                        process.kill()

        await asyncio.gather(*(one(f"agent-{number}") for number in range(40)))
        await process.wait()
    assert len(answered) >= 10
    async with host_process(tmp_path, acme, http) as (process, hosted):
        there = Counter(agent["identity"] for agent in await hosted.agents())
        assert answered <= set(there)
        assert set(there.values()) == {1}


@pytest.mark.slow
async def test_the_memory_of_an_agent_with_a_process_is_shown_and_it_comes_back_too(
    acme: RunningServer, tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    for _ in range(2):
        async with host_process(tmp_path, acme, http) as (process, hosted):
            await until_ready(hosted)
            assert (await hosted.call(acme, path="/isolated")).status == 200
            [agent] = await all_running(hosted, 1)
            assert (agent["path"], agent["isolation"]) == ("/isolated", "process")
            assert agent["memory_bytes"] > 1024**2
            process.kill()
            await process.wait()


@pytest.mark.slow
async def test_a_frozen_tenant_is_frozen_still_after_a_kill_and_its_agents_are_back(
    acme: RunningServer, other: RunningServer, tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    async with host_process(tmp_path, acme, http) as (process, hosted):
        assert (await hosted.call(acme)).status == 200
        await all_running(hosted, 1)
        await hosted.ask("POST", f"/tenants/{OTHER}/freeze")
        await hosted.ask("POST", f"/tenants/{OTHER}/thaw")
        frozen = (await hosted.ask("POST", f"/tenants/{ACME}/freeze", json={"reason": "abuse"})).json["freeze"]
        process.kill()
        await process.wait()
    assert frozen["until_restart"] is False
    async with host_process(tmp_path, acme, http) as (process, hosted):
        [agent] = await all_running(hosted, 1)
        assert (agent["tenant"], agent["identity"]) == (ACME, "agent")
        [tenant] = (await hosted.ask("GET", "/tenants")).json["tenants"]
        assert (tenant["tenant"], tenant["freeze"]) == (ACME, frozen)
        refused = await hosted.call(acme, identity="new")
        assert (refused.status, "abuse" in refused.json["error"]) == (429, False)
        assert (await hosted.ask("POST", f"/tenants/{ACME}/thaw")).status == 200
        assert (await hosted.call(acme, identity="new")).status == 200
        process.kill()
        await process.wait()
    async with host_process(tmp_path, acme, http) as (process, hosted):
        assert (await hosted.call(acme, identity="newer")).status == 200

"""Rooms that wake for work, agents that are there exactly once, and requests that wait for them: real servers and hosts."""

import asyncio
import functools
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock

import aiohttp
import pytest
from doubles.ports import free_port

from meshhost.agents.context import AgentCallContext
from meshhost.agents.task_runner import TaskRunner
from meshhost.app.config_file import ServerFile
from meshhost.cli.connect import joined_room
from meshhost.errors import NotFoundError, RoomError, RoomRefusedError
from meshhost.hosting.service_host import ServiceHost
from meshhost.identity.called import ADDRESS_CLAIM, SERVICE_CLAIM
from meshhost.identity.grants import ApiScope
from meshhost.identity.keys import ApiKey, new_api_key
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.identity.tokens import ParticipantGrant, ParticipantToken
from meshhost.protocol.messages import JsonResponse
from meshhost.room.client import RoomClient
from meshhost.room.reconnect import is_final
from meshhost.room.services.queues import LeasedMessage
from meshhost.server.config import CallTimes, ConfiguredService, ServicePath
from meshhost.server.core.participants import Participant
from meshhost.server.services.agents.service import AgentsService
from meshhost.stores.queues import NewMessage, QueueKey
from meshhost.supervision.state import State
from meshhost.testing.agents import QuietAgent
from meshhost.testing.server import RunningServer, running_server
from meshhost.tools.hosting import RemoteToolkit
from meshhost.tools.tool import Tool, ToolContext
from meshhost.transport.websocket_client import WebSocketClientProtocol

SECRET = "a-webhook-secret-of-more-than-32-bytes"
NOTHING: dict[str, Any] = {"type": "object", "properties": {}}

Until = Callable[[Callable[[], bool]], Awaitable[None]]


class Taker(QuietAgent):
    """Takes messages from the queue `jobs`; the class keeps what it took."""

    taken: asyncio.Queue[Any]

    async def start(self, *, room: RoomClient) -> None:
        await super().start(room=room)
        self.task = asyncio.get_running_loop().create_task(self._take(room))

    async def stop(self) -> None:
        self.task.cancel()
        await super().stop()

    async def _take(self, room: RoomClient) -> None:
        while not room.is_closed:
            leased: LeasedMessage | None = None
            try:
                leased = await room.queues.lease(name="jobs")
            except RoomError:
                await asyncio.sleep(0.01)  # as a worker does: the connection comes back, or the room is closed
            if leased is not None:
                self.taken.put_nowait(leased.message)
                await leased.ack()


class Count(Tool):
    """Counts."""

    def __init__(self) -> None:
        super().__init__(name="count", input_schema=NOTHING)

    async def execute(self, *, context: ToolContext) -> JsonResponse:
        return JsonResponse(json={"count": 1})


class Counter(TaskRunner):
    """Starts slowly, then offers an agent and a toolkit."""

    delay = 0.2

    def __init__(self) -> None:
        super().__init__(name="counter", input_schema={"type": "object"})
        self.toolkit = RemoteToolkit(name="counting", tools=[Count()])

    async def start(self, *, room: RoomClient) -> None:
        await asyncio.sleep(self.delay)
        await super().start(room=room)
        await self.toolkit.start(room=room)

    async def stop(self) -> None:
        await self.toolkit.stop()
        await super().stop()

    async def ask(self, *, context: AgentCallContext, arguments: Any) -> Any:
        return {"asked": arguments}


@pytest.fixture
def port() -> int:
    """Where the room server will listen: it and the hosts must know of each other before both run."""
    return free_port()


@pytest.fixture
def serve(serve: Any) -> Any:
    """Room servers that call again at once."""
    return functools.partial(serve, call_times=CallTimes(first_delay=0.01))


@pytest.fixture(autouse=True)
def _fresh() -> None:
    Taker.taken = asyncio.Queue()
    Taker.made = []


Hosting = Callable[..., Any]


@pytest.fixture
def hosting(port: int) -> Hosting:
    """Run a service host with a taker and a counter; keyword arguments are those of ServiceHost."""

    @asynccontextmanager
    async def host(**options: Any) -> AsyncIterator[ServiceHost]:
        made = ServiceHost(port=0, webhook_secret=SECRET, allowed_room_urls=[f"http://127.0.0.1:{port}"], **options)
        made.add_path("/taker", cls=Taker, identity="taker")
        made.add_path("/counter", cls=Counter, identity="counter")
        await made.start()
        try:
            yield made
        finally:
            await made.stop()

    return host


def url(host: ServiceHost) -> str:
    return f"http://127.0.0.1:{host.port}"


def service(*hosts: ServiceHost, path: str = "taker", rooms: str = "*") -> ConfiguredService:
    first, *others = (url(host) for host in hosts)
    return ConfiguredService(
        first, [ServicePath(f"/{path}", path)], rooms=rooms, webhook_secret=SECRET, other_urls=others
    )


async def taken() -> Any:
    async with asyncio.timeout(15):
        return await Taker.taken.get()


# --- Work wakes a room and keeps it awake


async def test_a_message_of_one_who_leaves_at_once_is_worked_on(
    serve: Any, hosting: Hosting, port: int, until: Until
) -> None:
    async with hosting() as host, serve(port=port, services=[service(host)], linger_seconds=0.05) as server:
        for number in range(2):
            async with server.client() as user:
                await user.queues.send(name="jobs", message=number)
            assert await taken() == number
            await until(lambda: not server.server.rooms)


async def test_a_message_that_comes_while_the_agent_leaves_is_worked_on_at_once(
    serve: Any, hosting: Hosting, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    leaving, may_leave = asyncio.Event(), asyncio.Event()

    async def drain(_: Taker) -> None:
        leaving.set()
        await may_leave.wait()

    monkeypatch.setattr(Taker, "drain", drain, raising=False)
    async with hosting() as host, serve(port=port, services=[service(host)], linger_seconds=0.05) as server:
        async with server.client() as user:
            await user.queues.send(name="jobs", message="first")
        assert await taken() == "first"
        await leaving.wait()
        async with server.client() as user:
            await user.queues.send(name="jobs", message="second")
        async with asyncio.timeout(5):  # far below the 30 s that the server waits for a called agent
            assert await taken() == "second"
        assert len(Taker.made) == 2
        may_leave.set()


async def test_messages_that_come_just_as_their_room_ends_are_worked_on_at_once(
    serve: Any, hosting: Hosting, port: int
) -> None:
    async with hosting() as host, serve(port=port, services=[service(host)], linger_seconds=0.01) as server:
        async with server.client():
            key = server.server.rooms[0].key
        for number in range(30):
            message = NewMessage(json.dumps(number))
            await server.server.engines.queues.send(QueueKey(key, "jobs"), message)
            async with asyncio.timeout(5):
                assert await taken() == number
            await asyncio.sleep(0.008 + number * 0.0005)  # the room ends between 10 and 20 ms after its work


async def test_a_message_sent_by_nobody_in_the_room_wakes_it(
    serve: Any, hosting: Hosting, port: int, until: Until
) -> None:
    async with hosting() as host, serve(port=port, services=[service(host)], linger_seconds=0.05) as server:
        async with server.client():
            key = server.server.rooms[0].key
        await until(lambda: not server.server.rooms and not host.agents)
        await server.server.engines.queues.send(QueueKey(key, "jobs"), NewMessage('"by REST"'))
        assert await taken() == "by REST"


@pytest.mark.parametrize("why", ["paused", "behind a delayed one", "sent before"])
async def test_a_message_that_cannot_be_worked_on_wakes_no_room(
    serve: Any, hosting: Hosting, port: int, until: Until, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    async with hosting() as host, serve(port=port, services=[service(host)], linger_seconds=0.05) as server:
        queues, key = server.server.engines.queues, RoomKey(TenantId(server.key.project_id), "idle")
        jobs = QueueKey(key, "jobs")
        first = NewMessage('"first"', sender_id="first")
        await queues.send(jobs, first)
        assert await taken() == "first"
        await until(lambda: not server.server.rooms and not host.agents)
        caplog.clear()

        if why == "paused":
            await queues.configure(jobs, {"paused": True})
            await queues.send(jobs, NewMessage('"later"'))
        elif why == "behind a delayed one":
            await queues.send(jobs, NewMessage('"head"', key="k", delay=3600))
            await queues.send(jobs, NewMessage('"later"', key="k"))
        else:
            await queues.send(jobs, first)
        await queues.send(QueueKey(RoomKey(key.tenant, "busy"), "jobs"), NewMessage('"busy"'))
        assert await taken() == "busy"
        started = {record.room for record in caplog.records if record.message == "room started"}  # type: ignore[attr-defined]
        assert started == {"busy"}

        if why == "paused":
            await queues.configure(jobs, {"paused": False})
            assert await taken() == "later"


async def test_the_work_of_a_suspended_tenant_waits_until_it_is_resumed(
    serve: Any, hosting: Hosting, port: int, until: Until
) -> None:
    times = {"linger_seconds": 0.05, "look_seconds": 0.05}
    async with hosting() as host, serve(port=port, services=[service(host)], **times) as server:
        async with server.client():
            key = server.server.rooms[0].key
        await until(lambda: not server.server.rooms and not host.agents)
        engines = server.server.engines
        await engines.identity.suspend_project(key.tenant, "unpaid")
        await engines.queues.send(QueueKey(key, "jobs"), NewMessage('"paid"'))
        await asyncio.sleep(0.3)  # several looks for rooms with work
        assert (server.server.rooms, host.agents) == ([], ())
        await engines.identity.resume_project(key.tenant)
        assert await taken() == "paid"


async def test_a_room_stays_awake_until_a_host_can_be_reached(
    serve: Any, hosting: Hosting, port: int, until: Until
) -> None:
    async with hosting() as host:
        configured = service(host)
        await host.stop()
        async with serve(port=port, services=[configured], linger_seconds=0.02) as server:
            async with server.client() as user:
                await user.queues.send(name="jobs", message="patience")
            await asyncio.sleep(0.3)  # many times the lingering
            [room] = server.server.rooms
            assert room.members == {}
            async with server.client() as user:
                assert await user.queues.receive(name="jobs", wait=False) == "patience"
            await until(lambda: not server.server.rooms)


async def test_a_retry_that_comes_due_wakes_its_room(serve: Any, hosting: Hosting, port: int, until: Until) -> None:
    async with hosting() as host, serve(port=port, linger_seconds=0.05) as server:
        async with server.client() as user:
            await user.queues.send(name="jobs", message="later")
            leased = await user.queues.lease(name="jobs")
            assert leased is not None
            await leased.nack(delay=1.0)
        await until(lambda: not server.server.rooms)
        server.server.replace_services([service(host)])
        assert await taken() == "later"


async def test_after_a_restart_rooms_with_work_wake_by_themselves(
    hosting: Hosting, port: int, tmp_path: Path, until: Until
) -> None:
    key = new_api_key("11111111-2222-3333-4444-555555555555")
    file = ServerFile.model_validate({"server": {"linger_seconds": 0.05, "resume_seconds": 0.05}})
    async with running_server(tmp_path, port=port, key=key, file=file) as server:
        for room in ("a", "b"):
            async with server.client(room) as user:
                await user.queues.send(name="jobs", message=room)
        async with server.client("idle") as user:
            await user.queues.open(name="jobs")
    async with hosting() as host, _restarted(tmp_path, port, key, service(host), linger=0.05) as server:
        assert {await taken() for _ in range(2)} == {"a", "b"}
        await until(lambda: not server.server.rooms)
        assert {agent.room for agent in (made.call for made in Taker.made) if agent} == {"a", "b"}


# --- Looking does not wake


async def test_looking_wakes_nobody_and_sending_does(serve: Any, hosting: Hosting, port: int, until: Until) -> None:
    async with hosting() as host, serve(port=port, services=[service(host)], linger_seconds=0.05) as server:
        async with _looking(server) as looker:
            assert await looker.queues.list() == []
            [room] = server.server.rooms
            assert not room.is_awake
        await until(lambda: not server.server.rooms)
        assert (host.agents, Taker.made) == ((), [])
        async with _looking(server) as looker:
            await looker.queues.send(name="jobs", message=1)
            assert await taken() == 1


async def test_closed_rooms_are_listed_and_counted(serve: Any, until: Until, http: aiohttp.ClientSession) -> None:
    async with serve(linger_seconds=0.02) as server:
        async with server.client("closed") as user:
            await user.queues.send(name="jobs", message=1)
            leased = await user.queues.lease(name="jobs")
            assert leased is not None
            await leased.nack(delay=1000.0)
        await until(lambda: not server.server.rooms)
        project = f"{server.url}/accounts/projects/{server.key.project_id}"
        headers = {"Authorization": f"Bearer {server.api_key}"}
        async with http.post(f"{project}/rooms", json={"name": "made"}, headers=headers) as response:
            made = await response.json()
        async with server.client("open"):
            async with http.get(f"{project}/rooms?all=1", headers=headers) as response:
                rooms = (await response.json())["rooms"]
            async with http.get(f"{project}/rooms", headers=headers) as response:
                assert (await response.json())["rooms"] == [made | {"open": False}]
        assert [(room["name"], room["id"], room["open"]) for room in rooms] == [
            ("closed", None, False),
            ("made", made["id"], False),
            ("open", None, True),
        ]
        async with http.get(f"{server.url}/metrics") as response:
            assert 'meshhost_queue_messages{state="delayed"} 1.0' in await response.text()
        await until(lambda: not server.server.rooms)  # looking has woken none


# --- Requests wait for agents that are on their way


async def test_the_first_ask_and_tool_call_in_a_room_that_slept_are_answered(
    serve: Any, hosting: Hosting, port: int
) -> None:
    async with hosting() as host, serve(port=port, services=[service(host, path="counter")]) as server:
        async with server.client("a") as user:
            progress: list[dict[str, Any]] = []
            user.on("room.status", lambda **fields: progress.append(fields))
            assert await user.agents.ask(agent="counter", arguments={"a": 1}) == {"asked": {"a": 1}}
            assert [status["status"] for status in progress] == ["waiting"]
            assert progress[0]["message"].startswith("no agent 'counter' in this room yet: waiting up to 30 s")
            assert await user.agents.ask(agent="counter", arguments={"a": 2}) == {"asked": {"a": 2}}
            assert len(progress) == 1
        async with server.client("b") as user:
            answer = await user.agents.invoke_tool(toolkit="counting", tool="count", arguments={})
            assert answer == JsonResponse(json={"count": 1})
        async with _looking(server, "c") as user:
            assert await user.agents.ask(agent="counter", arguments={}) == {"asked": {}}


async def test_a_command_that_waits_for_an_agent_says_so(
    serve: Any, hosting: Hosting, port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    async with (
        hosting() as host,
        serve(port=port, services=[service(host, path="counter")]) as server,
        joined_room(server.url, "a", token=server.token("a")) as user,
    ):
        assert await user.agents.ask(agent="counter", arguments={"a": 1}) == {"asked": {"a": 1}}
    assert capsys.readouterr().err.startswith("meshhost: no agent 'counter' in this room yet: waiting up to 30 s")


async def test_a_request_whose_agent_did_not_come_in_time_says_that_it_was_waited_for(
    serve: Any, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meshhost.server.services.agents.service.ARRIVAL_SECONDS", 0.05)
    unreachable = ConfiguredService("http://127.0.0.1:1", [ServicePath("/counter", "counter")], webhook_secret=SECRET)
    async with serve(port=port, services=[unreachable]) as server, server.client("a") as user:
        with pytest.raises(NotFoundError, match="no agent 'counter' in this room") as caught:
            await user.agents.ask(agent="counter", arguments={})
    assert "none came within 0.05 s: `meshhost room services a` shows why" in str(caught.value)


async def test_what_nobody_can_offer_is_refused_at_once(serve: Any, hosting: Hosting, port: int) -> None:
    times = CallTimes(first_delay=0.01, start=0.3)
    async with AsyncExitStack() as stack:
        host = await stack.enter_async_context(hosting())
        services = [service(host, path="counter", rooms="r*")]
        server = await stack.enter_async_context(serve(port=port, services=services, call_times=times))
        async with asyncio.timeout(10):  # far below the 30 s that a request may wait
            async with server.client("other") as user:
                with pytest.raises(NotFoundError, match="no agent 'counter' in this room"):
                    await user.agents.ask(agent="counter", arguments={})
            async with server.client("room") as user:
                await user.agents.ask(agent="counter", arguments={})
                with pytest.raises(NotFoundError, match="no agent 'nobody' in this room"):
                    await user.agents.ask(agent="nobody", arguments={})
                with pytest.raises(NotFoundError, match="no toolkit 'nothing' in this room"):
                    await user.agents.invoke_tool(toolkit="nothing", tool="t", arguments={})


async def test_a_wait_ends_with_its_time_its_caller_or_its_connection(
    serve: Any, hosting: Hosting, port: int, until: Until
) -> None:
    async with hosting() as host:
        configured = service(host, path="counter")
        await host.stop()
        async with serve(port=port, services=[configured], call_seconds=0.3) as server, server.client() as user:
            with pytest.raises(NotFoundError):
                await user.agents.ask(agent="counter", arguments={})
        async with serve(port=port, services=[configured]) as server, server.client() as user:
            [room] = server.server.rooms
            arrivals = server.server.service(AgentsService).in_room(room).arrivals
            asking = [
                asyncio.ensure_future(user.agents.ask(agent="counter", arguments={})),
                asyncio.ensure_future(user.agents.invoke_tool(toolkit="counting", tool="count", arguments={})),
            ]
            await until(lambda: len(arrivals) == 2)
            assert await user.queues.list() == []  # waiting holds nobody up
            for ask in asking:
                ask.cancel()
            await until(lambda: len(arrivals) == 0)
            lost = asyncio.ensure_future(user.agents.ask(agent="counter", arguments={}))
            await until(lambda: len(arrivals) == 1)
            await user.close()
            await until(lambda: len(arrivals) == 0)
            with pytest.raises(Exception):  # noqa: B017, PT011 - which error a closed room gives is not the point
                await lost


# --- One agent for each path


async def test_after_a_restart_two_hosts_keep_one_agent_and_the_ledger_forgets_the_other(
    hosting: Hosting, port: int, tmp_path: Path, until: Until
) -> None:
    key = new_api_key("11111111-2222-3333-4444-555555555555")
    ledgers = [tmp_path / "a.db", tmp_path / "b.db"]
    async with AsyncExitStack() as stack:
        hosts = [await stack.enter_async_context(hosting(ledger=ledger)) for ledger in ledgers]
        # Both hosts have the agent: the second was called while the first could not be reached, and the first came back.
        for host in hosts:
            async with _restarted(tmp_path, port, key, service(host)) as server, server.client():
                await until(lambda host=host: len(host.agents) == 1)  # type: ignore[misc]
        async with _restarted(tmp_path, port, key, service(*hosts)) as server, server.client():
            [room] = server.server.rooms
            await until(lambda: sum(len(host.agents) for host in hosts) == 1)
            await until(lambda: [member.name for member in room.members.values()].count("taker") == 1)
            [record] = server.server.parts.caller.calls(room)
            await until(lambda: server.server.parts.caller.calls(room)[0]["is_present"])
            assert record["total"] == 0  # nobody was called: they came by themselves
            loser, winner = sorted(hosts, key=lambda host: len(host.agents))
            await loser.stop()
            again = await stack.enter_async_context(hosting(ledger=ledgers[hosts.index(loser)]))
            assert again.agents == ()
            assert len(winner.agents) == 1


async def test_an_agent_that_its_host_starts_again_is_refused_while_another_has_its_place(
    serve: Any, hosting: Hosting, port: int, until: Until
) -> None:
    async with hosting() as host, hosting() as other:
        both = service(host, other)
        async with serve(port=port, services=[both]) as server, server.client():
            first = await _agent(server, until)
            with pytest.raises(RoomRefusedError, match="another agent of the same service and path") as refused:
                async with _called_at(server, f"{url(other)}/taker"):
                    pass
            assert (refused.value.status, is_final(refused.value)) == (409, True)
            with pytest.raises(RoomRefusedError, match="no service that is configured") as refused:
                async with _called_at(server, f"{url(other)}/elsewhere"):
                    pass
            assert (refused.value.status, is_final(refused.value)) == (404, True)
            assert first.peer is not None
            assert not first.is_leaving


async def test_an_agent_that_comes_back_while_another_has_its_place_is_told_to_leave(
    serve: Any, hosting: Hosting, port: int, until: Until
) -> None:
    async with hosting() as host, hosting() as other:
        both = service(host, other)
        async with serve(port=port, services=[both]) as server, server.client():
            first = await _agent(server, until)
            extra = _called_at(server, f"{url(other)}/taker")
            dismissed = asyncio.Event()
            extra.messaging.on("message", lambda message: message.type == "dismiss" and dismissed.set())
            # It lost its connection to a server that has been restarted since.
            transport = await extra.protocol.connect(resume="of-a-former-life")
            monkey: Any = extra.protocol
            monkey.connect = AsyncMock(return_value=transport)
            async with extra, asyncio.timeout(10):
                await dismissed.wait()
            assert not first.is_leaving


async def test_an_agent_whose_connection_is_lost_gives_way_to_one_of_another_host(
    serve: Any, hosting: Hosting, port: int, until: Until
) -> None:
    async with hosting() as host, hosting() as other:
        both = service(host, other)
        async with serve(port=port, services=[both], resume_seconds=30.0) as server, server.client():
            first = await _agent(server, until)
            [agent] = host.agents
            agent.abort()
            await until(lambda: first.peer is None)
            async with _called_at(server, f"{url(other)}/taker") as second:
                assert second.local_participant.id in server.server.rooms[0].members


async def test_a_killed_host_that_is_back_takes_the_place_of_its_own_dead_connection(
    serve: Any, hosting: Hosting, port: int, until: Until
) -> None:
    async with hosting() as host, serve(port=port, services=[service(host)]) as server, server.client():
        dead = await _agent(server, until)  # the server has not noticed yet
        async with _called_at(server, f"{url(host)}/taker") as again:
            assert dead.is_leaving
            new = server.server.rooms[0].members[again.local_participant.id]
            assert not new.is_leaving


async def test_an_agent_whose_path_is_not_configured_any_more_is_dismissed(
    hosting: Hosting, port: int, tmp_path: Path, until: Until
) -> None:
    key = new_api_key("11111111-2222-3333-4444-555555555555")
    ledger = tmp_path / "ledger.db"
    async with hosting(ledger=ledger) as host:
        async with _restarted(tmp_path, port, key, service(host)) as server, server.client():
            await until(lambda: len(host.agents) == 1)
        async with _restarted(tmp_path, port, key, service(host, path="counter")) as server, server.client():
            # One that still starts when its server goes would wait for that server until its drain is over.
            await until(
                lambda: [(agent.key.path, agent.state) for agent in host.agents] == [("/counter", State.RUNNING)]
            )
    async with hosting(ledger=ledger) as host:
        assert [agent.key.path for agent in host.agents] == ["/counter"]


async def test_agents_that_a_host_brings_back_keep_no_room_open(
    serve: Any, hosting: Hosting, port: int, tmp_path: Path, until: Until
) -> None:
    ledger = tmp_path / "ledger.db"
    async with AsyncExitStack() as hosts:
        host = await hosts.enter_async_context(hosting(ledger=ledger))
        async with serve(port=port, services=[service(host)], linger_seconds=0.3, resume_seconds=0.1) as server:
            async with server.client():
                await until(lambda: bool(server.server.rooms and len(server.server.rooms[0].members) == 2))
                await host.stop()
                again = await hosts.enter_async_context(hosting(ledger=ledger))
                await until(lambda: len(server.server.rooms[0].members) == 2)
                [mine] = [member for member in server.server.rooms[0].members.values() if member.name == "taker"]
                assert mine.called_by_service
            await until(lambda: not server.server.rooms)
            await until(lambda: not again.agents)


async def test_an_agent_that_an_operator_stops_is_called_again_unless_it_is_kept_away(
    serve: Any,
    hosting: Hosting,
    port: int,
    until: Until,
    http: aiohttp.ClientSession,
) -> None:
    async with hosting() as host, serve(port=port, services=[service(host)]) as server, server.client():
        host.parts.pauses.retry_seconds = 0.05
        await _agent(server, until)
        [agent] = host.agents

        async def dismiss(query: str) -> tuple[int, Any]:
            async with http.delete(f"{url(host)}/agents/{agent.id}{query}") as response:
                return response.status, await response.json()

        for wrong in ("-1", "nan", "soon"):
            assert (await dismiss(f"?for={wrong}"))[0] == 400
        answer = {"ok": True, "spawn_id": agent.id, "called_again": True, "paused_seconds": None}
        assert await dismiss("") == (202, answer)
        await until(lambda: [other.id for other in host.agents] not in ([], [agent.id]))

        [agent] = host.agents
        assert (await dismiss("?for=1000"))[1]["paused_seconds"] == 1000.0
        calls, [room] = server.server.parts.caller.calls, server.server.rooms
        await until(lambda: "an operator stopped this agent" in (calls(room)[0]["error"] or ""))
        assert host.agents == ()
        assert (await dismiss("?for=0"))[0] == 202
        await until(lambda: len(host.agents) == 1)


async def _agent(server: RunningServer, until: Until) -> Participant:
    """The taker in the only room, when it is there."""
    [room] = server.server.rooms
    await until(lambda: any(member.name == "taker" for member in room.members.values()))
    [agent] = [member for member in room.members.values() if member.name == "taker"]
    return agent


def _called_at(server: RunningServer, address: str) -> RoomClient:
    """A client with the token that a call of this address brings."""
    [room] = server.server.rooms
    token = ParticipantToken(
        name="taker",
        grants=[
            ParticipantGrant(name="room", scope=room.key.name),
            ParticipantGrant(name="role", scope="agent"),
            ParticipantGrant(name="api", scope=ApiScope.agent_default()),
        ],
        extra_payload={SERVICE_CLAIM: True, ADDRESS_CLAIM: address},
    ).to_jwt(api_key=server.api_key)
    return RoomClient(protocol=WebSocketClientProtocol(url=room.url, token=token))


def _looking(server: RunningServer, room: str = "room") -> RoomClient:
    protocol = WebSocketClientProtocol(url=server.server.room_url(room), token=server.token(room), only_looks=True)
    return RoomClient(protocol=protocol)


@asynccontextmanager
async def _restarted(
    data: Path, port: int, key: ApiKey, configured: ConfiguredService, *, linger: float = 60.0
) -> AsyncIterator[RunningServer]:
    """A room server with this service over the same data."""
    secret = data / "secret"
    secret.write_text(SECRET)
    paths = [{"path": path.path, "identity": path.identity} for path in configured.paths]
    services = [{"urls": list(configured.all_urls), "secret_file": secret, "paths": paths}]
    tables = {"server": {"linger_seconds": linger, "resume_seconds": 3.0}, "services": services}
    async with running_server(data, port=port, key=key, file=ServerFile.model_validate(tables)) as server:
        yield server


@pytest.mark.parametrize("marker", ["lobby", ""], ids=["the room", "its tenant"])
async def test_what_is_being_imported_wakes_no_room_until_all_of_it_is_there(
    serve: Any, until: Until, marker: str
) -> None:
    async with serve() as server:
        tenant, engines = TenantId(server.key.project_id), server.server.engines
        lobby = RoomKey(tenant, "lobby")
        await engines.identity.import_until(RoomKey(tenant, marker), time.time() + 60)
        await engines.queues.send(QueueKey(lobby, "jobs"), NewMessage("1"))
        # Work of another room came after it, and its room is awake: this one was passed over.
        await engines.queues.send(QueueKey(RoomKey(TenantId("other"), "attic"), "jobs"), NewMessage("2"))
        await until(lambda: [room.key.name for room in server.server.rooms] == ["attic"])
        await engines.identity.end_import(RoomKey(tenant, marker), is_complete=True)
        await engines.queues.send(QueueKey(lobby, "jobs"), NewMessage("3"))
        await until(lambda: {room.key.name for room in server.server.rooms} == {"attic", "lobby"})

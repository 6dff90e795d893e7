"""Rooms that wake for work, agents that are there exactly once, and requests that wait for them: real servers and hosts."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from meshhost.agents.context import AgentCallContext
from meshhost.agents.task_runner import TaskRunner
from meshhost.app.config_file import ServerFile
from meshhost.errors import NotFoundError
from meshhost.hosting.service_host import ServiceHost
from meshhost.identity.keys import ApiKey, new_api_key
from meshhost.protocol.messages import JsonResponse
from meshhost.room.client import RoomClient
from meshhost.room.services.queues import LeasedMessage
from meshhost.server.config import ConfiguredService, ServicePath
from meshhost.server.services.agents.service import AgentsService
from meshhost.stores.queues import NewMessage, QueueKey
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
        while True:
            leased: LeasedMessage | None = await room.queues.lease(name="jobs")
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
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meshhost.server.calling.caller.FIRST_DELAY", 0.01)
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
            await until(lambda: not host.agents)


async def test_a_message_sent_by_nobody_in_the_room_wakes_it(
    serve: Any, hosting: Hosting, port: int, until: Until
) -> None:
    async with hosting() as host, serve(port=port, services=[service(host)], linger_seconds=0.05) as server:
        async with server.client():
            key = server.server.rooms[0].key
        await until(lambda: not server.server.rooms and not host.agents)
        await server.server._engines.queues.send(QueueKey(key, "jobs"), NewMessage('"by REST"'))
        assert await taken() == "by REST"


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
        server.server._parts.caller._services = [service(host)]
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
            assert await user.agents.ask(agent="counter", arguments={"a": 1}) == {"asked": {"a": 1}}
        async with server.client("b") as user:
            answer = await user.agents.invoke_tool(toolkit="counting", tool="count", arguments={})
            assert answer == JsonResponse(json={"count": 1})
        async with _looking(server, "c") as user:
            assert await user.agents.ask(agent="counter", arguments={}) == {"asked": {}}


async def test_what_nobody_can_offer_is_refused_at_once(
    serve: Any, hosting: Hosting, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meshhost.server.calling.kept.START_SECONDS", 0.3)
    async with hosting() as host, serve(port=port, services=[service(host, path="counter", rooms="r*")]) as server:
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
            [record] = server.server._parts.caller.calls(room)
            await until(lambda: server.server._parts.caller.calls(room)[0]["is_present"])
            assert record["total"] == 0  # nobody was called: they came by themselves
            loser, winner = sorted(hosts, key=lambda host: len(host.agents))
            await loser.stop()
            again = await stack.enter_async_context(hosting(ledger=ledgers[hosts.index(loser)]))
            assert again.agents == ()
            assert len(winner.agents) == 1


async def test_the_one_whose_connection_is_lost_gives_way(
    serve: Any, hosting: Hosting, port: int, until: Until, tmp_path: Path
) -> None:
    async with hosting() as host, hosting() as other:
        both = service(host, other)
        async with serve(port=port, services=[both], resume_seconds=30.0) as server, server.client():
            await until(lambda: len(host.agents) == 1)
            [room] = server.server.rooms
            await until(lambda: any(member.name == "taker" for member in room.members.values()))
            [first] = [member for member in room.members.values() if member.name == "taker"]
            caller = server.server._parts.caller
            token = caller._token(room.key, "taker", first.scope, called_at=f"{url(other)}/taker")
            async with RoomClient(protocol=WebSocketClientProtocol(url=room.url, token=token)) as extra:
                left = asyncio.Event()
                extra.messaging.on("message", lambda message: message.type == "dismiss" and left.set())
                # It may have been told before it listened; it is told again.
                async with asyncio.timeout(10):
                    await left.wait()
            assert first.peer is not None
            assert not first.is_leaving


async def test_an_agent_whose_path_is_not_configured_any_more_is_dismissed(
    hosting: Hosting, port: int, tmp_path: Path, until: Until
) -> None:
    key = new_api_key("11111111-2222-3333-4444-555555555555")
    ledger = tmp_path / "ledger.db"
    async with hosting(ledger=ledger) as host:
        async with _restarted(tmp_path, port, key, service(host)) as server, server.client():
            await until(lambda: len(host.agents) == 1)
        async with _restarted(tmp_path, port, key, service(host, path="counter")) as server, server.client():
            await until(lambda: [agent.key.path for agent in host.agents] == ["/counter"])
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

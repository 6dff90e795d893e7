"""Agents and toolkits of a real ServiceHost, called into the room by somebody in it, or by the room itself."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from doubles.ports import free_port

from meshhost.agents.agent import SingleRoomAgent
from meshhost.agents.context import AgentCallContext
from meshhost.agents.task_runner import TaskRunner
from meshhost.errors import AccessDeniedError, RoomError
from meshhost.hosting.service_host import ServiceHost
from meshhost.identity.grants import AgentsGrant, ApiScope, QueuesGrant, StorageGrant
from meshhost.protocol.messages import TextResponse
from meshhost.room.client import RoomClient
from meshhost.room.requirements import RequiredToolkit
from meshhost.server.config import ConfiguredService, ServicePath
from meshhost.server.services.agents.service import AgentsService
from meshhost.testing.server import RunningServer
from meshhost.tools.hosting import RemoteToolkit
from meshhost.tools.tool import Tool, ToolContext

NOTHING: dict[str, Any] = {"type": "object", "properties": {}}
SECRET = "a-webhook-secret-of-more-than-32-bytes"


class Greet(Tool):
    """Greets."""

    def __init__(self) -> None:
        super().__init__(name="greet", input_schema=NOTHING)

    async def execute(self, *, context: ToolContext) -> str:
        return "hello"


class Greeting(SingleRoomAgent):
    """Offers the toolkit `greeting` from start to stop."""

    def __init__(self) -> None:
        super().__init__(name="greeting")
        self.toolkit = RemoteToolkit(name="greeting", tools=[Greet()])

    async def start(self, *, room: RoomClient) -> None:
        await super().start(room=room)
        await self.toolkit.start(room=room)

    async def stop(self) -> None:
        await self.toolkit.stop()
        await super().stop()


class Greeter(TaskRunner):
    """Needs that toolkit to answer."""

    def __init__(self) -> None:
        super().__init__(name="greeter", input_schema=NOTHING, requires=[RequiredToolkit(name="greeting")])

    async def ask(self, *, context: AgentCallContext, arguments: Any) -> Any:
        [kit] = context.toolkits
        tools = ToolContext(room=context.room, caller=context.room.local_participant)
        answer = await kit.execute(context=tools, name="greet", arguments={})
        assert isinstance(answer, TextResponse)
        return answer.text


class Asked(TaskRunner):
    """Tells what it was asked."""

    def __init__(self) -> None:
        super().__init__(name="asked", input_schema={"type": "object"})

    async def ask(self, *, context: AgentCallContext, arguments: Any) -> Any:
        return arguments


class Curious(SingleRoomAgent):
    """Finds out what it may do; the class keeps what it found."""

    found: asyncio.Queue[dict[str, bool]]

    def __init__(self) -> None:
        super().__init__(name="curious")

    async def start(self, *, room: RoomClient) -> None:
        await super().start(room=room)
        tries = {
            "queues": room.queues.list(),
            "storage": room.storage.list(path=""),
            "agents": room.agents.list_agents(),
            "messaging": room.messaging.enable(),
        }
        may = {}
        for name, awaitable in tries.items():
            try:
                await awaitable
                may[name] = True
            except AccessDeniedError:
                may[name] = False
        self.found.put_nowait(may)


class Clerk(TaskRunner):
    """Answers which toolkits it was given."""

    async def ask(self, *, context: AgentCallContext, arguments: Any) -> Any:
        return [toolkit.name for toolkit in context.toolkits]


@pytest.fixture
def port() -> int:
    """Where the room server will listen: it and the host must know of each other before both run."""
    return free_port()


@pytest.fixture
async def host(port: int) -> AsyncIterator[ServiceHost]:
    Curious.found = asyncio.Queue()
    host = ServiceHost(port=0, webhook_secret=SECRET, allowed_room_urls=[f"http://127.0.0.1:{port}"])
    host.path("/toolkits/greeting", identity="greeting")(Greeting)
    host.path("/asked", identity="asked")(Asked)
    host.path("/curious", identity="curious")(Curious)
    await host.start()
    yield host
    await host.stop()


def url(host: ServiceHost, path: str) -> str:
    return f"http://127.0.0.1:{host.port}{path}"


async def test_the_toolkit_of_a_persons_browser_is_never_waited_for(server: RunningServer) -> None:
    async with server.client(name="greeter", role="agent") as room:
        agent = Clerk(name="clerk", requires=[RequiredToolkit(name="ui")])
        agent.install_seconds = 0.0
        await agent.start(room=room)
        assert await room.agents.ask(agent="clerk", arguments={}) == []
        await agent.stop()


async def test_a_required_toolkit_is_called_in_and_appears(serve: Any, host: ServiceHost, port: int) -> None:
    async with (
        serve(port=port, call_urls=[url(host, "/toolkits")], webhook_secret=SECRET) as server,
        server.client() as user,
        server.client(name="greeter", role="agent") as room,
    ):
        agent = Greeter()
        agent.built_in_url = url(host, "")  # by MeshAgent's convention port 8080 of this machine
        await agent.start(room=room)
        assert [kit.name for kit in await user.agents.list_toolkits()] == ["greeting"]
        assert await user.agents.ask(agent="greeter", arguments={}) == "hello"
        await agent.stop()


async def test_a_configured_agent_is_there_and_asked(serve: Any, host: ServiceHost, port: int, until: Any) -> None:
    service = ConfiguredService(url(host, ""), [ServicePath("/asked", "asked")], webhook_secret=SECRET)
    async with serve(port=port, services=[service]) as server, server.client() as user:
        room = server.server.rooms[0]
        await until(lambda: server.server.service(AgentsService).in_room(room).registry.agents)
        assert await user.agents.ask(agent="asked", arguments={"a": 1}) == {"a": 1}
        # An agent in use is drained with its host, and leaves the list.
        await host.stop()
        assert await user.agents.list_agents() == []


@pytest.mark.parametrize("path", ["/asked", "/toolkits/../asked", "/toolkitsx", "/toolkits%2F..%2Fasked", ""])
async def test_only_the_listed_urls_are_called(serve: Any, host: ServiceHost, port: int, path: str) -> None:
    async with (
        serve(port=port, call_urls=[url(host, "/toolkits")], webhook_secret=SECRET) as server,
        server.client() as user,
    ):
        with pytest.raises((AccessDeniedError, RoomError)):
            await user.agents.make_call(name="asked", url=url(host, path), arguments={})
        assert await user.agents.list_agents() == []
        assert len(server.server.rooms[0].members) == 1


@pytest.mark.parametrize(
    ("caller", "wanted", "expected"),
    [
        # No more than the caller has, whatever is asked for; and no more than is asked for, whatever the caller has.
        (ApiScope(agents=AgentsGrant(call=True), queues=QueuesGrant()), ApiScope.full(), {"queues", "agents"}),
        (ApiScope.full(), ApiScope(storage=StorageGrant()), {"storage"}),
        (ApiScope(agents=AgentsGrant(call=True), storage=StorageGrant()), ApiScope(queues=QueuesGrant()), set()),
        (ApiScope(agents=AgentsGrant(call=True)), None, {"agents"}),
    ],
)
async def test_who_is_called_in_may_do_what_both_allow(
    serve: Any, host: ServiceHost, port: int, caller: ApiScope, wanted: ApiScope | None, expected: set[str]
) -> None:
    async with (
        serve(port=port, call_urls=[url(host, "/curious")], webhook_secret=SECRET) as server,
        server.client(scope=caller) as user,
    ):
        await user.agents.make_call(name="curious", url=url(host, "/curious"), arguments={}, api=wanted)
        async with asyncio.timeout(10):
            may = await Curious.found.get()
        assert {name for name, allowed in may.items() if allowed} == expected


async def test_without_the_grant_nobody_is_called(serve: Any, host: ServiceHost, port: int) -> None:
    scope = ApiScope(agents=AgentsGrant(call=False))
    async with (
        serve(port=port, call_urls=[url(host, "/asked")], webhook_secret=SECRET) as server,
        server.client(scope=scope) as user,
    ):
        with pytest.raises(AccessDeniedError):
            await user.agents.make_call(name="asked", url=url(host, "/asked"), arguments={})

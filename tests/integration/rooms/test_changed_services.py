"""The configured services of a running server are replaced: what is gone ends, what is new is called, the rest stays."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from doubles.ports import free_port

from meshhost.errors import RoomRefusedError
from meshhost.hosting.service_host import ServiceHost
from meshhost.identity.called import ADDRESS_CLAIM, SERVICE_CLAIM
from meshhost.identity.grants import ApiScope
from meshhost.identity.tokens import ParticipantGrant, ParticipantToken
from meshhost.room.client import RoomClient
from meshhost.server.config import CallTimes, ConfiguredService, ServicePath
from meshhost.testing.agents import QuietAgent
from meshhost.testing.server import RunningServer
from meshhost.transport.websocket_client import WebSocketClientProtocol

SECRET = "a-webhook-secret-of-more-than-32-bytes"
Until = Callable[[Callable[[], bool]], Awaitable[None]]


@pytest.fixture
def port() -> int:
    """Where the room server will listen: the host must know before it runs."""
    return free_port()


@pytest.fixture
async def host(port: int) -> AsyncIterator[ServiceHost]:
    made = ServiceHost(port=0, webhook_secret=SECRET, allowed_room_urls=[f"http://127.0.0.1:{port}"])
    for name in ("first", "second", "third"):
        made.add_path(f"/{name}", cls=QuietAgent, identity=name)
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def server(serve: Any, host: ServiceHost, port: int) -> AsyncIterator[RunningServer]:
    times = CallTimes(first_delay=0.01)
    services = [service(host, "first", "second")]
    async with serve(port=port, services=services, call_times=times, linger_seconds=0.05) as running:
        yield running


def service(host: ServiceHost, *paths: str, rooms: str = "*", **more: Any) -> ConfiguredService:
    named = [ServicePath(f"/{path}", path) for path in paths]
    return ConfiguredService(f"http://127.0.0.1:{host.port}", named, rooms=rooms, webhook_secret=SECRET, **more)


def agents(host: ServiceHost) -> dict[str, str]:
    """Paths and spawn ids of the host's agents."""
    return {agent.key.path.removeprefix("/"): agent.id for agent in host.agents}


async def test_a_path_that_is_gone_ends_its_agents_and_a_new_one_is_called(
    server: RunningServer, host: ServiceHost, until: Until
) -> None:
    async with server.client():
        [room] = server.server.rooms
        await until(lambda: sorted(member.name for member in room.members.values()) == ["first", "second", "tester"])
        before = agents(host)

        server.server.replace_services([service(host, "second", "third")])

        await until(lambda: sorted(agents(host)) == ["second", "third"])
        assert agents(host)["second"] == before["second"]
        calls = {call["identity"]: call["total"] for call in server.server.parts.caller.calls(room)}
        assert calls == {"second": 1, "third": 1}
        await until(lambda: sorted(member.name for member in room.members.values()) == ["second", "tester", "third"])


async def test_without_services_every_called_agent_ends_and_the_room_with_them(
    server: RunningServer, host: ServiceHost, until: Until
) -> None:
    async with server.client():
        await until(lambda: len(host.agents) == 2)
        server.server.replace_services([])
        await until(lambda: not host.agents)
        server.server.replace_services([service(host, "third")])
        await until(lambda: list(agents(host)) == ["third"])
    await until(lambda: not server.server.rooms and not host.agents)


async def test_a_service_leaves_the_rooms_that_its_pattern_no_longer_matches(
    server: RunningServer, host: ServiceHost, until: Until
) -> None:
    async with server.client("lobby"), server.client("attic"):
        await until(lambda: len(host.agents) == 4)
        server.server.replace_services([service(host, "first", "second", rooms="at*")])
        await until(lambda: [agent.key.room.name for agent in host.agents] == ["attic", "attic"])


async def test_a_changed_service_keeps_the_agents_that_it_still_has(
    server: RunningServer, host: ServiceHost, until: Until
) -> None:
    async with server.client():
        [room] = server.server.rooms
        await until(lambda: len(room.members) == 3)
        before = agents(host)
        changed = service(host, "first", "second", other_urls=["http://127.0.0.1:9"])

        server.server.replace_services([changed])

        calls = server.server.parts.caller.calls
        await until(lambda: [(call["total"], call["joined_at"] is not None) for call in calls(room)] == [(0, True)] * 2)
        assert agents(host) == before


async def test_an_agent_that_was_on_its_way_when_its_path_was_removed_is_refused(
    server: RunningServer, host: ServiceHost, until: Until
) -> None:
    async with server.client():
        [room] = server.server.rooms
        await until(lambda: len(room.members) == 3)
        token = _token_of_a_call(server, host, "first")
        server.server.replace_services([])
        await until(lambda: not host.agents)
        status, text = await _joined_late(server, token)
        assert (status, "no service that is configured" in text) == (404, True)


def _token_of_a_call(server: RunningServer, host: ServiceHost, name: str) -> str:
    grants = [
        ParticipantGrant(name="room", scope="room"),
        ParticipantGrant(name="role", scope="agent"),
        ParticipantGrant(name="api", scope=ApiScope.agent_default()),
    ]
    claims = {SERVICE_CLAIM: True, ADDRESS_CLAIM: f"http://127.0.0.1:{host.port}/{name}"}
    return ParticipantToken(name=name, grants=grants, extra_payload=claims).to_jwt(api_key=server.api_key)


async def _joined_late(server: RunningServer, token: str) -> tuple[int | None, str]:
    protocol = WebSocketClientProtocol(url=server.server.room_url("room"), token=token)
    with pytest.raises(RoomRefusedError) as refused:
        async with RoomClient(protocol=protocol):
            pass
    return refused.value.status, str(refused.value)

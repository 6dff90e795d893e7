"""Hosts that dial in: called over their link, with agents that take part over it, without an address of their own."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aiohttp
import pytest
from pydantic import ValidationError

from meshhost.agents.agent import SingleRoomAgent
from meshhost.agents.worker import Worker
from meshhost.errors import ConnectionLostError, RoomRefusedError, SettingsError
from meshhost.hosting.service_host import ServiceHost
from meshhost.identity.keys import ApiKey, encode_api_key
from meshhost.link.core import GoodbyeCode
from meshhost.link.dialling import LinkDialler, LinkedRoom
from meshhost.link.frames import Kind, pack, pack_count, unpack, unpack_reason
from meshhost.link.greeting import Hello, Welcome, packed, read_welcome
from meshhost.link.rooms import HOST_REQUEST, Announcement, HostPath, RoomRequest, dumped
from meshhost.link.running import Link
from meshhost.protocol.connection import RoomConnection
from meshhost.room.client import RoomClient
from meshhost.server.calling import linked as linked_hosts
from meshhost.server.config import ConfiguredService, LinkConfig, ServicePath
from meshhost.testing.server import RunningServer
from meshhost.transport.websocket_client import WebSocketClientProtocol

Until = Callable[[Callable[[], bool]], Any]
LINKS = LinkConfig(resume_seconds=1.0)


class Idle(SingleRoomAgent):
    """Does nothing."""

    def __init__(self) -> None:
        super().__init__(name="idle")


class Sums(Worker):
    """Adds numbers up."""

    def __init__(self) -> None:
        super().__init__(queue="sums")

    async def process_message(self, *, message: dict[str, Any]) -> int:
        return int(message["a"]) + int(message["b"])


@asynccontextmanager
async def linked(server: RunningServer, *, name: str = "agents", **options: Any) -> AsyncIterator[ServiceHost]:
    """A host that dials in, with the agent of each test."""
    options.setdefault("api_key", server.api_key)
    host = ServiceHost(name=name, room_server=server.url, **options)
    host.add_path("/idle", cls=Idle, identity="idle")
    host.add_path("/sums", cls=Sums, identity="sums")
    await host.start()
    try:
        yield host
    finally:
        await host.stop()


def names(server: RunningServer, room: str) -> list[str]:
    """Who is in the room now."""
    return [member.name for each in server.server.rooms if each.key.name == room for member in each.connected()]


async def test_a_host_that_listens_nowhere_works_for_rooms_over_its_link(serve: Any, until: Until) -> None:
    async with serve(links=LINKS) as server, linked(server, rooms=["room"]) as host:
        assert host.port == 0
        async with server.client("room") as room:
            assert await room.queues.send("sums", {"a": 20, "b": 22}, reply=True) == 42
        assert sorted(agent.key.identity for agent in host.agents) == ["idle", "sums"]
        assert host.is_linked


async def test_a_room_that_a_host_names_wakes_when_it_dials_in(serve: Any, until: Until) -> None:
    async with serve(links=LINKS) as server, linked(server, rooms=["room"]):
        await until(lambda: "idle" in names(server, "room"))


async def test_a_configured_service_takes_hosts_with_the_labels_that_it_requires(
    serve: Any, until: Until, stack: AsyncExitStack
) -> None:
    service = ConfiguredService(
        url="link://agents", paths=[ServicePath("/idle", "idle")], rooms="r*", requires={"gpu": "true"}
    )
    async with serve(links=LINKS, services=[service]) as server, linked(server):
        calling = server.server.parts.caller
        await until(lambda: len(server.server.parts.linked) == 1)
        await stack.enter_async_context(server.client("r1"))
        room = server.server.rooms[0]
        await until(lambda: bool(calling.calls(room)[0]["attempts"]))
        record = calling.calls(room)[0]
        assert record["outcome"] == "refused"
        assert "lacks the label gpu=true" in record["error"]
        async with linked(server, labels={"gpu": "true"}):
            await until(lambda: "idle" in names(server, "r1"))
            assert calling.calls(room)[0]["url"].startswith("link://")


async def test_the_next_host_is_called_when_one_refuses(serve: Any, until: Until) -> None:
    async with serve(links=LINKS) as server, linked(server, max_agents=100_000) as frozen:
        await until(lambda: len(server.server.parts.linked) == 1)
        await frozen.parts.tenancy.frozen.freeze(server.key.project_id)
        async with linked(server, rooms=["room"]) as willing, server.client("room"):
            await until(lambda: {"idle", "sums"} <= set(names(server, "room")))
            assert len(willing.agents) == 2
            # It has more room, so it was asked first.
            [asked] = [host for host in server.server.parts.linked if host.refused_until]
            assert asked.announced.max_agents == 100_000


async def test_two_hosts_of_one_path_share_the_agents(serve: Any, until: Until, stack: AsyncExitStack) -> None:
    service = ConfiguredService(url="link://agents", paths=[ServicePath("/idle", "idle")], rooms="r-*")
    async with serve(links=LINKS, services=[service]) as server, linked(server) as one, linked(server) as two:
        await until(lambda: len(server.server.parts.linked) == 2)
        for number in range(60):
            await stack.enter_async_context(server.client(f"r-{number}"))
        await until(lambda: len(one.agents) + len(two.agents) == 60)
        assert abs(len(one.agents) - len(two.agents)) <= 6


async def test_a_lost_connection_goes_on_with_all_agents_where_it_was(serve: Any, until: Until) -> None:
    async with serve(links=LINKS) as server, linked(server, rooms=["room"]) as host:
        async with server.client("room") as room:
            await until(lambda: {"idle", "sums"} <= set(names(server, "room")))
            before = {member.name: member.peer for each in server.server.rooms for member in each.connected()}
            link = dialler_of(host).link
            link.cut()
            assert await room.queues.send("sums", {"a": 1, "b": 2}, reply=True) == 3
            await until(lambda: link.greetings == 2)
            after = {member.name: member.peer for each in server.server.rooms for member in each.connected()}
        assert dialler_of(host).link is link
        assert link.greetings == 2
        assert after == before


async def test_the_agents_of_a_host_that_is_gone_are_called_at_another(serve: Any, until: Until) -> None:
    async with serve(links=LinkConfig(resume_seconds=0.2)) as server:
        lost = linked(server, rooms=["room"])
        host = await lost.__aenter__()
        try:
            async with server.client("room"):
                await until(lambda: "idle" in names(server, "room"))
                async with linked(server, rooms=["room"]) as other:
                    await vanish(host)
                    await until(lambda: {agent.key.identity for agent in other.agents} == {"idle", "sums"})
                    await until(lambda: {"idle", "sums"} <= set(names(server, "room")))
        finally:
            await lost.__aexit__(None, None, None)


async def test_agents_come_back_over_a_new_link_when_the_server_was_restarted(serve: Any, until: Until) -> None:
    async with AsyncExitStack() as hosts:
        async with serve(links=LINKS) as first:
            host = await hosts.enter_async_context(linked(first, rooms=["room"]))
            async with first.client("room"):
                await until(lambda: {"idle", "sums"} <= set(names(first, "room")))
            port, ids = first.server.port, {agent.id for agent in host.agents}
        async with serve(links=LINKS, port=port, return_seconds=5.0) as second, second.client("room"):
            await until(lambda: {"idle", "sums"} <= set(names(second, "room")))
            await asyncio.sleep(0.3)  # whether one is told to leave
            assert {agent.id for agent in host.agents} == ids
            assert sorted(names(second, "room")) == ["idle", "sums", "tester"]


async def test_without_links_turned_on_a_host_is_refused_and_says_so(serve: Any, until: Until) -> None:
    async with serve() as server, linked(server) as host:
        await until(lambda: dialler_of(host).refusal is not None)
        assert "room serve --links" in str(dialler_of(host).refusal)


async def test_a_link_needs_a_key_that_is_known(serve: Any, http: aiohttp.ClientSession) -> None:
    async with serve(links=LINKS) as server:
        for headers in ({}, {"Authorization": "Bearer ma-nobody"}, {"Authorization": f"Bearer {server.token('room')}"}):
            async with http.get(f"{server.url}/link", headers=headers) as response:
                assert response.status == 401


async def test_over_the_link_of_a_tenant_nobody_of_another_tenant_comes(serve: Any, other_key: ApiKey) -> None:
    async with serve(links=LINKS) as server, dialled(server, encode_api_key(other_key)) as dialler:
        protocol = LinkedRoom(dialler, room="room", url=server.server.room_url("room"), token=server.token("room"))
        with pytest.raises(RoomRefusedError) as caught:
            await RoomClient(protocol=protocol).connect()
        assert caught.value.status == 403
        wrong = LinkedRoom(dialler, room="room", url=server.server.room_url("room"), token="nonsense")
        with pytest.raises(RoomRefusedError) as caught:
            await RoomClient(protocol=wrong).connect()
        assert caught.value.status == 401


async def test_over_the_operators_link_participants_of_every_tenant_come(serve: Any, until: Until) -> None:
    operator = "operator-key-of-32-characters-xx"
    async with serve(links=LINKS, operator_key=operator) as server, dialled(server, operator) as dialler:
        protocol = LinkedRoom(dialler, room="room", url=server.server.room_url("room"), token=server.token("room"))
        async with RoomClient(protocol=protocol) as room:
            await room.storage.upload(path="large", data=b"x" * 3_000_000)
            assert len((await room.storage.download(path="large")).data) == 3_000_000
        await until(lambda: names(server, "room") == [])


async def test_a_link_ends_when_its_key_is_revoked(serve: Any, until: Until) -> None:
    async with serve(links=LINKS) as server:
        key = await server.server.engines.identity.create_key(server.key.project_id, name="host", description="")
        async with linked(server, rooms=["room"], api_key=encode_api_key(key)) as host:
            await until(lambda: host.is_linked)
            await server.server.engines.identity.delete_key(key.project_id, key.id)
            await until(lambda: dialler_of(host).refusal is not None)
            assert dialler_of(host).refusal.status == 401
            assert len(server.server.parts.linked) == 0


async def test_a_key_that_is_revoked_before_the_greeting_opens_no_link(serve: Any, http: aiohttp.ClientSession) -> None:
    async with serve(links=LINKS) as server:
        identity = server.server.engines.identity
        key = await identity.create_key(server.key.project_id, name="host", description="")
        headers = {"Authorization": f"Bearer {encode_api_key(key)}"}
        async with http.ws_connect(f"{server.url}/link", headers=headers) as socket:
            await identity.delete_key(key.project_id, key.id)
            await socket.send_bytes(packed(Hello()))
            [(kind, _, payload)] = unpack(await socket.receive_bytes(timeout=5))
        assert kind is Kind.GOODBYE
        assert unpack_reason(payload)[0] == GoodbyeCode.ACCESS_REVOKED


async def test_a_link_goes_on_when_the_answer_to_its_greeting_was_lost(serve: Any, http: aiohttp.ClientSession) -> None:
    async with serve(links=LinkConfig(resume_seconds=10)) as server:

        async def greeted(hello: Hello, *, sends: bytes = b"") -> Welcome:
            headers = {"Authorization": f"Bearer {server.api_key}"}
            async with http.ws_connect(f"{server.url}/link", headers=headers) as socket:
                await socket.send_bytes(packed(hello))
                [(_, _, payload)] = unpack(await socket.receive_bytes(timeout=5))
                if sends:
                    await socket.send_bytes(sends)
                    await socket.receive_bytes(timeout=5)
            return read_welcome(payload)

        first = await greeted(Hello())
        lost = await greeted(Hello(token=first.token))
        again = await greeted(Hello(token=first.token))
        assert lost.resumed
        assert again.resumed
        await greeted(Hello(token=again.token), sends=pack(Kind.PING, 0, pack_count(0)))
        # It has arrived: the one before is of no use any more.
        assert not (await greeted(Hello(token=again.token))).resumed


async def test_a_tenant_has_a_bounded_number_of_links(serve: Any, until: Until) -> None:
    async with serve(links=LinkConfig(max_per_tenant=1)) as server, linked(server) as first, linked(server) as second:
        await until(lambda: first.is_linked or second.is_linked)
        refused = second if first.is_linked else first
        await until(lambda: dialler_of(refused).refusal is not None)
        assert dialler_of(refused).refusal.status == 429


async def test_a_host_that_announces_itself_wrongly_is_told_what_is_wrong(serve: Any) -> None:
    async with serve(links=LINKS) as server, dialled(server, server.api_key) as dialler:
        for message, text in (
            (b"nonsense", "Invalid JSON"),
            (b'{"type": "report"}', "expected announce first"),
            (b'{"type": "announce", "name": "a b", "host": "abcdef", "paths": [], "max_agents": 1}', "name"),
            # A number that the shares of hosts cannot be reckoned with.
            (
                b'{"type": "announce", "name": "a", "host": "abcdef", "paths": [], "max_agents": 1%s}' % (b"0" * 400),
                "max_agents",
            ),
        ):
            channel = await dialler.open(HOST_REQUEST)
            await channel.send((message,))
            with pytest.raises(ConnectionLostError, match=text) as caught:
                await channel.receive()
            assert caught.value.close_code == 1008
        assert len(server.server.parts.linked) == 0
        with pytest.raises(RoomRefusedError, match="kind"):
            await dialler.open(b'{"kind": "other"}')


async def test_the_hosts_of_a_tenant_ask_for_a_bounded_number_of_agents(
    serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linked_hosts, "_MAX_SERVED", 1500)
    paths = [HostPath(path=f"/{number}", identity="a") for number in range(10)]
    most = Announcement(name="first", host="host1", paths=paths, rooms=["r*"] * 100, max_agents=1)
    async with serve(links=LINKS) as server, dialled(server, server.api_key) as dialler:
        first, second = [await dialler.open(HOST_REQUEST) for _ in range(2)]
        await first.send((dumped(most),))
        await second.send((dumped(most.model_copy(update={"name": "second"})),))
        with pytest.raises(ConnectionLostError, match="rooms: the hosts of this tenant ask for over 1500"):
            await second.receive()
        assert [host.announced.name for host in server.server.parts.linked] == ["first"]
    with pytest.raises(ValidationError, match="each path counts in each of the rooms"):
        Announcement(name="a", host="host1", paths=[*paths, *paths], rooms=["r*"] * 100, max_agents=1)


async def test_a_link_has_a_bounded_number_of_hosts(serve: Any, until: Until) -> None:
    async with serve(links=LINKS) as server, dialled(server, server.api_key) as dialler:
        channels = [await dialler.open(HOST_REQUEST) for _ in range(8)]
        with pytest.raises(RoomRefusedError) as caught:
            await dialler.open(HOST_REQUEST)
        assert caught.value.status == 429
        for number, channel in enumerate(channels):
            announced = Announcement(name="many", host=f"host{number}", paths=[], max_agents=10)
            await channel.send((dumped(announced),))
        await until(lambda: len(server.server.parts.linked) == 8)
        await channels[0].close()
        await until(lambda: len(server.server.parts.linked) == 7)
        await dialler.open(HOST_REQUEST)


async def test_a_host_that_does_not_answer_is_waited_for_with_a_bound(serve: Any, until: Until) -> None:
    async with serve(links=LinkConfig(call_seconds=0.2)) as server, dialled(server, server.api_key) as dialler:
        channel = await dialler.open(HOST_REQUEST)
        paths = [HostPath(path="/idle", identity="idle")]
        announced = Announcement(name="deaf", host="abcdef", paths=paths, rooms=["room"], max_agents=10)
        await channel.send((dumped(announced),))
        await until(lambda: len(server.server.rooms) == 1)
        [room] = server.server.rooms
        calling = server.server.parts.caller
        await until(lambda: bool(calling.calls(room)[0]["attempts"]))
        assert "no answer within 0.2 s" in calling.calls(room)[0]["error"]
        [host] = server.server.parts.linked
        assert host.agents == 0


async def test_a_participant_that_reads_nothing_holds_up_nobody_of_its_link(serve: Any) -> None:
    async with serve(links=LINKS) as server, dialled(server, server.api_key) as dialler:
        url = server.server.room_url("room")
        quick = LinkedRoom(dialler, room="room", url=url, token=server.token("room", name="quick"))
        slow = RoomRequest(room="room", token=server.token("room", name="slow"))
        channel = await dialler.open(dumped(slow))
        async with RoomClient(protocol=quick) as room:
            await room.storage.upload(path="large", data=b"x" * 2_000_000)
            # It asks for much, and never reads it: more than the credit of its channel.
            asking = RoomConnection()
            for _ in range(5):
                await channel.send(asking.request("storage.download", {"path": "large"})[1])
            async with asyncio.timeout(10):
                for _ in range(5):
                    assert len((await room.storage.download(path="large")).data) == 2_000_000
        channel.abort()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"room_server": "ftp://nowhere", "api_key": "k"}, "room_server: expected a URL"),
        ({"room_server": "http://nowhere", "api_key": ""}, "needs an API key"),
        ({"room_server": "http://nowhere", "api_key": "k", "rooms": "room"}, "rooms: expected a list"),
        ({"room_server": "http://nowhere", "api_key": "k", "labels": {"gpu": True}}, "labels: expected texts"),
        ({"room_server": "http://nowhere", "api_key": "k", "name": "my agents"}, "name: a host that dials in"),
    ],
)
def test_what_is_wrong_is_refused_when_the_host_is_made(options: dict[str, Any], text: str) -> None:
    with pytest.raises(SettingsError, match=text):
        ServiceHost(**options)


def dialler_of(host: ServiceHost) -> LinkDialler:
    link = host.parts.link
    assert link is not None
    assert link.dialler is not None
    return link.dialler


async def vanish(host: ServiceHost) -> None:
    """Cut the link of a host so that it does not come back, as if its process had been killed."""
    link = host.parts.link
    assert link is not None
    present = dialler_of(host).link
    present.core.end(0, "")  # without a word to the other side
    present.core._unsequenced.clear()
    present.cut()
    await link.stop()


@asynccontextmanager
async def dialled(server: RunningServer, key: str) -> AsyncIterator[LinkDialler]:
    """A link without a host."""

    def new(_: Link) -> None:
        pass

    url = f"{server.url.replace('http', 'ws')}/link"
    dialler = LinkDialler(WebSocketClientProtocol(url=url, token=key), on_new=new)
    running = asyncio.create_task(dialler.run())
    try:
        yield dialler
    finally:
        running.cancel()
        await asyncio.wait({running})

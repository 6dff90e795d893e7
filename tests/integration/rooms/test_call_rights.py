"""What a participant can get by calling an agent into a room: no more than it has itself, and nobody's place."""

import asyncio
import functools
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest

from meshhost.errors import AccessDeniedError, RoomRefusedError
from meshhost.identity.grants import (
    AgentsGrant,
    ApiScope,
    QueuesGrant,
    StorageGrant,
    StoragePathGrant,
)
from meshhost.identity.tokens import ParticipantToken
from meshhost.room.client import RoomClient
from meshhost.server.config import CallTimes, ConfiguredService, ServicePath
from meshhost.transport.websocket_client import WebSocketClientProtocol
from tests.integration.rooms.called_host import SECRET, CalledHost, agent_of, called_host

CALLER = ApiScope(agents=AgentsGrant())
SCHEMA = "http://localhost:8080/schemas/thread"


@pytest.fixture
async def host() -> AsyncIterator[CalledHost]:
    async with called_host() as host:
        yield host


@pytest.fixture
def serve(serve: Any, host: CalledHost) -> Any:
    """Make room servers that may call the host, and keep its agent `worker` in each room whose name begins with `kept`."""
    service = ConfiguredService(
        url=host.url, paths=[ServicePath("/worker", "worker")], rooms="kept*", webhook_secret=SECRET
    )
    return functools.partial(
        serve,
        services=[service],
        call_urls=[host.url],
        webhook_secret=SECRET,
        call_times=CallTimes(first_delay=0.01),
    )


async def call(room: RoomClient, url: str, name: str = "worker") -> None:
    await room.agents.make_call(name=name, url=url, arguments={})


def token_of(data: dict[str, Any]) -> ParticipantToken:
    return ParticipantToken.from_jwt(data["token"], validate=False)


async def test_the_identity_of_a_configured_agent_is_not_called_elsewhere(serve: Any, host: CalledHost) -> None:
    async with serve() as server, server.client("kept", scope=CALLER) as caller:
        _, _, data = await host.events.get()
        async with agent_of(data):
            for path in ("/worker/", "/other", "/worker?x=1", "/WORKER"):
                with pytest.raises(AccessDeniedError, match=r"worker.*configured"):
                    await call(caller, host.url + path)
            assert host.events.empty()
            await call(caller, f"{host.url}/other", name="another")
            assert (await host.events.get())[0] == "/other"


async def test_a_call_of_the_same_configuration_is_the_servers_own(serve: Any, host: CalledHost) -> None:
    async with serve() as server, server.client("kept", scope=CALLER) as caller:
        _, _, data = await host.events.get()
        async with agent_of(data):
            # Nothing is sent: the agent would get a weaker token for the one that it has.
            await call(caller, f"{host.url}/worker")
            assert host.events.empty()


async def test_who_administers_a_room_may_replace_its_agents(serve: Any, host: CalledHost) -> None:
    async with serve() as server, server.client("kept", scope=ApiScope.full()) as caller:
        _, _, data = await host.events.get()
        async with agent_of(data):
            await call(caller, f"{host.url}/other")
            assert (await host.events.get())[0] == "/other"


async def test_in_a_room_that_the_service_does_not_want_its_identity_is_free(serve: Any, host: CalledHost) -> None:
    async with serve() as server, server.client("free", scope=CALLER) as caller:
        await call(caller, f"{host.url}/worker")
        assert (await host.events.get())[0] == "/worker"


async def test_the_token_of_a_called_agent_ends_with_the_token_of_its_caller(serve: Any, host: CalledHost) -> None:
    ends = datetime.now(UTC) + timedelta(seconds=60)
    async with serve() as server:
        async with server.client("free", scope=CALLER, expiration=ends) as caller:
            await call(caller, f"{host.url}/x", name="x")
        token = token_of((await host.events.get())[2])
        assert token.expires_at is not None
        assert token.expires_at <= ends
        async with server.client("free", scope=CALLER) as caller:
            await call(caller, f"{host.url}/x", name="x")
        longer = token_of((await host.events.get())[2])
        assert longer.expires_at is not None
        assert longer.expires_at > ends


async def test_a_called_agent_ends_with_the_key_of_its_caller(
    serve: Any, host: CalledHost, http: aiohttp.ClientSession
) -> None:
    async with serve() as server:
        headers = {"Authorization": f"Bearer {server.api_key}"}
        keys = f"{server.url}/accounts/projects/{server.key.project_id}/api-keys"
        async with http.post(keys, json={"name": "k", "description": ""}, headers=headers) as answer:
            made = await answer.json()
        token = ParticipantToken(name="caller")
        token.add_room_grant("free")
        token.add_api_grant(CALLER)
        jwt = token.to_jwt(api_key=made["value"])
        caller = RoomClient(protocol=WebSocketClientProtocol(url=server.server.room_url("free"), token=jwt))
        async with caller:
            await call(caller, f"{host.url}/x", name="x")
            _, _, data = await host.events.get()
            agent = agent_of(data)
            async with agent:
                assert token_of(data).api_key_id == made["id"]
                async with http.delete(f"{keys}/{made['id']}", headers=headers) as answer:
                    assert answer.status < 300
                assert (await agent.wait_closed()).error is not None
        with pytest.raises(RoomRefusedError):
            async with agent_of(data):
                pass


async def test_an_agent_that_was_called_keeps_its_token_when_one_with_fewer_rights_calls_it(
    serve: Any, host: CalledHost, until: Any
) -> None:
    wide = ApiScope(agents=AgentsGrant(), queues=QueuesGrant())
    soon = datetime.now(UTC) + timedelta(seconds=60)
    async with (
        serve() as server,
        server.client("free", name="wide", scope=wide) as owner,
        server.client("free", name="narrow", scope=CALLER) as narrow,
        server.client("free", name="brief", scope=wide, expiration=soon) as brief,
    ):
        await call(owner, f"{host.url}/x", name="x")
        _, _, data = await host.events.get()
        async with agent_of(data):
            for other in (narrow, brief):
                await call(other, f"{host.url}/x", name="x")  # it is there: nothing is sent
                with pytest.raises(AccessDeniedError, match="in the room"):
                    await call(other, f"{host.url}/y", name="x")
            assert host.events.empty()
            # With the same rights it may be called again, and elsewhere.
            for path in ("/x", "/y"):
                await call(owner, host.url + path, name="x")
                assert (await host.events.get())[0] == path
        await until(lambda: all(member.name != "x" for member in server.server.rooms[0].connected()))
        await call(narrow, f"{host.url}/x", name="x")
        assert (await host.events.get())[0] == "/x"


async def test_an_agent_keeps_its_token_from_a_call_made_before_it_is_back_after_a_restart_of_the_server(
    serve: Any, host: CalledHost
) -> None:
    wide = ApiScope(agents=AgentsGrant(), queues=QueuesGrant())
    async with serve() as server, server.client("free", name="wide", scope=wide) as owner:
        await call(owner, f"{host.url}/x", name="x")
        _, _, data = await host.events.get()
    async with serve(return_seconds=30.0) as again, again.client("free", name="narrow", scope=CALLER) as narrow:
        calling = asyncio.create_task(call(narrow, f"{host.url}/x", name="x"))
        done, _ = await asyncio.wait([calling], timeout=0.2)
        assert not done
        assert host.events.empty()
        async with agent_of({**data, "room_url": f"{again.url}/rooms/free"}):
            await calling  # it is there: nothing is sent
            assert host.events.empty()


async def test_an_agent_keeps_its_token_while_it_has_lost_its_connection(serve: Any, host: CalledHost) -> None:
    wide = ApiScope(agents=AgentsGrant(), queues=QueuesGrant())
    async with (
        serve(resume_seconds=30.0) as server,
        server.client("free", name="wide", scope=wide) as owner,
        server.client("free", name="narrow", scope=CALLER) as narrow,
    ):
        await call(owner, f"{host.url}/x", name="x")
        _, _, data = await host.events.get()
        async with agent_of(data):
            [member] = [each for each in server.server.rooms[0].connected() if each.name == "x"]
            peer, member.peer = member.peer, None
            calling = asyncio.create_task(call(narrow, f"{host.url}/x", name="x"))
            done, _ = await asyncio.wait([calling], timeout=0.2)
            assert not done
            member.peer = peer
            server.server.rooms[0].changed()
            await calling
            assert host.events.empty()


async def test_no_agent_is_called_under_the_name_of_somebody_in_the_room(serve: Any, host: CalledHost) -> None:
    async with serve() as server, server.client("free", name="ada"), server.client("free", name="eve") as caller:
        with pytest.raises(AccessDeniedError, match="in the room"):
            await call(caller, f"{host.url}/x", name="ada")
        assert host.events.empty()


async def test_without_a_grant_for_files_a_call_neither_writes_nor_finds_any(serve: Any) -> None:
    folder = StoragePathGrant(path=".schemas", read_only=True)
    scopes = [
        CALLER,
        CALLER.model_copy(update={"storage": StorageGrant(paths=[])}),
        CALLER.model_copy(update={"storage": StorageGrant(paths=[folder])}),
    ]
    async with serve() as server, server.client("free") as owner:
        for scope in scopes:
            async with server.client("free", scope=scope) as caller:
                with pytest.raises(AccessDeniedError):
                    await call(caller, SCHEMA, name="thread")
        assert await owner.storage.list(path=".schemas") == []
        async with server.client("free", role="agent", scope=ApiScope.agent_default()) as agent:
            await call(agent, SCHEMA, name="thread")
        assert [entry.name for entry in await owner.storage.list(path=".schemas")] == ["thread.json"]
        async with server.client("free", scope=scopes[0]) as caller:
            with pytest.raises(AccessDeniedError):
                await call(caller, SCHEMA, name="thread")
        async with server.client("free", scope=scopes[2]) as caller:
            await call(caller, SCHEMA, name="thread")


async def test_a_call_does_not_tell_which_toolkits_there_are(serve: Any) -> None:
    async with serve() as server, server.client("free") as owner:
        for name, public in (("public", True), ("private", False)):
            request = {"name": name, "public": public, "tools": {}}
            await owner.send_request("agent.register_toolkit", request)
        async with server.client("free", name="a", scope=CALLER) as caller:
            await call(caller, "http://localhost:8080/toolkits/public")
            refusals = [await refusal(caller, f"http://localhost:8080/toolkits/{name}") for name in ("private", "none")]
            assert refusals[0].replace("private", "none") == refusals[1]
        limited = ApiScope(agents=AgentsGrant(allowed_toolkits=[]))
        async with server.client("free", name="b", scope=limited) as caller:
            with pytest.raises(AccessDeniedError):
                await call(caller, "http://localhost:8080/toolkits/public")


async def test_refusals_do_not_tell_open_addresses_from_closed_ones(serve: Any, host: CalledHost) -> None:
    urls = [host.url, "http://127.0.0.1:1", "http://no-such-host.invalid", "http://127.0.0.1:1/worker"]
    async with serve(call_urls=["http://127.0.0.1:2/agents"]) as server:
        for room, scope in (("free", CALLER), ("kept", CALLER), ("free", ApiScope(agents=AgentsGrant(call=False)))):
            async with server.client(room, name="caller", scope=scope) as caller:
                if room == "kept":
                    await host.events.get()
                texts = {(await refusal(caller, url, "worker")).replace(url, "URL") for url in urls}
                assert len(texts) == 1
        assert host.events.empty()


async def refusal(room: RoomClient, url: str, name: str = "x") -> str:
    with pytest.raises(AccessDeniedError) as caught:
        await call(room, url, name)
    return str(caught.value)

"""Who comes back, who does not, and what becomes of what they held."""

from typing import Any

import aiohttp
import pytest

from meshhost.errors import LimitExceededError
from meshhost.identity.keys import new_api_key
from meshhost.identity.tokens import ParticipantGrant, ParticipantToken
from meshhost.protocol.connection import RoomConnection
from meshhost.stores.queues import QueueLimits
from meshhost.testing.server import RunningServer


async def old_client(
    server: RunningServer, http: aiohttp.ClientSession, **token: Any
) -> aiohttp.ClientWebSocketResponse:
    """A connection as a MeshAgent client opens it: the token in the URL, nothing known of resuming."""
    jwt = server.token("room", **token)
    return await http.ws_connect(f"{server.url}/rooms/room", params={"token": jwt})


async def ask(socket: aiohttp.ClientWebSocketResponse, type: str, header: dict[str, Any]) -> None:
    for packet in RoomConnection().request(type, header)[1]:
        await socket.send_bytes(packet)


async def reply(socket: aiohttp.ClientWebSocketResponse) -> Any:
    """The next `__response__`."""
    connection = RoomConnection()
    connection.request("ask", {})
    async for message in socket:
        event = connection.receive(message.data)
        if event is not None and hasattr(event, "response"):
            return event.response
    raise AssertionError("closed without a reply")


async def test_a_client_that_cannot_resume_is_gone_as_soon_as_its_connection_breaks(serve: Any, until: Any) -> None:
    http = aiohttp.ClientSession()
    async with serve(resume_seconds=1000) as server, server.client() as a:
        await old_client(server, http, name="old", role="agent")
        [room] = server.server.rooms
        await until(lambda: len(room.members) == 2)
        await http.close()  # closes the TCP connection, without a close frame
        await until(lambda: len(room.members) == 1)
        assert a.is_open


@pytest.mark.parametrize("code", [4000, 4001, 4004])
async def test_a_client_that_closes_with_a_code_of_the_servers_is_gone(
    serve: Any, http: aiohttp.ClientSession, until: Any, code: int
) -> None:
    async with serve(resume_seconds=1000) as server, server.client():
        socket = await old_client(server, http, name="old", role="agent")
        [room] = server.server.rooms
        await until(lambda: len(room.members) == 2)
        await socket.close(code=code)
        await until(lambda: len(room.members) == 1)


async def test_a_server_that_stops_gives_the_message_of_a_user_back(serve: Any, http: aiohttp.ClientSession) -> None:
    async with serve() as server, server.client() as a:
        await a.queues.send(name="q", message=1)
        socket = await old_client(server, http, name="old", role="user")
        await ask(socket, "queues.receive", {"name": "q", "create": True, "wait": True})
        assert (await reply(socket)).json == 1
        [queue] = await a.queues.list()
        assert queue.size == 0
        released = server.server.engines.queues
        await server.server.stop()
        [stats] = await released.stats(server.server.rooms[0].key)
        assert (stats.ready, stats.leased) == (1, 0)


async def test_a_token_of_the_servers_own_secret_speaks_for_one_project_only(serve: Any) -> None:
    async with serve(default_secret="x" * 40) as server:
        token = ParticipantToken(name="p", grants=[ParticipantGrant(name="room", scope="room")])
        token.project_id = new_api_key("99999999-2222-3333-4444-555555555555").project_id
        jwt = token.to_jwt(token="x" * 40)
        async with aiohttp.ClientSession() as http, http.ws_connect(f"{server.url}/rooms/room", params={"token": jwt}):
            [room] = server.server.rooms
            assert room.key.tenant == "default"


async def test_a_message_over_the_queues_limit_is_refused_by_its_own_error(serve: Any) -> None:
    async with serve(limits=QueueLimits(max_message_bytes=100)) as server, server.client() as a:
        with pytest.raises(LimitExceededError, match="at most 100"):
            await a.queues.send(name="q", message="x" * 200)
        assert a.is_open

"""A hundred agents of one host, and the room server dies under them."""

import asyncio
import signal
from typing import Any

import aiohttp
import pytest

from meshhost.identity.keys import parse_api_key
from meshhost.identity.tokens import ParticipantGrant, ParticipantToken

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

AGENTS = {f"agent-{number}" for number in range(100)}
PROGRAM = """
import asyncio
from meshhost.api.services import ServiceHost
from meshhost.otel import otel_config
from meshhost.testing.agents import QuietAgent

otel_config(service_name="many")
host = ServiceHost()
host.add_path("/agent", cls=QuietAgent)
asyncio.run(host.run())
"""


async def call(http: aiohttp.ClientSession, home: Any, port: str, identity: str) -> None:
    token = ParticipantToken(
        name=identity,
        grants=[ParticipantGrant(name="room", scope="many"), ParticipantGrant(name="role", scope="agent")],
    )
    data = {
        "room_name": "many",
        "room_url": f"ws://127.0.0.1:{home.port}/rooms/many",
        "token": token.to_jwt(api_key=home.environment["MESHHOST_API_KEY"]),
        "arguments": {},
    }
    body = {"event": "room.call", "data": data}
    async with http.post(f"http://127.0.0.1:{port}/agent", json=body) as answer:
        assert answer.status == 200, await answer.text()


async def until_present(http: aiohttp.ClientSession, home: Any) -> None:
    """Ask the room server until it sees each agent once."""
    key = home.environment["MESHHOST_API_KEY"]
    url = f"http://127.0.0.1:{home.port}/accounts/projects/{parse_api_key(key).project_id}/sessions/active"
    async with asyncio.timeout(60):
        while True:
            async with http.get(url, headers={"Authorization": f"Bearer {key}"}) as answer:
                sessions = (await answer.json())["sessions"]
            names = [participant["name"] for session in sessions for participant in session["participants"]]
            if sorted(names) == sorted(AGENTS):
                return
            await asyncio.sleep(0.1)


async def agents_of(http: aiohttp.ClientSession, port: str) -> dict[str, int]:
    """Spawn ids and how often each was started again."""
    async with http.get(f"http://127.0.0.1:{port}/agents") as answer:
        return {agent["id"]: agent["restarts"] for agent in (await answer.json())["agents"]}


async def test_a_restarted_room_server_sees_all_its_agents_again_without_a_new_call(home: Any) -> None:
    (home.directory / "many.py").write_text(PROGRAM)
    async with home.room_server() as server, home.running("many.py") as host, aiohttp.ClientSession() as http:
        ready = await host.line("service host ready")
        port = next(word.partition("=")[2] for word in ready.split() if word.startswith("port="))
        async with asyncio.TaskGroup() as tasks:
            for identity in AGENTS:
                tasks.create_task(call(http, home, port, identity))
        await until_present(http, home)
        before = await agents_of(http, port)

        server.signal(signal.SIGKILL)
        await server.exit_code()
        async with home.room_server():
            await until_present(http, home)

        assert await agents_of(http, port) == before
        assert set(before.values()) == {0}

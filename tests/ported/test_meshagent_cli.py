"""The unmodified MeshAgent command line does its work in our rooms; what it cannot do here, it is told clearly."""

import asyncio
import contextlib
import json
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from doubles.ports import free_port

from meshhost.agents import TaskRunner
from meshhost.agents.context import AgentCallContext
from meshhost.app.config_file import ServerFile
from meshhost.hosting.service_host import ServiceHost
from meshhost.protocol.messages import JsonResponse
from meshhost.room.client import RoomClient
from meshhost.testing.server import RunningServer, running_server
from meshhost.tools import Tool, ToolContext
from meshhost.tools.hosting import RemoteToolkit

pytestmark = [pytest.mark.slow, pytest.mark.timeout(720)]

PROGRAM = Path(__file__).parent / "programs" / "main.py"
NUMBERS: dict[str, Any] = {
    "type": "object",
    "required": ["a", "b"],
    "additionalProperties": False,
    "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
}


class Add(Tool):
    """Adds two numbers."""

    def __init__(self) -> None:
        super().__init__(name="add", title="Add", description="adds", input_schema=NUMBERS)

    async def execute(self, context: ToolContext, *, a: int, b: int) -> dict[str, int]:
        return {"sum": a + b}


class Adder(TaskRunner):
    """Adds two numbers when it is asked."""

    def __init__(self) -> None:
        super().__init__(name="adder", input_schema=NUMBERS, labels=["math"])

    async def ask(self, *, context: AgentCallContext, arguments: Any) -> Any:
        return {"sum": arguments["a"] + arguments["b"]}


@pytest.fixture
async def agent(server: RunningServer) -> AsyncIterator[RoomClient]:
    """An agent and a toolkit of ours in the room."""
    async with server.client(name="adder", role="agent") as room:
        kit, agent = RemoteToolkit(name="math", tools=[Add()]), Adder()
        await room.messaging.enable()
        await kit.start(room=room)
        await agent.start(room=room)
        yield room
        await agent.stop()
        await kit.stop()


def printed(said: Any) -> Any:
    """The JSON at the end of what was printed."""
    text = said.out
    return json.loads(text[min(at for at in (text.find("["), text.find("{")) if at >= 0) :])


@pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)
async def test_a_message_is_sent_and_received(cli: Any) -> None:
    sent = await cli.in_room("queue", "send", "--queue", "jobs", "--json", '{"n": 1}')
    assert sent.code == 0, sent
    received = await cli.in_room("queue", "receive", "--queue", "jobs")
    assert (received.code, received.out.strip()) == (0, "{'n': 1}")
    again = await cli.in_room("queue", "receive", "--queue", "jobs")
    assert (again.code, again.out.strip()) == (1, "Queue did not contain any messages.")


async def test_our_agents_and_tools_are_found_and_used(cli: Any, agent: RoomClient) -> None:
    cards = {card["name"]: card for card in printed(await cli.in_room("agents", "list-agents"))}
    assert cards["adder"]["labels"] == ["math"]
    # The SDK asks nobody who is not listed, so those that come when they are asked are listed, too.
    assert {name for name in cards if name != "adder"} >= {"meshagent.planner", "meshagent.schema_planner"}
    [kit] = printed(await cli.in_room("agents", "list-toolkits"))
    assert [kit["name"], kit["tools"][0]["name"], kit["tools"][0]["input_schema"]] == ["math", "add", NUMBERS]

    async def ask(arguments: str) -> Any:
        return await cli.in_room("agents", "ask", "--agent", "adder", "--input", arguments)

    async def invoke(arguments: str) -> Any:
        return await cli.in_room("agents", "invoke-tool", "--toolkit=math", "--tool=add", "--arguments", arguments)

    good, bad = '{"a": 1, "b": 2}', '{"a": 1}'
    assert printed(await ask(good)) == {"sum": 3}
    assert "{'sum': 3}" in (await invoke(good)).out
    for said in (await ask(bad), await invoke(bad)):
        assert "b: is required" in said.out + said.err


async def test_files_are_copied_and_listed(cli: Any, agent: RoomClient) -> None:
    (cli.home / "poem.txt").write_text("größer")
    assert (await cli.in_room("storage", "cp", "poem.txt", "room://poems/")).code == 0
    assert (await agent.storage.download(path="poems/poem.txt")).data.decode() == "größer"
    assert "'poems/poem.txt' exists" in (await cli.in_room("storage", "exists", "poems/poem.txt")).out
    assert "poem.txt" in (await cli.in_room("storage", "ls", "-r", "room://")).out
    assert (await cli.in_room("storage", "cp", "room://poems/poem.txt", "copy.txt")).code == 0
    assert (cli.home / "copy.txt").read_text() == "größer"


async def test_messages_reach_participants(cli: Any, agent: RoomClient) -> None:
    heard: asyncio.Queue[Any] = asyncio.Queue()
    agent.messaging.on("message", lambda message: heard.put_nowait(message.message))
    me = agent.local_participant.id
    [listed] = printed(await cli.in_room("messaging", "list-participants"))
    assert (listed["id"], listed["attributes"]["name"]) == (me, "adder")
    assert (await cli.in_room("messaging", "broadcast", "--data", '{"to": "all"}')).code == 0
    send = ("--to-participant-id", me, "--type", "t", "--data", '{"to": "you"}')
    assert (await cli.in_room("messaging", "send", *send)).code == 0
    assert [await heard.get(), await heard.get()] == [{"to": "all"}, {"to": "you"}]


async def test_projects_keys_and_rooms_are_managed(cli: Any) -> None:
    assert cli.project in (await cli("project", "list")).out
    assert (await cli("project", "activate", cli.project)).code == 0
    assert "ma-" in (await cli("api-key", "create", "second")).out
    assert "second" in (await cli("api-key", "list")).out
    made = printed(await cli("room", "create", "--name", "other"))
    assert printed(await cli("room", "list")) == [made]
    assert printed(await cli("room", "get", "--name", "other")) == made
    assert (await cli("room", "delete", "--name", "other")).code == 0
    assert printed(await cli("room", "list")) == []


async def test_service_run_brings_a_program_of_the_sdk_into_our_room(cli: Any, server: RunningServer) -> None:
    shutil.copy(PROGRAM, cli.home)
    run = ("service", "run", "main.py", "--room", "room", "--key", server.api_key, "--project-id", cli.project)
    process = await cli.spawn(cli.command, *run)
    try:
        async with server.client() as user:
            await used(user)
    finally:
        process.send_signal(signal.SIGINT)
        try:
            async with asyncio.timeout(10):
                await process.communicate()
        except TimeoutError:
            process.kill()
            await process.communicate()


async def used(user: RoomClient) -> None:
    """Wait for the program's agent and toolkit, and use them."""
    async with asyncio.timeout(60):
        while not (await user.agents.list_agents() and await user.agents.list_toolkits()):  # noqa: ASYNC110 - no event
            await asyncio.sleep(0.05)
    assert await user.agents.ask(agent="sdk-agent", arguments={"a": 1}) == {"echo": {"a": 1}}
    answer = await user.agents.invoke_tool(toolkit="sdk-toolkit", tool="say", arguments={"b": 2})
    assert answer == JsonResponse(json={"said": {"b": 2}})


@asynccontextmanager
async def sdk_host(cli: Any) -> AsyncIterator[str]:
    """The program, running by itself; gives the URL of its host."""
    port = free_port()
    cli.environment["MESHAGENT_PORT"] = str(port)
    process = await cli.spawn(cli.command.with_name("python"), str(PROGRAM))
    try:
        async with asyncio.timeout(30):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except OSError:
                    await asyncio.sleep(0.05)
                    continue
                writer.close()
                break
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        await process.communicate()


async def test_our_room_calls_agents_of_the_sdks_host(cli: Any, tmp_path: Path) -> None:
    async with sdk_host(cli) as url:
        file = ServerFile.model_validate({"server": {"call_urls": [url]}})
        async with running_server(tmp_path / "calling", file=file) as server, server.client() as user:
            await user.agents.make_call(name="sdk-agent", url=f"{url}/agent", arguments={})
            await user.agents.make_call(name="sdk-toolkit", url=f"{url}/toolkit", arguments={})
            await used(user)


async def test_call_agent_brings_an_agent_of_our_host_into_the_room(cli: Any, server: RunningServer) -> None:
    host = ServiceHost(port=0, webhook_secret="", allowed_room_urls=[server.url])
    host.path("/adder", identity="adder")(Adder)
    await host.start()
    try:
        async with server.client() as user:
            url = f"http://127.0.0.1:{host.port}/adder"
            call = ("--participant-name", "adder", "--url", url, "--key", server.api_key)
            assert (await cli.in_room("call", "agent", *call)).code == 0
            async with asyncio.timeout(20):
                while not await user.agents.list_agents():  # noqa: ASYNC110 - no event
                    await asyncio.sleep(0.05)
            assert await user.agents.ask(agent="adder", arguments={"a": 1, "b": 2}) == {"sum": 3}
    finally:
        await host.stop()


async def test_the_developer_log_is_watched(cli: Any, agent: RoomClient) -> None:
    cli.environment["PYTHONUNBUFFERED"] = "1"
    process = await cli.spawn(cli.command, "developer", "watch", "--project-id", cli.project, "--room", "room")
    assert process.stdout is not None
    seen = ""
    try:
        async with asyncio.timeout(30):
            while "a-thing-that-happened" not in seen:
                await agent.developer.log(type="a-thing-that-happened", data={"n": 1})
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.2):
                        seen += (await process.stdout.read(65536)).decode()
    finally:
        process.kill()
        await process.communicate()


# What a tenant configures


async def test_secrets_are_made_listed_replaced_and_deleted(cli: Any) -> None:
    own = ("--project-id", cli.project)
    made = await cli("secret", "keys", "create", *own, "--name", "weather", "--data", "KEY=sk-1 URL=u")
    assert (made.code, "Created keys secret" in made.out) == (0, True)
    secret_id = made.out.split()[-1]
    listed = await cli("secret", "list", *own)
    assert (listed.code, "weather" in listed.out, "sk-1" in listed.out) == (0, True, False)
    changed = ("secret", "keys", "update", *own, "--secret-id", secret_id, "--name", "other", "--data", "KEY=sk-2")
    assert (await cli(*changed)).code == 0
    docker = ("--name", "d", "--server", "s", "--username", "u", "--password", "p")
    refused = await cli("secret", "docker", "create", *own, *docker)
    assert (refused.code, "501, message='meshhost pulls no images" in refused.err) == (1, True)
    assert (await cli("secret", "delete", *own, secret_id)).code == 0
    assert "other" not in (await cli("secret", "list", *own)).out


WEBHOOKS = """
import asyncio, json, os
from meshagent.api.client import Meshagent

async def main():
    project = os.environ["PROJECT"]
    client = Meshagent(base_url=os.environ["MESHAGENT_API_URL"], token=os.environ["MESHAGENT_API_KEY"])
    made = await client.create_webhook(project, name="w", url="http://127.0.0.1:9/x", events=["room.started"], payload=None)
    listed = await client.list_webhooks(project)
    changed = await client.update_webhook(project, made["id"], name="w", url=made["url"], events=["room.ended"])
    await client.delete_webhook(project, made["id"])
    print(json.dumps([made, listed, changed, await client.list_webhooks(project)]))
    await client.close()

asyncio.run(main())
"""


async def test_webhooks_are_made_listed_changed_and_deleted(cli: Any) -> None:
    # By the client: `meshagent webhook create` of 0.6.13 fails before it asks anything.
    cli.environment["PROJECT"] = cli.project
    process = await cli.spawn(cli.command.parent / "python", "-c", WEBHOOKS)
    out, err = await process.communicate()
    assert process.returncode == 0, err
    made, listed, changed, left = json.loads(out.decode().splitlines()[-1])
    assert made.pop("secret").startswith("whsec_")
    assert listed == {"webhooks": [made]}
    assert (changed["events"], left) == (["room.ended"], {"webhooks": []})
    assert "No rows to print" in (await cli("webhook", "list", "--project-id", cli.project)).err


async def test_services_are_made_listed_shown_replaced_and_deleted(cli: Any) -> None:
    own = ("--project-id", cli.project)
    spec = cli.home / "service.yaml"
    spec.write_text(
        "version: v1\nkind: Service\nmetadata: {name: mine}\nexternal: {url: 'http://127.0.0.1:9'}\n"
        "ports: [{num: '*', endpoints: [{path: /agent, meshagent: {identity: agent}}]}]\n"
    )
    made = await cli("service", "create", *own, "--file", str(spec))
    assert (made.code, "Created service" in made.out) == (0, True), made.err
    service_id = made.out.split()[-1]
    assert "mine" in (await cli("service", "list", *own)).out
    assert "/agent" in (await cli("service", "show", *own, service_id)).out
    assert "Updated service" in (await cli("service", "update", *own, "--file", str(spec))).out
    assert "already in use" in (await cli("service", "create", *own, "--file", str(spec))).out
    assert (await cli("service", "create", *own, "--file", str(spec), "--room", "room")).code == 0
    assert "mine" in (await cli("service", "list", *own, "--room", "room")).out
    assert (await cli("service", "delete", *own, service_id)).code == 0
    assert "mine" not in (await cli("service", "list", *own)).out


# What cannot work, and what is said then


@pytest.mark.parametrize(
    ("command", "what"),
    [
        (("session", "list"), "GET sessions"),
    ],
)
async def test_what_a_room_server_does_not_offer_is_refused_with_a_hint(cli: Any, command: Any, what: str) -> None:
    said = await cli(*command, "--project-id", cli.project)
    assert said.code == 1
    assert f"501, message='meshhost does not offer {what}: see Migrate from MeshAgent in its documentation'" in said.err


async def test_a_room_is_not_renamed(cli: Any) -> None:
    await cli("room", "create", "--project-id", cli.project, "--name", "other")
    said = await cli("room", "update", "--project-id", cli.project, "--name", "other", "--new-name", "another")
    assert said.code == 1
    assert "a room keeps its name" in said.err


@pytest.mark.parametrize("command", ["show", "rm"])
async def test_two_storage_commands_fail_in_the_command_line_itself(cli: Any, command: str) -> None:
    said = await cli.in_room("storage", command, "room://poem.txt")
    assert said.code == 1
    # Before any request: a fault of 0.6.13, whatever the server.
    assert "TypeError: Meshagent.connect_room() got an unexpected keyword argument 'name'" in said.err

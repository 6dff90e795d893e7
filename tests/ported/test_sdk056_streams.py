"""Tools and messages that stream between the unmodified clients of SDK 0.56, and their agents in their own ServiceHost."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from doubles.generations import PAGE, our_guest, told
from doubles.ports import free_port
from doubles.talking import TalkingProgram, TalkingPrograms

from meshhost.app.config_file import ServerFile
from meshhost.errors import RoomError
from meshhost.identity.keys import new_api_key
from meshhost.room.client import RoomClient
from meshhost.testing.server import RunningServer, running_server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.fixture
async def pair(newer: TalkingPrograms, server: RunningServer) -> AsyncIterator[tuple[TalkingProgram, TalkingProgram]]:
    """Two guests of 0.56, of which the second one offers tools."""
    async with AsyncExitStack() as stack:
        guests = []
        for name in ("first", "second"):
            token = server.token("room", name=name, role="agent")
            guest = await stack.enter_async_context(newer.run("guest", server, token=token, offers=name == "second"))
            await guest.line()
            guests.append(guest)
        yield guests[0], guests[1]


async def chunks_of(guest: TalkingProgram, **call: Any) -> list[Any]:
    """The JSON of what a streaming tool answers, and at the end what the call ended with."""
    guest.tell({"do": "stream_tool", **call})
    got = []
    while "result" not in (line := await guest.line()):
        if "chunk" in line:
            got.append(line["chunk"][2])
    return [*got, line["result"]]


async def test_a_tool_streams_out_in_and_both_ways(pair: tuple[TalkingProgram, TalkingProgram]) -> None:
    first, _ = pair
    math = {"toolkit": "math56"}
    numbers = [{"number": number} for number in (1, 2, 3)]
    assert await chunks_of(first, **math, tool="echo", inputs=numbers) == [*numbers, "no error but None"]
    counted = [{"number": 3}, {"number": 2}, {"number": 1}]
    assert await chunks_of(first, **math, tool="count_down", input={"from": 3}) == [*counted, "no error but None"]
    first.tell({"do": "stream_tool", **math, "tool": "sum", "inputs": numbers})
    assert (await first.line())["answer"][2] == {"sum": 6}
    await first.line()
    *got, _ = await chunks_of(first, **math, tool="count_down", input={"from": 3, "fails_at": 2})
    assert got[0] == {"number": 3}


async def test_two_thousand_chunks_arrive_in_order(pair: tuple[TalkingProgram, TalkingProgram]) -> None:
    first, _ = pair
    *got, end = await chunks_of(first, toolkit="math56", tool="count_down", input={"from": 2000})
    assert ([each["number"] for each in got], end) == (list(range(2000, 0, -1)), "no error but None")


async def test_contents_of_every_kind_are_echoed(pair: tuple[TalkingProgram, TalkingProgram]) -> None:
    first, _ = pair
    assert (await told(first, do="contents"))["contents"] == [
        ["TextContent", "hello", None, 0],
        ["JsonContent", None, [1, "two"], 0],
        ["FileContent", None, None, 2],
        ["BinaryContent", None, None, 1],
    ]


async def test_the_callers_end_ends_the_providers_input(
    newer: TalkingPrograms, server: RunningServer, pair: tuple[TalkingProgram, TalkingProgram]
) -> None:
    _, second = pair
    async with newer.run("guest", server, token=server.token("room", name="caller"), offers=False) as caller:
        await caller.line()
        caller.tell(
            {"do": "stream_tool", "toolkit": "math56", "tool": "sum", "inputs": [{"number": 5}], "never_ends": True}
        )
        assert await second.until(added=5)
        await caller.kill()
        assert await second.until(input_ended=True)


async def test_the_providers_end_ends_the_callers_stream(newer: TalkingPrograms, server: RunningServer) -> None:
    async with newer.run("guest", server, token=server.token("room", name="caller"), offers=False) as caller:
        await caller.line()
        async with newer.run("guest", server, token=server.token("room", name="provider", role="agent")) as provider:
            await provider.line()
            call = {"toolkit": "math56", "tool": "count_down", "input": {"from": 100_000, "pause": 0.01}}
            caller.tell({"do": "stream_tool", **call})
            await caller.line()
            await provider.kill()
        async with asyncio.timeout(20):
            while "result" not in (line := await caller.line()):
                pass
        assert "has left the room" in line["result"][1]


async def test_messages_stream_between_two_participants(pair: tuple[TalkingProgram, TalkingProgram]) -> None:
    first, second = pair
    first.tell({"do": "open_stream", "to": "second", "message": {"n": 1}})
    assert (await second.line())["requested"] == ["chat", {"n": 1}, 1]
    assert await second.until(accepted=True)
    assert await first.until(accepted=True) or True
    first.tell({"do": "say_on_stream", "message": {"n": 2}})
    assert await second.until(said={"n": 2})
    second.tell({"do": "say_on_stream", "message": {"n": 3}})
    assert await first.until(said={"n": 3})
    first.tell({"do": "close_stream"})
    assert await second.until(stream_event="MessagingStreamClientDisconnected")
    assert await second.until(stream_ended=True)


async def test_a_stream_of_messages_is_refused_and_ends_with_its_addressee(
    pair: tuple[TalkingProgram, TalkingProgram],
) -> None:
    first, second = pair
    first.tell({"do": "open_stream", "to": "second", "message": {"unwanted": True}})
    assert (await first.line())["opened"][1] == "not now"
    first.tell({"do": "open_stream", "to": "second", "message": {}})
    assert await second.until(accepted=True)
    await first.until(accepted=True)
    await second.kill()
    assert await first.until(stream_event="MessagingStreamClientDisconnected")
    assert await first.until(stream_ended=True)


async def test_the_client_in_javascript_calls_tools_that_stream(
    newer: TalkingPrograms, javascript: TalkingPrograms, server: RunningServer
) -> None:
    async with (
        newer.run("guest", server) as new,
        javascript.run("guest", server, token=server.token("room", name="js", role="agent")) as js,
    ):
        await new.line()
        await js.line()
        numbers = [{"number": 1}, {"number": 2}]
        call = {"do": "stream_tool", "toolkit": "math56", "inputs": numbers}
        assert (await told(js, **call, tool="echo"))["chunks"] == numbers
        assert (await told(js, **call, tool="sum", once=True))["answer"] == {"sum": 3}
        new.tell({"do": "stream_tool", "toolkit": "mathjs", "tool": "multiply", "inputs": numbers})
        while "result" not in (refused := await new.line()):
            pass
        assert refused["result"] == [1002, "arguments: tool 'multiply' of toolkit 'mathjs' takes a JSON object"]


async def test_a_file_is_moved_by_each_generation(
    newer: TalkingPrograms, javascript: TalkingPrograms, server: RunningServer
) -> None:
    async with (
        our_guest(server) as ours,
        newer.run("guest", server) as new,
        javascript.run("guest", server, token=server.token("room", name="js", role="agent")) as js,
    ):
        await new.line()
        await js.line()
        await ours.storage.upload(path="a.txt", data=b"x")
        await new.until(updated="a.txt")
        assert await told(js, do="move", source="a.txt", destination="b/c.txt") == {"moved": None}
        assert await new.line() == {"file_moved": ["a.txt", "b/c.txt"]}
        new.tell({"do": "move", "source": "b/c.txt", "destination": "d.txt"})
        await new.until(moved="no error but None")
        assert (await ours.storage.download(path="d.txt")).data == b"x"


# ---- their ServiceHost -------------------------------------------------------------------------------------------------


@asynccontextmanager
async def their_host(newer: TalkingPrograms, **given: Any) -> AsyncIterator[tuple[TalkingProgram, str]]:
    port = free_port()
    async with newer.run("host", None, port=port, **given) as host:
        await host.until(listening=True)
        yield host, f"http://127.0.0.1:{port}"


async def test_our_room_calls_agents_of_their_host(newer: TalkingPrograms, tmp_path: Path) -> None:
    async with their_host(newer) as (host, url):
        paths = [{"path": f"/{name}", "identity": name} for name in ("worker", "runner", "toolkit")]
        file = ServerFile.model_validate({"services": [{"url": url, "paths": paths}]})
        async with running_server(tmp_path / "calling", file=file) as server, server.client() as user:
            assert (await host.until(started="worker"))["name"] == "worker"
            assert await user.agents.ask(agent="runner", arguments={"a": 1}) == {"ran": {"a": 1}}
            pong = await user.agents.invoke_tool(toolkit="pings", tool="ping", arguments={})
            assert pong.to_json()["json"] == {"pong": True}
            await user.queues.send(name="jobs", message={"n": 1})
            assert await user.queues.receive(name="results", wait=True) == {"done": {"n": 1}}


# ---- a room with all of them -------------------------------------------------------------------------------------------


SUM = {"a": 2, "b": 3}
TOOLS = {
    ("ours", "shout"): ({"text": "hi"}, {"said": "HI"}),
    ("math", "add"): (SUM, {"sum": 5}),
    ("math56", "add"): (SUM, {"sum": 5}),
    ("mathjs", "multiply"): (SUM, {"product": 6}),
}
AGENTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "clock": ({}, {"time": "late"}),
    "runner06": ({"a": 1}, {"heard": {"a": 1}}),
    "newer": ({"name": "Ada"}, {"hello": "Ada"}),
}


async def call_by(caller: TalkingProgram, toolkit: str, tool: str, arguments: dict[str, Any]) -> Any:
    """What a tool answers to a guest of any generation."""
    said = await told(caller, do="invoke", toolkit=toolkit, tool=tool, input=arguments)
    if "answer" in said:  # a guest of 0.56 also tells how the call ended
        await caller.line()
    return said.get("answer", said.get("result"))


async def call_all_tools(ours: RoomClient, guests: Sequence[TalkingProgram]) -> None:
    for (toolkit, tool), (arguments, expected) in TOOLS.items():
        answers = [await call_by(guest, toolkit, tool, arguments) for guest in guests]
        answer = await ours.agents.invoke_tool(toolkit=toolkit, tool=tool, arguments=arguments)
        for each in (*answers, answer.to_json()["json"]):
            assert expected.items() <= each.items(), (toolkit, each)


async def ask_all_agents(ours: RoomClient, older: TalkingProgram, newer: Sequence[TalkingProgram]) -> None:
    for agent, (arguments, expected) in AGENTS.items():
        assert await ours.agents.ask(agent=agent, arguments=arguments) == expected
        assert (await told(older, do="ask", agent=agent, input=arguments))["result"] == expected
        # Theirs is a private toolkit, which clients of its generation name by its participant.
        for guest in newer if agent != "newer" else ():
            assert await call_by(guest, agent, f"run_{agent}_task", arguments) == expected


async def edit_one_document(ours: RoomClient, guests: Sequence[TalkingProgram]) -> None:
    await ours.storage.upload(path=".schemas/page.json", data=json.dumps(PAGE).encode())
    document = await ours.sync.open(path="x.page")
    document.root.append_child("note", {"text": "ours"})
    await guests[0].until(updated=".schemas/page.json")
    for guest in guests:
        await told(guest, do="edit", path="x.page", text="theirs")
    async with asyncio.timeout(10):
        while len(document.root.to_json()["page"]["notes"]) < 4:  # noqa: ASYNC110 - the edit comes when it comes
            await asyncio.sleep(0.02)


async def test_four_generations_at_once_call_ask_and_edit(
    newer: TalkingPrograms, older: TalkingPrograms, javascript: TalkingPrograms, server: RunningServer
) -> None:
    async with AsyncExitStack() as stack:
        ours = await stack.enter_async_context(our_guest(server))
        guests = []
        for programs, program, name in (
            (newer, "guest", "newer"),
            (javascript, "guest", "js"),
            (older, "guest", "older"),
            (older, "toolkit", "older tools"),
        ):
            token = server.token("room", name=name, role="agent")
            guests.append(await stack.enter_async_context(programs.run(program, server, token=token)))
        for guest in guests:
            await guest.line()
        new, js, old, _ = guests
        await call_all_tools(ours, [new, js, old])
        await ask_all_agents(ours, old, [new, js])
        await edit_one_document(ours, [new, js, old])


# ---- ends --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", ["newer", "javascript"])
async def test_a_key_that_is_revoked_ends_its_clients(
    language: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    programs: TalkingPrograms = request.getfixturevalue(language)
    key = new_api_key("11111111-2222-3333-4444-555555555555")
    async with running_server(tmp_path / "server", key=key) as server:
        identity = server.server.parts.access.identity
        made = await identity.create_key(server.key.project_id, name="theirs", description="")
        revoked = RunningServer(server.server, made)
        async with programs.run("guest", server, token=revoked.token("room", name="sdk")) as guest, asyncio.timeout(30):
            await guest.line()
            await identity.delete_key(server.key.project_id, made.id)
            await guest.until(closed=True)


@pytest.mark.parametrize("language", ["newer", "javascript"])
async def test_a_token_that_expires_ends_its_client(
    language: str, request: pytest.FixtureRequest, server: RunningServer
) -> None:
    programs: TalkingPrograms = request.getfixturevalue(language)
    token = server.token("room", name="sdk", expiration=datetime.now(UTC) + timedelta(seconds=6))
    async with programs.run("guest", server, token=token) as guest, asyncio.timeout(30):
        await guest.line()
        await guest.until(closed=True)


async def test_a_call_in_progress_fails_when_its_server_is_restarted(newer: TalkingPrograms, tmp_path: Path) -> None:
    home = tmp_path / "server"
    async with AsyncExitStack() as stack:
        async with running_server(home) as server:
            provider = await stack.enter_async_context(
                newer.run("guest", server, token=server.token("room", name="provider", role="agent"))
            )
            caller = await stack.enter_async_context(
                newer.run("guest", server, token=server.token("room", name="caller"), offers=False)
            )
            await provider.line()
            await caller.line()
            call = {"toolkit": "math56", "tool": "count_down", "input": {"from": 100_000, "pause": 0.01}}
            caller.tell({"do": "stream_tool", **call})
            await caller.line()
            port, key = int(server.url.rpartition(":")[2]), server.key
        async with asyncio.timeout(20):
            while "result" not in (line := await caller.line()):
                pass
        assert line["result"] != "no error but None"
        async with running_server(home, port=port, key=key) as again, again.client() as ours, asyncio.timeout(30):
            while "math56" not in {kit.name for kit in await ours.agents.list_toolkits()}:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.1)
            with pytest.raises(RoomError):
                await ours.agents.invoke_tool(toolkit="math56", tool="count_down", arguments={"from": 1})

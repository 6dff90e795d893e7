"""The unmodified MeshAgent SDK 0.6.13 is at home in our rooms: every row of the protocol, over real sockets."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from doubles.talking import LINE_TIMEOUT, TalkingProgram, TalkingPrograms

from meshhost.app.config_file import ServerFile
from meshhost.documents.document import MeshDocument, Text
from meshhost.documents.schema import ChildProperty, ElementType, MeshSchema, ValueProperty
from meshhost.errors import AccessDeniedError, NotFoundError, RoomError, ToolError
from meshhost.identity.grants import ApiScope, StorageGrant, SyncGrant, SyncPathGrant
from meshhost.protocol.connection import MessageReceived
from meshhost.protocol.messages import (
    EmptyResponse,
    FileResponse,
    JsonResponse,
    RawOutputs,
    Response,
)
from meshhost.room.client import RoomClient
from meshhost.room.requirements import RequiredToolkit
from meshhost.room.services.agents import ToolDescription, ToolkitDescription
from meshhost.testing.server import RunningServer, running_server

# Making the SDK's environment takes a while, once.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(720)]

BUILT_IN = [
    ["meshagent.planner", "Planner", []],
    ["meshagent.schema_planner", "Schema planner", []],
    ["meshagent.document-writer", "Document writer", []],
]

PROGRAMS = Path(__file__).parent / "sdk_programs"
WEBHOOK_SECRET = "a-webhook-secret-of-more-than-32-bytes"


@pytest.fixture
def sdk(sdk_python: Path, tmp_path: Path) -> TalkingPrograms:
    return TalkingPrograms(sdk_python, tmp_path, PROGRAMS)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str | None:
    """Each engine: the SDK must not notice which."""
    return None if request.param == "sqlite" else request.getfixturevalue("postgres_server").new_database()


@pytest.fixture
async def server(database_url: str | None, tmp_path: Path) -> AsyncIterator[RunningServer]:
    async with running_server(tmp_path / "server", database_url=database_url) as running:
        yield running


def put(queue: asyncio.Queue[Any]) -> Callable[..., None]:
    """A handler that puts the one member of its event into a queue."""

    def handler(**event: Any) -> None:
        queue.put_nowait(*event.values())

    return handler


async def eventually(holds: Callable[[], Awaitable[bool]]) -> None:
    """Return when the condition holds; it is asked again and again, since nothing tells of the change."""
    async with asyncio.timeout(LINE_TIMEOUT):
        while not await holds():  # noqa: ASYNC110 - the state is in another process
            await asyncio.sleep(0.02)


# ---- joining ------------------------------------------------------------------------------------------------------


async def test_the_sdk_joins_with_a_token_that_it_minted_from_our_key(
    sdk: TalkingPrograms, server: RunningServer
) -> None:
    async with server.client() as ours:
        async with sdk.run("join", server, room="room", api_key=server.api_key, refused=[]) as program:
            seen = await program.line()
        assert (seen["room_name"], seen["name"]) == ("room", "ada")
        assert seen["room_url"] == server.server.room_url("room") == ours.room_url
        # One life of the room, two participants.
        assert seen["session_id"] == ours.session_id
        assert seen["id"] != ours.local_participant.id


async def test_the_status_of_a_refusal_reaches_the_sdk(sdk: TalkingPrograms, server: RunningServer) -> None:
    url = server.server.room_url("room")
    past = datetime.now(UTC) - timedelta(minutes=1)
    header, _, signature = server.token("room").partition(".")[2].partition(".")
    forged = base64.urlsafe_b64encode(b'{"name":"ada","grants":[]}').decode().rstrip("=")
    refused = [
        (url, "no token at all"),
        (url, server.token("room", expiration=past)),
        (url, f"{header}.{forged}.{signature}"),
        (url, server.token("elsewhere")),
        (server.server.room_url("Not a room!"), server.token("Not a room!")),
        (server.url + "/nothing", server.token("room")),
    ]

    async with sdk.run("join", server, room="room", api_key=server.api_key, refused=refused) as program:
        lines = await program.rest()

    assert [line["status"] for line in lines[:-1]] == [401, 401, 401, 403, 400, 404]
    assert lines[-1]["name"] == "ada"


# ---- messaging ----------------------------------------------------------------------------------------------------


async def test_messages_and_presence_go_both_ways(sdk: TalkingPrograms, server: RunningServer) -> None:
    got: asyncio.Queue[Any] = asyncio.Queue()
    async with server.client(name="ours", role="agent") as ours:
        ours.messaging.on("message", put(got))
        await ours.messaging.enable()
        me = ours.local_participant.id
        async with sdk.run("messenger", server) as program:
            hello = await program.line()
            assert hello["participants"] == [[me, "agent", "ours"]]
            [theirs] = ours.messaging.remote_participants
            assert (theirs.id, theirs.role, theirs.get_attribute("name")) == (hello["id"], "user", "sdk")

            program.tell({"do": "send", "to": me})
            message = await asyncio.wait_for(got.get(), LINE_TIMEOUT)
            assert (message.type, message.message, message.from_participant_id) == ("hello", {"n": 1}, theirs.id)
            assert message.attachment == bytes(range(256))
            program.tell({"do": "broadcast"})
            message = await asyncio.wait_for(got.get(), LINE_TIMEOUT)
            assert (message.type, message.message, message.attachment) == ("news", {"n": 2}, b"ab")

            await ours.messaging.send_message(to=theirs, type="back", message={"n": 3}, attachment=b"\x00\xff")
            line = {"message": "back", "by": me, "body": {"n": 3}, "attachment": [0, 255]}
            assert await program.line() == line
            await ours.messaging.broadcast_message(type="all", message={"n": 4})
            assert await program.line() == {"message": "all", "by": me, "body": {"n": 4}, "attachment": []}

            await ours.local_participant.set_attribute("mood", "grim")
            assert await program.line() == {"event": "attributes", "id": me, "mood": "grim"}
            program.tell({"do": "attribute"})
            await eventually(lambda: _is(theirs.get_attribute("mood") == "fine"))

            program.tell({"do": "forge", "to": me})
            assert "RoomException" in (await program.line())["error"]
            program.tell({"do": "stream", "to": me})
            program.tell({"do": "disable"})
            # A stream is a convention of messages: the server only relays.
            opened = await asyncio.wait_for(got.get(), LINE_TIMEOUT)
            assert (opened.type, opened.message["header"]) == ("stream.open", {"of": "bytes"})
            accept = {"stream_id": opened.message["stream_id"]}
            await ours.messaging.send_message(to=theirs, type="stream.accept", message=accept)
            assert (await asyncio.wait_for(got.get(), LINE_TIMEOUT)).type == "stream.close"
            await eventually(lambda: _is(not ours.messaging.remote_participants))
            await program.rest()


async def test_a_message_to_nobody_is_an_error_and_the_next_one_arrives(
    sdk: TalkingPrograms, server: RunningServer
) -> None:
    got: asyncio.Queue[Any] = asyncio.Queue()
    async with server.client(name="ours") as ours:
        ours.messaging.on("message", put(got))
        await ours.messaging.enable()
        async with sdk.run("messenger", server) as program:
            await program.line()
            program.tell({"do": "send to nobody", "to": ours.local_participant.id})
            assert "no participant" in (await program.line())["error"]
            program.tell({"do": "broadcast"})
            assert (await asyncio.wait_for(got.get(), LINE_TIMEOUT)).type == "news"


async def test_two_sdk_clients_see_each_other_come_and_go(sdk: TalkingPrograms, server: RunningServer) -> None:
    async with sdk.run("messenger", server) as first:
        await first.line()
        async with sdk.run("messenger", server, token=server.token("room", name="second", role="tool")) as second:
            hello = await second.line()
            assert [card[1:] for card in hello["participants"]] == [["user", "sdk"]]
            assert await first.line() == {"event": "added", "id": hello["id"]}
            await second.kill()
        # A process that was killed says no goodbye; its socket does.
        assert await first.line() == {"event": "removed", "id": hello["id"]}


async def test_dismiss_reaches_a_participant_that_never_enabled_messaging(
    sdk: TalkingPrograms, server: RunningServer
) -> None:
    async with server.client(name="ours") as ours, sdk.run("messenger", server, enable=False) as program:
        hello = await program.line()
        await ours.messaging.enable()
        assert ours.messaging.remote_participants == []
        request = {"to_participant_id": hello["id"], "type": "dismiss", "message": {}}
        await ours.send_request("messaging.send", request)
        assert (await program.line())["message"] == "dismiss"


async def test_an_agent_may_not_dismiss_another(sdk: TalkingPrograms, server: RunningServer) -> None:
    scope = ApiScope.agent_default()
    async with server.client(name="agent", role="agent", scope=scope) as ours, sdk.run("messenger", server) as program:
        hello = await program.line()
        request = {"to_participant_id": hello["id"], "type": "dismiss", "message": {}}
        with pytest.raises(AccessDeniedError):
            await ours.send_request("messaging.send", request)


# ---- queues -------------------------------------------------------------------------------------------------------


async def test_every_queue_request_of_the_sdk_is_answered(sdk: TalkingPrograms, server: RunningServer) -> None:
    seen = await sdk.lines("queues", server)

    for name in ("missing_send", "missing_receive", "missing_drain", "parked_on_closed"):
        assert seen.pop(name).startswith("RoomException: "), name
    assert seen == {
        "empty": None,
        "listed": ["jobs"],
        "first": {"n": 1, "text": "é"},
        "second": {"n": 2},
        "third": "a text",
        "parked": {"n": 4},
        "drained": None,
        "left": [],
    }


async def queue_is(ours: RoomClient, *, ready: int, leased: int) -> None:
    """Return when the queue `jobs` holds so many messages."""

    async def holds() -> bool:
        [queue] = [queue for queue in await ours.queues.list() if queue.name == "jobs"]
        return (queue.ready, queue.leased) == (ready, leased)

    await eventually(holds)


@pytest.mark.parametrize("role", ["agent", "user"])
async def test_a_message_comes_back_when_its_worker_is_killed(
    sdk: TalkingPrograms, server: RunningServer, role: str
) -> None:
    token = server.token("room", name="worker", role=role)
    async with server.client() as ours:
        await ours.queues.send(name="jobs", message={"n": 1})
        await ours.queues.send(name="jobs", message={"n": 2})
        async with sdk.run("holder", server, token=token, queue="jobs", wait=True) as program:
            await program.line()
            program.tell()
            assert (await program.line())["message"] == {"n": 1}
            await queue_is(ours, ready=1, leased=1)
            await program.kill()
        # At the front again, at once, and known as a second delivery.
        await queue_is(ours, ready=2, leased=0)
        lease = await ours.queues.lease(name="jobs", wait=False)
        assert lease is not None
        assert (lease.message, lease.delivery, lease.attempt) == ({"n": 1}, 2, 1)


async def test_the_next_receive_settles_the_message_before(sdk: TalkingPrograms, server: RunningServer) -> None:
    token = server.token("room", name="worker", role="agent")
    async with server.client() as ours:
        for number in (1, 2):
            await ours.queues.send(name="jobs", message={"n": number})
        async with sdk.run("holder", server, token=token, queue="jobs", wait=True) as program:
            await program.line()
            program.tell()
            program.tell()
            assert [(await program.line())["message"] for _ in range(2)] == [{"n": 1}, {"n": 2}]
            # A third receive, which finds nothing and parks, settles the second.
            program.tell()
            await queue_is(ours, ready=0, leased=0)
            await program.kill()
        await queue_is(ours, ready=0, leased=0)


async def test_a_receive_that_does_not_wait_is_settled_at_once(sdk: TalkingPrograms, server: RunningServer) -> None:
    token = server.token("room", name="worker", role="agent")
    async with server.client() as ours:
        await ours.queues.send(name="jobs", message={"n": 1})
        async with sdk.run("holder", server, token=token, queue="jobs", wait=False) as program:
            await program.line()
            program.tell()
            assert (await program.line())["message"] == {"n": 1}
            await queue_is(ours, ready=0, leased=0)
            await program.kill()
        await queue_is(ours, ready=0, leased=0)


@pytest.mark.parametrize(("role", "left"), [("user", 0), ("agent", 1)])
async def test_leaving_in_order_settles_for_a_user_and_returns_for_an_agent(
    sdk: TalkingPrograms, server: RunningServer, role: str, left: int
) -> None:
    token = server.token("room", name="worker", role=role)
    async with server.client() as ours:
        await ours.queues.send(name="jobs", message={"n": 1})
        async with sdk.run("holder", server, token=token, queue="jobs", wait=True) as program:
            await program.line()
            program.tell()
            assert (await program.line())["message"] == {"n": 1}
            await program.rest()
        await queue_is(ours, ready=left, leased=0)


async def test_a_killed_receiver_that_waits_gets_no_message(sdk: TalkingPrograms, server: RunningServer) -> None:
    token = server.token("room", name="worker", role="agent")
    async with server.client() as ours:
        async with sdk.run("holder", server, token=token, queue="jobs", wait=True) as program:
            await program.line()
            program.tell()
            await eventually(lambda: _has_queue(ours, "jobs"))
            await program.kill()
        await ours.queues.send(name="jobs", message={"n": 1})
        lease = await ours.queues.lease(name="jobs", wait=True, seconds=30)
        assert lease is not None
        assert lease.message == {"n": 1}


# ---- storage ------------------------------------------------------------------------------------------------------


async def test_every_storage_request_of_the_sdk_is_answered(sdk: TalkingPrograms, server: RunningServer) -> None:
    content = (bytes(range(256)) + b"end").hex()
    async with server.client() as ours:
        changes: asyncio.Queue[Any] = asyncio.Queue()
        ours.storage.on("file.updated", lambda path, participant_id: changes.put_nowait(("updated", path)))
        ours.storage.on("file.deleted", lambda path, participant_id: changes.put_nowait(("deleted", path)))
        seen = await sdk.lines("storage", server)
        told = [await asyncio.wait_for(changes.get(), LINE_TIMEOUT) for _ in range(3)]

    path = "notes/é.bin"
    assert told == [("updated", path), ("updated", path), ("deleted", path)]
    for name in ("again", "written_when_closed", "outside"):
        assert seen.pop(name).startswith("RoomException: "), name
    assert [text.partition(":")[0] for text in seen.pop("missing")] == ["RoomException"] * 2
    assert seen == {
        "no_folder": [],
        "before_close": False,
        "exists": [True, True, False],
        "stat": ["é.bin", False, True],
        "folder": ["notes", True, False],
        "nothing": None,
        "root": [["notes", True, False]],
        "listed": [["é.bin", False, True]],
        "name": "é.bin",
        "mime": "application/octet-stream",
        "data": content,
        "fetched": [200, content],
        "after": b"new".hex(),
        "updated": path,
        "deleted": path,
        "own": True,
        "gone": False,
    }


# ---- toolkits and agents ------------------------------------------------------------------------------------------


async def test_a_toolkit_of_the_sdk_is_used_by_our_client(sdk: TalkingPrograms, server: RunningServer) -> None:
    async with server.client() as ours, sdk.run("toolkit", server, public=True) as program:
        await program.line()
        [toolkit] = await ours.agents.list_toolkits()
        assert (toolkit.name, toolkit.title) == ("math", "Math")
        assert [tool.name for tool in toolkit.tools] == ["add", "fail", "picture", "never"]
        assert toolkit.tools[0].defs == {"number": {"type": "integer"}}

        async def invoke(tool: str, **arguments: Any) -> Response:
            return await ours.agents.invoke_tool(
                toolkit="math", tool=tool, arguments=arguments, caller_context={"why": "test"}
            )

        answer = await invoke("add", a=1, b=2)
        assert isinstance(answer, JsonResponse)
        assert answer.json == {"sum": 3, "caller": ours.local_participant.id, "context": {"why": "test"}}
        many = await asyncio.gather(*(invoke("add", a=number, b=1) for number in range(50)))
        assert [answer.json["sum"] for answer in many if isinstance(answer, JsonResponse)] == list(range(1, 51))
        file = await invoke("picture", mib=5)
        assert isinstance(file, FileResponse)
        assert (file.data, file.mime_type) == (bytes(range(256)) * 4096 * 5, "image/x")
        with pytest.raises(RoomError, match="it cannot be done"):
            await invoke("fail")
        with pytest.raises(RoomError, match="is not of type 'integer'"):
            await invoke("add", a=1, b="two")
        with pytest.raises(NotFoundError):
            await invoke("subtract")
        await program.rest()
        assert await ours.agents.list_toolkits() == []


async def test_a_private_toolkit_of_the_sdk_is_for_agents_that_its_participant_asked(
    sdk: TalkingPrograms, server: RunningServer
) -> None:
    async with server.client(role="agent") as ours, server.client(name="other", role="agent") as other:
        await ours.messaging.enable()
        me = ours.local_participant.id
        async with sdk.run("toolkit", server, public=False, asks=me) as program:
            owner = (await program.line())["id"]
            assert await program.line() == {"asked": me}
            await _use_private_toolkit(ours, owner)
            assert await other.agents.list_toolkits(owner) == []


async def _use_private_toolkit(ours: RoomClient, owner: str) -> None:
    assert await ours.agents.list_toolkits() == []
    assert [toolkit.name for toolkit in await ours.agents.list_toolkits(owner)] == ["math"]
    with pytest.raises(NotFoundError):
        await ours.agents.invoke_tool(toolkit="math", tool="add", arguments={"a": 1, "b": 2})
    arguments = {"a": 1, "b": 2}
    await ours.agents.invoke_tool(toolkit="math", tool="add", arguments=arguments, participant_id=owner)


async def test_a_call_ends_when_the_process_of_its_toolkit_is_killed(
    sdk: TalkingPrograms, server: RunningServer
) -> None:
    async with server.client() as ours, sdk.run("toolkit", server) as program:
        await program.line()
        calling = asyncio.ensure_future(ours.agents.invoke_tool(toolkit="math", tool="never", arguments={}))
        assert await program.line() == {"called": "never"}
        await program.kill()
        with pytest.raises(RoomError, match="left the room"):
            await asyncio.wait_for(calling, LINE_TIMEOUT)
        assert await ours.agents.list_toolkits() == []


@asynccontextmanager
async def our_toolkit(ours: RoomClient, calls: list[MessageReceived]) -> AsyncIterator[None]:
    """A toolkit of our client, registered as the library's own `RemoteToolkit` does it."""

    async def answer(call: MessageReceived) -> None:
        calls.append(call)
        answers: dict[str, Any] = {
            "echo": JsonResponse(json=call.header["arguments"]),
            "nothing": EmptyResponse(),
            "file": FileResponse(data=bytes(range(256)) * 4096 * 6, name="x.bin", mime_type="image/x"),
            "raw": RawOutputs(outputs=[{"a": 1}]),
            "fail": ToolError("it cannot be done"),
        }
        if call.header["name"] in answers:
            await ours.agents.answer_tool_call(call, answers[call.header["name"]])

    names = ["echo", "nothing", "file", "raw", "fail", "never"]
    tools = [ToolDescription(name=name, input_schema={"type": "object"}) for name in names]
    toolkit = ToolkitDescription(name="ours", title="Ours", tools=tools)
    registration = await ours.agents.register_toolkit(toolkit, answer, public=True)
    yield
    if ours.is_open:
        await ours.agents.unregister_toolkit("ours", registration)


async def test_a_toolkit_of_ours_is_used_by_the_sdk(sdk: TalkingPrograms, server: RunningServer) -> None:
    calls: list[MessageReceived] = []
    async with server.client() as ours, our_toolkit(ours, calls):
        seen = await sdk.lines("invoker", server)

    assert seen["toolkits"] == [["ours", "Ours"]]
    assert seen["tools"]["echo"] == {"type": "object"}
    assert seen["answer"] == {"text": "é"}
    assert seen["empty"] == "EmptyBody"
    assert seen["file"] == ["x.bin", "image/x", 6 * 1024 * 1024, True]
    assert seen["raw"] == [{"a": 1}] or seen["raw"] == {"outputs": [{"a": 1}]}
    assert seen["error"] == "RoomException: it cannot be done"
    for name in ("no_tool", "no_toolkit", "no_agent", "no_call"):
        assert seen[name].startswith("RoomException: "), name
    assert seen["request"]["json"] == {"n": 1}
    first = calls[0].header
    assert (first["caller_id"], first["caller_context"]) == (seen["id"], {"why": "test"})


async def test_an_agent_of_the_sdk_is_asked_by_both_sides(sdk: TalkingPrograms, server: RunningServer) -> None:
    calls: list[MessageReceived] = []
    token, other = (server.token("room", name=name, role="agent") for name in ("shouter", "asker"))
    async with server.client() as ours, our_toolkit(ours, calls):
        async with sdk.run("asked", server, token=token, other=other) as program:
            seen = [await program.line() for _ in range(5)]
            assert seen[:3] == [
                # The built-in ones are listed for the SDK, which looks for them before it asks.
                {"agents": [["shouter", "Shouter", ["loud"]], *BUILT_IN]},
                {"answer": "HEY"},
                {"error": "RoomException: nothing to shout"},
            ]
            assert "missing" in seen[3]["requires"]

            [agent] = await ours.agents.list_agents()
            assert (agent.name, agent.supports_tools, agent.labels) == ("shouter", True, ["loud"])
            assert agent.output_schema == agent.input_schema
            # The tools that the ask brings are listed with it, and the agent uses them.
            requires = [RequiredToolkit(name="ours", tools=["echo"])]
            answer = await ours.agents.ask(agent="shouter", arguments={"text": "hey"}, requires=requires)
            assert answer == {
                "text": "HEY",
                "caller": ours.local_participant.id,
                "tools": ["ours.echo"],
                "used": [{"text": "é"}],
            }
            with pytest.raises(RoomError, match="nothing to shout"):
                await ours.agents.ask(agent="shouter", arguments={})
            await program.rest()
        assert await ours.agents.list_agents() == []
        with pytest.raises(NotFoundError):
            await ours.agents.ask(agent="shouter", arguments={})


# ---- the rest of the room -----------------------------------------------------------------------------------------


async def test_the_developer_log_goes_both_ways(sdk: TalkingPrograms, server: RunningServer) -> None:
    logged: asyncio.Queue[str] = asyncio.Queue()
    async with server.client() as ours:
        ours.developer.on("log", lambda **fields: logged.put_nowait(fields["type"]))
        await ours.developer.enable()
        async with sdk.run("developer", server) as program:
            assert await program.line() == {"log": "own", "data": {"n": 1}}
            assert await program.line() == {"watching": True}
            await ours.developer.log(type="ours", data={"n": 2})
            assert await program.line() == {"log": "ours", "data": {"n": 2}}
            assert await program.rest() == [{"watching": False}]
        types = [await asyncio.wait_for(logged.get(), LINE_TIMEOUT) for _ in range(4)]
        assert types == ["unseen", "own", "ours", "unseen"]


async def test_messages_of_many_megabytes_go_both_ways(sdk: TalkingPrograms, tmp_path: Path) -> None:
    file = ServerFile.model_validate(
        {"server": dict.fromkeys(("max_upload_bytes", "max_header_bytes"), 16 * 1024 * 1024)}
    )
    async with running_server(tmp_path / "server", file=file) as server:
        seen = await sdk.lines("large", server, over=17 * 1024 * 1024)

    assert "over" in seen
    assert seen | {"over": ""} == {
        "downloaded": True,
        "received": True,
        "attachment": True,
        "over": "",
        "lives": True,
    }


async def test_a_message_above_the_limit_of_headers_reaches_the_sdk_whole(
    sdk: TalkingPrograms, server: RunningServer
) -> None:
    async with server.client() as ours:
        for _ in range(2):
            await ours.queues.send("jobs", {"text": "é" + "x" * 5_000_000})
        async with sdk.run("receive_large", server) as program:
            assert [line["received"] for line in await program.rest()] == [[5_000_001, "éx"]] * 2
        await queue_is(ours, ready=0, leased=0)


async def test_what_a_room_does_not_offer_is_answered_and_the_connection_lives_on(
    sdk: TalkingPrograms, server: RunningServer
) -> None:
    async with sdk.run("unsupported", server) as program:
        lines = await program.rest()

    assert len(lines) == 5
    for line in lines:
        assert line["error"].startswith("RoomException: "), line
        assert line["lives"], line
    texts = {line["request"]: line["error"] for line in lines}
    assert "livekit.connect" in texts["livekit"]
    assert "name" in texts["bad"]


async def test_a_server_that_stops_answers_waiting_requests_first(sdk: TalkingPrograms, tmp_path: Path) -> None:
    calls: list[MessageReceived] = []
    async with (
        running_server(tmp_path / "server") as server,
        server.client() as ours,
        our_toolkit(ours, calls),
        sdk.run("parked", server) as program,
    ):
        assert await program.line() == {"waiting": True}
        await eventually(lambda: _is(len(calls) == 1))
        await eventually(lambda: _has_queue(ours, "jobs"))
        async with asyncio.timeout(8):
            await server.server.stop()
        lines = {line["request"]: line["result"] for line in await program.rest()}

    # Not answered, they would wait for ever: the SDK does not notice that a connection ended.
    assert lines == dict.fromkeys(["receive", "tool"], "RoomException: the room server is stopping")


# ---- the SDK's service host, called by us ----------------------------------------------------------------------------


def services(port: int, *, secret_file: Path | None, **server: Any) -> ServerFile:
    """The configuration that names the SDK's host."""
    paths = [{"path": "/worker", "identity": "worker"}, {"path": "/toolkit", "identity": "toolkit"}]
    service = {"url": f"http://127.0.0.1:{port}", "paths": paths, "secret_file": secret_file}
    return ServerFile.model_validate({"services": [service], "server": server})


Hosted = Callable[[str | None, str | None], AbstractAsyncContextManager[tuple[RunningServer, TalkingProgram]]]


@pytest.fixture
def hosted(sdk: TalkingPrograms, tmp_path: Path, database_url: str | None) -> Hosted:
    """A host of the SDK with its secret, and a server that calls it with another or the same."""

    @asynccontextmanager
    async def start(
        host_secret: str | None, our_secret: str | None
    ) -> AsyncIterator[tuple[RunningServer, TalkingProgram]]:
        secret_file = None
        if our_secret is not None:
            secret_file = tmp_path / "secret"
            secret_file.write_text(our_secret)
        environment = {} if host_secret is None else {"MESHAGENT_WEBHOOK_SECRET": host_secret}
        async with sdk.run("host", environment=environment, secret=host_secret) as program:
            port = (await program.line())["port"]
            file = services(port, secret_file=secret_file, resume_seconds=0.2)
            async with running_server(tmp_path / "server", file=file, database_url=database_url) as server:
                yield server, program

    return start


# For tests in which the engine plays no part.
ON_SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


async def started(program: TalkingProgram) -> dict[str, Any]:
    """What both agents of the host tell when they have started, by agent."""
    lines = [await program.line() for _ in range(2)]
    assert {line.get("started") for line in lines} == {"worker", "toolkit"}
    return {line["started"]: line for line in lines}


@pytest.mark.parametrize(
    ("database_url", "secret"), [("sqlite", None), ("postgresql", WEBHOOK_SECRET)], indirect=["database_url"]
)
async def test_a_worker_in_the_sdks_host_processes_a_message_of_our_queue(hosted: Hosted, secret: str | None) -> None:
    async with hosted(secret, secret) as (server, program), server.client() as ours:
        await ours.queues.send(name="jobs", message={"n": 1, "text": "é"})
        worker = (await started(program))["worker"]
        assert (worker["name"], worker["room"]) == ("worker", "room")

        result = await ours.queues.receive(name="results")
        assert json.loads(result["seen"]) == {"n": 1, "text": "é"}
        assert "be brief" in result["rules"]
        # Its next receive settles what it has processed.
        await queue_is(ours, ready=0, leased=0)
        pong = await ours.agents.invoke_tool(toolkit="pings", tool="ping", arguments={})
        assert isinstance(pong, JsonResponse)
        assert pong.json == {"pong": True}


@ON_SQLITE
async def test_a_host_of_the_sdk_refuses_another_signature(hosted: Hosted) -> None:
    async with hosted(WEBHOOK_SECRET, WEBHOOK_SECRET + "x") as (server, program), server.client() as ours:

        async def refused_twice() -> bool:
            return program.errors.count("invalid jwt") >= 2

        await eventually(refused_twice)
        assert await ours.agents.list_toolkits() == []
        # Neither agent said that it started.
        assert await program.rest() == []


@ON_SQLITE
async def test_a_dismissed_worker_leaves_at_once_and_is_called_again(hosted: Hosted) -> None:
    async with hosted(None, None) as (server, program), server.client() as ours:
        await started(program)
        [room] = server.server.rooms
        first = next(member for member in room.members.values() if member.name == "worker")
        await eventually(lambda: _has_queue(ours, "jobs"))
        request = {"to_participant_id": first.id, "type": "dismiss", "message": {}}
        async with asyncio.timeout(8):
            await ours.send_request("messaging.send", request)
            await program.until(stopped="worker")
        await program.until(started="worker")
        await ours.queues.send(name="jobs", message={"n": 1})
        assert json.loads((await ours.queues.receive(name="results"))["seen"]) == {"n": 1}


async def test_what_an_sdk_worker_works_on_comes_back_when_its_host_is_killed(hosted: Hosted) -> None:
    async with hosted(None, None) as (server, program), server.client() as ours:
        await started(program)
        await ours.queues.send(name="jobs", message={"hang": True})
        assert json.loads((await program.line())["working"]) == {"hang": True}
        await queue_is(ours, ready=0, leased=1)
        await program.kill()
        await queue_is(ours, ready=1, leased=0)
        lease = await ours.queues.lease(name="jobs", wait=False)
        assert lease is not None
        assert (lease.message, lease.delivery) == ({"hang": True}, 2)


async def test_an_sdk_worker_that_fails_goes_on_with_the_next_message(hosted: Hosted) -> None:
    async with hosted(None, None) as (server, program), server.client() as ours:
        await started(program)
        for message in ({"fail": True}, {"n": 2}):
            await ours.queues.send(name="jobs", message=message)
        assert json.loads((await ours.queues.receive(name="results"))["seen"]) == {"n": 2}
        # The SDK's Worker swallows the error, so that its room cannot know of it: the message is settled.
        await queue_is(ours, ready=0, leased=0)


# ---- documents ----------------------------------------------------------------------------------------------------

PAGE = "a/b.page"


def page_schema() -> MeshSchema:
    return MeshSchema(
        root_tag_name="page",
        elements=[
            ElementType(tag_name="page", properties=[ChildProperty(name="blocks", child_tag_names=["note", "text"])]),
            ElementType(
                tag_name="note",
                properties=[
                    ValueProperty(name="body", type="string"),
                    ValueProperty(name="n", type="number"),
                    ValueProperty(name="done", type="boolean"),
                ],
            ),
            ElementType(tag_name="text", properties=[ChildProperty(name="runs", child_tag_names=["note"])]),
        ],
    )


class Editor:
    """A document in the SDK's hands."""

    def __init__(self, program: TalkingProgram) -> None:
        self._program = program

    async def do(self, what: str, **details: Any) -> Any:
        self._program.tell({"do": what, **details})
        return (await self._program.line())["done"]

    async def shows(self, expected: Any) -> None:
        async def holds() -> bool:
            return bool(await self.do("shown") == expected)

        await eventually(holds)


@asynccontextmanager
async def editing(
    sdk: TalkingPrograms, server: RunningServer, *, scope: ApiScope | None = None, name: str = "sdk"
) -> AsyncIterator[Editor]:
    token = server.token("room", name=name, scope=scope)
    async with sdk.run("documents", server, token=token, path=PAGE) as program:
        await program.until(joined=True)
        yield Editor(program)


@pytest.fixture
async def author(server: RunningServer) -> AsyncIterator[RoomClient]:
    """Our client, in a room that has a schema."""
    async with server.client() as ours:
        await ours.storage.upload(path=".schemas/page.json", data=json.dumps(page_schema().to_json()).encode())
        yield ours


async def shows(document: MeshDocument, expected: Any) -> None:
    await eventually(lambda: _is(document.to_json() == expected))


async def test_the_sdk_and_our_client_edit_one_document(
    sdk: TalkingPrograms, server: RunningServer, author: RoomClient
) -> None:
    await author.sync.create(path=PAGE, json={"page": {"blocks": [{"note": {"body": "first"}}]}})
    async with editing(sdk, server) as theirs, editing(sdk, server, name="second") as second:
        for editor in (theirs, second):
            # Rules 1 and 2: the answer first, then a state; else it would wait for ever.
            assert await editor.do("open") is True
        ours = await author.sync.open(path=PAGE)
        await theirs.do("add", tag="note", attributes={"body": "é😀", "n": 3, "done": True})
        await theirs.do("add", tag="text", attributes={})
        await theirs.do("write", index=2, at=0, text="hi")
        expected: list[dict[str, Any]] = [
            {"note": {"body": "first"}},
            {"note": {"body": "é😀", "n": 3, "done": True}},
            {"text": {"runs": [{"text": {"delta": [{"insert": "hi", "attributes": {}}]}}]}},
        ]
        await shows(ours, {"page": {"blocks": expected}})
        (text,) = ours.root.get_children_by_tag_name("text")
        ours.root.get_children_by_tag_name("note")[0]["body"] = "changed"
        ours.root.append_child("note", {"body": "ours"})
        (run,) = text.get_children()
        assert isinstance(run, Text)
        run.insert(2, " there")
        await author.sync.flush(PAGE)
        expected[0]["note"]["body"] = "changed"
        expected.append({"note": {"body": "ours"}})
        expected[2]["text"]["runs"][0]["text"]["delta"][0]["insert"] = "hi there"
        for editor in (theirs, second):
            await eventually(lambda editor=editor: _shows_bodies(editor, ["changed", "é😀", "ours"]))
        await second.do("set", index=1, name="n", value=4)
        await second.do("delete", index=3)
        expected[1]["note"]["n"] = 4
        del expected[3]
        await shows(ours, {"page": {"blocks": expected}})
        await eventually(lambda: _shows_bodies(theirs, ["changed", "é😀"]))


async def _shows_bodies(editor: Editor, bodies: list[str]) -> bool:
    blocks = (await editor.do("shown"))["page"]["blocks"]
    return [block["note"]["body"] for block in blocks if "note" in block] == bodies


async def test_what_the_sdk_makes_and_saves_is_there_later(
    sdk: TalkingPrograms, server: RunningServer, author: RoomClient
) -> None:
    content = {"page": {"blocks": [{"note": {"body": "made"}}]}}
    async with editing(sdk, server) as theirs:
        await theirs.do("create", path=PAGE, json=content)
        await theirs.do("open")
        await theirs.shows(content)
        await theirs.do("set", index=0, name="body", value="edited")
        ours = await author.sync.open(path=PAGE)
        await shows(ours, {"page": {"blocks": [{"note": {"body": "edited"}}]}})
    await author.sync.close(path=PAGE)
    again = await author.sync.open(path=PAGE, create=False)
    assert again.to_json() == {"page": {"blocks": [{"note": {"body": "edited"}}]}}


async def test_an_sdk_reader_goes_on_after_an_edit_that_it_may_not_make(
    sdk: TalkingPrograms, server: RunningServer, author: RoomClient
) -> None:
    ours = await author.sync.open(path=PAGE)
    scope = ApiScope(sync=SyncGrant(paths=[SyncPathGrant(path=PAGE, read_only=True)]), storage=StorageGrant())
    async with editing(sdk, server, scope=scope) as reader:
        await reader.do("open")
        await reader.do("add", tag="note", attributes={"body": "forbidden"})
        ours.root.append_child("note", {"body": "ours"})
        await author.sync.flush(PAGE)
        await eventually(lambda: _has_body(reader, "ours"))
        # Rule 4: its updates were answered without an error, so that it still sends and hears.
        ours.root.append_child("note", {"body": "more"})
        await eventually(lambda: _has_body(reader, "more"))
        assert await reader.do("alive") is False
        assert [note["body"] for note in ours.root.get_children_by_tag_name("note")] == ["ours", "more"]


async def _has_body(editor: Editor, body: str) -> bool:
    return {"note": {"body": body}} in (await editor.do("shown"))["page"]["blocks"]


async def test_what_the_sdk_may_not_open_is_an_error_and_its_connection_lives_on(
    sdk: TalkingPrograms, server: RunningServer, author: RoomClient
) -> None:
    async with editing(sdk, server) as theirs:
        assert "no schema for 'x.none'" in await theirs.do("error", path="x.none")
        assert "expected an extension" in await theirs.do("error", path="plain")
        assert await theirs.do("open") is True


async def test_echoes_of_the_sdk_reach_nobody(sdk: TalkingPrograms, server: RunningServer, author: RoomClient) -> None:
    heard: list[bytes] = []
    ours = await author.sync.open(path=PAGE)
    async with editing(sdk, server) as theirs, server.client(name="watcher") as watcher:
        await theirs.do("open")
        watcher.register_handler("room.sync", lambda message: heard.append(message.payload))
        await watcher.send_request("room.connect", {"path": PAGE})
        ours.root.append_child("note", {"body": "one"})
        await eventually(lambda: _has_body(theirs, "one"))
        # What it echoed came before this request on its connection.
        await theirs.do("alive")
        await theirs.do("add", tag="note", attributes={})
        await eventually(lambda: _is(len(ours.root.get_children()) == 2 and len(heard) >= 3))
    # Rule 3: the state, our edit, the SDK's edit.
    assert len(heard) == 3


async def _is(value: bool) -> bool:
    return value


async def _has_queue(ours: RoomClient, name: str) -> bool:
    return any(queue.name == name for queue in await ours.queues.list())

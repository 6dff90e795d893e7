"""Toolkits, tools and agents of a room, between real participants."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest

from meshhost.errors import (
    AccessDeniedError,
    InvalidRequestError,
    NotFoundError,
    RequestTimeoutError,
    RoomError,
    ToolError,
)
from meshhost.identity.grants import AgentsGrant, ApiScope
from meshhost.protocol.connection import MessageReceived, ReplyReceived, RoomConnection
from meshhost.protocol.frames import Message, packets
from meshhost.protocol.messages import (
    EmptyResponse,
    ErrorResponse,
    FileResponse,
    JsonResponse,
    LinkResponse,
    RawOutputs,
    Response,
    TextResponse,
    pack_message,
)
from meshhost.room.client import RoomClient
from meshhost.room.participants import Participant, RemoteParticipant
from meshhost.room.reconnect import ReconnectPolicy
from meshhost.room.requirements import RequiredSchema, RequiredToolkit
from meshhost.room.services.agents import ToolDescription, ToolkitDescription
from meshhost.server.services.agents import registry
from meshhost.server.services.agents.service import AgentsService
from meshhost.testing.server import RunningServer

E = TypeVar("E")
Answer = Callable[[MessageReceived], Awaitable[Response | RoomError]]


def _toolkit(name: str = "kit", title: str = "") -> ToolkitDescription:
    tools = [
        ToolDescription(name="echo", title="Echo", description="says it again", input_schema={"type": "object"}),
        ToolDescription(name="bare", defs={"x": {}}),
    ]
    return ToolkitDescription(name=name, title=title, description="tools", tools=tools)


async def _offer(
    room: RoomClient, answer: Answer, *, public: bool = True, toolkit: ToolkitDescription | None = None
) -> str:
    async def handler(call: MessageReceived) -> None:
        await room.agents.answer_tool_call(call, await answer(call))

    return await room.agents.register_toolkit(toolkit or _toolkit(), handler, public=public)


async def _echo(call: MessageReceived) -> Response | RoomError:
    return JsonResponse(json={**call.header, "size": len(call.payload)})


async def _never(_: MessageReceived) -> Response | RoomError:
    await asyncio.Event().wait()
    raise AssertionError


async def test_a_tool_is_found_and_invoked(server: RunningServer) -> None:
    async with server.client(name="p", role="tool") as provider, server.client() as caller:
        registration = await _offer(provider, _echo)
        (kit,) = await caller.agents.list_toolkits()
        assert (kit.name, kit.title, kit.description) == ("kit", "kit", "tools")
        echo, bare = kit.get_tool("echo"), kit.get_tool("bare")
        assert echo is not None
        assert bare is not None
        assert kit.get_tool("none") is None
        assert (echo.title, echo.input_schema) == ("Echo", {"type": "object"})
        assert (bare.defs, bare.input_schema) == ({"x": {}}, {"type": "object"})
        answer = await caller.agents.invoke_tool(
            toolkit="kit",
            tool="echo",
            arguments={"a": 1},
            attachment=b"12345",
            caller_context={"c": 2},
            on_behalf_of_id=caller.local_participant.id,
        )
        assert isinstance(answer, JsonResponse)
        assert answer.json == {
            "name": "echo",
            "arguments": {"a": 1},
            "caller_id": caller.local_participant.id,
            "caller_context": {"c": 2},
            "on_behalf_of_id": caller.local_participant.id,
            "size": 5,
        }
        await provider.agents.unregister_toolkit("kit", registration)
        assert await caller.agents.list_toolkits() == []
        with pytest.raises(NotFoundError):
            await caller.agents.invoke_tool(toolkit="kit", tool="echo", arguments={})


@pytest.mark.parametrize(
    ("answer", "relayed"),
    [
        (TextResponse(text="t"), TextResponse(text="t")),
        (EmptyResponse(), EmptyResponse()),
        (LinkResponse(name="n", url="u"), LinkResponse(name="n", url="u")),
        (
            FileResponse(data=b"\0\1", name="n", mime_type="m/t"),
            FileResponse(data=b"\0\1", name="n", mime_type="m/t"),
        ),
        (RawOutputs(outputs=[{"type": "x"}]), JsonResponse(json={"outputs": [{"type": "x"}]})),
    ],
)
async def test_what_a_tool_answers_is_relayed(server: RunningServer, answer: Response, relayed: Response) -> None:
    async def tool(_: MessageReceived) -> Response | RoomError:
        return answer

    async with server.client(name="p", role="tool") as provider, server.client() as caller:
        await _offer(provider, tool)
        assert await caller.agents.invoke_tool(toolkit="kit", tool="echo", arguments={}) == relayed


@pytest.mark.parametrize("answer", [ToolError("broken"), ErrorResponse(text="broken")])
async def test_a_tools_error_is_raised_in_the_caller(server: RunningServer, answer: Any) -> None:
    async def tool(_: MessageReceived) -> Response | RoomError:
        result: Response | RoomError = answer
        return result

    async with server.client(name="p", role="tool") as provider, server.client() as caller:
        await _offer(provider, tool)
        with pytest.raises(RoomError, match="broken"):
            await caller.agents.invoke_tool(toolkit="kit", tool="echo", arguments={})
        with pytest.raises(NotFoundError):
            await caller.agents.invoke_tool(toolkit="kit", tool="missing", arguments={})


async def test_an_answer_that_cannot_be_read_is_an_error(server: RunningServer) -> None:
    provider = await server.client(name="p", role="tool").protocol.connect()
    connection = RoomConnection()

    async def received(kind: type[E]) -> E:
        while not isinstance(event := connection.receive(await provider.receive()), kind):
            pass
        return event

    async def answer() -> None:
        call = await received(MessageReceived)
        await provider.send(packets(Message(call.id, "agent.tool_call_response", _packed({"type": "odd"}))))

    async with server.client() as caller, asyncio.TaskGroup() as tasks:
        offer = {"name": "kit", "public": True, "tools": {"echo": {"input_schema": {"type": "object"}}}}
        await provider.send(connection.request("agent.register_toolkit", offer)[1])
        await received(ReplyReceived)
        tasks.create_task(answer())
        with pytest.raises(RoomError, match="type: expected one of json, text"):
            await caller.agents.invoke_tool(toolkit="kit", tool="echo", arguments={})
    await provider.close()


def _packed(header: dict[str, Any]) -> bytes:
    return pack_message(header)


async def _ask(room: RoomClient, other: RoomClient) -> None:
    """Give an agent the right to use what belongs to the room's participant."""
    to = RemoteParticipant(id=other.local_participant.id)
    await room.messaging.send_message(to=to, type="chat", message={})


async def test_private_toolkits_are_for_their_owner_and_for_agents_that_it_asked(server: RunningServer) -> None:
    async with server.client(name="p") as provider, server.client(role="agent") as caller:
        await _ask(provider, caller)
        await _offer(provider, _echo, public=False, toolkit=_toolkit("ui"))
        owner = provider.local_participant.id
        assert await caller.agents.list_toolkits() == []
        assert [kit.name for kit in await caller.agents.list_toolkits(owner)] == ["ui"]
        assert [kit.name for kit in await provider.agents.list_toolkits()] == ["ui"]
        with pytest.raises(NotFoundError):
            await caller.agents.invoke_tool(toolkit="ui", tool="echo", arguments={})
        await caller.agents.invoke_tool(toolkit="ui", tool="echo", arguments={}, participant_id=owner)
        await provider.agents.invoke_tool(toolkit="ui", tool="echo", arguments={})


async def test_of_toolkits_with_one_name_the_nearest_and_newest_answers(server: RunningServer) -> None:
    def named(name: str) -> Answer:
        async def tool(_: MessageReceived) -> Response | RoomError:
            return TextResponse(text=name)

        return tool

    async with server.client(name="a") as a, server.client(name="b") as b, server.client(name="c") as c:
        await _offer(a, named("a"))
        await _offer(b, named("b"))
        await _offer(c, named("c"), public=False)

        async def ask(room: RoomClient, participant_id: str | None = None) -> str:
            answer = await room.agents.invoke_tool(
                toolkit="kit", tool="echo", arguments={}, participant_id=participant_id
            )
            assert isinstance(answer, TextResponse)
            return answer.text

        ids = {room: room.local_participant.id for room in (a, b, c)}
        async with server.client(name="d", role="agent") as d:
            await _ask(c, d)
            assert await ask(d) == "b"
            assert await ask(d, ids[a]) == "a"
            assert await ask(d, ids[c]) == "c"
            assert await ask(d, d.local_participant.id) == "b"
        assert await ask(c) == "c"
        assert await ask(a) == "a"


async def test_the_caller_hears_that_the_provider_left(server: RunningServer, heard: Any) -> None:
    provider = server.client(name="p", role="tool")
    called = asyncio.Event()

    async def tool(call: MessageReceived) -> Response | RoomError:
        called.set()
        return await _never(call)

    async with provider, server.client() as caller:
        await _offer(provider, tool)
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(_error(caller.agents.invoke_tool(toolkit="kit", tool="echo", arguments={})))
            await called.wait()
            await provider.close()
        assert "has left" in str(task.result())
        assert not server.server.service(AgentsService).in_room(server.server.rooms[0]).calls


async def _error(awaitable: Awaitable[Any]) -> RoomError | None:
    try:
        await awaitable
    except RoomError as error:
        return error
    return None


async def test_a_call_has_a_deadline(serve: Any) -> None:
    async with (
        serve(call_seconds=0.05) as server,
        server.client(name="p", role="tool") as provider,
        server.client() as caller,
    ):
        await _offer(provider, _never)
        with pytest.raises(RequestTimeoutError, match="echo"):
            await caller.agents.invoke_tool(toolkit="kit", tool="echo", arguments={})
        await _register_agent(provider)
        provider.register_handler("agent.ask", lambda _: None)
        with pytest.raises(RequestTimeoutError, match="helper"):
            await caller.agents.ask(agent="helper", arguments={})


async def test_only_the_provider_can_answer(server: RunningServer) -> None:
    calls: asyncio.Queue[MessageReceived] = asyncio.Queue()
    go = asyncio.Event()

    async def tool(call: MessageReceived) -> Response | RoomError:
        calls.put_nowait(call)
        await go.wait()
        return TextResponse(text="true")

    async with (
        server.client(name="p") as provider,
        server.client() as caller,
        server.client(name="forger") as forger,
        asyncio.TaskGroup() as tasks,
    ):
        await _offer(provider, tool)
        task = tasks.create_task(caller.agents.invoke_tool(toolkit="kit", tool="echo", arguments={}))
        call = await calls.get()
        await forger.agents.answer_tool_call(call, TextResponse(text="forged"))
        await forger.queues.list()
        go.set()
        assert await task == TextResponse(text="true")
        # Nor does an answer that comes too late disturb anybody.
        await provider.agents.answer_tool_call(call, TextResponse(text="late"))
        await provider.notify("agent.ask_response", {"task_id": "unknown", "answer": 1})
        await provider.notify("agent.ask_response", {"answer": "without a task"})
        await provider.queues.list()


async def _register_agent(room: RoomClient, name: str = "helper", **more: Any) -> str:
    answer = await room.send_request(
        "agent.register_agent",
        {
            "name": name,
            "title": None,
            "description": "helps",
            "input_schema": None,
            "output_schema": None,
            "requires": [
                RequiredToolkit(name="kit", tools=["echo"]).to_json(),
                RequiredSchema(name="thread", callable=False).to_json(),
            ],
            "supports_tools": True,
            "labels": ["l"],
            **more,
        },
    )
    return str(answer["id"])


async def test_an_agent_is_asked_and_answers(server: RunningServer) -> None:
    asked: list[MessageReceived] = []
    async with server.client(name="agent", role="agent") as agent, server.client() as caller:

        async def on_ask(message: MessageReceived) -> None:
            asked.append(message)
            answer = {"task_id": message.header["task_id"], "answer": {"sum": 3}, "caller_context": None}
            await agent.notify("agent.ask_response", answer)

        agent.register_handler("agent.ask", on_ask)
        registration = await _register_agent(agent)
        await _offer(agent, _echo)
        (card,) = await caller.agents.list_agents()
        assert (card.name, card.title, card.description, card.labels) == ("helper", "helper", "helps", ["l"])
        assert [repr(requirement) for requirement in card.requires] == [
            "<RequiredToolkit kit>",
            "<RequiredSchema thread>",
        ]
        behalf = Participant(id=caller.local_participant.id)
        requires = [RequiredToolkit(name="kit", tools=["bare"]), RequiredSchema(name="thread")]
        answer = await caller.agents.ask(agent="helper", arguments={"a": 1}, on_behalf_of=behalf, requires=requires)
        assert answer == {"sum": 3}
        header = asked[0].header
        assert (header["arguments"], header["on_behalf_of_id"]) == ({"a": 1}, behalf.id)
        (toolkit,) = header["toolkits"]
        assert [tool["name"] for tool in toolkit["tools"]] == ["bare"]
        await caller.agents.ask(agent="helper", arguments={}, requires=[RequiredToolkit(name="kit")])
        assert [tool["name"] for tool in asked[1].header["toolkits"][0]["tools"]] == ["echo", "bare"]
        with pytest.raises(NotFoundError, match="other"):
            await caller.agents.ask(agent="helper", arguments={}, requires=[RequiredToolkit(name="other")])
        request = {"agent": "helper", "requires": [{"toolkit": "kit", "tools": "echo"}]}
        with pytest.raises(InvalidRequestError):
            await caller.send_request("agent.ask", request)
        await agent.send_request("agent.unregister_agent", {"id": registration})
        with pytest.raises(NotFoundError):
            await caller.agents.ask(agent="helper", arguments={})


async def test_an_agents_error_is_raised_in_the_asker(server: RunningServer) -> None:
    async with server.client(name="agent", role="agent") as agent, server.client() as caller:

        async def on_ask(message: MessageReceived) -> None:
            await agent.notify("agent.ask_response", {"task_id": message.header["task_id"], "error": "cannot"})

        agent.register_handler("agent.ask", on_ask)
        await _register_agent(agent)
        with pytest.raises(RoomError, match="cannot"):
            await caller.agents.ask(agent="helper", arguments={})


async def test_a_registration_is_its_owners(server: RunningServer) -> None:
    async with server.client(name="a") as a, server.client(name="b") as b:
        toolkit, agent = await _offer(a, _echo), await _register_agent(a)
        for request, registration in (("toolkit", toolkit), ("agent", agent)):
            with pytest.raises(NotFoundError):
                await b.send_request(f"agent.unregister_{request}", {"id": registration})
            with pytest.raises(NotFoundError):
                await b.send_request(f"agent.unregister_{request}", {"id": "nothing"})


async def test_registrations_have_a_limit(server: RunningServer) -> None:
    async with server.client() as a:
        for _ in range(registry.MAX_REGISTRATIONS):
            await _offer(a, _echo)
        with pytest.raises(RoomError, match="registrations"):
            await _offer(a, _echo)


@pytest.mark.parametrize("name", ["ü" * 128, "\ud800", ""])
async def test_a_toolkit_name_that_no_message_type_can_carry_is_refused(server: RunningServer, name: str) -> None:
    async with server.client() as a:
        with pytest.raises(InvalidRequestError, match="name"):
            await a.send_request("agent.register_toolkit", {"name": name, "tools": {}})


async def test_grants_limit_toolkits(server: RunningServer) -> None:
    scope = ApiScope(agents=AgentsGrant(allowed_toolkits=["kit"], register_public_toolkit=False))
    async with server.client() as a, server.client(name="b", scope=scope) as b:
        await _offer(a, _echo)
        await _offer(a, _echo, toolkit=_toolkit("secret"))
        assert [kit.name for kit in await b.agents.list_toolkits()] == ["kit"]
        with pytest.raises(AccessDeniedError):
            await b.agents.invoke_tool(toolkit="secret", tool="echo", arguments={})
        with pytest.raises(AccessDeniedError):
            await _offer(b, _echo)
        await _offer(b, _echo, public=False)


async def test_a_call_to_a_url_that_is_not_permitted_is_refused(server: RunningServer) -> None:
    async with server.client() as a:
        with pytest.raises(AccessDeniedError):
            await a.agents.make_call(name="x", url="http://127.0.0.1:1/x", arguments={})


async def test_the_developer_log_reaches_those_who_watch(server: RunningServer, heard: Any) -> None:
    async with server.client(name="a") as a, server.client(name="b") as b:
        entries = heard(b.developer, "log")
        await a.developer.log(type="before", data={})
        await b.developer.enable()
        await a.developer.log(type="t", data={"x": 1})
        assert await entries.get() == {"type": "t", "data": {"x": 1}}
        a.developer.log_nowait(type="later", data={})
        assert (await entries.get())["type"] == "later"
        await b.developer.disable()
        await a.developer.log(type="after", data={})
        await b.queues.list()
        assert entries.empty()


async def test_watching_survives_a_broken_connection(server: RunningServer, heard: Any) -> None:
    async with server.client(name="a", reconnect=ReconnectPolicy(first_delay=0.0)) as a:
        entries, reconnected = heard(a.developer, "log"), heard(a, "reconnected")
        calls: list[str] = []

        def handler(type: str, **_: Any) -> None:
            calls.append(type)

        a.developer.on("log", handler)
        a.developer.off("log", handler)
        await a.developer.enable()
        server.cut(a)
        await reconnected.get()
        await a.developer.log(type="t", data={})
        assert (await entries.get())["type"] == "t"
        assert calls == []


async def test_newer_programs_call_the_arguments_of_a_tool_its_input(server: RunningServer) -> None:
    async with server.client(name="provider", role="agent") as provider, server.client(name="caller") as caller:
        await _offer(provider, _echo)
        given = await caller.agents.invoke_tool(toolkit="kit", tool="echo", input={"text": "hello"})
        same = await caller.agents.invoke_tool(toolkit="kit", tool="echo", arguments={"text": "hello"})
        assert given.to_json() == same.to_json()
        with pytest.raises(InvalidRequestError, match="not both"):
            await caller.agents.invoke_tool(toolkit="kit", tool="echo", arguments={}, input={})

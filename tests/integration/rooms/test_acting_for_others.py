"""Whose private toolkits a participant may use, and for whom it may act: those that asked it, and nobody else."""

import asyncio
from typing import Any

import pytest

from meshhost.errors import AccessDeniedError, NotFoundError
from meshhost.protocol.connection import MessageReceived
from meshhost.protocol.messages import JsonResponse
from meshhost.room.client import RoomClient
from meshhost.room.participants import Participant, RemoteParticipant
from meshhost.room.requirements import RequiredToolkit
from meshhost.room.services.agents import ToolDescription, ToolkitDescription
from meshhost.testing.server import RunningServer


async def offer(room: RoomClient, name: str, *, public: bool = False) -> None:
    """Register a toolkit whose tool `echo` answers with the header of its call."""

    async def handler(call: MessageReceived) -> None:
        await room.agents.answer_tool_call(call, JsonResponse(json=dict(call.header)))

    toolkit = ToolkitDescription(name=name, title=name, description="", tools=[ToolDescription(name="echo")])
    await room.agents.register_toolkit(toolkit, handler, public=public)


async def use(room: RoomClient, toolkit: str, **options: Any) -> dict[str, Any]:
    answer = await room.agents.invoke_tool(toolkit=toolkit, tool="echo", arguments={}, **options)
    assert isinstance(answer, JsonResponse)
    return dict(answer.json)


async def write_to(room: RoomClient, other: RoomClient) -> None:
    to = RemoteParticipant(id=other.local_participant.id)
    await room.messaging.send_message(to=to, type="chat", message={"text": "hello"})


def id_of(room: RoomClient) -> str:
    return room.local_participant.id


async def sees(room: RoomClient, owner: RoomClient) -> list[str]:
    return [kit.name for kit in await room.agents.list_toolkits(id_of(owner))]


async def test_naming_the_owner_does_not_open_its_private_toolkits(server: RunningServer) -> None:
    async with (
        server.client(name="owner") as owner,
        server.client(name="person") as person,
        server.client(name="agent", role="agent") as agent,
    ):
        await offer(owner, "ui")
        for other in (person, agent):
            assert await sees(other, owner) == []
            with pytest.raises(NotFoundError, match="no toolkit 'ui'"):
                await use(other, "ui", participant_id=id_of(owner))
        assert await sees(owner, owner) == ["ui"]
        await use(owner, "ui", participant_id=id_of(owner))


async def test_an_agent_uses_the_private_toolkits_of_who_asked_it(server: RunningServer) -> None:
    async with (
        server.client(name="owner") as owner,
        server.client(name="agent", role="agent") as agent,
        server.client(name="other", role="agent") as other,
    ):
        await offer(owner, "ui")
        await owner.messaging.enable()
        await agent.messaging.enable()
        await owner.messaging.broadcast_message(type="chat", message={})
        assert await sees(agent, owner) == []
        await write_to(owner, agent)
        assert await sees(agent, owner) == ["ui"]
        assert (await use(agent, "ui", participant_id=id_of(owner)))["caller_id"] == id_of(agent)
        assert await sees(other, owner) == []
        # Only for a request that names it.
        assert await agent.agents.list_toolkits() == []


async def test_a_message_to_a_person_opens_nothing(server: RunningServer) -> None:
    async with server.client(name="owner") as owner, server.client(name="person") as person:
        await offer(owner, "ui")
        await write_to(owner, person)
        assert await sees(person, owner) == []
        with pytest.raises(AccessDeniedError, match="on_behalf_of_id"):
            await use(person, "ui", on_behalf_of_id=id_of(owner))


async def test_nobody_acts_for_one_that_did_not_ask(server: RunningServer) -> None:
    async with (
        server.client(name="user") as user,
        server.client(name="agent", role="agent") as agent,
        server.client(name="provider", role="tool") as provider,
    ):
        await offer(provider, "kit", public=True)
        for claimed in (id_of(user), "somebody", ""):
            with pytest.raises(AccessDeniedError, match="on_behalf_of_id"):
                await use(agent, "kit", on_behalf_of_id=claimed)
            with pytest.raises(AccessDeniedError, match="on_behalf_of_id"):
                await agent.agents.ask(agent="none", arguments={}, on_behalf_of=Participant(id=claimed))
        # For itself everybody may act.
        assert (await use(user, "kit", on_behalf_of_id=id_of(user)))["on_behalf_of_id"] == id_of(user)
        await write_to(user, agent)
        assert (await use(agent, "kit", on_behalf_of_id=id_of(user)))["on_behalf_of_id"] == id_of(user)


async def test_who_is_asked_for_another_may_pass_it_on(server: RunningServer) -> None:
    async with (
        server.client(name="user") as user,
        server.client(name="agent", role="agent") as agent,
        server.client(name="middle", role="tool") as middle,
        server.client(name="last", role="tool") as last,
    ):
        await offer(user, "ui")
        await offer(middle, "middle", public=True)
        await offer(last, "last", public=True)
        await write_to(user, agent)
        await use(agent, "middle", on_behalf_of_id=id_of(user))
        assert (await use(middle, "last", on_behalf_of_id=id_of(user)))["on_behalf_of_id"] == id_of(user)
        assert "ui" in await sees(middle, user)
        # Whose tool was used was asked by the caller, too.
        assert (await use(middle, "last", on_behalf_of_id=id_of(agent)))["on_behalf_of_id"] == id_of(agent)


async def test_for_one_that_has_left_an_agent_acts_as_itself(server: RunningServer, until: Any) -> None:
    user = server.client(name="user")
    async with (
        server.client(name="agent", role="agent") as agent,
        server.client(name="provider", role="tool") as provider,
    ):
        await offer(provider, "kit", public=True)
        async with user:
            left = id_of(user)
            await write_to(user, agent)
        await until(lambda: left not in server.server.rooms[0].members)
        assert (await use(agent, "kit", on_behalf_of_id=left))["on_behalf_of_id"] is None


async def test_an_ask_opens_the_askers_toolkits_to_the_agent(server: RunningServer) -> None:
    asked: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    async with server.client(name="user") as user, server.client(name="agent", role="agent") as agent:

        async def on_ask(message: MessageReceived) -> None:
            asked.put_nowait(dict(message.header))
            used = await use(agent, "ui", participant_id=id_of(user), on_behalf_of_id=id_of(user))
            await agent.notify("agent.ask_response", {"task_id": message.header["task_id"], "answer": used})

        await offer(user, "ui")
        agent.register_handler("agent.ask", on_ask)
        await agent.send_request(
            "agent.register_agent", {"name": "helper", "supports_tools": True, "requires": [], "labels": []}
        )
        answer = await user.agents.ask(agent="helper", arguments={}, requires=[RequiredToolkit(name="ui")])
        assert answer["on_behalf_of_id"] == id_of(user)
        assert [kit["name"] for kit in (await asked.get())["toolkits"]] == ["ui"]

"""Agents that write documents and runners that an asker chooses tools for, in a real room with a scripted model."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from meshhost.agents import SingleShotWriter, Writer, WriterContext
from meshhost.agents.agent import make_run_task_tool
from meshhost.agents.llmrunner import DynamicLLMTaskRunner, LLMTaskRunner
from meshhost.agents.pydantic import PydanticAgent, PydanticWriter
from meshhost.api.room_server_client import RequiredToolkit
from meshhost.errors import InvalidRequestError, NotFoundError, RoomError
from meshhost.gateway.provider import ProviderTable
from meshhost.gateway.providers.openai_compatible import OpenAICompatibleProvider
from meshhost.openai import OpenAIResponsesAdapter
from meshhost.openai.tools.responses_adapter import WebSearchToolkitBuilder
from meshhost.room.client import RoomClient
from meshhost.testing.scripted_upstream import ScriptedUpstream
from meshhost.testing.server import RunningServer, running_server
from meshhost.tools import ToolContext


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream() as running:
        yield running


@pytest.fixture
async def server(tmp_path: Path, upstream: ScriptedUpstream) -> AsyncIterator[RunningServer]:
    provider = OpenAICompatibleProvider(name="scripted", base_url=upstream.base_url, api_key="key")
    async with running_server(tmp_path, providers=ProviderTable({"*": provider})) as running:
        yield running


@pytest.fixture
async def user(server: RunningServer) -> AsyncIterator[RoomClient]:
    async with server.client(name="ann") as room:
        yield room


@pytest.fixture
async def own(server: RunningServer) -> AsyncIterator[RoomClient]:
    """The agent's room."""
    async with server.client(name="agent", role="agent") as room:
        yield room


class Note(BaseModel):
    path: str
    text: str


class Kept(BaseModel):
    length: int


class NoteWriter(PydanticWriter):
    def __init__(self) -> None:
        super().__init__(name="notes", input_model=Note, output_model=Kept)

    async def write_model(self, writer_context: WriterContext, arguments: Note) -> Kept:
        writer_context.document.root.append_child("body", {"text": arguments.text})
        return Kept(length=len(arguments.text))


async def test_what_a_writer_wrote_is_there_when_its_answer_comes(own: RoomClient, user: RoomClient) -> None:
    agent = NoteWriter()
    await agent.start(room=own)
    asked = {"path": "a.document", "text": "hello"}
    assert await user.agents.ask(agent="notes", arguments=asked) == {"length": 5}
    document = await user.sync.open(path="a.document", create=False)
    assert document.root.to_json() == {"document": {"content": [{"body": {"text": "hello"}}]}}
    with pytest.raises(RoomError, match="text"):
        await user.agents.ask(agent="notes", arguments={"path": "a.document"})
    await agent.stop()


async def test_a_writer_that_creates_nothing_needs_the_document(own: RoomClient, user: RoomClient) -> None:
    class Careful(Writer):
        async def write(self, writer_context: WriterContext, arguments: Any) -> Any:
            return {
                "path": writer_context.path,
                "room": writer_context.room.room_name,
                "left": self.pop_path(arguments),
            }

    agent = Careful(name="careful", create=False)
    await agent.start(room=own)
    asked = {"path": "b.document", "prompt": "x"}
    with pytest.raises(NotFoundError):
        await user.agents.ask(agent="careful", arguments=asked)
    await user.sync.create(path="b.document")
    answer = await user.agents.ask(agent="careful", arguments=asked)
    assert answer == {"path": "b.document", "room": "room", "left": "b.document"}
    await agent.stop()
    with pytest.raises(InvalidRequestError, match="property `path`"):
        Writer(name="w", input_schema={"type": "object", "properties": {}})
    with pytest.raises(InvalidRequestError, match="llm_adapter"):
        SingleShotWriter(name="w")


async def test_the_content_that_the_model_wrote_is_appended(
    own: RoomClient, user: RoomClient, upstream: ScriptedUpstream
) -> None:
    upstream.say(json.dumps({"thread": {"name": "Talk", "properties": [{"messages": {"items": []}}]}}))
    agent = SingleShotWriter(name="shot", llm_adapter=OpenAIResponsesAdapter(), rules=["Be brief."])
    await agent.start(room=own)
    assert await user.agents.ask(agent="shot", arguments={"path": "x.thread", "prompt": "talk"}) == {}
    document = await user.sync.open(path="x.thread", create=False)
    assert [child.tag_name for child in document.root.get_children()] == ["messages"]
    assert "Be brief." in upstream.requests[0].body["instructions"]
    await agent.stop()


async def test_an_asker_chooses_the_model_and_the_tools(
    own: RoomClient, user: RoomClient, upstream: ScriptedUpstream
) -> None:
    class Runner(LLMTaskRunner):
        def get_toolkit_builders(self) -> list[Any]:
            return [WebSearchToolkitBuilder()]

    upstream.say("found")
    agent = Runner(name="runner", llm_adapter=OpenAIResponsesAdapter(model="usual"))
    await agent.start(room=own)
    asked = {"prompt": "search", "model": "other", "tools": [{"name": "web_search"}]}
    assert await user.agents.ask(agent="runner", arguments=asked) == "found"
    [request] = upstream.requests
    assert (request.body["model"], request.body["tools"]) == ("other", [{"type": "web_search"}])
    assert request.body["input"][-1]["content"] == "search"
    with pytest.raises(RoomError, match="there is no 'shell' here"):
        await user.agents.ask(agent="runner", arguments={"prompt": "x", "tools": [{"name": "shell"}]})
    await agent.stop()


async def test_each_ask_brings_its_schema(own: RoomClient, user: RoomClient, upstream: ScriptedUpstream) -> None:
    upstream.say('{"n": 1}')
    agent = DynamicLLMTaskRunner(name="dynamic", llm_adapter=OpenAIResponsesAdapter())
    await agent.start(room=own)
    schema = {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}}
    answer = await user.agents.ask(agent="dynamic", arguments={"prompt": "x", "output_schema": schema})
    assert (answer, answer.json) == ({"n": 1}, {"n": 1})
    await agent.stop()


async def test_agents_of_the_room_are_tools_of_a_toolkit(own: RoomClient, user: RoomClient) -> None:
    class Length(PydanticAgent):
        def __init__(self) -> None:
            super().__init__(name="length", input_model=Note, output_model=Kept)

        async def ask_model(self, context: Any, arguments: Note) -> Kept:
            return Kept(length=len(arguments.text))

    agent = Length()
    await agent.start(room=own)
    context = ToolContext(room=user, caller=user.local_participant)
    kit = await make_run_task_tool(context, RequiredToolkit(name="agents", tools=["length"]))
    async with asyncio.timeout(20):
        answer = await kit.execute(context=context, name="run_length", arguments={"path": "p", "text": "four"})
    assert answer.to_json()["json"] == {"length": 4}
    with pytest.raises(NotFoundError, match="no agent 'nobody'"):
        await make_run_task_tool(context, RequiredToolkit(name="agents", tools=["nobody"]))
    await agent.stop()

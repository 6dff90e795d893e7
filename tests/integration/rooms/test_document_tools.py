"""A model writes documents with tools, and a listener hears of it."""

import asyncio
import json
from typing import Any

import pytest

from meshhost.agents.listener import Listener, ListenerContext
from meshhost.agents.schemas.document import document_schema
from meshhost.documents.document import Element
from meshhost.errors import InvalidRequestError, NotFoundError
from meshhost.room.client import RoomClient
from meshhost.testing.server import RunningServer
from meshhost.tools.document_tools import DocumentAuthoringToolkit, DocumentTypeAuthoringToolkit
from meshhost.tools.tool import ToolContext

PATH = "notes/plan.document"


@pytest.fixture
async def room(server: RunningServer) -> Any:
    async with server.client() as client:
        schema = json.dumps(document_schema.to_json()).encode()
        await client.storage.upload(path=".schemas/document.json", data=schema)
        yield client


async def use(room: RoomClient, tool: str, **arguments: Any) -> Any:
    """Call a tool of either toolkit as a model does; returns the JSON of its answer."""
    toolkits = [
        DocumentAuthoringToolkit(),
        DocumentTypeAuthoringToolkit(schema=document_schema, document_type="document"),
    ]
    toolkit = next(toolkit for toolkit in toolkits if any(each.name == tool for each in toolkit.tools))
    context = ToolContext(room=room, caller=room.local_participant)
    answer = await toolkit.execute(context=context, name=tool, arguments={"path": PATH, **arguments})
    return getattr(answer, "json", None)


def texts(content: Any) -> list[str]:
    [elements] = [value for value in content["document"].values() if isinstance(value, list)]
    return [next(iter(element.values()))["text"] for element in elements]


async def test_a_document_is_written_read_and_edited(room: RoomClient) -> None:
    heading = await use(room, "document_insert_heading", heading={"text": "Plan"})
    body = await use(room, "document_insert_body", body={"text": "first"})
    await use(room, "set_attribute", id=body["id"], attribute_name="text", attribute_value="second")
    assert texts(await use(room, "get_document")) == ["Plan", "second"]
    await use(room, "remove_element_by_id", id=heading["id"])
    assert texts(await use(room, "meshagent.document.open")) == ["second"]
    assert list(room.sync.get_open_documents()) == [PATH]
    await use(room, "meshagent.document.close")
    assert not room.sync.get_open_documents()


async def test_what_does_not_fit_is_told(room: RoomClient) -> None:
    made = await use(room, "document_insert_heading", heading={"text": "Plan"})
    with pytest.raises(InvalidRequestError, match="heading"):
        await use(room, "document_insert_heading", heading={"text": 5})
    with pytest.raises(InvalidRequestError):
        await use(room, "set_attribute", id=made["id"], attribute_name="colour", attribute_value="red")
    with pytest.raises(NotFoundError, match="nowhere"):
        await use(room, "remove_element_by_id", id="nowhere")
    with pytest.raises(NotFoundError, match="not open"):
        await use(room, "meshagent.document.close")
    assert texts(await use(room, "get_document")) == ["Plan"]


class Until(Listener):
    """Ends when a body says so."""

    def __init__(self) -> None:
        super().__init__(name="until")
        self.started = asyncio.Event()
        self.heard: list[str] = []

    async def on_listening_started(self, listener_context: ListenerContext) -> None:
        self.started.set()

    async def on_element_inserted(self, listener_context: ListenerContext, element: Element) -> bool:
        self.heard.append(f"{element.tag_name} {element['text']}")
        return False

    async def on_attribute_changed(
        self, listener_context: ListenerContext, element: Element, attribute: str | None
    ) -> bool:
        self.heard.append(f"{attribute}={element['text']}")
        return bool(element["text"] == "stop")


async def test_a_listener_hears_what_happens_until_it_has_seen_enough(server: RunningServer, room: RoomClient) -> None:
    agent = Until()
    async with server.client(name="until", role="agent") as own:
        await agent.start(room=own)
        async with asyncio.TaskGroup() as tasks:
            asked = tasks.create_task(room.agents.ask(agent="until", arguments={"path": PATH}))
            await agent.started.wait()
            made = await use(room, "document_insert_body", body={"text": "go on"})
            await use(room, "set_attribute", id=made["id"], attribute_name="text", attribute_value="stop")
        assert asked.result() == {}
        assert agent.heard == ["body go on", "text=stop"]
        await agent.stop()


async def test_a_plain_listener_ends_with_who_asked(server: RunningServer, room: RoomClient) -> None:
    agent = Listener(name="idle")
    async with server.client(name="idle", role="agent") as own:
        await agent.start(room=own)
        task = asyncio.create_task(room.agents.ask(agent="idle", arguments={"path": PATH}))
        while PATH not in own.sync.get_open_documents():  # noqa: ASYNC110 - no event tells of it
            await asyncio.sleep(0.01)
        made = await use(room, "document_insert_body", body={"text": "a"})
        await use(room, "set_attribute", id=made["id"], attribute_name="text", attribute_value="b")
        task.cancel()
        async with asyncio.timeout(10):
            while own.sync.get_open_documents():  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.01)
        await agent.stop()

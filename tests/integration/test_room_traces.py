"""Traces of a room: over a real server and agents, from the sender through worker, model and tool, without a collector."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from meshhost.agents.worker import Worker
from meshhost.app.config_file import ServerFile
from meshhost.errors import AccessDeniedError, InvalidRequestError
from meshhost.gateway.provider import ProviderTable
from meshhost.gateway.providers.openai_compatible import OpenAICompatibleProvider
from meshhost.hosting.service_host import ServiceHost
from meshhost.identity.grants import ApiScope
from meshhost.openai.tools import OpenAIResponsesAdapter, OpenAIResponsesToolResponseAdapter
from meshhost.room.client import RoomClient
from meshhost.server.calling.webhooks import WebhookSender
from meshhost.supervision.state import State
from meshhost.testing.scripted_upstream import ScriptedUpstream
from meshhost.testing.server import RunningServer, running_server
from meshhost.tools.storage import StorageToolkit

Json = dict[str, Any]

ONE_ATTEMPT: Json = {"queues": {"max_attempts": 1}}


@asynccontextmanager
async def serving(data_dir: Path, upstream: ScriptedUpstream | None = None, **file: Any) -> AsyncIterator[RunningServer]:
    """A room server whose gateway asks the scripted provider."""
    providers = ProviderTable({})
    if upstream is not None:
        provider = OpenAICompatibleProvider(name="scripted", base_url=upstream.base_url, api_key="sk-upstream")
        providers = ProviderTable({"*": provider})
    settings = ServerFile.model_validate({**ONE_ATTEMPT, **file})
    async with running_server(data_dir, file=settings, providers=providers) as server:
        yield server


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream() as upstream:
        yield upstream


async def ask(server: RunningServer, path: str, **query: Any) -> Json:
    headers = {"Authorization": f"Bearer {server.api_key}"}
    async with aiohttp.ClientSession() as http, http.get(server.url + path, params=query, headers=headers) as answer:
        found: Json = await answer.json()
        assert answer.status == 200, found
        return found


async def spans_of(server: RunningServer, enough: Callable[[list[Json]], bool], **query: Any) -> list[Json]:
    """The spans of the newest trace that fits, as soon as they are enough."""
    async with asyncio.timeout(15):
        while True:
            listed = (await ask(server, "/rooms/room/traces", **query))["traces"]
            if listed:
                spans: list[Json] = (await ask(server, f"/rooms/room/traces/{listed[0]['trace']}"))["spans"]
                if enough(spans):
                    return spans
            await asyncio.sleep(0.05)  # spans are reported by and by, and nobody is told


def has(*names: str) -> Callable[[list[Json]], bool]:
    return lambda spans: {span["name"] for span in spans} >= set(names)


def one(spans: list[Json], name: str) -> Json:
    [found] = [span for span in spans if span["name"] == name]
    return found


class Echo(Worker):
    """Fails for what it is told to fail for."""

    async def process_message(self, *, chat_context: Any, room: RoomClient, message: Any, toolkits: Any) -> Any:
        if message == "fail":
            raise ValueError("no such city")
        return message


class Poet(Worker):
    """Does what the model says, with the files of the room."""

    def __init__(self) -> None:
        super().__init__(
            queue="jobs",
            name="poet",
            llm_adapter=OpenAIResponsesAdapter(model="scripted"),
            tool_adapter=OpenAIResponsesToolResponseAdapter(),
            toolkits=[StorageToolkit()],
            rules=["Carry out the instructions."],
        )


@asynccontextmanager
async def at_work(server: RunningServer, worker: Worker) -> AsyncIterator[RoomClient]:
    async with server.client(name="poet", role="agent") as room, server.client() as user:
        await worker.start(room=room)
        try:
            yield user
        finally:
            await worker.stop()


def connected(spans: list[Json]) -> bool:
    """Whether each span but the first hangs below another one."""
    ids = {span["id"] for span in spans}
    return [span["name"] for span in spans if span["parent"] not in ids] == ["send jobs"]


async def test_a_message_through_a_service_host_is_one_connected_trace(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    upstream.call_tool("write_file", {"path": "poem.txt", "text": "Silicon dreams", "overwrite": True}).say("saved")
    async with serving(tmp_path, upstream) as server:
        host = ServiceHost(port=0, webhook_secret="", allowed_room_urls=[server.url])

        host.path("/poet", identity="poet")(Poet)
        await host.start()
        try:
            async with aiohttp.ClientSession() as session, server.client() as user:
                data = {
                    "room_name": "room",
                    "room_url": server.server.room_url("room"),
                    "token": server.token("room", name="poet", role="agent", scope=ApiScope.agent_default()),
                    "arguments": {},
                }
                await WebhookSender(session).send(f"http://127.0.0.1:{host.port}/poet", "room.call", data, secret=None)
                async with asyncio.timeout(15):
                    await host.agents[0].wait_state(State.RUNNING)
                sent = await user.queues.send(name="jobs", message={"instructions": "save a poem"})
                spans = await spans_of(server, has("process jobs", "lease jobs"))
        finally:
            await host.stop()

    names = sorted(span["name"] for span in spans)
    assert names == sorted(
        [
            *("send jobs", "wait jobs", "lease jobs", "process jobs", "llm.next", "llm.turn", "llm.turn"),
            *("model gateway", "model gateway", "tool.call"),
        ]
    )
    assert connected(spans)
    by_id = {span["id"]: span["name"] for span in spans}
    above = {(span["name"], by_id.get(span["parent"])) for span in spans}
    assert above == {
        ("send jobs", None),
        ("wait jobs", "send jobs"),
        ("lease jobs", "send jobs"),
        ("process jobs", "lease jobs"),
        ("llm.next", "process jobs"),
        ("llm.turn", "llm.next"),
        ("model gateway", "llm.turn"),
        ("tool.call", "llm.next"),
    }
    process = one(spans, "process jobs")
    assert process["agent"] == "poet"
    assert process["attributes"]["meshhost.outcome"] == "done"
    assert process["attributes"]["messaging.message.id"] == str(sent)
    assert one(spans, "lease jobs")["attributes"]["meshhost.worker"] == "poet"
    assert one(spans, "tool.call")["attributes"]["tool.name"] == "write_file"
    gateway = next(span for span in spans if span["name"] == "model gateway")
    assert gateway["attributes"]["http.response.status_code"] == 200
    assert gateway["attributes"]["llm.input_tokens"] > 0
    assert "Silicon" not in str(spans)


async def test_a_message_that_fails_has_a_trace_although_none_was_recorded(tmp_path: Path) -> None:
    async with serving(tmp_path, traces={"per_second": 0}) as server:
        async with at_work(server, Echo(queue="jobs", name="poet")) as user:
            await user.queues.send(name="jobs", message="well")
            sent = await user.queues.send(name="jobs", message="fail")
            spans = await spans_of(server, has("process jobs", "lease jobs"), failed="true")
            listed = (await ask(server, "/rooms/room/traces"))["traces"]
    assert [each["messages"] for each in listed] == [[str(sent)]]
    assert connected(spans)
    process = one(spans, "process jobs")
    assert process["parent"] == one(spans, "lease jobs")["id"]
    assert process["error"] == one(spans, "lease jobs")["error"] == "ValueError: no such city"

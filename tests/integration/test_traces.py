"""The seed's whole path in one process: message → worker → model → tool → file; its trace, and its failures."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from doubles.ports import free_port
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from meshhost.agents.worker import Worker
from meshhost.app.config_file import ServerFile
from meshhost.clock import SystemClock
from meshhost.gateway.provider import ProviderTable
from meshhost.gateway.providers.openai_compatible import OpenAICompatibleProvider
from meshhost.hosting.service_host import ServiceHost
from meshhost.identity.grants import ApiScope
from meshhost.openai.tools import (
    OpenAIResponsesAdapter,
    OpenAIResponsesToolResponseAdapter,
    exchange,
    model_adapter,
    tool_bundle,
)
from meshhost.openai.tools.retry import RetryPolicy
from meshhost.room.client import RoomClient
from meshhost.room.consuming import job
from meshhost.server.calling.webhooks import WebhookSender
from meshhost.supervision.state import State
from meshhost.testing.scripted_upstream import ScriptedUpstream
from meshhost.testing.server import RunningServer, running_server
from meshhost.tools.storage import StorageToolkit
from meshhost.tools.tool import Tool, ToolContext
from meshhost.tools.toolkit import Toolkit

POEM = "Silicon dreams in rows of light"


async def soon(awaitable: Awaitable[Any], seconds: float = 15.0) -> Any:
    """What is awaited here comes soon, or the test fails."""
    async with asyncio.timeout(seconds):
        return await awaitable


@pytest.fixture(scope="module")
def tracing() -> Iterator[tuple[TracerProvider, InMemorySpanExporter]]:
    """A tracer provider for this module. The library's tracers are bound to it and set free again afterwards."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    modules = (job, model_adapter, exchange, tool_bundle)
    with pytest.MonkeyPatch.context() as patch:
        for module in modules:
            patch.setattr(module, "tracer", provider.get_tracer(module.__name__))
        patch.setattr(trace, "_TRACER_PROVIDER", provider)
        yield provider, exporter
    provider.shutdown()


@pytest.fixture
def spans(tracing: tuple[TracerProvider, InMemorySpanExporter]) -> Callable[[], dict[str, list[ReadableSpan]]]:
    """The finished spans of this test, by name."""
    tracing[1].clear()

    def by_name() -> dict[str, list[ReadableSpan]]:
        found: dict[str, list[ReadableSpan]] = {}
        for span in tracing[1].get_finished_spans():
            found.setdefault(span.name, []).append(span)
        return found

    return by_name


class CountingClock(SystemClock):
    """Notes how long it was asked to sleep, and does not."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0)


@pytest.fixture
def clock() -> CountingClock:
    return CountingClock()


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream() as upstream:
        yield upstream


Serve = Callable[..., Any]


@pytest.fixture
def serve(tmp_path: Path) -> Serve:
    """`serve(base_url)`: a room server whose gateway asks that provider; a message has one attempt."""

    @asynccontextmanager
    async def make(base_url: str) -> AsyncIterator[RunningServer]:
        provider = OpenAICompatibleProvider(name="scripted", base_url=base_url, api_key="sk-upstream")
        file = ServerFile.model_validate({"queues": {"max_attempts": 1}})
        async with running_server(tmp_path / "data", file=file, providers=ProviderTable({"*": provider})) as running:
            yield running

    return make


@pytest.fixture
async def server(serve: Serve, upstream: ScriptedUpstream) -> AsyncIterator[RunningServer]:
    async with serve(upstream.base_url) as running:
        yield running


def options(clock: CountingClock, *toolkits: Toolkit) -> dict[str, Any]:
    return {
        "queue": "jobs",
        "name": "storage-worker",
        "llm_adapter": OpenAIResponsesAdapter(model="scripted", retry=RetryPolicy(tries=2, base=0.01, clock=clock)),
        "tool_adapter": OpenAIResponsesToolResponseAdapter(),
        "toolkits": toolkits or [StorageToolkit()],
        "rules": ["Carry out the instructions."],
    }


def storage_worker(clock: CountingClock, *toolkits: Toolkit) -> Worker:
    return Worker(**options(clock, *toolkits))


@asynccontextmanager
async def at_work(server: RunningServer, worker: Worker, **token: Any) -> AsyncIterator[RoomClient]:
    """A user's connection beside a worker at work."""
    async with (
        server.client("room", name="storage-worker", role="agent", **token) as room,
        server.client("room") as user,
    ):
        await worker.start(room=room)
        try:
            yield user
        finally:
            await worker.stop()


async def outcome(user: RoomClient) -> tuple[int, str]:
    """How many messages are left in the queue `jobs` when none is worked on, and why the newest dead one died."""
    async with asyncio.timeout(15):
        while True:
            [queue] = await user.queues.list()
            if not queue.ready and not queue.leased:
                break
            await asyncio.sleep(0.01)  # no event tells of a settled message
    letters = await user.queues.dead(name="jobs")
    return queue.size, letters[0].reason if letters else ""


async def test_one_trace_runs_from_the_sender_through_worker_model_and_tool(
    tracing: tuple[TracerProvider, InMemorySpanExporter],
    spans: Callable[[], dict[str, list[ReadableSpan]]],
    server: RunningServer,
    upstream: ScriptedUpstream,
    clock: CountingClock,
) -> None:
    upstream.call_tool("write_file", {"path": "poem.txt", "text": POEM, "overwrite": True}).say("saved")
    async with at_work(server, storage_worker(clock)) as user:
        with tracing[0].get_tracer("test").start_as_current_span("push") as push:
            await user.queues.send(name="jobs", message={"instructions": "save a poem about ai to poem.txt"})
        left, _ = await outcome(user)
        file = await user.storage.download(path="poem.txt")
        entries = [entry.name for entry in await user.storage.list(path="")]

    assert (left, file.data.decode(), entries) == (0, POEM, ["poem.txt"])
    found = spans()
    assert {name: len(those) for name, those in found.items()} == {
        "push": 1,
        "process jobs": 1,
        "llm.next": 1,
        "llm.turn": 2,
        "tool.call": 1,
    }
    trace_id = push.get_span_context().trace_id
    assert {span.context.trace_id for those in found.values() for span in those} == {trace_id}
    [process], [llm], [tool] = found["process jobs"], found["llm.next"], found["tool.call"]
    assert process.parent.span_id == push.get_span_context().span_id
    assert llm.parent.span_id == process.context.span_id
    assert tool.parent.span_id == llm.context.span_id
    assert process.attributes["messaging.destination.name"] == "jobs"
    assert process.attributes["messaging.message.attempt"] == 1
    assert tool.attributes["tool.name"] == "write_file"
    assert llm.attributes["llm.model"] == "scripted"
    assert llm.attributes["llm.input_tokens"] > 0


async def test_the_seeds_path_works_through_a_service_host(
    server: RunningServer, upstream: ScriptedUpstream, clock: CountingClock
) -> None:
    upstream.call_tool("write_file", {"path": "poem.txt", "text": POEM, "overwrite": False}).say("saved")
    host = ServiceHost(port=0, webhook_secret="", allowed_room_urls=[server.url])

    @host.path("/worker", identity="storage-worker")
    class StorageWorker(Worker):
        def __init__(self) -> None:
            super().__init__(**options(clock))

    await host.start()
    try:
        async with aiohttp.ClientSession() as session, server.client("room") as user:
            data = {
                "room_name": "room",
                "room_url": server.server.room_url("room"),
                "token": server.token("room", name="storage-worker", role="agent", scope=ApiScope.agent_default()),
                "arguments": {},
            }
            await WebhookSender(session).send(f"http://127.0.0.1:{host.port}/worker", "room.call", data, secret=None)
            await soon(host.agents[0].wait_state(State.RUNNING))
            await user.queues.send(name="jobs", message={"instructions": "save a poem about ai to poem.txt"})
            assert await outcome(user) == (0, "")
            assert (await user.storage.download(path="poem.txt")).data.decode() == POEM
    finally:
        await host.stop()
    first, second = upstream.requests
    assert first.authorization == "Bearer sk-upstream"
    assert first.body["instructions"] == "- Carry out the instructions."
    assert second.body["input"][-1]["type"] == "function_call_output"


async def test_a_provider_that_is_down_dead_letters_with_a_clear_text(serve: Serve, clock: CountingClock) -> None:
    port = free_port()
    async with serve(f"http://127.0.0.1:{port}/v1") as server, at_work(server, storage_worker(clock)) as user:
        await user.queues.send(name="jobs", message=1)
        left, reason = await outcome(user)
    assert left == 0
    assert "LLMError: the model gateway failed (status 502, upstream_unavailable) (2 tries)" in reason


async def test_a_provider_that_refuses_the_gateways_key_dead_letters_with_a_clear_text(
    server: RunningServer, upstream: ScriptedUpstream, clock: CountingClock
) -> None:
    upstream.fail(401).fail(401)
    async with at_work(server, storage_worker(clock)) as user:
        await user.queues.send(name="jobs", message=1)
        _, reason = await outcome(user)
    assert "LLMError: the model gateway failed (status 502, upstream_refused_key) (2 tries)" in reason
    assert "sk-upstream" not in reason


async def test_a_token_that_the_gateway_refuses_dead_letters_without_another_try(
    server: RunningServer, upstream: ScriptedUpstream, clock: CountingClock
) -> None:
    worker = storage_worker(clock)
    async with at_work(server, worker) as user:
        protocol: Any = worker.room.protocol
        protocol.renew("not-a-token")
        await user.queues.send(name="jobs", message=1)
        _, reason = await outcome(user)
    assert "LLMError: the model gateway refused the key: check the room token" in reason
    assert "not-a-token" not in reason
    assert not clock.slept
    assert not upstream.requests


async def test_a_rate_limit_is_waited_out_as_long_as_the_provider_says(
    server: RunningServer, upstream: ScriptedUpstream, clock: CountingClock
) -> None:
    upstream.fail(429, retry_after=7).say("done")
    async with at_work(server, storage_worker(clock)) as user:
        await user.queues.send(name="jobs", message=1)
        assert await outcome(user) == (0, "")
    assert clock.slept == [7.0]
    assert len(upstream.requests) == 2


async def test_a_rate_limit_that_lasts_dead_letters_with_a_clear_text(
    server: RunningServer, upstream: ScriptedUpstream, clock: CountingClock
) -> None:
    upstream.fail(429).fail(429)
    async with at_work(server, storage_worker(clock)) as user:
        await user.queues.send(name="jobs", message=1)
        _, reason = await outcome(user)
    assert "LLMError: the model is rate limited: try later or raise the limit (status 429" in reason


async def test_a_server_error_is_tried_again(
    server: RunningServer, upstream: ScriptedUpstream, clock: CountingClock
) -> None:
    upstream.fail(500).say("done")
    async with at_work(server, storage_worker(clock)) as user:
        await user.queues.send(name="jobs", message=1)
        assert await outcome(user) == (0, "")
    assert len(clock.slept) == 1


async def test_a_tool_that_raises_is_told_to_the_model_and_the_message_is_done(
    server: RunningServer, upstream: ScriptedUpstream, clock: CountingClock
) -> None:
    class Broken(Tool):
        def __init__(self) -> None:
            super().__init__(name="fall", input_schema={"type": "object", "properties": {}})

        async def execute(self, *, context: ToolContext) -> str:
            raise ValueError("the disk is full")

    upstream.call_tool("fall", {}).say("I could not do it")
    async with at_work(server, storage_worker(clock, Toolkit(name="kit", tools=[Broken()]))) as user:
        await user.queues.send(name="jobs", message=1)
        assert await outcome(user) == (0, "")
    told = upstream.requests[1].body["input"][-1]
    assert told["type"] == "function_call_output"
    assert "the disk is full" in told["output"]


async def test_a_failed_message_is_replayed_when_the_provider_is_back(
    server: RunningServer, upstream: ScriptedUpstream, clock: CountingClock
) -> None:
    upstream.fail(500).fail(500).say("done")
    async with at_work(server, storage_worker(clock)) as user:
        await user.queues.send(name="jobs", message={"keep": "me"})
        _, reason = await outcome(user)
        assert "status 500" in reason
        assert await user.queues.replay(name="jobs") == 1
        assert await outcome(user) == (0, "")
    assert upstream.requests[-1].body["input"][0]["content"] == '{"keep": "me"}'

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
from meshhost.identity.keys import new_api_key
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
async def serving(
    data_dir: Path, upstream: ScriptedUpstream | None = None, **file: Any
) -> AsyncIterator[RunningServer]:
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


async def test_a_message_through_a_service_host_is_one_connected_trace(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
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
    async with (
        serving(tmp_path, traces={"per_second": 0}) as server,
        at_work(server, Echo(queue="jobs", name="poet")) as user,
    ):
        await user.queues.send(name="jobs", message="well")
        sent = await user.queues.send(name="jobs", message="fail")
        spans = await spans_of(server, has("process jobs", "lease jobs"), failed="true")
        listed = (await ask(server, "/rooms/room/traces"))["traces"]
    assert [each["messages"] for each in listed] == [[str(sent)]]
    assert connected(spans)
    process = one(spans, "process jobs")
    assert process["parent"] == one(spans, "lease jobs")["id"]
    assert process["error"] == one(spans, "lease jobs")["error"] == "ValueError: no such city"


async def test_attempts_of_a_message_are_in_one_trace_also_after_a_replay(tmp_path: Path) -> None:
    class Twice(Echo):
        tries = 0

        async def process_message(self, **values: Any) -> Any:
            Twice.tries += 1
            if Twice.tries == 1:
                raise ValueError("not yet")
            return None

    async with serving(tmp_path) as server, at_work(server, Twice(queue="jobs", name="poet")) as user:
        sent = await user.queues.send(name="jobs", message=1)
        await spans_of(server, has("process jobs", "lease jobs"))
        assert await user.queues.replay(name="jobs") == 1
        spans = await spans_of(server, lambda spans: sum(span["name"] == "process jobs" for span in spans) == 2)
        listed = (await ask(server, "/rooms/room/traces", message=str(sent)))["traces"]
    assert len(listed) == 1
    outcomes = [span["attributes"]["meshhost.outcome"] for span in spans if span["name"] == "process jobs"]
    assert outcomes == ["dead", "done"]
    assert connected(spans)


async def test_a_senders_own_trace_goes_on(tmp_path: Path) -> None:
    trace, above = "a" * 32, "b" * 16
    async with serving(tmp_path) as server, at_work(server, Echo(queue="jobs", name="poet")) as user:
        await user.queues.send(name="jobs", message=1, headers={"traceparent": f"00-{trace}-{above}-01"})
        spans = await spans_of(server, has("process jobs", "lease jobs"))
        listed = (await ask(server, "/rooms/room/traces"))["traces"]
    assert [each["trace"] for each in listed] == [trace]
    assert one(spans, "send jobs")["parent"] == one(spans, "lease jobs")["parent"] == above


async def test_a_mark_over_the_rate_is_taken_away(tmp_path: Path) -> None:
    headers = {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01", "tracestate": "meshhost=r,other=1"}
    async with serving(tmp_path, traces={"per_second": 0}) as server, server.client() as user:
        await user.queues.send_many(name="jobs", messages=["plain"])
        await user.queues.send(name="jobs", message="marked", headers=headers)
        await user.queues.lease(name="jobs")
        received = await user.queues.lease(name="jobs")
        assert received is not None
        assert dict(received.headers) == {**headers, "tracestate": "other=1"}
        assert (await ask(server, "/rooms/room/traces"))["traces"] == []


async def test_a_delivery_that_nobody_settles_is_noted_at_the_next(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        async with server.client() as user, server.client(name="gone") as gone:
            await user.queues.send(name="jobs", message=1)
            assert await gone.queues.lease(name="jobs") is not None
        async with server.client() as user:
            leased = await user.queues.lease(name="jobs")
            assert leased is not None
            await leased.ack()
        spans = await spans_of(server, lambda spans: sum(span["name"] == "lease jobs" for span in spans) == 2)
    outcomes = [span["attributes"]["meshhost.outcome"] for span in spans if span["name"] == "lease jobs"]
    assert outcomes == ["unsettled", "done"]


async def test_participants_report_spans_of_their_own_room_under_their_own_name(tmp_path: Path) -> None:
    made = {"trace": "a" * 32, "id": "b" * 16, "name": "<img src=x>", "begin": 5.0, "seconds": 1.0, "agent": "boss"}
    async with serving(tmp_path) as server, server.client(name="ann") as ann:
        assert await ann.send_request("traces.report", {"spans": [made]}) == {"kept": 1}
        assert (await ask(server, "/rooms/room/traces", agent="boss"))["traces"] == []
        [listed] = (await ask(server, "/rooms/room/traces", agent="ann"))["traces"]
        assert (listed["name"], listed["agents"]) == ("<img src=x>", ["ann"])
        assert (await ask(server, "/rooms/other/traces"))["traces"] == []

        with pytest.raises(InvalidRequestError, match=r"spans\[1\]\.seconds: expected a number of seconds"):
            await ann.send_request("traces.report", {"spans": [made, {**made, "seconds": "long"}]})
        with pytest.raises(InvalidRequestError, match="spans"):
            await ann.send_request("traces.report", {"spans": [made] * 101})
        with pytest.raises(InvalidRequestError, match="spans"):
            await ann.send_request("traces.report", {"spans": []})
    scope = ApiScope.full().model_copy(update={"developer": None})
    async with serving(tmp_path) as server, server.client(name="eve", scope=scope) as eve:
        with pytest.raises(AccessDeniedError):
            await eve.send_request("traces.report", {"spans": [made]})


async def test_traces_survive_a_restart_and_go_with_their_room(tmp_path: Path) -> None:
    key = new_api_key("11111111-2222-3333-4444-555555555555")
    file = ServerFile()
    async with running_server(tmp_path, key=key, file=file) as server, server.client() as user:
        await user.queues.send(name="jobs", message=1)
    async with running_server(tmp_path, key=key, file=file) as server:
        [listed] = (await ask(server, "/rooms/room/traces", queue="jobs"))["traces"]
        assert listed["span_count"] == 1
        async with server.client() as user:
            await user.queues.send(name="jobs", message=1)  # not written yet
        headers = {"Authorization": f"Bearer {server.api_key}"}
        project = server.key.project_id
        async with aiohttp.ClientSession() as http:
            async with http.delete(f"{server.url}/tenants/{project}/rooms/room", headers=headers) as answer:
                assert answer.status in {200, 202, 204}
            async with http.get(f"{server.url}/rooms/room/traces/{listed['trace']}", headers=headers) as answer:
                assert answer.status == 404
        assert (await ask(server, "/rooms/room/traces"))["traces"] == []


async def test_no_traces_are_kept_where_the_operator_wants_none(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, traces={"keep": False}) as server,
        at_work(server, Echo(queue="jobs", name="poet")) as user,
    ):
        sent = await user.queues.send(name="jobs", message="well")
        await user.queues.wait(name="jobs", id=sent)
        assert await ask(server, "/rooms/room/traces") == {"traces": [], "next": None, "recording": False}
    assert not (tmp_path / "traces.sqlite").exists()


async def test_a_file_that_cannot_be_used_costs_the_traces_and_not_the_server(tmp_path: Path) -> None:
    tmp_path.joinpath("traces.sqlite").write_bytes(b"no database at all, but long enough to be looked at" * 20)
    async with serving(tmp_path) as server, server.client() as user:
        await user.queues.send(name="jobs", message=1)
        assert not (await ask(server, "/rooms/room/traces"))["recording"]


@pytest.mark.parametrize(
    ("query", "field"), [({"longer": "x"}, "longer"), ({"longer": "inf"}, "longer"), ({"failed": "maybe"}, "failed"),
                         ({"agent": "a" * 300}, "agent"), ({"before": "x"}, "before"), ({"limit": "x"}, "limit")]
)  # fmt: skip
async def test_a_filter_that_makes_no_sense_is_refused_by_its_name(tmp_path: Path, query: Json, field: str) -> None:
    async with serving(tmp_path) as server, aiohttp.ClientSession() as http:
        headers = {"Authorization": f"Bearer {server.api_key}"}
        async with http.get(f"{server.url}/rooms/room/traces", params=query, headers=headers) as answer:
            assert answer.status == 400
            assert field in await answer.text()

"""One agent program over every API of models, on sockets: asked directly, and through the gateway with each provider."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import openai
import pytest
from aiohttp import web
from doubles.model_services import CACHED, INPUT, OUTPUT, VOICES, ModelService

from meshhost.anthropic import AnthropicMessagesAdapter
from meshhost.errors import LLMError, LLMRefusalError
from meshhost.gateway.meter import Meter
from meshhost.gateway.provider import Caller, Provider, ProviderTable
from meshhost.gateway.providers.anthropic import AnthropicProvider
from meshhost.gateway.providers.openai_compatible import OpenAICompatibleProvider
from meshhost.gateway.routes import add_gateway_routes
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.openai import OpenAICompletionsAdapter, OpenAIResponsesAdapter
from meshhost.openai.tools.hosted_tools import WebSearchTool
from meshhost.openai.tools.retry import RetryPolicy
from meshhost.protocol.messages import FileResponse
from meshhost.stores.memory.usage import MemoryUsageStore
from meshhost.tools import Tool, Toolkit

ADAPTERS: dict[str, Any] = {
    "responses": OpenAIResponsesAdapter,
    "chat": OpenAICompletionsAdapter,
    "messages": AnthropicMessagesAdapter,
}
SCHEMA = {
    "type": "object",
    "properties": {"x": {"type": "integer"}},
    "required": ["x"],
    "additionalProperties": False,
}
PICTURE = "data:image/png;base64,iVBORw0KGgo="
KEY = "sk-provider-secret"


class Double(Tool):
    def __init__(self) -> None:
        super().__init__(name="double", description="Doubles a number", input_schema=SCHEMA)
        self.calls: list[Any] = []

    async def execute(self, *, context: Any, x: int) -> Any:
        self.calls.append(x)
        return str(2 * x)


class Photo(Tool):
    def __init__(self) -> None:
        super().__init__(name="photo", input_schema={"type": "object", "properties": {}})

    async def execute(self, *, context: Any) -> Any:
        return FileResponse(name="a.png", mime_type="image/png", data=b"\x89PNG\r\n\x1a\n")


class QuickClock:
    def __init__(self) -> None:
        self.sleeps: list[float] = []

    def monotonic(self) -> float:
        return 0.0

    def time(self) -> float:
        return 1_000_000_000.0

    async def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)


class Program:
    """The agent program of these tests: an adapter, a conversation, and the service that the model is at."""

    def __init__(self, adapter: Any, room: Any, service: ModelService, clock: QuickClock, meter: Meter | None) -> None:
        self.adapter = adapter
        self.room = room
        self.service = service
        self.clock = clock
        self.meter = meter
        self.context = adapter.create_chat_context()
        self.events: list[Any] = []

    async def ask(self, text: str = "hi", *tools: Any, **options: Any) -> Any:
        self.context.append_user_message(text)
        toolkits = [Toolkit(name="kit", tools=list(tools))] if tools else []
        return await self.adapter.next(
            context=self.context, room=self.room, toolkits=toolkits, event_handler=self.events.append, **options
        )

    @property
    def sent(self) -> dict[str, Any]:
        """The last request, as the service got it."""
        return self.service.asked[-1].body


@asynccontextmanager
async def serving(provider: Provider) -> AsyncIterator[tuple[str, Meter]]:
    async def authenticate(request: web.Request) -> Caller:
        assert request.headers["Authorization"] == "Bearer room-token"
        return Caller(TenantId("acme"), RoomKey(TenantId("acme"), "lobby"), "bob")

    table, meter, app = ProviderTable({"*": provider}), Meter(MemoryUsageStore()), web.Application()
    add_gateway_routes(app, providers=table, authenticate=authenticate, meter=meter)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"ws://127.0.0.1:{runner.addresses[0][1]}/rooms/lobby", meter
    finally:
        await runner.cleanup()
        await table.stop()


def room_at(url: str) -> Any:
    developer = SimpleNamespace(log_nowait=lambda **_: None)
    protocol = SimpleNamespace(token="room-token")
    return SimpleNamespace(
        room_name="lobby", room_url=url, protocol=protocol, local_participant="me", developer=developer
    )


def provider_for(service: ModelService) -> Provider:
    if service.voice.name == "messages":
        return AnthropicProvider(name="scripted", base_url=service.base_url, api_key=KEY)
    return OpenAICompatibleProvider(name="scripted", base_url=service.base_url, api_key=KEY)


@asynccontextmanager
async def program_of(spoken: str, served: str, *, directly: bool, piece_bytes: int = 4096) -> AsyncIterator[Program]:
    clock = QuickClock()
    options: dict[str, Any] = {"model": "m", "retry": RetryPolicy(clock=clock, random=lambda: 1.0)}
    async with ModelService(VOICES[served], piece_bytes=piece_bytes) as service:
        if not directly:
            async with serving(provider_for(service)) as (url, meter):
                yield Program(ADAPTERS[spoken](**options), room_at(url), service, clock, meter)
        elif spoken == "responses":
            async with openai.AsyncOpenAI(api_key="k", base_url=service.base_url, max_retries=0) as client:
                yield Program(ADAPTERS[spoken](client=client, **options), room_at("ws://x"), service, clock, None)
        else:
            adapter = ADAPTERS[spoken](base_url=service.base_url, api_key="k", **options)
            yield Program(adapter, room_at("ws://x"), service, clock, None)


WAYS = [
    *(pytest.param((name, name, True), id=f"{name} directly") for name in VOICES),
    *(pytest.param((a, b, False), id=f"{a} adapter, {b} provider") for a in VOICES for b in VOICES),
]


@pytest.fixture(params=WAYS)
async def program(request: pytest.FixtureRequest) -> AsyncIterator[Program]:
    spoken, served, directly = request.param
    async with program_of(spoken, served, directly=directly) as program:
        yield program


async def test_a_text_is_returned_streamed_and_kept(program: Program) -> None:
    program.service.say(("text", "hello there"))
    program.context.append_rules(["be kind"])
    assert await program.ask() == "hello there"
    deltas = [event["delta"] for event in program.events if event["type"] == "response.output_text.delta"]
    assert "".join(deltas) == "hello there"
    assert len(deltas) > 1
    assert program.context.messages[-1]["content"][0]["text"] == "hello there"
    assert "be kind" in json.dumps(program.sent)


async def test_the_agent_counts_and_the_gateway_meters_the_same_tokens(program: Program) -> None:
    program.service.say(("text", "hello"))
    await program.ask()
    usage = program.context.usage
    assert (usage["input_tokens"], usage["cached_tokens"], usage["output_tokens"]) == (INPUT, CACHED, OUTPUT)
    if program.meter is not None:
        [counts] = program.meter.pending().values()
        assert (counts.requests, counts.input_tokens, counts.output_tokens) == (1, INPUT, OUTPUT)
        assert (counts.cached_tokens, counts.unmeasured) == (CACHED, 0)


async def test_tools_are_called_and_their_results_go_back(program: Program) -> None:
    double = Double()
    program.service.say(("text", "let me see"), ("call", "double", {"x": 4}), ("call", "double", {"x": 5}))
    program.service.say(("text", "8 and 10"))
    assert await program.ask("double 4 and 5", double) == "8 and 10"
    assert sorted(double.calls) == [4, 5]
    results = [item["output"] for item in program.context.messages if item.get("type") == "function_call_output"]
    assert results == ["8", "10"]
    # Each call has one answer in what was sent, under the id that the service gave.
    assert sorted(ids_of(program.sent, "result")) == sorted(ids_of(program.sent, "call"))
    assert len(set(ids_of(program.sent, "call"))) == 2


def ids_of(value: Any, what: str) -> list[str]:
    """The ids of calls, or of their results, in a request of any of the APIs."""
    if isinstance(value, list):
        return [found for each in value for found in ids_of(each, what)]
    if not isinstance(value, dict):
        return []
    names = {"result": ("tool_call_id", "tool_use_id"), "call": ()}[what]
    kinds = {
        "result": {"function_call_output": "call_id"},
        "call": {"function_call": "call_id", "tool_use": "id", "function": "id"},
    }
    found = [str(value[name]) for name in names if name in value]
    key = kinds[what].get(str(value.get("type")))
    return found + ([str(value[key])] if key and key in value else []) + ids_of(list(value.values()), what)


async def test_a_tool_may_return_a_picture(program: Program) -> None:
    program.service.say(("call", "photo", {}))
    program.service.say(("text", "a cat"))
    assert await program.ask("what is it", Photo()) == "a cat"
    assert "iVBORw0KGgo=" in json.dumps(program.sent)


async def test_an_answer_fits_its_schema(program: Program) -> None:
    if program.service.voice.name == "messages":
        program.service.say(("call", "final_answer", {"x": 4}))
    else:
        program.service.say(("text", '{"x": 4}'))
    assert await program.ask(output_schema=SCHEMA) == {"x": 4}
    assert '"integer"' in json.dumps(program.sent)


async def test_an_answer_that_does_not_fit_may_be_corrected_after_tools(program: Program) -> None:
    double = Double()
    final = program.service.voice.name == "messages"
    program.service.say(("call", "double", {"x": 2}))
    program.service.say(("call", "final_answer", {"x": "4"}) if final else ("text", '{"x": "4"}'))
    program.service.say(("call", "final_answer", {"x": 4}) if final else ("text", '{"x": 4}'))
    assert await program.ask("double 2", double, output_schema=SCHEMA) == {"x": 4}
    assert double.calls == [2]


async def test_images_of_the_user_are_sent(program: Program) -> None:
    program.service.say(("text", "a cat"))
    program.context.append_user_image(PICTURE)
    assert await program.ask("what is it") == "a cat"
    assert "iVBORw0KGgo=" in json.dumps(program.sent)


async def test_a_refusal_is_raised(program: Program) -> None:
    program.service.say(("refusal", "no, thank you"))
    if program.service.voice.name == "messages":  # which has no reason beside the text
        with pytest.raises(LLMRefusalError, match="declined"):
            await program.ask()
    elif program.adapter.default_model() and isinstance(program.adapter, AnthropicMessagesAdapter):
        assert await program.ask() == "no, thank you"  # the Messages API has no place for a reason but the text
    else:
        with pytest.raises(LLMRefusalError, match="no, thank you"):
            await program.ask()


async def test_an_answer_that_was_too_long_is_an_error_and_counts(program: Program) -> None:
    program.service.say(("text", "hel"), stop="length")
    with pytest.raises(LLMError, match="stopped before the end"):
        await program.ask()
    assert program.context.usage["output_tokens"] == OUTPUT
    assert len(program.service.asked) == 1


async def test_what_the_model_thought_is_no_answer(program: Program) -> None:
    program.service.say(("thought", "hm"))
    with pytest.raises(LLMError, match="empty answer"):
        await program.ask()


@pytest.mark.parametrize("kind", ["overloaded_error", "rate_limit_error", "server_error"])
async def test_an_overload_inside_a_stream_is_waited_out(program: Program, kind: str) -> None:
    voice = program.service.voice
    begun = voice.stream([("text", "hello")]).partition(b"lo")[0].rpartition(b"\n\n")[0] + b"\n\n"
    program.service.raw(begun + voice.error(kind, "secret"))
    program.service.say(("text", "hello"))
    assert await program.ask() == "hello"
    assert len(program.clock.sleeps) == 1


async def test_another_error_inside_a_stream_is_raised_without_its_words(program: Program) -> None:
    program.service.raw(program.service.voice.error("invalid_request_error", "secret"))
    with pytest.raises(LLMError, match="invalid_request_error") as caught:
        await program.ask()
    assert "secret" not in str(caught.value)
    assert caught.value.status == 400  # so that an agent takes the turn out of its conversation


@pytest.mark.parametrize("cut", [True, False])
async def test_a_stream_that_stops_before_its_end_is_asked_for_again(program: Program, cut: bool) -> None:
    whole = program.service.voice.stream([("text", "hello there")])
    program.service.raw(whole[: len(whole) // 2], cut=cut)
    program.service.say(("text", "hello"))
    assert await program.ask() == "hello"
    assert len(program.service.asked) == 2


async def test_a_status_decides_what_is_tried_again(program: Program) -> None:
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "secret"}}
    program.service.plain(error, status=529)
    program.service.plain(
        {"error": {"message": "secret", "type": "rate_limit_error"}}, status=429, **{"Retry-After": "7"}
    )
    program.service.plain({"error": {"message": "secret", "type": "invalid_request_error"}}, status=422)
    with pytest.raises(LLMError, match="invalid_request_error") as caught:
        await program.ask()
    assert caught.value.status == 422
    assert len(program.clock.sleeps) == 2
    assert program.clock.sleeps[1] == 7
    assert "secret" not in str(caught.value)


async def test_plain_json_instead_of_a_stream_is_an_answer(program: Program) -> None:
    double = Double()
    program.service.plain(program.service.voice.whole([("call", "double", {"x": 1})]))
    program.service.plain(program.service.voice.whole([("text", "2")]))
    assert await program.ask("double 1", double) == "2"
    assert double.calls == [1]


@pytest.mark.parametrize(
    "body",
    [
        {"output": None, "choices": None, "content": None},
        {"output": [], "choices": [], "content": []},
        {"output": [{"type": "message", "content": None}], "choices": [{"message": None}], "content": [None]},
        {"output": "", "choices": [{"message": {"content": ""}}], "content": ""},
    ],
)
async def test_an_empty_answer_is_an_error_and_is_not_kept(program: Program, body: Any) -> None:
    program.service.plain(body)
    with pytest.raises(LLMError):
        await program.ask()
    assert [message["role"] for message in program.context.messages] == ["user"]


@pytest.mark.parametrize(
    "body",
    [
        {"output": "hello", "choices": [{"message": {"content": ["hello"]}}], "content": "hello"},
        {
            "output": [{"role": "assistant", "content": "hello"}],
            "choices": [{"message": {"content": [{"type": "text", "text": "hello"}]}}],
            "content": [{"type": "text", "text": "hello"}],
        },
    ],
)
async def test_texts_where_lists_are_expected_are_read_and_lists_where_texts_are(program: Program, body: Any) -> None:
    program.service.plain(body)
    assert await program.ask() == "hello"


@pytest.mark.parametrize(("body", "text"), [(b"<html>", "web page"), (b'{"data": []}', "API")])
async def test_what_is_no_answer_is_named(program: Program, body: bytes, text: str) -> None:
    for _ in range(6):
        program.service.plain(body, content_type="text/html" if body[:1] == b"<" else "application/json")
    with pytest.raises(LLMError):
        await program.ask()


async def test_a_cancelled_turn_leaves_a_conversation_that_can_go_on(program: Program) -> None:
    reached = asyncio.Event()

    class Slow(Double):
        async def execute(self, *, context: Any, x: int) -> Any:
            reached.set()
            await asyncio.Event().wait()

    program.service.say(("call", "double", {"x": 1}))
    async with asyncio.TaskGroup() as group:
        turn = group.create_task(program.ask("double 1", Slow()))
        await reached.wait()
        turn.cancel()
    program.service.say(("text", "where were we"))
    assert await program.ask("go on") == "where were we"
    assert sorted(ids_of(program.sent, "result")) == sorted(ids_of(program.sent, "call"))


async def test_a_caller_that_leaves_ends_the_request(program: Program) -> None:
    program.service.hang()
    async with asyncio.TaskGroup() as group, asyncio.timeout(30):
        turn = group.create_task(program.ask())
        await program.service.hanging.wait()
        turn.cancel()
        await program.service.abandoned.wait()
    assert turn.cancelled()


async def test_the_key_of_the_provider_stays_with_the_gateway(program: Program) -> None:
    program.service.say(("text", "hi"))
    await program.ask()
    headers = json.dumps(program.service.asked[-1].headers)
    assert "room-token" not in headers
    assert (KEY in headers) == (program.meter is not None)


@pytest.mark.parametrize("served", list(VOICES))
@pytest.mark.parametrize("piece_bytes", [1, 7])
async def test_an_answer_may_come_in_pieces_of_any_size(served: str, piece_bytes: int) -> None:
    double = Double()
    async with program_of("responses", served, directly=False, piece_bytes=piece_bytes) as program:
        program.service.say(("thought", "so"), ("text", "grüße"), ("call", "double", {"x": 4}))
        program.service.say(("text", "grüße ☃"))
        assert await program.ask("double 4", double) == "grüße ☃"
    assert double.calls == [4]


@pytest.mark.parametrize("spoken", list(VOICES))
async def test_a_provider_that_knows_only_chat_is_found_out_once(spoken: str) -> None:
    async with program_of(spoken, "chat", directly=False) as program:
        program.service.say(("text", "one")).say(("text", "two"))
        assert [await program.ask(), await program.ask()] == ["one", "two"]
        assert program.service.refused == ([] if spoken == "chat" else ["responses"])


async def test_a_hosted_tool_reaches_a_provider_that_has_it() -> None:
    for served, kind in (("responses", "web_search"), ("messages", "web_search_20250305")):
        async with program_of("responses", served, directly=False) as program:
            program.service.say(("text", "found"))
            assert await program.ask("search", WebSearchTool()) == "found"
            assert program.sent["tools"][0]["type"] == kind


async def test_a_hosted_tool_is_refused_where_the_provider_has_none() -> None:
    async with program_of("responses", "chat", directly=False) as program:
        program.service.say(("text", "one"))
        await program.ask()
        with pytest.raises(LLMError) as caught:
            await program.ask("search", WebSearchTool())
        assert caught.value.status == 400


async def test_thoughts_go_back_signed_within_a_turn() -> None:
    for spoken in ("responses", "messages"):
        async with program_of(spoken, "messages", directly=False) as program:
            program.service.say(("thought", "carefully"), ("call", "double", {"x": 4}))
            program.service.say(("text", "8"))
            assert await program.ask("double 4", Double()) == "8"
            [thought, *_] = program.sent["messages"][1]["content"]
            assert thought == {"type": "thinking", "thinking": "carefully", "signature": "sig"}
    async with program_of("responses", "chat", directly=False) as program:
        program.service.say(("thought", "carefully"), ("call", "double", {"x": 4}))
        program.service.say(("text", "8")).say(("text", "bye"))
        await program.ask("double 4", Double())
        assert program.sent["messages"][1]["reasoning_content"] == "carefully"
        await program.ask("thanks")
        assert "carefully" not in json.dumps(program.sent)


async def test_a_conversation_goes_on_with_another_api() -> None:
    context = None
    for number, served in enumerate(["chat", "messages", "responses", "chat", "messages"]):
        async with program_of(served, served, directly=True) as program:
            program.context = context or program.context
            program.service.say(("thought", "hm"), ("call", "double", {"x": number})).say(("text", f"answer {number}"))
            assert await program.ask("go on", Double()) == f"answer {number}"
            context = program.context
            if served == "responses":
                continue
            assert sorted(ids_of(program.sent, "result")) == sorted(ids_of(program.sent, "call"))
            assert len(ids_of(program.sent, "call")) == number + 1

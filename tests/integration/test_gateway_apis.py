"""The gateway with callers and providers of several APIs: Anthropic's own client, and what a provider is found to speak."""

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import aiohttp
import anthropic
import openai
import pytest
from aiohttp import web
from doubles.model_services import CACHED, INPUT, OUTPUT, VOICES, ModelService

from meshhost.anthropic import AnthropicMessagesAdapter
from meshhost.anthropic.proxy import get_client
from meshhost.errors import LLMError, SettingsError
from meshhost.gateway.meter import Meter
from meshhost.gateway.provider import Caller, Provider, ProviderTable
from meshhost.gateway.providers.anthropic import AnthropicProvider
from meshhost.gateway.providers.openai_compatible import OpenAICompatibleProvider
from meshhost.gateway.routes import add_gateway_routes
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.openai.tools.retry import RetryPolicy
from meshhost.stores.memory.usage import MemoryUsageStore

KEY = "sk-provider-secret"
HELLO: Any = [{"role": "user", "content": "hi"}]


@asynccontextmanager
async def listening(app: web.Application) -> AsyncIterator[str]:
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def gateway_to(*providers: tuple[str, Provider]) -> AsyncIterator[tuple[Any, Meter]]:
    """Serve a gateway; yields a room at it, for `get_client`, and its meter."""

    async def authenticate(request: web.Request) -> Caller:
        assert request.headers["Authorization"] == "Bearer room-token"
        assert not request.headers.get("x-api-key")
        return Caller(TenantId("acme"), RoomKey(TenantId("acme"), "lobby"), "bob")

    table, meter, app = ProviderTable(dict(providers)), Meter(MemoryUsageStore()), web.Application()
    add_gateway_routes(app, providers=table, authenticate=authenticate, meter=meter)
    async with listening(app) as address:
        room = SimpleNamespace(
            room_url=f"ws://{address}/rooms/lobby",
            protocol=SimpleNamespace(token="room-token"),
            local_participant="me",
            developer=SimpleNamespace(log_nowait=lambda **_: None),
        )
        yield room, meter
    await table.stop()


def anthropic_at(service: ModelService) -> AnthropicProvider:
    return AnthropicProvider(name="scripted", base_url=service.base_url, api_key=KEY)


def openai_at(base_url: str, **options: Any) -> OpenAICompatibleProvider:
    return OpenAICompatibleProvider(name="scripted", base_url=base_url, api_key=KEY, **options)


def openai_client(room: Any) -> openai.AsyncOpenAI:
    base_url = room.room_url.replace("ws", "http", 1) + "/v1"
    return openai.AsyncOpenAI(api_key="room-token", base_url=base_url, max_retries=0)


@pytest.fixture(params=list(VOICES))
async def service(request: pytest.FixtureRequest) -> AsyncIterator[ModelService]:
    async with ModelService(VOICES[request.param]) as service:
        yield service


def provider_for(service: ModelService) -> Provider:
    return anthropic_at(service) if service.voice.name == "messages" else openai_at(service.base_url)


async def test_anthropics_own_client_runs_on_each_provider(
    service: ModelService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "meant for Anthropic")
    service.say(("thought", "hm"), ("text", "hello")).say(("call", "ring", {"x": 1}))
    async with gateway_to(("*", provider_for(service))) as (room, meter), get_client(room=room) as client:
        async with client.messages.stream(model="m", max_tokens=9, messages=HELLO) as stream:
            text = "".join([piece async for piece in stream.text_stream])
            message = await stream.get_final_message()
        whole = await client.messages.create(model="m", max_tokens=9, messages=HELLO)
        [counts] = meter.pending().values()
    assert text == "hello"
    assert [block.type for block in message.content] == ["thinking", "text"]
    assert (message.usage.output_tokens, message.stop_reason) == (OUTPUT, "end_turn")
    [use] = whole.content
    assert use.type == "tool_use"
    assert (use.name, use.input, whole.stop_reason) == ("ring", {"x": 1}, "tool_use")
    assert (counts.requests, counts.unmeasured) == (2, 0)
    assert (counts.input_tokens, counts.cached_tokens, counts.output_tokens) == (2 * INPUT, 2 * CACHED, 2 * OUTPUT)


async def test_openais_own_client_runs_on_each_provider_by_both_apis(service: ModelService) -> None:
    for _ in range(2):
        service.say(("thought", "hm"), ("text", "hello")).say(("call", "ring", {"x": 1}))
    async with gateway_to(("*", provider_for(service))) as (room, _), openai_client(room) as client:
        async with client.responses.stream(model="m", input="hi") as events:
            assert (await events.get_final_response()).output_text == "hello"
        response = await client.responses.create(model="m", input="hi")
        async with client.chat.completions.stream(model="m", messages=HELLO) as chunks:
            completion = await chunks.get_final_completion()
        called = await client.chat.completions.create(model="m", messages=HELLO)
    [item] = response.output
    assert item.type == "function_call"
    assert response.usage is not None
    assert response.usage.input_tokens_details.cached_tokens == CACHED
    assert completion.choices[0].message.content == "hello"
    [call] = called.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert (call.function.name, json.loads(call.function.arguments)) == ("ring", {"x": 1})
    assert called.choices[0].finish_reason == "tool_calls"


async def test_the_adapter_takes_anthropics_client() -> None:
    clock = SimpleNamespace(monotonic=lambda: 0.0, time=lambda: 0.0, sleep=_no_sleep)
    async with ModelService(VOICES["messages"]) as service:
        begun = service.voice.sse({"type": "message_start", "message": {"usage": {"input_tokens": 1}}})
        service.raw(begun + service.voice.error("overloaded_error", "secret"))
        service.plain({"type": "error", "error": {"type": "overloaded_error", "message": "secret"}}, status=529)
        service.say(("text", "hello"))
        service.plain({"type": "error", "error": {"type": "invalid_request_error", "message": "secret"}}, status=400)
        client = anthropic.AsyncAnthropic(api_key="k", base_url=service.base_url.removesuffix("/v1"), max_retries=0)
        async with client:
            adapter = AnthropicMessagesAdapter(model="m", client=client, retry=RetryPolicy(clock=clock))  # type: ignore[arg-type]
            room: Any = SimpleNamespace(local_participant="me", developer=SimpleNamespace(log_nowait=lambda **_: None))
            context = adapter.create_chat_context()
            context.append_user_message("hi")
            assert await adapter.next(context=context, room=room, toolkits=[]) == "hello"
            with pytest.raises(LLMError, match="status 400, invalid_request_error") as caught:
                await adapter.next(context=context, room=room, toolkits=[])
    assert caught.value.status == 400
    assert "secret" not in str(caught.value)
    headers = {name.lower(): value for name, value in service.asked[-1].headers.items()}
    # 1.x of the library sends the key in the one, 2.x in the other.
    assert "k" in (headers.get("x-api-key"), headers.get("authorization", "").removeprefix("Bearer "))
    assert "anthropic-version" in headers


async def _no_sleep(_: float) -> None:
    pass


async def test_options_of_the_messages_api_win_and_retries_are_bounded() -> None:
    async with ModelService(VOICES["messages"]) as service:
        service.say(("text", "hello")).plain({}, status=500)
        adapter = AnthropicMessagesAdapter(
            "m", 99, 0, None, {"top_k": 3, "metadata": {"user_id": "u"}}, base_url=service.base_url, api_key="k"
        )
        room: Any = SimpleNamespace(local_participant="me", developer=SimpleNamespace(log_nowait=lambda **_: None))
        context = adapter.create_chat_context()
        context.append_user_message("hi")
        assert await adapter.next(context=context, room=room, toolkits=[]) == "hello"
        with pytest.raises(LLMError):
            await adapter.next(context=context, room=room, toolkits=[])
    assert len(service.asked) == 2
    sent = service.asked[0]
    assert (sent.body["max_tokens"], sent.body["top_k"], sent.body["metadata"]) == (99, 3, {"user_id": "u"})
    assert {name.lower(): value for name, value in sent.headers.items()}["x-api-key"] == "k"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("messages/batches", {}),
        ("files", {}),
        (
            "messages",
            {
                "messages": [
                    {"role": "user", "content": [{"type": "document", "source": {"type": "file", "file_id": "f"}}]}
                ]
            },
        ),
        ("messages", {"messages": [], "container": {"skills": [{"type": "custom", "skill_id": "s"}]}}),
        ("messages", {"messages": [], "container": "container_1"}),
    ],
)
async def test_what_lies_in_the_operators_account_stays_there(path: str, body: Any) -> None:
    async with ModelService(VOICES["messages"]) as service, gateway_to(("*", anthropic_at(service))) as (room, _):
        url = f"{room.room_url.replace('ws', 'http', 1)}/v1/{path}"
        headers = {"Authorization": "Bearer room-token"}
        async with (
            aiohttp.ClientSession(headers=headers) as http,
            http.post(url, json={"model": "m", **body}) as answer,
        ):
            assert answer.status in (400, 404)
    assert (service.asked, service.refused) == ([], [])


async def test_providers_are_picked_by_the_model_whatever_api_is_asked() -> None:
    async with ModelService(VOICES["messages"]) as claude, ModelService(VOICES["chat"]) as other:
        claude.say(("text", "claude"))
        other.say(("text", "other"))
        providers = (("claude-*", anthropic_at(claude)), ("*", openai_at(other.base_url)))
        async with gateway_to(*providers) as (room, _), openai_client(room) as client:
            answers = [
                (await client.responses.create(model=model, input="hi")).output_text for model in ("claude-x", "gpt-x")
            ]
            assert sorted([model.id async for model in await client.models.list()]) == ["m"]
    assert answers == ["claude", "other"]


# What a provider speaks ---------------------------------------------------------------------------------------------------


@asynccontextmanager
async def service_without_responses(status: int, body: str, kind: str = "application/json") -> AsyncIterator[Any]:
    """A chat service that answers `responses` in its own way. Yields its URL and the paths that it was asked."""
    asked: list[str] = []

    async def handle(request: web.Request) -> web.Response:
        asked.append(request.match_info["path"])
        if asked[-1] != "chat/completions":
            return web.Response(status=status, text=body, content_type=kind)
        return web.json_response(VOICES["chat"].whole([("text", "hello")]))

    app = web.Application()
    app.router.add_route("*", "/v1/{path:.*}", handle)
    async with listening(app) as address:
        yield f"http://{address}/v1", asked


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (404, '{"detail": "Not Found"}', "application/json"),
        (404, "404 page not found", "text/plain"),
        (404, "<html><pre>Cannot POST /v1/responses</pre>", "text/html"),
        (404, '{"error": {"code": "404", "message": "Resource not found"}}', "application/json"),
        (404, "", "text/plain"),
        (405, '{"detail": "Method Not Allowed"}', "application/json"),
        (501, "", "text/plain"),
        (400, '{"error": {"message": "Unknown route: /v1/responses"}}', "application/json"),
        (400, '{"message": "no Route matched: path not found"}', "application/json"),
    ],
)
async def test_a_service_without_responses_is_asked_by_chat_and_remembered(status: int, body: str, kind: str) -> None:
    async with service_without_responses(status, body, kind) as (url, asked):
        provider = openai_at(url)
        async with gateway_to(("*", provider)) as (room, _), openai_client(room) as client:
            assert provider.api is None
            for _ in range(2):
                response = await client.responses.create(model="m", input="hi")
                assert (response.output_text, response.store) == ("hello", False)
            assert provider.api == "chat"
            with pytest.raises(openai.NotFoundError):
                await client.responses.retrieve(response.id)
            with pytest.raises(openai.NotFoundError) as caught:
                await client.responses.create(model="m", input="hi", previous_response_id=response.id)
            assert caught.value.code == "previous_response_not_found"
    assert asked == ["responses", "chat/completions", "chat/completions"]


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, '{"error": {"code": "model_not_found", "message": "The model `m` does not exist"}}'),
        (404, '{"error": {"type": "not_found", "message": "model m not found, try pulling it first"}}'),
        (400, '{"error": {"param": "input", "message": "Invalid value for input"}}'),
        (429, '{"error": {"message": "slow down"}}'),
        (500, '{"error": {"message": "broken"}}'),
    ],
)
async def test_an_error_of_the_model_or_the_request_says_nothing_about_the_api(status: int, body: str) -> None:
    async with service_without_responses(status, body) as (url, asked):
        provider = openai_at(url)
        async with gateway_to(("*", provider)) as (room, _), openai_client(room) as client:
            with pytest.raises(openai.APIStatusError) as caught:
                await client.responses.create(model="m", input="hi")
    assert (caught.value.status_code, caught.value.response.json()) == (status, json.loads(body))
    assert asked == ["responses"]
    assert provider.api is None


async def test_nothing_is_concluded_from_a_service_that_fails_beside_what_it_does_not_know() -> None:
    app = web.Application()

    async def fail(_: web.Request) -> web.Response:
        return web.json_response({"error": {"message": "being started"}}, status=503)

    app.router.add_post("/v1/chat/completions", fail)
    async with listening(app) as address:
        provider = openai_at(f"http://{address}/v1")
        async with gateway_to(("*", provider)) as (room, _), openai_client(room) as client:
            with pytest.raises(openai.InternalServerError):
                await client.responses.create(model="m", input="hi")
    assert provider.api is None


async def test_a_setting_saves_the_question() -> None:
    async with (
        service_without_responses(500, "") as (url, asked),
        gateway_to(("*", openai_at(url, api="chat"))) as (room, _),
        openai_client(room) as client,
    ):
        assert (await client.responses.create(model="m", input="hi")).output_text == "hello"
    assert asked == ["chat/completions"]


async def test_an_address_with_neither_api_is_named_and_nothing_is_concluded() -> None:
    app = web.Application()
    async with listening(app) as address:
        provider = openai_at(f"http://{address}/v1")
        async with gateway_to(("*", provider)) as (room, _), openai_client(room) as client:
            with pytest.raises(openai.NotFoundError, match="is its base_url right"):
                await client.responses.create(model="m", input="hi")
            with pytest.raises(openai.NotFoundError, match="is its base_url right"):
                await client.chat.completions.create(model="m", messages=HELLO)
    assert provider.api is None


async def test_a_translated_answer_of_another_kind_is_an_error_of_the_provider() -> None:
    async with ModelService(VOICES["chat"]) as service:
        service.plain({"data": []}).plain(b"\x1f\x8b", content_type="text/event-stream").plain({"error": {"code": 429}})
        service.plain(b"nonsense", status=503)
        async with (
            gateway_to(("*", openai_at(service.base_url, api="chat"))) as (room, _),
            openai_client(room) as client,
        ):
            statuses = []
            for stream in (False, False, False, True):
                with pytest.raises(openai.APIStatusError) as caught:
                    await client.responses.create(model="m", input="hi", stream=stream)
                statuses.append(caught.value.status_code)
    assert statuses == [502, 502, 429, 503]


async def test_a_request_that_has_no_form_in_the_providers_api_is_refused() -> None:
    async with (
        ModelService(VOICES["chat"]) as service,
        gateway_to(("*", openai_at(service.base_url, api="chat"))) as (room, _),
        openai_client(room) as client,
    ):
        with pytest.raises(openai.BadRequestError, match="web_search"):
            await client.responses.create(model="m", input="hi", tools=[{"type": "web_search"}])
        with pytest.raises(openai.BadRequestError, match="background"):
            await client.responses.create(model="m", input="hi", background=True)
    assert service.asked == []


def test_without_its_library_the_client_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "anthropic", None)
    with pytest.raises(SettingsError, match=r"pip install 'meshhost\[anthropic\]'"):
        get_client(room=SimpleNamespace(room_url="ws://x/rooms/a", protocol=SimpleNamespace(token="t")))  # type: ignore[arg-type]

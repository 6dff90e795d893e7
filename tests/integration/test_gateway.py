"""The gateway between the official openai client and a scripted provider."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
import openai
import pytest
from aiohttp import web
from openai import AsyncOpenAI

from meshhost.errors import AccessDeniedError, InvalidTokenError, SettingsError
from meshhost.gateway.meter import Meter
from meshhost.gateway.provider import Caller, Provider, ProviderTable
from meshhost.gateway.providers.openai_compatible import OpenAICompatibleProvider
from meshhost.gateway.routes import add_gateway_routes
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.stores.memory.usage import MemoryUsageStore
from meshhost.testing.scripted_upstream import ScriptedUpstream

KEY = "sk-provider-secret"


@dataclass
class Gateway:
    """A served gateway; `root` ends before /rooms."""

    root: str
    meter: Meter

    def client(self, token: str = "good", room: str = "lobby", **options: object) -> AsyncOpenAI:
        return AsyncOpenAI(api_key=token, base_url=f"{self.root}/rooms/{room}/v1", max_retries=0, **options)  # type: ignore[arg-type]


async def authenticate(request: web.Request) -> Caller:
    token = request.headers.get("Authorization", "").removeprefix("Bearer ")
    if token == "reader":
        raise AccessDeniedError("use", "llm")
    if token != "good":
        raise InvalidTokenError("the token was refused")
    return Caller(TenantId("acme"), RoomKey(TenantId("acme"), "lobby"), "bob")


@asynccontextmanager
async def served(provider: Provider, *, pattern: str = "*", max_body_bytes: int = 1 << 25) -> AsyncIterator[Gateway]:
    table, meter, app = ProviderTable({pattern: provider}), Meter(MemoryUsageStore()), web.Application()
    add_gateway_routes(app, providers=table, authenticate=authenticate, meter=meter, max_body_bytes=max_body_bytes)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield Gateway(f"http://127.0.0.1:{runner.addresses[0][1]}", meter)
    finally:
        await runner.cleanup()
        await table.stop()


def to(upstream: ScriptedUpstream, **options: object) -> OpenAICompatibleProvider:
    return OpenAICompatibleProvider(name="scripted", base_url=upstream.base_url, api_key=KEY, **options)  # type: ignore[arg-type]


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream() as upstream:
        yield upstream


@pytest.fixture
async def gateway(upstream: ScriptedUpstream) -> AsyncIterator[Gateway]:
    async with served(to(upstream)) as gateway:
        yield gateway


async def test_a_tenant_may_bring_a_key_of_its_own(upstream: ScriptedUpstream) -> None:
    keys: list[str | None] = ["sk-of-acme", None, "sk\nX-Evil: 1"]

    async def key_of(tenant: TenantId) -> str | None:
        assert tenant == "acme"
        return keys.pop(0)

    async with served(to(upstream, tenant_key=key_of)) as gateway, gateway.client() as client:
        for expected in ("sk-of-acme", KEY):
            upstream.say("hello")
            await client.responses.create(model="gpt-x", input="hi")
            assert (await upstream.wait_for_request()).authorization == f"Bearer {expected}"
        with pytest.raises(openai.InternalServerError, match="printable ASCII") as refused:
            await client.responses.create(model="gpt-x", input="hi")
    assert (refused.value.status_code, "Evil" in str(refused.value)) == (503, False)


async def test_a_plain_answer_passes_and_the_key_is_the_gateways(upstream: ScriptedUpstream, gateway: Gateway) -> None:
    upstream.say("hello there")
    async with gateway.client(organization="theirs") as client:
        told = {
            "Cookie": "a=b",
            "Traceparent": f"00-{'a' * 32}-{'b' * 16}-01",
            "Tracestate": "x=y",
            "Baggage": "who=ann",
        }
        response = await client.responses.create(model="gpt-x", input="hi", extra_headers=told)

    assert response.output_text == "hello there"
    received = await upstream.wait_for_request()
    assert received.authorization == f"Bearer {KEY}"
    assert received.body["model"] == "gpt-x"
    kept_here = {"cookie", "openai-organization", "traceparent", "tracestate", "baggage"}
    assert not kept_here & {name.lower() for name in received.headers}


async def test_the_script_speaks_the_wire_both_ways(upstream: ScriptedUpstream, gateway: Gateway) -> None:
    upstream.call_tool("add", {"a": 1}, ("add", {"a": 2})).call_tool("add", {"a": 3}).refuse("no").refuse("never")
    async with gateway.client() as client:
        whole = await client.responses.create(model="m", input="hi")
        async with client.responses.stream(model="m", input="hi") as stream:
            streamed = await stream.get_final_response()
        refused = await client.responses.create(model="m", input="hi")
        async with client.responses.stream(model="m", input="hi") as stream:
            never = await stream.get_final_response()

    assert [(item.name, item.arguments) for item in whole.output] == [("add", '{"a": 1}'), ("add", '{"a": 2}')]  # type: ignore[union-attr]
    assert [item.arguments for item in streamed.output] == ['{"a": 3}']  # type: ignore[union-attr]
    assert refused.output[0].content[0].refusal == "no"  # type: ignore[union-attr]
    assert never.output[0].content[0].refusal == "never"  # type: ignore[union-attr]


async def test_a_stream_arrives_as_it_is_made_and_is_metered(upstream: ScriptedUpstream, gateway: Gateway) -> None:
    hold, pieces = asyncio.Event(), []
    upstream.say("one two three", hold=hold)
    async with gateway.client() as client, client.responses.stream(model="m", input="hi") as stream:
        async for event in stream:
            if event.type == "response.output_text.delta":
                pieces.append((event.delta, hold.is_set()))
                hold.set()

    assert pieces[0] == ("one", False)  # it came while the upstream still held the rest back
    assert "".join(piece for piece, _ in pieces) == "one two three"
    [(key, counts)] = gateway.meter.pending().items()
    assert (key.tenant, key.room, key.identity, key.model) == ("acme", "lobby", "bob", "m")
    assert (counts.requests, counts.input_tokens, counts.output_tokens, counts.unmeasured) == (1, 11, 7, 0)


async def test_a_refused_provider_key_is_not_the_callers_fault(upstream: ScriptedUpstream, gateway: Gateway) -> None:
    upstream.fail(401).fail(403)
    async with gateway.client() as client:
        for _ in range(2):
            with pytest.raises(openai.InternalServerError, match="provider key") as caught:
                await client.responses.create(model="m", input="hi")
            assert caught.value.status_code == 502
            assert KEY not in str(caught.value)


async def test_the_upstreams_own_errors_pass_with_their_retry_after(
    upstream: ScriptedUpstream, gateway: Gateway
) -> None:
    upstream.fail(429, retry_after=7).fail(500).fail(302)
    async with gateway.client() as client:
        with pytest.raises(openai.RateLimitError) as limited:
            await client.responses.create(model="m", input="hi")
        with pytest.raises(openai.InternalServerError, match="scripted failure 500"):
            await client.responses.create(model="m", input="hi")
        with pytest.raises(openai.InternalServerError, match="redirect"):
            await client.responses.create(model="m", input="hi")

    assert limited.value.response.headers["Retry-After"] == "7"


async def test_an_unreachable_upstream_is_a_502() -> None:
    async with ScriptedUpstream() as gone:
        pass
    async with served(to(gone)) as gateway, gateway.client() as client:
        with pytest.raises(openai.InternalServerError) as caught:
            await client.responses.create(model="m", input="hi")
        assert (await client.models.list()).data == []

    assert caught.value.status_code == 502
    assert caught.value.type == "upstream_unavailable"


async def test_a_silent_upstream_is_a_504(upstream: ScriptedUpstream) -> None:
    upstream.hang()
    async with served(to(upstream, idle_timeout=0.05)) as gateway, gateway.client() as client:
        with pytest.raises(openai.InternalServerError) as caught:
            await client.responses.create(model="m", input="hi")

    assert caught.value.status_code == 504


async def test_a_stream_cut_upstream_is_cut_for_the_caller(upstream: ScriptedUpstream, gateway: Gateway) -> None:
    upstream.cut_after(2500)
    request, headers = {"model": "m", "input": "hi", "stream": True}, {"Authorization": "Bearer good"}
    url = f"{gateway.root}/rooms/lobby/v1/responses"
    async with aiohttp.ClientSession(headers=headers) as session, session.post(url, json=request) as answer:
        assert answer.status == 200
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()

    [counts] = gateway.meter.pending().values()
    assert counts.unmeasured == 1


async def test_a_caller_that_leaves_ends_the_upstream_request(upstream: ScriptedUpstream, gateway: Gateway) -> None:
    upstream.hang()
    async with gateway.client() as client, asyncio.timeout(10):
        with pytest.raises(openai.APITimeoutError):
            await client.responses.create(model="m", input="hi", timeout=0.2)
        await upstream.abandoned.wait()


async def test_bad_tokens_and_rooms_are_refused_in_openais_form(upstream: ScriptedUpstream, gateway: Gateway) -> None:
    async with gateway.client("bad") as client:
        with pytest.raises(openai.AuthenticationError, match="the token was refused"):
            await client.responses.create(model="m", input="hi")
    async with gateway.client("reader") as client:
        with pytest.raises(openai.PermissionDeniedError):
            await client.models.list()
    async with gateway.client(room="attic") as client:
        with pytest.raises(openai.PermissionDeniedError, match="attic"):
            await client.models.list()
    assert upstream.requests == []


async def test_models_are_listed(gateway: Gateway) -> None:
    async with gateway.client() as client:
        assert [model.id for model in (await client.models.list()).data] == ["scripted"]


async def test_an_unknown_model_is_a_404(upstream: ScriptedUpstream) -> None:
    async with served(to(upstream), pattern="gpt-*") as gateway, gateway.client() as client:
        with pytest.raises(openai.NotFoundError, match="claude"):
            await client.responses.create(model="claude", input="hi")


async def test_a_provider_that_cannot_start_is_a_503(upstream: ScriptedUpstream) -> None:
    class Broken(OpenAICompatibleProvider):
        async def start(self) -> None:
            raise SettingsError("install it first")

    broken = Broken(name="broken", base_url=upstream.base_url, api_key=KEY)
    async with served(broken) as gateway, gateway.client() as client:
        with pytest.raises(openai.InternalServerError, match="install it first") as caught:
            await client.responses.create(model="m", input="hi")
    assert caught.value.status_code == 503


async def test_large_bodies_are_refused_by_the_routes_and_by_the_provider(upstream: ScriptedUpstream) -> None:
    for provider, limit in ((to(upstream), 1000), (to(upstream, max_body_bytes=1000), 1 << 25)):
        async with served(provider, max_body_bytes=limit) as gateway, gateway.client() as client:
            with pytest.raises(openai.APIStatusError) as caught:
                await client.responses.create(model="m", input="x" * 2_000)
            assert caught.value.status_code == 413
    assert upstream.requests == []


async def test_a_body_that_is_much_more_when_it_is_read_is_refused(
    upstream: ScriptedUpstream, gateway: Gateway
) -> None:
    async with gateway.client() as client:
        with pytest.raises(openai.APIStatusError) as caught:
            await client.responses.create(model="m", input="hi", extra_body={"x": [[]] * 500_000})
    assert caught.value.status_code == 413
    assert upstream.requests == []


async def test_more_than_aiohttps_usual_megabyte_passes(upstream: ScriptedUpstream, gateway: Gateway) -> None:
    upstream.say("long")
    async with gateway.client() as client:
        await client.responses.create(model="m", input="x" * 3_000_000)
    assert len(upstream.requests[0].body["input"]) == 3_000_000


async def test_a_request_without_a_model_gets_the_default(upstream: ScriptedUpstream) -> None:
    upstream.say("hi").say("hi")
    headers = {"Authorization": "Bearer good"}
    async with (
        served(to(upstream, default_model="gpt-default")) as gateway,
        aiohttp.ClientSession(headers=headers) as session,
    ):
        for body in ({"input": "x"}, {"input": "x", "model": "gpt-x"}):
            async with session.post(f"{gateway.root}/rooms/lobby/v1/responses", json=body) as answer:
                assert answer.status == 200
    assert [request.body["model"] for request in upstream.requests] == ["gpt-default", "gpt-x"]


async def test_the_query_passes_and_odd_paths_do_not(upstream: ScriptedUpstream, gateway: Gateway) -> None:
    upstream.say("hi").say("hi")
    headers = {"Authorization": "Bearer good"}
    async with aiohttp.ClientSession(headers=headers) as session:
        root = f"{gateway.root}/rooms/lobby/v1"
        async with session.post(f"{root}/responses", json={"model": "m", "input": "hi"}) as answer:
            response_id = (await answer.json())["id"]
        async with session.get(f"{root}/responses/{response_id}?limit=2") as answer:
            assert answer.status == 200
        async with session.get(f"{root}/a%2e%2e%20b") as answer:
            assert (answer.status, (await answer.json())["error"]["code"]) == (404, "unknown_path")
    assert [request.path for request in upstream.requests] == ["responses", f"responses/{response_id}"]


async def test_a_request_beyond_the_script_fails(upstream: ScriptedUpstream) -> None:
    async with AsyncOpenAI(api_key="k", base_url=upstream.base_url, max_retries=0) as client:
        with pytest.raises(openai.InternalServerError, match="no further step"):
            await client.responses.create(model="m", input="hi")


@pytest.mark.parametrize("base_url", ["ftp://x/v1", "x", ""])
def test_a_base_url_must_be_an_http_address(base_url: str) -> None:
    with pytest.raises(SettingsError):
        OpenAICompatibleProvider(name="x", base_url=base_url, api_key="k")


def test_the_key_is_not_shown() -> None:
    assert KEY not in repr(OpenAICompatibleProvider(name="x", base_url="http://x/v1", api_key=KEY))


@pytest.mark.parametrize("key", ["sk-provider\nsecret", "sk-provider-\x00", "sk-pro\u00advider"])
def test_a_key_that_no_header_can_carry_is_refused_at_the_start(key: str) -> None:
    with pytest.raises(SettingsError, match="key of provider x") as caught:
        OpenAICompatibleProvider(name="x", base_url="http://x/v1", api_key=key)
    assert "sk-pro" not in str(caught.value)


@asynccontextmanager
async def answering(status: int, body: str, content_type: str) -> AsyncIterator[Gateway]:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=status, text=body, content_type=content_type, headers={"Retry-After": "7"})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1\n"
    try:
        async with served(OpenAICompatibleProvider(name="x", base_url=url, api_key=f"{KEY}\r\n")) as gateway:
            yield gateway
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    ("status", "body", "content_type", "seen"),
    [
        (200, "<html>", "text/html", 502),
        (503, "<html>", "text/html", 503),
        (200, '{"error": {"code": "overloaded_error"}}', "application/json", 503),
        (200, '{"error": {"code": 429}}', "application/json", 429),
        (200, '{"error": {"code": null, "message": "Rate limit reached"}}', "application/json", 429),
        (200, '{"error": {"code": "invalid_prompt"}}', "application/json", 400),
        (200, '{"error": "no"}', "application/json", 502),
        (200, '{"object": "error", "code": "529"}', "application/json", 529),
        (200, '{"error": null, "output": []}', "application/json", 200),
        (200, '{"data": []}', "application/json", 200),
        (200, "plain", "text/plain", 200),
    ],
)
async def test_an_answer_that_is_an_error_gets_the_status_of_one(
    status: int, body: str, content_type: str, seen: int
) -> None:
    async with answering(status, body, content_type) as gateway, aiohttp.ClientSession() as session:
        headers = {"Authorization": "Bearer good"}
        async with session.post(f"{gateway.root}/rooms/lobby/v1/responses", json={}, headers=headers) as response:
            assert (response.status, response.headers["Retry-After"]) == (seen, "7")
            text = await response.text()
    assert text == body or "web page" in text


async def test_a_list_of_models_may_be_missing() -> None:
    async with answering(200, '{"data": null}', "application/json") as gateway, gateway.client() as client:
        assert [model async for model in await client.models.list()] == []


async def test_a_line_end_after_the_key_is_no_part_of_it(upstream: ScriptedUpstream) -> None:
    upstream.say("hi")
    provider = OpenAICompatibleProvider(name="scripted", base_url=upstream.base_url, api_key=f"{KEY}\r\n")
    async with served(provider) as gateway, gateway.client() as client:
        await client.responses.create(model="m", input="hi")
    assert upstream.requests[0].authorization == f"Bearer {KEY}"


@pytest.mark.parametrize("key", ["two\nlines", "\x00", "ключ"])
def test_a_key_that_no_header_can_hold_is_refused_at_start(key: str) -> None:
    with pytest.raises(SettingsError, match="the key of provider x"):
        OpenAICompatibleProvider(name="x", base_url="http://127.0.0.1/v1", api_key=key)

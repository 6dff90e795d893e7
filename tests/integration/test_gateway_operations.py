"""What the gateway forwards with the operator's key, and for whom: operations, stored responses, credentials of callers."""

import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from meshhost.errors import InvalidTokenError
from meshhost.gateway.meter import Meter
from meshhost.gateway.operations import AUDIO
from meshhost.gateway.provider import Caller, ProviderTable
from meshhost.gateway.providers.openai_compatible import OpenAICompatibleProvider
from meshhost.gateway.routes import add_gateway_routes
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.quotas.quota import over_rate
from meshhost.stores.memory.usage import MemoryUsageStore

KEY = "sk-provider-secret"


@dataclass
class Account:
    """A provider that answers everything; `seen` are the requests that reached it."""

    base_url: str = ""
    seen: list[tuple[str, str]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.seen.append((request.method, request.raw_path))
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        self.bodies.append(await request.read())
        number = len(self.seen)
        if b'"stream": true' in self.bodies[-1]:
            event = f'data: {{"type":"response.created","response":{{"id":"resp_{number}"}}}}\n\n'
            return web.Response(body=event.encode(), content_type="text/event-stream")
        return web.json_response({"metadata": {"id": "resp_of_somebody"}, "id": f"resp_{number}"})


async def authenticate(request: web.Request) -> Caller:
    name = request.headers.get("Authorization", "").removeprefix("Bearer ") or request.query.get("token", "")
    if name not in {"a", "b"}:
        raise InvalidTokenError("the token was refused")
    return Caller(TenantId(name), RoomKey(TenantId(name), "lobby"), "bob")


@asynccontextmanager
async def listening(app: web.Application) -> AsyncIterator[str]:
    # The rest of a refused body is awaited for a moment only: a client that left would keep its handler for ten seconds.
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1, lingering_time=0.5)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.fixture
async def account() -> AsyncIterator[Account]:
    account, app = Account(), web.Application(client_max_size=1 << 25)
    app.router.add_route("*", "/{path:.*}", account.handle)
    async with listening(app) as url:
        account.base_url = f"{url}/v1"
        yield account


@asynccontextmanager
async def gateway_to(
    account: Account, *, max_body_bytes: int = 1 << 25, authenticate: Any = authenticate, **options: Any
) -> AsyncIterator[str]:
    provider = OpenAICompatibleProvider(name="account", base_url=account.base_url, api_key=KEY)
    table, app = ProviderTable({"*": provider}, **options), web.Application()
    meter = Meter(MemoryUsageStore())
    add_gateway_routes(app, providers=table, authenticate=authenticate, meter=meter, max_body_bytes=max_body_bytes)
    async with listening(app) as url:
        yield f"{url}/rooms/lobby/v1"
    await table.stop()


class Asker:
    """Requests of two tenants, `a` and `b`."""

    def __init__(self, root: str, http: aiohttp.ClientSession) -> None:
        self.root = root
        self.http = http

    async def __call__(self, tenant: str, method: str, path: str, **options: Any) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {tenant}", **options.pop("headers", {})}
        async with self.http.request(method, f"{self.root}/{path}", headers=headers, **options) as answer:
            content = await answer.read()
            return answer.status, (await answer.json() if "json" in answer.content_type else content)


@pytest.fixture
async def ask(account: Account) -> AsyncIterator[Asker]:
    async with gateway_to(account) as root, aiohttp.ClientSession() as http:
        yield Asker(root, http)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "files", 404),
        ("POST", "files", 404),
        ("GET", "files/file-1/content", 404),
        ("GET", "organization/admin_api_keys", 404),
        ("POST", "fine_tuning/jobs", 404),
        ("GET", "conversations/conv_1/items", 404),
        ("GET", "vector_stores", 404),
        ("POST", "audio/speech", 404),
        ("GET", "responses/resp_1/../../files", 404),
        ("GET", "responses/resp_1%2F..%2Ffiles", 404),
        ("GET", "responses", 405),
        ("PUT", "responses", 405),
        ("DELETE", "models/ft:gpt-x", 405),
        ("GET", "chat/completions", 405),
        ("PATCH", "embeddings", 405),
    ],
)
async def test_only_listed_operations_reach_the_provider(
    ask: Asker, account: Account, method: str, path: str, status: int
) -> None:
    found, body = await ask("a", method, path, json={"model": "m"})
    assert found == status
    assert method in body["error"]["message"] or "path" in body["error"]["message"]
    assert account.seen == []


async def test_a_405_names_the_methods_of_the_path(ask: Asker) -> None:
    async with ask.http.put(f"{ask.root}/responses/resp_1", headers={"Authorization": "Bearer a"}) as answer:
        assert (answer.status, answer.headers["Allow"]) == (405, "DELETE, GET")


@pytest.mark.parametrize("path", ["responses", "chat/completions", "completions", "embeddings"])
async def test_the_operations_of_agents_pass(ask: Asker, account: Account, path: str) -> None:
    assert (await ask("a", "POST", path, json={"model": "m", "input": "x"}))[0] == 200
    assert (await ask("a", "GET", "models/org/name:free"))[0] == 200
    assert account.seen == [("POST", f"/v1/{path}"), ("GET", "/v1/models/org/name:free")]


async def test_audio_passes_where_the_operator_allows_it(account: Account) -> None:
    async with (
        gateway_to(account, extra_operations=AUDIO) as root,
        aiohttp.ClientSession() as http,
    ):
        assert (await Asker(root, http)("a", "POST", "audio/transcriptions", data=b"sound"))[0] == 200
        assert (await Asker(root, http)("a", "GET", "audio/transcriptions"))[0] == 405


@pytest.mark.parametrize("path", sorted(AUDIO))
async def test_the_limits_of_the_gateway_hold_for_audio_too(account: Account, path: str) -> None:
    gateway = gateway_to(account, max_body_bytes=2_000_000, extra_operations=AUDIO)
    async with gateway as root, aiohttp.ClientSession() as http:
        ask = Asker(root, http)
        sound = bytes(1_900_000)
        assert (await ask("a", "POST", path, data=io.BytesIO(sound)))[0] == 200
        assert account.bodies == [sound]
        status, body = await ask("a", "POST", path, data=io.BytesIO(bytes(2_100_000)))
        assert (status, body["error"]["type"]) == (413, "request_too_large")
        # Without a length, the limit is noticed while the body comes.
        assert (await ask("a", "POST", path, data=_pieces(2_100_000)))[0] == 413
        assert (await ask("stranger", "POST", path, data=io.BytesIO(sound)))[0] == 401
        assert (await ask("a", "POST", f"{path}/more", data=io.BytesIO(sound)))[0] == 404
        assert len(account.seen) == 1


async def test_audio_counts_for_the_rate_of_its_tenant(account: Account) -> None:
    gateway = gateway_to(account, authenticate=_over_rate, extra_operations=AUDIO)
    async with gateway as root, aiohttp.ClientSession() as http:
        status, body = await Asker(root, http)("a", "POST", "audio/speech", json={"model": "m"})
    assert (status, body["error"]["code"]) == (429, "quota_exceeded")
    assert account.seen == []


async def _pieces(size: int) -> AsyncIterator[bytes]:
    for _ in range(size // 100_000):
        yield bytes(100_000)


async def _over_rate(request: web.Request) -> Caller:
    raise over_rate("requests_per_second", 1.0, 0.5)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_stored_response_is_its_tenants(ask: Asker, account: Account, stream: bool) -> None:
    assert (await ask("a", "POST", "responses", json={"model": "m", "input": "secret", "stream": stream}))[0] == 200
    asked = [("GET", "responses/resp_1"), ("GET", "responses/resp_1/input_items"), ("POST", "responses/resp_1/cancel")]
    follow_up = {"model": "m", "input": "what was it?", "previous_response_id": "resp_1"}
    for method, path in [*asked, ("DELETE", "responses/resp_1")]:
        assert (await ask("b", method, path))[0] == 404
    status, body = await ask("b", "POST", "responses", json=follow_up)
    assert (status, body["error"]["code"]) == (404, "previous_response_not_found")
    assert len(account.seen) == 1

    for method, path in asked:
        assert (await ask("a", method, path))[0] == 200
    assert (await ask("a", "POST", "responses", json=follow_up))[0] == 200
    assert (await ask("a", "DELETE", "responses/resp_1"))[0] == 200


async def test_an_id_in_other_places_of_an_answer_is_not_taken_for_the_responses(ask: Asker) -> None:
    await ask("a", "POST", "responses", json={"model": "m", "input": "x"})
    assert (await ask("a", "GET", "responses/resp_of_somebody"))[0] == 404


@pytest.mark.parametrize(
    "body",
    [
        b'{"model": "m", "previous_response_id": "resp_1", "previous_response_id": null}',
        b'{"model": "m", "previous_response_id": "resp_1", "previous\\u005fresponse_id": null}',
        b'{"model": "m", "conversation": "conv_1"}',
        b'{"model": "m", "conversation": {"id": "conv_1"}}',
        b'{"model": "m", "input": [{"type": "item_reference", "id": "msg_1"}]}',
        b'{"model": "m", "input": [{"id": "msg_1"}]}',
        b'{"model": "m", "input": [{"role": "user", "content": [{"type": "input_file", "file_id": "file-1"}]}]}',
        b'{"model": "m", "input": [{"role": "user", "content": [{"type": "input_file", "file\\u005fid": "file-1"}]}]}',
        b'{"model": "m", "input": "x", "tools": [{"type": "file_search", "vector_store_ids": ["vs_1"]}]}',
        b'{"model": "m", "input": "x", "tools": [{"type": "code_interpreter", "container": "cntr_1"}]}',
        b'{"model": "m", "messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}]}]}',
        b"[]",
        b"not JSON",
        b"",
    ],
    ids=range(14),
)
async def test_objects_of_the_operators_account_cannot_be_named(ask: Asker, account: Account, body: bytes) -> None:
    status, answer = await ask("b", "POST", "responses", data=body)
    assert (status, answer["error"]["type"]) == (400, "invalid_request_error")
    assert account.seen == []


async def test_a_tools_own_parameters_may_have_any_name(ask: Asker, account: Account) -> None:
    parameters = {"type": "object", "properties": {"file_id": {"type": "string"}}, "required": ["file_id"]}
    tools = [{"type": "function", "name": "read", "parameters": parameters}]
    body = {"model": "m", "input": "what is a file_id?", "tools": tools, "metadata": {"file_id": "7"}}
    assert (await ask("a", "POST", "responses", json=body))[0] == 200


async def test_no_credential_of_the_caller_is_forwarded(account: Account) -> None:
    secret = "callers-secret"
    names = ["Cookie", "X-Api-Key", "Api-Key", "OpenAI-Organization", "OpenAI-Project", "X-Auth-Request-Token"]
    names += ["Proxy-Authorization", "X-Goog-Api-Key", "X-Amz-Security-Token", "X-Forwarded-For", "X-Session", "Trace"]
    headers = dict.fromkeys(names, secret) | {"Connection": "keep-alive, Trace", "OpenAI-Beta": "new"}
    async with gateway_to(account) as root, aiohttp.ClientSession(headers=headers) as http:
        url = f"{root}/responses?token=a&t%6Fken=a&api_key={secret}&limit=2"
        async with http.post(url, json={"model": "m", "input": "x"}) as answer:
            assert answer.status == 200
    assert account.seen == [("POST", "/v1/responses?limit=2")]
    assert account.headers[0]["authorization"] == f"Bearer {KEY}"
    assert account.headers[0]["openai-beta"] == "new"
    assert secret not in str(account.headers[0])


async def test_an_unpacked_body_is_not_called_packed(account: Account) -> None:
    async with gateway_to(account) as root, aiohttp.ClientSession() as http:
        asker = Asker(root, http)
        assert (await asker("a", "POST", "responses", json={"model": "m"}, compress="deflate"))[0] == 200
    assert "content-encoding" not in account.headers[0]
    assert account.bodies == [b'{"model": "m"}']

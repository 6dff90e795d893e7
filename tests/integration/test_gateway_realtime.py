"""Realtime sessions between callers of the gateway and a scripted provider: what passes, what is counted, what ends them."""

import asyncio
import base64
import json
from array import array
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from aiohttp import WSMsgType, web
from openai import AsyncOpenAI

from meshhost.errors import InvalidTokenError
from meshhost.gateway.meter import Meter
from meshhost.gateway.provider import Caller, Provider, ProviderTable
from meshhost.gateway.providers.anthropic import AnthropicProvider
from meshhost.gateway.providers.openai_compatible import OpenAICompatibleProvider
from meshhost.gateway.realtime import RealtimeLimits
from meshhost.gateway.routes import add_gateway_routes
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.stores.memory.usage import MemoryUsageStore
from meshhost.testing.scripted_realtime import ScriptedRealtime

KEY = "sk-provider-secret"
LOUD = base64.b64encode(array("h", [9_000, -9_000] * 2_400).tobytes()).decode()  # 200 ms
QUIET = base64.b64encode(bytes(9_600)).decode()


@dataclass
class Gateway:
    root: str
    meter: Meter
    revoked: set[str] = field(default_factory=set)

    def url(self, model: str | None = "gpt-realtime", room: str = "lobby") -> str:
        return f"{self.root}/rooms/{room}/v1/realtime" + (f"?model={model}" if model else "")

    async def usage(self) -> dict[str, tuple[int, int, int, int, int]]:
        return {
            key.model: (
                counts.requests,
                counts.input_tokens,
                counts.cached_tokens,
                counts.output_tokens,
                counts.unmeasured,
            )
            for key, counts in self.meter.pending().items()
        }


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedRealtime]:
    async with ScriptedRealtime(hears=("hello",)) as upstream:
        yield upstream


@asynccontextmanager
async def served(provider: Provider, limits: RealtimeLimits | None = None) -> AsyncIterator[Gateway]:
    table, meter, app = ProviderTable({"*": provider}), Meter(MemoryUsageStore()), web.Application()
    gateway = Gateway("", meter)

    async def authenticate(request: web.Request) -> Caller:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if token in gateway.revoked or not token.startswith("good"):
            raise InvalidTokenError("the token was refused")
        return Caller(TenantId("acme"), RoomKey(TenantId("acme"), "lobby"), "bob")

    add_gateway_routes(
        app,
        providers=table,
        authenticate=authenticate,
        meter=meter,
        realtime=limits or RealtimeLimits(check_seconds=0.05),
    )
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    gateway.root = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield gateway
    finally:
        await runner.cleanup()
        await table.stop()


def to(upstream: ScriptedRealtime) -> OpenAICompatibleProvider:
    return OpenAICompatibleProvider(name="scripted", base_url=upstream.base_url, api_key=KEY)


@pytest.fixture
async def gateway(upstream: ScriptedRealtime) -> AsyncIterator[Gateway]:
    async with served(to(upstream)) as gateway:
        yield gateway


Dial = Callable[..., Any]


@pytest.fixture
async def dial() -> AsyncIterator[Dial]:
    async with aiohttp.ClientSession() as session:

        def connect(url: str, token: str = "good", **options: Any) -> Any:
            return session.ws_connect(url, headers={"Authorization": f"Bearer {token}"}, **options)

        yield connect


async def until(socket: aiohttp.ClientWebSocketResponse, kind: str) -> dict[str, Any]:
    async with asyncio.timeout(10):
        while True:
            event: dict[str, Any] = await socket.receive_json()
            if event["type"] == kind:
                return event


async def speak(socket: aiohttp.ClientWebSocketResponse) -> None:
    for audio in (LOUD, QUIET, QUIET):
        await socket.send_json({"type": "input_audio_buffer.append", "audio": audio})


async def test_a_session_passes_with_the_gateways_key_and_its_usage_is_counted(
    upstream: ScriptedRealtime, gateway: Gateway, dial: Dial
) -> None:
    upstream.say("good morning", ms=300)
    async with dial(gateway.url() + "&secret=x") as socket:
        session = {"type": "realtime", "audio": {"input": {"transcription": {"model": "gpt-transcribe"}}}}
        await socket.send_json({"type": "session.update", "session": session})
        await until(socket, "session.updated")
        await speak(socket)
        await until(socket, "conversation.item.input_audio_transcription.completed")
        await until(socket, "response.done")
    assert upstream.sessions[0].authorization == f"Bearer {KEY}"
    assert upstream.sessions[0].query == {"model": "gpt-realtime"}
    assert upstream.sessions[0].said() == [("user", "hello"), ("assistant", "good morning")]
    assert await gateway.usage() == {"gpt-realtime": (1, 11, 4, 7, 0), "gpt-transcribe": (1, 5, 0, 2, 0)}


async def test_the_official_client_works_unchanged(upstream: ScriptedRealtime, gateway: Gateway) -> None:
    upstream.say("good morning")
    async with (
        AsyncOpenAI(api_key="good", base_url=f"{gateway.root}/rooms/lobby/v1") as client,
        client.realtime.connect(model="gpt-realtime") as connection,
    ):
        await connection.session.update(session={"type": "realtime", "instructions": "be brief"})
        await connection.response.create()
        async with asyncio.timeout(10):
            async for event in connection:
                if event.type == "response.done":
                    break
    assert upstream.sessions[0].settings["instructions"] == "be brief"


async def test_an_answer_that_is_cut_off_is_counted_as_unmeasured(
    upstream: ScriptedRealtime, gateway: Gateway, dial: Dial
) -> None:
    upstream.hang()
    async with dial(gateway.url()) as socket:
        await socket.send_json({"type": "response.create"})
        await until(socket, "response.created")
    async with asyncio.timeout(5):
        while not await gateway.usage():  # noqa: ASYNC110 - counted when the gateway notices
            await asyncio.sleep(0.01)
    assert await gateway.usage() == {"gpt-realtime": (1, 0, 0, 0, 1)}


@pytest.mark.parametrize(
    ("event", "named"),
    [
        ({"type": "session.update", "session": {"type": "realtime", "tools": [{"file_id": "file-1"}]}}, "file_id"),
        ("no object", "body"),
        ('{"type": "a", "type": "b"}', "type"),
    ],
)
async def test_what_names_the_operators_objects_is_answered_and_not_passed_on(
    upstream: ScriptedRealtime, gateway: Gateway, dial: Dial, event: Any, named: str
) -> None:
    async with dial(gateway.url()) as socket:
        await socket.send_str(event if isinstance(event, str) else json.dumps(event))
        error = (await until(socket, "error"))["error"]
        assert error["message"].startswith(f"{named}:")
        await socket.send_json({"type": "response.cancel"})
        await upstream.wait_for("response.cancel")
    assert upstream.sessions[0].types() == ["response.cancel"]


@pytest.mark.parametrize(
    ("token", "model", "room", "status"),
    [("bad", "m", "lobby", 401), ("good", "m", "other", 403), ("good", None, "lobby", 400)],
)
async def test_who_may_not_is_refused_before_the_upgrade(
    gateway: Gateway, dial: Dial, token: str, model: str | None, room: str, status: int
) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        await dial(gateway.url(model, room), token)
    assert caught.value.status == status


async def test_a_plain_request_is_told_to_upgrade(gateway: Gateway) -> None:
    async with aiohttp.ClientSession(headers={"Authorization": "Bearer good"}) as http, http.get(gateway.url()) as got:
        assert got.status == 426
        assert (await got.json())["error"]["code"] == "no_upgrade"


@pytest.mark.parametrize(("theirs", "ours"), [(401, 502), (429, 429), (404, 404), (500, 502)])
async def test_a_refusal_of_the_provider_is_an_http_status(
    upstream: ScriptedRealtime, gateway: Gateway, dial: Dial, theirs: int, ours: int
) -> None:
    upstream.refuse.append(theirs)
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        await dial(gateway.url())
    assert caught.value.status == ours


async def test_a_provider_that_is_away_is_an_http_status(upstream: ScriptedRealtime, dial: Dial) -> None:
    provider = OpenAICompatibleProvider(name="away", base_url="http://127.0.0.1:1/v1", api_key=KEY)
    async with served(provider) as gateway:
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await dial(gateway.url())
    assert caught.value.status == 502


async def test_a_provider_without_realtime_models_says_so(dial: Dial) -> None:
    async with served(AnthropicProvider(name="a", base_url="http://127.0.0.1:1/v1", api_key=KEY)) as gateway:
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await dial(gateway.url())
    assert caught.value.status == 404


async def test_a_token_that_is_revoked_ends_its_sessions(
    upstream: ScriptedRealtime, gateway: Gateway, dial: Dial
) -> None:
    async with dial(gateway.url(), "good-1") as mine, dial(gateway.url(), "good-2") as other:
        await until(mine, "session.created")
        await until(other, "session.created")
        gateway.revoked.add("good-1")
        async with asyncio.timeout(5):
            assert (await mine.receive()).type is WSMsgType.CLOSE
        assert mine.close_code == 1008
        await other.send_json({"type": "response.cancel"})
        await upstream.wait_for("response.cancel")


async def test_a_tenant_has_so_many_sessions_at_once(upstream: ScriptedRealtime, dial: Dial) -> None:
    async with served(to(upstream), RealtimeLimits(max_sessions_per_tenant=1)) as gateway:
        async with dial(gateway.url()) as socket:
            await until(socket, "session.created")
            with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
                await dial(gateway.url())
            assert caught.value.status == 429
            assert caught.value.headers is not None
            assert int(caught.value.headers["Retry-After"]) > 0
        async with asyncio.timeout(5):
            while True:
                try:
                    async with dial(gateway.url()) as socket:
                        await until(socket, "session.created")
                        break
                except aiohttp.WSServerHandshakeError:  # the place is free when the gateway has noticed
                    await asyncio.sleep(0.01)


async def test_the_end_of_either_side_ends_the_other(upstream: ScriptedRealtime, gateway: Gateway, dial: Dial) -> None:
    async with dial(gateway.url()) as socket:
        await until(socket, "session.created")
        upstream.cut()
        async with asyncio.timeout(5):
            assert (await socket.receive()).type is WSMsgType.CLOSE
        assert socket.close_code == 1011
    async with dial(gateway.url()) as socket:
        await until(socket, "session.created")
    async with asyncio.timeout(5):
        while upstream.sessions[1].close_code is None:  # noqa: ASYNC110 - the double's own record
            await asyncio.sleep(0.01)


async def test_a_provider_that_reads_nothing_ends_the_session(upstream: ScriptedRealtime, dial: Dial) -> None:
    limits = RealtimeLimits(stall_seconds=0.2, check_seconds=60)
    async with served(to(upstream), limits) as gateway, dial(gateway.url()) as socket:
        await until(socket, "session.created")
        upstream.reads.clear()
        await socket.send_json({"type": "response.cancel"})  # the read that is under way

        async def flood() -> None:
            while True:
                await socket.send_json({"type": "input_audio_buffer.append", "audio": "A" * 500_000})

        sending = asyncio.create_task(flood())
        async with asyncio.timeout(20):
            assert (await socket.receive()).type is WSMsgType.CLOSE
        assert socket.close_code == 1011
        sending.cancel()
        await asyncio.wait({sending})


async def test_an_event_that_is_too_large_ends_the_session(gateway: Gateway, dial: Dial) -> None:
    async with dial(gateway.url()) as socket:
        await until(socket, "session.created")
        await socket.send_str("x" * (1024 * 1024 + 1))
        async with asyncio.timeout(5):
            assert (await socket.receive()).type is WSMsgType.CLOSE
        assert socket.close_code == 1009


async def test_a_server_that_stops_says_so(upstream: ScriptedRealtime, dial: Dial) -> None:
    async with served(to(upstream)) as gateway:
        socket = await dial(gateway.url())
        await until(socket, "session.created")
    async with asyncio.timeout(5):
        message = await socket.receive()
    assert (message.type, message.data) == (WSMsgType.CLOSE, 1001)
    await socket.close()


async def test_an_event_of_very_many_parts_is_not_read(gateway: Gateway, dial: Dial) -> None:
    async with dial(gateway.url()) as socket:
        await socket.send_str('{"type": "session.update", "session": [' + "[]," * 200_000 + "[]]}")
        assert "expected at most 50,000 texts" in (await until(socket, "error"))["error"]["message"]

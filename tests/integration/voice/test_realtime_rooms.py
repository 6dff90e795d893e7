"""A voice bot with a realtime model in a real room: the caller by messages, the model through the room's gateway."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from doubles.voice_stages import tone

from meshhost.gateway.provider import ProviderTable
from meshhost.gateway.providers.openai_compatible import OpenAICompatibleProvider
from meshhost.identity.grants import AgentsGrant, ApiScope, LLMGrant, MessagingGrant
from meshhost.room.client import RoomClient
from meshhost.testing.scripted_realtime import ScriptedRealtime
from meshhost.testing.server import RunningServer, running_server
from meshhost.voice import Line, OutgoingCall, Sound, Speaker, VoiceBot
from meshhost.voice.realtime import Realtime, RealtimeOptions

KEY = "sk-provider-secret"


@pytest.fixture
async def provider() -> AsyncIterator[ScriptedRealtime]:
    async with ScriptedRealtime(hears=("hello", "stop", "again")) as provider:
        yield provider


@pytest.fixture
async def server(provider: ScriptedRealtime, tmp_path: Path) -> AsyncIterator[RunningServer]:
    table = ProviderTable({"*": OpenAICompatibleProvider(name="openai", base_url=provider.base_url, api_key=KEY)})
    async with running_server(tmp_path / "data", providers=table) as running:
        yield running


async def call(room: RoomClient, *, until: int, said: list[Any], cut_after_ms: float | None = None) -> str | None:
    """Say something, and end the call when the transcript has so many lines, or the agent ended it."""
    bot = next(each for each in room.messaging.remote_participants if each.get_attribute("supports_voice"))
    async with OutgoingCall(room=room, agent=bot, rate=24_000) as call:
        await call.send(tone(0.5, 300, 24_000))
        await call.send(Sound(bytes(48_000), 24_000))
        heard = 0.0
        async for happened in call:
            said.append(happened)
            heard += happened.ms if isinstance(happened, Sound) else 0.0
            if cut_after_ms is not None and heard >= cut_after_ms:
                cut_after_ms = None
                await call.send(tone(0.5, 100, 24_000))
                await call.send(Sound(bytes(24_000), 24_000))
            if sum(isinstance(each, Line) for each in said) >= until:
                break
    return call.end_reason


def lines(said: list[Any]) -> list[tuple[Speaker, str, bool]]:
    return [(line.speaker, line.text, line.is_cut) for line in said if isinstance(line, Line)]


async def test_a_caller_talks_with_a_model_whose_key_only_the_server_has(
    server: RunningServer, provider: ScriptedRealtime
) -> None:
    provider.say("good day to you", ms=600)
    bot, said = VoiceBot(name="bot", thinker=Realtime(model="gpt-realtime")), list[Any]()
    async with server.client(name="bot", role="agent") as agent, server.client(name="ann") as ann:
        await bot.start(room=agent)
        await ann.messaging.enable()
        async with asyncio.timeout(20):
            await call(ann, until=2, said=said)
        await bot.stop()
    assert lines(said) == [(Speaker.CALLER, "hello", False), (Speaker.AGENT, "good day to you", False)]
    assert sum(each.ms for each in said if isinstance(each, Sound)) == pytest.approx(600, abs=20)
    assert provider.sessions[0].authorization == f"Bearer {KEY}"


async def test_an_interruption_reaches_the_model_through_room_and_gateway(
    server: RunningServer, provider: ScriptedRealtime
) -> None:
    provider.say(" ".join(["word"] * 40), ms=4_000).say("all right", ms=200)
    bot, said = VoiceBot(name="bot", thinker=Realtime()), list[Any]()
    async with server.client(name="bot", role="agent") as agent, server.client(name="ann") as ann:
        await bot.start(room=agent)
        await ann.messaging.enable()
        async with asyncio.timeout(20):
            await call(ann, until=4, said=said, cut_after_ms=500)
        await bot.stop()
    [truncation] = await provider.wait_for("conversation.item.truncate")
    assert 200 <= truncation["audio_end_ms"] <= 1_500
    assert [is_cut for _, _, is_cut in lines(said)] == [False, True, False, False]


async def test_a_bot_without_the_right_to_models_says_so_to_the_caller(
    server: RunningServer, provider: ScriptedRealtime
) -> None:
    scope = ApiScope(messaging=MessagingGrant(), agents=AgentsGrant(), llm=LLMGrant(use=False))
    bot, said = VoiceBot(name="bot", thinker=Realtime()), list[Any]()
    async with server.client(name="bot", role="agent", scope=scope) as agent, server.client(name="ann") as ann:
        await bot.start(room=agent)
        await ann.messaging.enable()
        async with asyncio.timeout(20):
            reason = await call(ann, until=9, said=said)
        await bot.stop()
    assert reason is not None
    assert "refused the key or token (HTTP 403)" in reason
    assert provider.sessions == []


async def test_a_gateway_that_goes_away_and_comes_back_keeps_the_call(
    server: RunningServer, provider: ScriptedRealtime
) -> None:
    provider.say("good day", ms=300)
    options = RealtimeOptions(max_attempts=20)
    bot, said = VoiceBot(name="bot", thinker=Realtime(options=options)), list[Any]()
    provider.refuse.extend([503, 502])
    async with server.client(name="bot", role="agent") as agent, server.client(name="ann") as ann:
        await bot.start(room=agent)
        await ann.messaging.enable()
        async with asyncio.timeout(20):
            await call(ann, until=2, said=said)
        await bot.stop()
    assert lines(said)[1] == (Speaker.AGENT, "good day", False)


async def test_a_session_ends_with_the_token_that_opened_it(server: RunningServer, provider: ScriptedRealtime) -> None:
    token = server.token("room", expiration=datetime.now(UTC) + timedelta(seconds=1.5))
    url = f"{server.url}/rooms/room/v1/realtime?model=gpt-realtime"
    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as http,
        asyncio.timeout(15),
        http.ws_connect(url) as socket,
    ):
        assert (await socket.receive_json())["type"] == "session.created"
        assert (await socket.receive()).type is aiohttp.WSMsgType.CLOSE
        assert socket.close_code == 1008

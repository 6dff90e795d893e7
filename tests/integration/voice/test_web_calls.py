"""Voice calls of web pages: one WebSocket of the room server, without the room protocol."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from doubles.voice_stages import MS_PER_WORD, LoudActivity, ToneText, ToneVoice, quiet

from meshhost.identity.grants import ApiScope, MessagingGrant, SyncGrant, SyncPathGrant
from meshhost.server.core.peer import Event
from meshhost.server.voice import call as web_call
from meshhost.testing.scripted_llm import ScriptedLLM, wait_until
from meshhost.testing.server import RunningServer, running_server
from meshhost.voice import Cascade, VoiceBot

RATE = 16_000
TEXT = ToneText(["hello there", "tell me more"])


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RunningServer]:
    async with running_server(tmp_path / "data") as running:
        yield running


def make_bot(*script: Any, **options: Any) -> VoiceBot:
    cascade = Cascade(
        llm_adapter=ScriptedLLM(script), speech_to_text=TEXT, text_to_speech=ToneVoice(), voice_activity=LoudActivity()
    )
    return VoiceBot(name="bot", thinker=cascade, **options)


class Page:
    """A web page that talks."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.sound = b""
        self.told: list[dict[str, Any]] = []

    async def until(self, type: str, **fields: Any) -> dict[str, Any]:
        """The first message of this type with these fields that comes from now on."""
        async with asyncio.timeout(10):
            while True:
                message = await self.socket.receive()
                if message.type is aiohttp.WSMsgType.BINARY:
                    self.sound += message.data
                elif message.type is aiohttp.WSMsgType.TEXT:
                    body = json.loads(message.data)
                    self.told.append(body)
                    if body["type"] == type and fields.items() <= body.items():
                        return dict(body)
                else:
                    raise AssertionError(f"closed before {type!r}: {self.told[-1:]}")

    async def say(self, text: str) -> None:
        for sound in (TEXT.spoken(text, RATE), quiet(200, RATE)):
            await self.socket.send_bytes(sound.pcm)


@asynccontextmanager
async def at_work(server: RunningServer, bot: VoiceBot) -> AsyncIterator[VoiceBot]:
    async with server.client("room", name="bot", role="agent") as room:
        await bot.start(room=room)
        try:
            yield bot
        finally:
            await bot.stop()


def address(server: RunningServer, agent: str = "bot", **query: str) -> str:
    pairs = "&".join(f"{name}={value}" for name, value in query.items())
    return f"{server.url}/rooms/room/voice/{agent}?{pairs}"


@asynccontextmanager
async def page(server: RunningServer, agent: str = "bot", **query: str) -> AsyncIterator[Page]:
    query = {"token": server.token("room", name="ann"), "rate": str(RATE)} | query
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(address(server, agent, **query)) as socket,
    ):
        yield Page(socket)


async def test_a_page_talks_with_an_agent(server: RunningServer) -> None:
    async with at_work(server, make_bot("Good day to you.", transcripts="calls")) as bot, page(server) as ann:
        assert await ann.until("answer") == {"type": "answer", "rate": RATE}
        await ann.say("hello there")
        caller = await ann.until("line")
        assert (caller["speaker"], caller["text"]) == ("caller", "hello there")
        await ann.until("line", speaker="agent", text="Good day to you.")
        assert len(ann.sound) == 4 * MS_PER_WORD * RATE // 1000 * 2
        assert {"type": "state", "state": "speaking"} in ann.told
        assert bot.activity is not None
        await ann.socket.send_str('{"type": "end"}')
        assert (await ann.until("end"))["reason"] is None
        async with asyncio.timeout(5):
            while bot.activity is not None:  # noqa: ASYNC110 - no event tells of it
                await asyncio.sleep(0.01)


async def test_a_page_that_interrupts_is_told_to_drop_the_rest(server: RunningServer) -> None:
    async with at_work(server, make_bot("word " * 100, "Yes.")), page(server) as ann:
        await ann.until("answer")
        await ann.say("hello there")
        await ann.until("state", state="speaking")
        await ann.say("tell me more")
        await ann.until("clear")
        await ann.until("line", speaker="agent", text="Yes.")


async def test_a_page_that_goes_away_ends_the_call(server: RunningServer) -> None:
    async with at_work(server, make_bot(wait_until(asyncio.Event()))) as bot:
        async with page(server) as ann:
            await ann.until("answer")
            await ann.say("hello there")
            await ann.until("state", state="thinking")
        async with asyncio.timeout(5):
            while bot.activity is not None:  # noqa: ASYNC110 - no event tells of it
                await asyncio.sleep(0.01)


async def test_a_page_is_told_why_a_call_ends(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_call, "AGENT_SECONDS", 0.2)
    async with page(server, "nobody") as ann:
        assert (await ann.until("end"))["reason"] == "no agent 'nobody' with a voice is in this room"
    async with at_work(server, make_bot(max_calls=1)) as bot, page(server) as ann:
        await ann.until("answer")
        async with page(server) as bob:
            assert "holds 1 voice calls" in (await bob.until("end"))["reason"]
        await ann.socket.send_bytes(b"x")
        assert "sound: expected whole samples" in (await ann.until("end"))["reason"]
        async with page(server) as eve:
            await eve.until("answer")
            await bot.stop()
            assert (await eve.until("end"))["reason"] == "the agent ends the call"


async def test_a_page_waits_for_an_agent_that_is_still_coming(server: RunningServer) -> None:
    async with page(server) as ann, at_work(server, make_bot()):
        await ann.until("answer")


async def test_a_page_that_sends_faster_than_one_speaks_is_not_read(server: RunningServer) -> None:
    async with at_work(server, make_bot()), page(server) as ann:
        await ann.until("answer")
        began = asyncio.get_running_loop().time()
        for _ in range(7):
            await ann.socket.send_bytes(quiet(500, RATE).pcm)
        await ann.socket.send_str('{"type": "end"}')
        await ann.until("end")
        assert asyncio.get_running_loop().time() - began > 1.4


async def test_when_the_server_stops_the_page_is_told(tmp_path: Path) -> None:
    async with running_server(tmp_path / "own") as server, at_work(server, make_bot()), page(server) as ann:
        await ann.until("answer")
        stopping = asyncio.create_task(server.server.stop())
        reason = (await ann.until("end"))["reason"]
        await stopping
        assert reason


@pytest.mark.parametrize(
    ("query", "status", "reason"),
    [
        ({"rate": "11111"}, 400, "rate: expected a multiple of 50"),
        ({"rate": "1" * 5_000}, 400, "rate: expected a multiple of 50"),
        ({"transcript_path": "../one.thread"}, 400, "path"),
        ({"rate": "many"}, 400, "rate: expected a multiple of 50"),
        ({"transcript_path": ""}, 400, "transcript_path: expected the path of a thread"),
        ({"token": "no-token"}, 401, "token"),
    ],
)
async def test_what_cannot_be_a_call_is_refused_before_it_begins(
    server: RunningServer, query: dict[str, str], status: int, reason: str
) -> None:
    query = {"token": server.token("room")} | query
    async with aiohttp.ClientSession() as session, session.get(address(server, **query)) as answer:
        assert answer.status == status
        assert reason in (await answer.json())["error"]


async def test_a_token_must_grant_messages(server: RunningServer) -> None:
    for scope in (ApiScope(), ApiScope(messaging=MessagingGrant(send=True, list=False))):
        query = {"token": server.token("room", scope=scope)}
        async with aiohttp.ClientSession() as session, session.get(address(server, **query)) as answer:
            assert answer.status == 403
            assert "messaging.send and messaging.list" in (await answer.json())["error"]


async def test_a_token_must_grant_the_thread_that_the_agent_is_to_write(server: RunningServer) -> None:
    readable = SyncGrant(paths=[SyncPathGrant(path="talks/one.thread", read_only=True)])
    for sync in (None, readable):
        scope = ApiScope(messaging=MessagingGrant(), sync=sync)
        query = {"token": server.token("room", scope=scope), "transcript_path": "talks/one.thread"}
        async with aiohttp.ClientSession() as session, session.get(address(server, **query)) as answer:
            assert answer.status == 403
            assert "talks/one.thread" in (await answer.json())["error"]


async def test_a_text_that_is_nested_without_end_ends_the_call_with_the_reason(server: RunningServer) -> None:
    async with at_work(server, make_bot()), page(server) as ann:
        await ann.until("answer")
        await ann.socket.send_str("[" * 50_000)
        assert "message: expected JSON" in (await ann.until("end"))["reason"]


async def test_what_waits_for_a_page_is_bounded_in_bytes() -> None:
    call: Any = web_call.WebCall(None, "bot", RATE, None)  # type: ignore[arg-type]
    waiting, ids = vars(call)["_outgoing"], {"call_id": vars(call)["_id"]}
    vars(call)["_agent_id"] = "bot"
    for _ in range(3):
        body = {"from_participant_id": "bot", "type": "voice_audio", "message": ids}
        call.report(Event("messaging.message", body, bytes(1024 * 1024)))
    assert sum(map(len, waiting)) == 2 * 1024 * 1024
    assert vars(call)["_reason"] == "the page does not read what it is sent"

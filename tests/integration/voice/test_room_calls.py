"""Voice calls by messages of the room: a bot and its callers in a real room, with stages that need no model.

Sound is real and paced by the clock here; what must be exact is tested with counted frames in tests/unit/voice.
"""

import asyncio
import base64
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from doubles.voice_stages import MS_PER_WORD, LoudActivity, ToneText, ToneVoice, quiet, tone

from meshhost.agents.chat.log import ThreadLog, text_of
from meshhost.errors import InvalidRequestError, NotFoundError, RoomError
from meshhost.room.client import RoomClient
from meshhost.room.participants import Participant
from meshhost.room.reconnect import ReconnectPolicy
from meshhost.testing.scripted_llm import ScriptedLLM, wait_until
from meshhost.testing.server import RunningServer, running_server
from meshhost.tools.toolkit import Toolkit
from meshhost.voice import (
    Cascade,
    Cleared,
    Line,
    MessageConnector,
    OutgoingCall,
    Sound,
    Speaker,
    VoiceBot,
    VoiceBotContext,
    VoiceState,
    absence,
    voice_agent,
)

RATE = 16_000
TEXT = ToneText(["hello there", "tell me more"])


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RunningServer]:
    async with running_server(tmp_path / "data") as running:
        yield running


def make_bot(*script: Any, cls: type[VoiceBot] = VoiceBot, idle_seconds: float = 30.0, **options: Any) -> VoiceBot:
    cascade = Cascade(
        llm_adapter=ScriptedLLM(script), speech_to_text=TEXT, text_to_speech=ToneVoice(), voice_activity=LoudActivity()
    )
    connectors = [MessageConnector(idle_seconds=idle_seconds)]
    return cls(**{"name": "bot", "thinker": cascade, "connectors": connectors} | options)


class Ear:
    """What a caller hears and reads."""

    def __init__(self, call: OutgoingCall) -> None:
        self.call = call
        self.happened: list[Any] = []
        self._news = asyncio.Event()

    async def listen(self) -> None:
        async for happened in self.call:
            self.happened.append(happened)
            self._news.set()
        self._news.set()

    async def until(self, condition: Callable[["Ear"], Any], seconds: float = 10) -> Any:
        async with asyncio.timeout(seconds):
            while not (found := condition(self)):
                self._news.clear()
                await self._news.wait()
        return found

    @property
    def ms(self) -> float:
        """Length of the voice that was received."""
        return sum(each.ms for each in self.happened if isinstance(each, Sound))

    @property
    def lines(self) -> list[tuple[Speaker, str, bool]]:
        return [(each.speaker, each.text, each.is_cut) for each in self.happened if isinstance(each, Line)]

    async def say(self, text: str, rate: int = RATE) -> None:
        await self.call.send(TEXT.spoken(text, rate))
        await self.call.send(quiet(200, rate))


@asynccontextmanager
async def joined(server: RunningServer, bot: VoiceBot, *people: str) -> AsyncIterator[list[RoomClient]]:
    """The bot at work, and these people in its room."""
    async with AsyncExitStack() as stack:
        room = await stack.enter_async_context(server.client("room", name=bot.name, role="agent"))
        await bot.start(room=room)
        stack.push_async_callback(bot.stop)
        rooms = [await stack.enter_async_context(server.client("room", name=name)) for name in people or ("ann",)]
        for each in rooms:
            await each.messaging.enable()
        yield rooms


@asynccontextmanager
async def calling(room: RoomClient, **options: Any) -> AsyncIterator[Ear]:
    async with OutgoingCall(room=room, agent=agent_in(room), rate=options.pop("rate", RATE), **options) as call:
        ear = Ear(call)
        listening = asyncio.create_task(ear.listen())
        try:
            yield ear
        finally:
            await call.hang_up()
            await listening


def agent_in(room: RoomClient) -> Participant:
    return next(each for each in room.messaging.remote_participants if each.get_attribute("supports_voice"))


async def idle(bot: VoiceBot) -> None:
    """Return when the bot holds no call."""
    async with asyncio.timeout(10):
        while bot.activity is not None:  # noqa: ASYNC110 - no event tells of it
            await asyncio.sleep(0.01)


async def test_a_caller_is_answered_and_reads_along(server: RunningServer) -> None:
    bot = make_bot("Good day to you.")
    async with joined(server, bot) as [room], calling(room) as ear:
        await ear.say("hello there")
        await ear.until(lambda ear: len(ear.lines) == 2)
        assert ear.lines == [(Speaker.CALLER, "hello there", False), (Speaker.AGENT, "Good day to you.", False)]
        assert ear.ms == 4 * MS_PER_WORD
        assert bot.activity is not None
        assert bot.activity.startswith("a voice call for ")
        await ear.call.hang_up()
        await idle(bot)
    assert VoiceState.SPEAKING in ear.happened


@pytest.mark.parametrize("rate", [8_000, 24_000, 48_000])
async def test_both_directions_have_the_rate_that_the_caller_asked_for(server: RunningServer, rate: int) -> None:
    async with joined(server, make_bot("Good day.")) as [room], calling(room, rate=rate) as ear:
        await ear.say("hello there", rate)
        await ear.until(lambda ear: len(ear.lines) == 2)
        assert {each.rate for each in ear.happened if isinstance(each, Sound)} == {rate}
        assert ear.ms == 2 * MS_PER_WORD


async def test_a_caller_who_interrupts_is_told_to_drop_the_rest(server: RunningServer) -> None:
    async with joined(server, make_bot("word " * 100, "Yes.")) as [room], calling(room) as ear:
        await ear.say("hello there")
        await ear.until(lambda ear: ear.ms > 1000)
        await ear.say("tell me more")
        await ear.until(lambda ear: any(isinstance(each, Cleared) for each in ear.happened))
        await ear.until(lambda ear: ear.lines[-1:] == [(Speaker.AGENT, "Yes.", False)])
        [_, cut, *_] = ear.lines
        assert cut[2]
        assert 4 <= len(cut[1].split()) <= 60


async def test_the_voice_is_not_sent_far_ahead_of_the_ear(server: RunningServer) -> None:
    async with joined(server, make_bot("word " * 100)) as [room], calling(room) as ear:
        await ear.say("hello there")
        await ear.until(lambda ear: ear.ms > 0)
        began = asyncio.get_running_loop().time()
        await ear.until(lambda ear: ear.ms > 1500)
        assert asyncio.get_running_loop().time() - began > 1.5 - 0.24 - 0.2


async def test_the_transcript_is_a_thread_of_the_room(server: RunningServer) -> None:
    async with joined(server, make_bot("Good day to you."), "ann") as [room]:
        async with calling(room, transcript_path="talks/one.thread") as ear:
            await ear.say("hello there")
            await ear.until(lambda ear: len(ear.lines) == 2)
            log = ThreadLog(await room.sync.open(path="talks/one.thread", create=False))
            async with asyncio.timeout(5):
                while len(log.messages()) < 2:  # noqa: ASYNC110 - no event tells of it
                    await asyncio.sleep(0.01)
        assert log.members() == ["ann", "bot"]
        said = [(each.get_attribute("author_name"), text_of(each)) for each in log.messages()]
        assert said == [("ann", "hello there"), ("bot", "Good day to you.")]
        first, second = log.messages()
        assert str(first.get_attribute("author_ref")).startswith("meshhost:spoken:")
        assert str(first.get_attribute("created_at")) < str(second.get_attribute("created_at"))


async def test_a_folder_for_transcripts_gets_one_for_each_call(server: RunningServer) -> None:
    bot = make_bot("Good day.", transcripts="calls")
    async with joined(server, bot) as [room]:
        async with calling(room) as ear:
            await ear.say("hello there")
            await ear.until(lambda ear: len(ear.lines) == 2)
        await idle(bot)
        [entry] = await room.storage.list(path="calls")
        assert entry.name.endswith(".thread")


@pytest.mark.parametrize("who", ["caller", "bot"])
async def test_a_call_goes_on_when_a_connection_was_lost_for_a_moment(server: RunningServer, who: str) -> None:
    bot = make_bot("Good day.", "And again.")
    policy = ReconnectPolicy(first_delay=0.1)
    async with (
        server.client("room", name="bot", role="agent", reconnect=policy) as bots,
        server.client("room", name="ann", reconnect=policy) as room,
    ):
        await bot.start(room=bots)
        await room.messaging.enable()
        async with calling(room) as ear:
            await ear.say("hello there")
            await ear.until(lambda ear: len(ear.lines) == 2)
            lost = bots if who == "bot" else room
            back = asyncio.Event()
            lost.messaging.on("messaging_enabled", back.set)
            server.cut(lost)
            async with asyncio.timeout(10):
                await back.wait()
            await ear.say("tell me more")
            await ear.until(lambda ear: len(ear.lines) == 4)
            assert ear.lines[-1] == (Speaker.AGENT, "And again.", False)
        await bot.stop()


async def test_a_call_ends_when_the_caller_leaves_the_room(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(absence, "GRACE_SECONDS", 0.2)
    bot = make_bot("word " * 100)
    async with joined(server, bot) as [_]:
        async with server.client("room", name="bob") as room:
            await room.messaging.enable()
            call = OutgoingCall(room=room, agent=agent_in(room))
            await call.__aenter__()
            assert bot.activity is not None
        await idle(bot)


async def test_a_caller_who_is_silent_for_too_long_is_left(server: RunningServer) -> None:
    bot = make_bot(idle_seconds=0.2)
    async with joined(server, bot) as [room], calling(room) as ear:
        await ear.until(lambda ear: ear.call.end_reason)
        await idle(bot)


async def test_stopping_the_bot_ends_its_calls_with_the_reason(server: RunningServer) -> None:
    bot = make_bot(wait_until(asyncio.Event()))
    async with joined(server, bot) as [room], calling(room) as ear:
        await ear.say("hello there")
        await ear.until(lambda ear: VoiceState.THINKING in ear.happened)
        await bot.stop()
        await ear.until(lambda ear: ear.call.end_reason)
        assert ear.call.end_reason == "the agent ends the call"


async def test_draining_takes_no_further_call_and_waits_for_the_last(server: RunningServer) -> None:
    bot = make_bot("Good day.")
    async with joined(server, bot, "ann", "bob") as [ann, bob]:
        async with calling(ann) as ear:
            draining = asyncio.create_task(bot.drain())
            await asyncio.sleep(0)
            with pytest.raises(RoomError, match="is leaving the room"):
                await OutgoingCall(room=bob, agent=agent_in(bob)).__aenter__()
            await ear.say("hello there")
            await ear.until(lambda ear: len(ear.lines) == 2)
            assert not draining.done()
        async with asyncio.timeout(5):
            await draining


async def test_no_more_calls_than_allowed_are_held(server: RunningServer) -> None:
    async with joined(server, make_bot(max_calls=1), "ann", "bob") as [ann, bob], calling(ann):
        with pytest.raises(RoomError, match="holds 1 voice calls"):
            await OutgoingCall(room=bob, agent=agent_in(bob)).__aenter__()


async def test_a_new_call_of_a_participant_ends_the_one_before(server: RunningServer) -> None:
    bot = make_bot("Good day.")
    async with joined(server, bot) as [room], calling(room) as first:
        async with calling(room) as second:
            await first.until(lambda ear: ear.call.end_reason)
            await second.say("hello there")
            await second.until(lambda ear: len(ear.lines) == 2)
        await idle(bot)


async def test_nobody_else_can_speak_in_a_call_or_end_it(server: RunningServer) -> None:
    async with joined(server, make_bot("Good day."), "ann", "eve") as [ann, eve], calling(ann) as ear:
        stolen = {"call_id": ear.call.id}
        speech = TEXT.spoken("tell me more", RATE, 300)
        await eve.messaging.send_message(to=agent_in(eve), type="voice_end", message=stolen)
        await eve.messaging.send_message(
            to=agent_in(eve), type="voice_audio", message={**stolen, "seq": 0}, attachment=speech.pcm
        )
        await ear.say("hello there")
        await ear.until(lambda ear: len(ear.lines) == 2)
        assert ear.lines[0][1] == "hello there"


async def test_nobody_else_can_replace_a_call(server: RunningServer) -> None:
    async with joined(server, make_bot("Good day."), "ann", "eve") as [ann, eve], calling(ann) as ear:
        refused: asyncio.Queue[Any] = asyncio.Queue()

        def take(message: Any) -> None:
            refused.put_nowait(message)

        eve.messaging.on("message", take)
        body = {"call_id": "x", "participant_id": ann.local_participant.id, "rate": RATE}
        await eve.messaging.send_message(to=agent_in(eve), type="voice_call", message=body)
        async with asyncio.timeout(5):
            assert "another one cannot replace" in (await refused.get()).message["reason"]
        await ear.say("hello there")
        await ear.until(lambda ear: len(ear.lines) == 2)


async def test_of_calls_that_replace_each_other_quickly_one_is_held_at_a_time(server: RunningServer) -> None:
    held, most, may_end = 0, 0, asyncio.Event()

    class Slow(VoiceBot):
        async def run_voice_agent(self, *, participant: Any, breakout_room: str) -> None:
            nonlocal held, most
            held += 1
            most = max(most, held)
            try:
                await asyncio.Event().wait()
            finally:
                await may_end.wait()
                held -= 1

    bot = make_bot(cls=Slow)
    calls = vars(bot)["_calls"]
    async with joined(server, bot) as [room]:
        me = room.local_participant.id
        for number in range(5):
            body = {"call_id": f"call-{number}", "rate": RATE}
            await room.messaging.send_message(to=agent_in(room), type="voice_call", message=body)
            await until_so(lambda: me in calls and calls[me].call.id == body["call_id"] and held == 1)  # noqa: B023
        assert calls[me].waits_for is not None
        may_end.set()
        await until_so(lambda: calls[me].waits_for is None and held == 1)
        assert most == 1


async def until_so(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - no event tells of it
            await asyncio.sleep(0.01)


async def test_sound_may_come_as_base64_and_twice(server: RunningServer) -> None:
    async with joined(server, make_bot("Good day.")) as [room], calling(room) as ear:
        speech = tone(0.05, 300, RATE).pcm + quiet(200, RATE).pcm
        for seq, begin in enumerate(range(0, len(speech), 3200)):
            data = base64.b64encode(speech[begin : begin + 3200]).decode()
            message = {"call_id": ear.call.id, "seq": seq, "data": data}
            for _ in range(2):
                await room.messaging.send_message(to=agent_in(room), type="voice_audio", message=message)
        await ear.until(lambda ear: len(ear.lines) == 2)
        assert ear.lines[0][1] == "hello there"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"rate": 4000}, "rate: expected a multiple of 50 from 8000 to 48000, got 4000"),
        ({"transport": "pigeon"}, "has no transport 'pigeon', only 'messages'"),
        ({"transcript_path": ""}, "transcript_path: expected the path of a thread"),
        ({"participant_id": ["ann"]}, "participant_id: expected the id of a participant"),
        ({"breakout_room": [[]]}, "breakout_room: expected the name of a breakout room"),
        ({"transport": "x" * 2_000}, "transport: expected the name of a way for sound"),
        ({"participant_id": "somebody"}, "participant_id: a call by messages is with its sender"),
    ],
)
async def test_a_call_that_cannot_be_is_refused_with_the_reason(
    server: RunningServer, fields: dict[str, Any], reason: str
) -> None:
    async with joined(server, make_bot()) as [room]:
        ended: asyncio.Queue[Any] = asyncio.Queue()

        def take(message: Any) -> None:
            ended.put_nowait(message)

        room.messaging.on("message", take)
        body = {"call_id": "x", "rate": RATE} | fields
        await room.messaging.send_message(to=agent_in(room), type="voice_call", message=body)
        if fields.get("participant_id") == "somebody":
            return  # refused to nobody: the one who is named is not here
        async with asyncio.timeout(5):
            message = await ended.get()
        assert message.type == "voice_end"
        assert reason in message.message["reason"]


async def test_hooks_see_the_call_and_their_errors_end_only_it(server: RunningServer) -> None:
    seen: list[Any] = []

    class Hooked(VoiceBot):
        async def make_toolkits(self, context: VoiceBotContext) -> list[Toolkit]:
            return [*await super().make_toolkits(context), Toolkit(name="own", tools=[])]

        async def on_session_created(self, context: VoiceBotContext, session: Any) -> None:
            seen.append((context.caller.get_attribute("name"), context.transcript_path))
            if len(seen) > 1:
                raise RuntimeError("broken")

        async def run_voice_agent(self, *, participant: Participant, breakout_room: str) -> None:
            seen.append(breakout_room)
            await super().run_voice_agent(participant=participant, breakout_room=breakout_room)

    bot = make_bot("Good day.", cls=Hooked)
    async with joined(server, bot) as [room]:
        async with calling(room) as ear:
            await ear.until(lambda ear: ear.call.end_reason)
            assert ear.call.end_reason == "the agent failed"
        seen.clear()
    assert bot.activity is None


async def test_a_voice_agent_is_waited_for(server: RunningServer) -> None:
    async with server.client("room", name="ann") as room:
        await room.messaging.enable()
        with pytest.raises(NotFoundError, match="no agent 'bot' with a voice is in this room"):
            await voice_agent(room, "bot", timeout=0.05)
        waiting = asyncio.create_task(voice_agent(room))
        async with joined(server, make_bot(), "bob"):
            assert (await waiting).get_attribute("name") == "bot"


async def test_hooks_may_be_plain_functions_and_a_session_must_be_a_thinker(server: RunningServer) -> None:
    class Plain(VoiceBot):
        def get_rules(self, *, participant: Participant) -> list[str]:  # type: ignore[override]
            return [f"Be kind to {participant.get_attribute('name')}."]

    class Foreign(VoiceBot):
        def create_session(self, context: VoiceBotContext) -> Any:  # type: ignore[override]
            return object()

    bot = make_bot("Good day.", cls=Plain)
    async with joined(server, bot) as [room], calling(room) as ear:
        await ear.say("hello there")
        await ear.until(lambda ear: len(ear.lines) == 2)
        [call] = bot.thinker.llm_adapter.calls  # type: ignore[attr-defined]
        assert call.context.get_system_instructions() == "- Be kind to ann."
    async with joined(server, make_bot(cls=Foreign)) as [room], calling(room) as ear:
        await ear.until(lambda ear: ear.call.end_reason)
        assert ear.call.end_reason == "create_session: expected a thinker, such as Cascade, got object"


def test_a_bot_needs_a_thinker() -> None:
    with pytest.raises(InvalidRequestError, match="thinker: a VoiceBot needs a thinker, or an llm_adapter"):
        VoiceBot(name="bot")
    with pytest.raises(InvalidRequestError, match="max_calls: expected at least 1, got 0"):
        make_bot(max_calls=0)

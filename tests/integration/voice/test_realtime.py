"""`Realtime` against a scripted provider on a socket: turns, interruptions, tools, renewal, and what goes wrong.

The caller's time is counted in frames (`CountedCarrier`), the provider answers over a real socket.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from doubles.counted_carrier import CountedCarrier
from doubles.voice_stages import tone

from meshhost.agents.context import AgentChatContext
from meshhost.backoff import Backoff
from meshhost.errors import LLMError
from meshhost.protocol.messages import JsonResponse
from meshhost.room.participants import RemoteParticipant
from meshhost.testing.scripted_realtime import ScriptedRealtime
from meshhost.tools.tool import Tool, ToolContext
from meshhost.tools.toolkit import Toolkit
from meshhost.voice import Conversation, Line, VoiceState
from meshhost.voice.realtime import Realtime, RealtimeOptions

RATE = 24_000
QUICK = Backoff(first_delay=0.01, max_delay=0.02)


class Lines:
    def __init__(self) -> None:
        self.lines: list[Line] = []

    async def add(self, line: Line) -> None:
        self.lines.append(line)

    def said(self) -> list[tuple[str, str, bool]]:
        return [(line.speaker.value, line.text, line.is_cut) for line in self.lines]


class Room:
    """What tools see of a room."""

    local_participant = RemoteParticipant(id="bot")


class Talk:
    def __init__(
        self, provider: ScriptedRealtime, *, rate: int = RATE, options: Any = None, **conversation: Any
    ) -> None:
        self.carrier = CountedCarrier(rate)
        self.transcript = Lines()
        thinker = Realtime(
            base_url=provider.base_url,
            api_key="k",
            options=options or RealtimeOptions(backoff=QUICK),
        )
        self.conversation = Conversation(
            call_id="call-1",
            room=Room(),  # type: ignore[arg-type]
            caller=RemoteParticipant(id="ann"),
            carrier=self.carrier,
            transcript=self.transcript,
            instructions=["be brief"],
            **conversation,
        )
        self.running = asyncio.create_task(thinker.run(self.conversation))
        self._expected = 0.0

    async def say(self, ms: float = 300) -> None:
        await self.carrier.say(tone(0.5, ms, self.carrier.rate))
        await self.carrier.wait(300)

    async def hears(self, ms: float) -> None:
        """Let time go on until the caller has heard this much more of the voice than at the last such wait."""
        self._expected += ms / 20
        async with asyncio.timeout(10):
            while self.carrier.heard_frames < self._expected:
                await self.carrier.wait(20)
                await asyncio.sleep(0.001)

    async def until_said(self, lines: int) -> None:
        """Let time go on until the transcript has so many lines."""
        async with asyncio.timeout(10):
            while len(self.transcript.lines) < lines:
                await self.carrier.wait(20)
                await asyncio.sleep(0.001)


async def until(holds: Callable[[], Any]) -> None:
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 - what doubles record
            await asyncio.sleep(0.002)


@asynccontextmanager
async def talking(provider: ScriptedRealtime, **arguments: Any) -> AsyncIterator[Talk]:
    talk = Talk(provider, **arguments)
    try:
        yield talk
        talk.carrier.hang_up()
        async with asyncio.timeout(10):
            await talk.running
    finally:
        talk.running.cancel()
        await asyncio.wait({talk.running})


@asynccontextmanager
async def scripted(*hears: str | None, **options: Any) -> AsyncIterator[ScriptedRealtime]:
    async with ScriptedRealtime(hears=hears, **options) as provider:
        yield provider


@pytest.mark.parametrize("rate", [8_000, 16_000, 24_000, 48_000])
async def test_a_caller_is_answered_at_the_rate_of_the_carrier(rate: int) -> None:
    async with scripted("how late is it") as provider:
        provider.say("it is noon", ms=600)
        async with talking(provider, rate=rate) as talk:
            await talk.say()
            await talk.until_said(2)
            assert talk.transcript.said() == [("caller", "how late is it", False), ("agent", "it is noon", False)]
            assert talk.carrier.heard_frames == pytest.approx(30, abs=1)
            heard = [frame for frame in talk.carrier.heard if frame is not None]
            assert {frame.rate for frame in heard} == {rate}
            assert min(frame.level for frame in heard[2:-2]) > 0.05
    session = provider.sessions[0]
    assert session.settings["instructions"] == "be brief"
    assert session.settings["audio"]["input"]["format"] == {"type": "audio/pcm", "rate": 24_000}
    assert session.authorization == "Bearer k"
    assert session.query == {"model": RealtimeOptions().model}


async def test_the_caller_sees_what_the_agent_does() -> None:
    async with scripted("hello") as provider:
        provider.say("hi", ms=200)
        async with talking(provider) as talk:
            await talk.say()
            await talk.until_said(2)
            await until(lambda: talk.carrier.states[-1] is VoiceState.LISTENING)
            listening, thinking, speaking = VoiceState.LISTENING, VoiceState.THINKING, VoiceState.SPEAKING
            assert talk.carrier.states == [listening, thinking, speaking, listening]


async def test_an_interruption_stops_the_voice_and_tells_the_provider_what_was_heard() -> None:
    words = " ".join(f"word{number}" for number in range(20))
    async with scripted("tell me", "stop") as provider:
        provider.say(words, ms=2_000).say("all right", ms=200)
        async with talking(provider) as talk:
            await talk.say()
            await talk.hears(600)
            await talk.carrier.say(tone(0.5, 20, RATE))
            await until(lambda: talk.carrier.unheard_ms == 0)
            heard_ms = talk.carrier.heard_frames * 20
            [truncation] = await provider.wait_for("conversation.item.truncate")
            assert truncation["audio_end_ms"] == pytest.approx(heard_ms, abs=20)
            assert heard_ms < 600 + 300
            await talk.until_said(4)
            caller, agent = talk.transcript.lines[0], talk.transcript.lines[1]
            assert (caller.text, agent.is_cut) == ("tell me", True)
            assert agent.text.startswith("word0 word1")
            assert len(agent.text.split()) == pytest.approx(heard_ms / 100, abs=2)
            assert talk.transcript.said()[2:] == [("caller", "stop", False), ("agent", "all right", False)]
    assert [event for event in provider.sessions[0].sent if event["type"] == "error"] == []


class Lookup(Tool):
    def __init__(self, hold: asyncio.Event | None = None, name: str = "lookup") -> None:
        schema = {"type": "object", "required": ["word"], "properties": {"word": {"type": "string"}}}
        super().__init__(name=name, input_schema=schema)
        self.calls: list[tuple[str, Any]] = []
        self._hold = hold

    async def execute(self, context: ToolContext, *, word: str) -> Any:
        self.calls.append((word, context.on_behalf_of.id))
        if self._hold is not None:
            await self._hold.wait()
        return JsonResponse(json={word: len(word)})


async def test_a_tool_is_called_for_the_caller_and_its_answer_spoken_of() -> None:
    lookup = Lookup()
    async with scripted("how long is house") as provider:
        provider.call_tool("lookup", {"word": "house"}, ("lookup", {"word": "sea"})).say("five", ms=200)
        async with talking(provider, toolkits=[Toolkit(name="words", tools=[lookup])]) as talk:
            await talk.say()
            await talk.until_said(2)
            assert talk.transcript.said() == [("caller", "how long is house", False), ("agent", "five", False)]
    assert lookup.calls == [("house", "ann"), ("sea", "ann")]
    session = provider.sessions[0]
    assert [tool["name"] for tool in session.settings["tools"]] == ["lookup"]
    assert "strict" not in session.settings["tools"][0]
    assert [text for kind, text in session.said() if kind == "function_call_output"] == ['{"house": 5}', '{"sea": 3}']
    assert session.types().count("response.create") == 1


async def test_a_tool_that_fails_or_hangs_is_an_answer_for_the_model() -> None:
    options = RealtimeOptions(backoff=QUICK, tool_seconds=0.05)
    async with scripted("try it") as provider:
        provider.call_tool("lookup", {"word": "sea"}, ("no_such", {}), ("lookup", {})).say("sorry", ms=200)
        toolkit = Toolkit(name="words", tools=[Lookup(asyncio.Event())])
        async with talking(provider, options=options, toolkits=[toolkit]) as talk:
            await talk.say()
            await talk.hears(200)
    outputs = [text for kind, text in provider.sessions[0].said() if kind == "function_call_output"]
    assert sorted(text.split()[0] for text in outputs) == ["error:"] * 3
    assert any("in time" in text for text in outputs)


async def test_a_caller_who_speaks_while_a_tool_runs_is_answered_once_with_both() -> None:
    done = asyncio.Event()
    async with scripted("look it up", "are you there") as provider:
        provider.call_tool("lookup", {"word": "sea"}).say("yes, a moment", ms=200).say("it is three", ms=200)
        async with talking(provider, toolkits=[Toolkit(name="words", tools=[Lookup(done)])]) as talk:
            await talk.say()
            await until(lambda: "response.done" in [event["type"] for event in provider.sessions[0].sent])
            await talk.say()
            await talk.hears(200)
            done.set()
            await talk.hears(200)
            await talk.until_said(4)
    session = provider.sessions[0]
    assert session.types().count("response.create") == 1
    assert [event for event in session.sent if event["type"] == "error"] == []


@pytest.mark.parametrize(
    ("greeting", "asked"),
    [({"greeting": "Hello!"}, "exactly these words, and no others: Hello!"), ({"greeting_prompt": "Say hi"}, "Say hi")],
)
async def test_a_call_begins_with_a_greeting(greeting: dict[str, str], asked: str) -> None:
    async with scripted() as provider:
        provider.say("Hello!", ms=200)
        async with talking(provider, **greeting) as talk:
            await talk.hears(200)
            await talk.until_said(1)
            assert talk.transcript.said() == [("agent", "Hello!", False)]
        [event] = await provider.wait_for("response.create")
    assert event["response"]["instructions"].endswith(asked)
    assert event["response"]["instructions"].startswith("be brief")


async def test_a_conversation_goes_on_from_what_was_said_before() -> None:
    chat = AgentChatContext(
        messages=[{"role": "user", "content": "I am Ann"}, {"role": "assistant", "content": "Hi Ann"}]
    )
    async with scripted("who am I") as provider:
        provider.say("Ann", ms=100)
        async with talking(provider, chat=chat) as talk:
            await talk.say()
            await talk.hears(100)
    assert provider.sessions[0].said()[:2] == [("user", "I am Ann"), ("assistant", "Hi Ann")]
    assert "response.create" not in provider.sessions[0].types()


async def test_a_session_is_renewed_between_two_turns_with_the_conversation() -> None:
    options = RealtimeOptions(backoff=QUICK, renew_seconds=0.3, limit_seconds=60)
    async with scripted("one", "two") as provider:
        provider.say("first", ms=400).say("second", ms=400)
        async with talking(provider, options=options) as talk:
            await talk.say()
            await talk.hears(100)
            await provider.wait_for_sessions(2)  # opened ahead, while the voice is heard
            await until(lambda: provider.sessions[1].types() == ["session.update"])
            assert provider.sessions[0].close_code is None
            await talk.until_said(2)
            await until(lambda: provider.sessions[0].close_code is not None)
            assert provider.sessions[1].said() == [("user", "one"), ("assistant", "first")]
            await talk.say()
            await talk.until_said(4)
            said = [text for _, text, _ in talk.transcript.said()]
            assert said == ["one", "first", "two", "second"]
    assert all("response.create" not in session.types() for session in provider.sessions)
    assert sum(("user", "two") in session.said() for session in provider.sessions) >= 1


async def test_a_session_that_must_end_while_the_caller_speaks_loses_no_word() -> None:
    options = RealtimeOptions(backoff=QUICK, renew_seconds=0.2, limit_seconds=0.4)
    async with scripted("one long sentence") as provider:
        provider.say("yes", ms=100)
        async with talking(provider, options=options) as talk:
            await talk.carrier.say(tone(0.5, 500, RATE))
            await until(lambda: provider.sessions and provider.sessions[0].close_code is not None)
            await talk.carrier.say(tone(0.5, 300, RATE))
            await until(lambda: provider.sessions[1].audio_ms >= 750)
            await talk.carrier.wait(300)
            await until(lambda: ("caller", "one long sentence", False) in talk.transcript.said())


async def test_a_connection_that_is_lost_is_opened_again_with_the_conversation() -> None:
    async with scripted("one", None) as provider:
        provider.say("first", ms=200).drop().say("second", ms=200)
        async with talking(provider) as talk:
            await talk.say()
            await talk.until_said(2)
            await talk.say()
            await talk.until_said(3)
            assert talk.transcript.said()[2:] == [("agent", "second", False)]
    # The words of the second turn were not known yet: its sound was sent again, and an answer asked for.
    assert [kind for kind, _ in provider.sessions[1].said()] == ["user", "assistant", "user", "assistant"]
    created = [event["item"] for event in provider.sessions[1].received if event["type"] == "conversation.item.create"]
    assert [item["content"][0]["type"] for item in created] == ["input_text", "output_text", "input_audio"]
    assert provider.sessions[1].types().count("response.create") == 1


async def test_an_answer_that_was_cut_off_by_a_fault_is_finished() -> None:
    held = asyncio.Event()
    async with scripted("tell me") as provider:
        provider.say("once upon a time there was", ms=1_000, hold=held).say("a king", ms=200)
        async with talking(provider) as talk:
            await talk.say()
            await talk.hears(40)
            provider.cut()
            await provider.wait_for_sessions(2)
            [event] = await provider.wait_for("response.create")
            assert "cut off" in event["response"]["instructions"]
            await talk.hears(200)


async def test_a_caller_is_heard_who_speaks_while_there_is_no_connection() -> None:
    async with scripted("are you there") as provider:
        provider.say("yes", ms=100)
        provider.refuse.extend([503, 503])
        async with talking(provider) as talk:
            await talk.say()
            await talk.hears(100)
            await until(lambda: ("caller", "are you there", False) in talk.transcript.said())


async def test_a_session_that_the_provider_ends_for_its_age_is_opened_again() -> None:
    async with scripted("hello", session_seconds=0.2) as provider, talking(provider):
        await provider.wait_for_sessions(2)
        await until(lambda: "session.update" in provider.sessions[1].types())


@pytest.mark.parametrize(("status", "text"), [(401, "key or token"), (404, "no such voice model"), (400, "HTTP 400")])
async def test_a_refusal_that_is_final_ends_the_call_and_is_in_the_transcript(status: int, text: str) -> None:
    async with scripted() as provider:
        provider.refuse.append(status)
        talk = Talk(provider)
        with pytest.raises(LLMError, match=text):
            await asyncio.wait_for(talk.running, 10)
        assert text in talk.transcript.lines[-1].text
    assert provider.sessions == []


async def test_a_provider_that_stays_away_ends_the_call() -> None:
    async with scripted() as provider:
        provider.refuse.extend([503] * 9)
        talk = Talk(provider, options=RealtimeOptions(backoff=QUICK, max_attempts=3))
        with pytest.raises(LLMError, match="cannot be reached"):
            await asyncio.wait_for(talk.running, 10)
        assert len(provider.refuse) == 6


async def test_a_provider_that_ends_each_session_at_once_is_not_asked_for_ever() -> None:
    async with scripted(session_seconds=0.0) as provider:
        talk = Talk(provider, options=RealtimeOptions(backoff=QUICK, max_attempts=3))
        with pytest.raises(LLMError):
            await asyncio.wait_for(talk.running, 10)
        assert len(provider.sessions) <= 4


async def test_an_answer_that_fails_is_asked_for_again() -> None:
    async with scripted("hello") as provider:
        provider.fail().say("hi", ms=100)
        async with talking(provider) as talk:
            await talk.say()
            await talk.hears(100)
    assert provider.sessions[0].types().count("response.create") == 1


@pytest.mark.parametrize(("failures", "code"), [(1, "insufficient_quota"), (3, "server_error")])
async def test_a_provider_that_cannot_answer_ends_the_call_with_its_reason(failures: int, code: str) -> None:
    async with scripted("hello") as provider:
        for _ in range(failures):
            provider.fail(code, "You exceeded your quota")
        talk = Talk(provider)
        await talk.say()
        with pytest.raises(LLMError, match="You exceeded your quota"):
            await asyncio.wait_for(talk.running, 10)
        assert "You exceeded your quota" in talk.transcript.lines[-1].text


async def test_what_is_no_event_is_left_out_and_too_much_of_it_ends_the_session() -> None:
    wrong = ["no json", "[]", "{}", '{"type": 5}', '{"type": "response.created"}', '{"type": "error", "error": 1}']
    wrong += ['{"type": "response.output_audio.delta", "item_id": "i", "response_id": "r", "delta": "%%%"}', "9" * 9]
    async with scripted("one", "two", "three") as provider:
        provider.send(*wrong).say("yes", ms=100).send(*wrong * 3).say("again", ms=100)
        async with talking(provider) as talk:
            await talk.say()
            await until(lambda: ("caller", "one", False) in talk.transcript.said())
            await talk.say()
            await talk.hears(100)
            assert len(provider.sessions) == 1
            await talk.say()
            await talk.hears(100)
            assert len(provider.sessions) == 2


async def test_a_provider_that_reads_nothing_is_left_for_a_new_session() -> None:
    options = RealtimeOptions(backoff=QUICK, send_seconds=0.2)
    async with scripted("hello") as provider:
        provider.say("hi", ms=100)
        async with talking(provider, options=options) as talk:
            await until(lambda: provider.sessions and provider.sessions[0].types())
            provider.reads.clear()
            async with asyncio.timeout(20):
                while len(provider.sessions) < 2:  # sound fills the socket, then it is given up
                    await talk.carrier.say(tone(0.0, 2_000, RATE))
                    await asyncio.sleep(0.001)
            provider.reads.set()
            await talk.say()
            await talk.hears(100)


async def test_a_caller_who_hangs_up_leaves_a_transcript_of_what_was_said() -> None:
    async with scripted("tell me") as provider:
        provider.say(" ".join(f"word{number}" for number in range(20)), ms=2_000)
        async with talking(provider) as talk:
            await talk.say()
            await talk.hears(600)
        assert talk.transcript.said()[0] == ("caller", "tell me", False)
        [(speaker, text, is_cut)] = talk.transcript.said()[1:]
        assert (speaker, is_cut) == ("agent", True)
        assert 4 <= len(text.split()) <= 12


async def test_a_call_that_ends_leaves_nothing_running() -> None:
    before = len(asyncio.all_tasks())
    async with scripted("hello", "hello") as provider:
        provider.say("a long answer to nobody", ms=5_000).call_tool("lookup", {"word": "sea"})
        toolkit = Toolkit(name="words", tools=[Lookup(asyncio.Event())])
        async with talking(provider, toolkits=[toolkit]) as talk:
            await talk.say()
            await talk.hears(100)
            await talk.say()
            await until(lambda: provider.sessions[0].items)
        cancelled = Talk(provider)
        await provider.wait_for_sessions(2)
        cancelled.running.cancel()
        await asyncio.wait({cancelled.running}, timeout=5)
        assert cancelled.running.cancelled()
        await until(lambda: provider.sessions[1].close_code is not None)
    await until(lambda: len(asyncio.all_tasks()) <= before)

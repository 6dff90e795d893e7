"""The cascade: what a caller hears, what the model is told, and what happens when one speaks into the other's words.

Time is counted in frames of 20 ms (`CountedCarrier`): "within 300 ms" means at most 15 frames.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from doubles.counted_carrier import CountedCarrier
from doubles.voice_stages import FRAMES_PER_WORD, LoudActivity, ToneText, ToneVoice

from meshhost.agents.context import AgentChatContext
from meshhost.errors import LLMError
from meshhost.room.participants import RemoteParticipant
from meshhost.testing.scripted_llm import ScriptedCall, ScriptedLLM, wait_until
from meshhost.voice import Cascade, Conversation, Line, Speaker, VoiceState
from meshhost.voice.cascade import APOLOGY

HELLO, NOISE, MORE = "hello there", "", "tell me more"


class Lines:
    """A transcript."""

    def __init__(self) -> None:
        self.lines: list[Line] = []

    async def add(self, line: Line) -> None:
        self.lines.append(line)

    def said(self) -> list[tuple[str, str, bool]]:
        return [(line.speaker.value, line.text, line.is_cut) for line in self.lines]


class Talk:
    """A conversation in progress."""

    def __init__(self, *script: Any, **conversation: Any) -> None:
        self.carrier = CountedCarrier()
        self.llm = script[0] if script and isinstance(script[0], ScriptedLLM) else ScriptedLLM(script)
        self.text = ToneText([HELLO, NOISE, MORE])
        self.voice = ToneVoice()
        self.transcript = Lines()
        self.chat = AgentChatContext()
        cascade = Cascade(
            llm_adapter=self.llm,
            speech_to_text=self.text,
            text_to_speech=self.voice,
            voice_activity=LoudActivity(),
        )
        self.conversation = Conversation(
            call_id="1",
            room=None,  # type: ignore[arg-type] # a scripted model needs none
            caller=RemoteParticipant(id="ann"),
            carrier=self.carrier,
            transcript=self.transcript,
            chat=self.chat,
            **conversation,
        )
        self.running: asyncio.Task[None] = asyncio.create_task(cascade.run(self.conversation))

    async def say(self, text: str, *, ms: float = 300) -> None:
        """Say something, with the pause after it by which speech ends."""
        await self.carrier.say(self.text.spoken(text, self.carrier.rate, ms))
        await self.carrier.wait(120)

    def told(self) -> list[tuple[str, str]]:
        """The conversation as the model knows it."""
        return [(message["role"], message["content"]) for message in self.chat.conversation]


@asynccontextmanager
async def talking(*script: Any, **conversation: Any) -> AsyncIterator[Talk]:
    talk = Talk(*script, **conversation)
    try:
        yield talk
        talk.carrier.hang_up()
        async with asyncio.timeout(5):
            await talk.running
    finally:
        talk.running.cancel()
        await asyncio.wait({talk.running})


async def test_a_caller_is_heard_and_answered_by_voice() -> None:
    async with talking("Good day to you.", instructions=["Be kind."], voice="f3") as talk:
        await talk.say(HELLO)
        await talk.carrier.wait(1000)
        assert talk.carrier.heard_frames == 4 * FRAMES_PER_WORD
        assert talk.told() == [("user", HELLO), ("assistant", "Good day to you.")]
        assert talk.chat.get_system_instructions() == "- Be kind."
        assert talk.voice.said == [("Good day to you.", "f3")]
        assert talk.llm.calls[0].on_behalf_of.id == "ann"
        assert talk.transcript.said() == [("caller", HELLO, False), ("agent", "Good day to you.", False)]
        assert [*dict.fromkeys(talk.carrier.states)] == [VoiceState.LISTENING, VoiceState.THINKING, VoiceState.SPEAKING]
        assert talk.carrier.states[-1] is VoiceState.LISTENING


async def test_a_voice_begins_with_the_first_sentence_while_the_model_writes_on() -> None:
    more = asyncio.Event()

    class Slow(ScriptedLLM):
        async def next(self, *, context: AgentChatContext, event_handler: Any = None, **_: Any) -> str:
            event_handler(
                {"type": "response.output_text.delta", "item_id": "a", "delta": "One sentence is here. And an"}
            )
            await more.wait()
            event_handler({"type": "response.output_text.delta", "item_id": "a", "delta": "other one."})
            context.append_assistant_message("One sentence is here. And another one.")
            return "One sentence is here. And another one."

    async with talking(Slow()) as talk:
        await talk.say(HELLO)
        await talk.carrier.wait(1500)
        assert [text for text, _ in talk.voice.said] == ["One sentence is here."]
        assert talk.carrier.heard_frames == 4 * FRAMES_PER_WORD
        more.set()
        await talk.carrier.wait(1500)
        assert [text for text, _ in talk.voice.said] == ["One sentence is here.", "And another one."]
        assert talk.carrier.heard_frames == 7 * FRAMES_PER_WORD


async def test_the_voice_stops_within_300_ms_of_speech_and_the_model_knows_what_was_heard() -> None:
    answer = "One two three four five. Six seven eight nine ten. Eleven twelve."
    async with talking(answer, "Of course.") as talk:
        await talk.say(HELLO)
        await talk.carrier.wait(1500)  # seven words and a half
        before = talk.carrier.heard_frames
        await talk.say(MORE, ms=400)
        assert talk.carrier.heard_frames - before <= 300 / 20
        await talk.carrier.wait(1000)
        heard = "One two three four five. Six seven"
        assert talk.told() == [
            ("user", HELLO),
            ("assistant", f"{heard} …"),
            ("user", MORE),
            ("assistant", "Of course."),
        ]
        assert talk.transcript.said() == [
            ("caller", HELLO, False),
            ("agent", heard, True),
            ("caller", MORE, False),
            ("agent", "Of course.", False),
        ]


async def test_after_a_noise_the_voice_goes_on_with_the_sentence_that_was_cut() -> None:
    async with talking("One two three four five. Six seven eight nine ten.") as talk:
        await talk.say(HELLO)
        await talk.carrier.wait(1500)
        await talk.say(NOISE)
        await talk.carrier.wait(2000)
        assert talk.told()[1:] == [("assistant", "One two three four five. Six seven eight nine ten.")]
        assert talk.transcript.said()[1:] == [("agent", "One two three four five. Six seven eight nine ten.", False)]
        assert talk.carrier.heard_frames > 10 * FRAMES_PER_WORD  # the second sentence was begun twice


async def test_who_speaks_while_the_model_thinks_is_answered_once_for_both() -> None:
    never = asyncio.Event()
    async with talking(wait_until(never), "Both, then.") as talk:
        await talk.say(HELLO)
        await talk.say(MORE)
        await talk.carrier.wait(600)
        assert talk.told() == [("user", HELLO), ("user", MORE), ("assistant", "Both, then.")]
        assert [text for text, _ in talk.voice.said] == ["Both, then."]


async def test_an_answer_that_is_ready_waits_until_the_caller_has_finished() -> None:
    ready = asyncio.Event()
    async with talking(wait_until(ready, then="Too early."), "In time.") as talk:
        await talk.say(HELLO)
        ready.set()
        await talk.carrier.say(talk.text.spoken(MORE, talk.carrier.rate, 600))
        assert talk.carrier.heard_frames <= 2
        await talk.carrier.wait(800)
        assert talk.told() == [("user", HELLO), ("user", MORE), ("assistant", "In time.")]


async def test_tool_calls_stay_in_the_conversation_when_the_answer_is_cut() -> None:
    def call_a_tool(call: ScriptedCall) -> str:
        talk.chat.messages.append({"type": "function_call", "call_id": "c", "name": "add", "arguments": "{}"})
        talk.chat.messages.append({"type": "function_call_output", "call_id": "c", "output": "3"})
        return "It is three. And that is all that there is to say."

    async with talking(call_a_tool, "Fine.") as talk:
        await talk.say(HELLO)
        await talk.carrier.wait(700)
        await talk.say(MORE)
        await talk.carrier.wait(400)
        kinds = [message.get("type") or message["content"] for message in talk.chat.conversation]
        assert kinds == [HELLO, "function_call", "function_call_output", "It is three. …", MORE, "Fine."]


async def test_a_caller_is_greeted_and_may_interrupt_the_greeting() -> None:
    async with talking("Yes.", greeting="Welcome to the house of many rooms.") as talk:
        await talk.carrier.wait(600)
        await talk.say(HELLO)
        await talk.carrier.wait(500)
        assert talk.told() == [("assistant", "Welcome to the …"), ("user", HELLO), ("assistant", "Yes.")]


async def test_the_model_is_asked_for_a_greeting() -> None:
    async with talking("Hi.", greeting_prompt="Greet the caller.") as talk:
        await talk.carrier.wait(500)
        assert talk.told() == [("user", "Greet the caller."), ("assistant", "Hi.")]


async def test_a_failing_model_is_excused_and_the_call_goes_on() -> None:
    async with talking(LLMError("out of order"), "Again.") as talk:
        await talk.say(HELLO)
        await talk.carrier.wait(3000)
        await talk.say(MORE)
        await talk.carrier.wait(500)
        assert [text for text, _ in talk.voice.said] == [*APOLOGY.replace(". ", ".|").split("|"), "Again."]


async def test_speech_that_cannot_be_recognised_is_no_speech() -> None:
    async with talking("Never.") as talk:
        talk.text.error = LLMError("deaf")
        await talk.say(HELLO)
        await talk.carrier.wait(300)
        assert talk.llm.calls == []


async def test_without_a_voice_the_call_ends_with_the_reason() -> None:
    talk = Talk("Good day.")
    talk.voice.error = RuntimeError("no breath")
    await talk.say(HELLO)
    with pytest.raises(LLMError, match="text to speech failed: no breath"):
        await talk.running


async def test_what_was_said_right_before_hanging_up_is_in_the_transcript() -> None:
    async with talking("One two three four five six.") as talk:
        await talk.say(HELLO)
        await talk.carrier.wait(460)
        await talk.carrier.say(talk.text.spoken(MORE, talk.carrier.rate, 200))
    assert talk.transcript.said() == [("caller", HELLO, False), ("agent", "One two", True), ("caller", MORE, False)]
    assert len(talk.llm.calls) == 1


async def test_hanging_up_in_the_middle_of_an_answer_leaves_what_was_heard() -> None:
    async with talking("One two three four five six.") as talk:
        await talk.say(HELLO)
        await talk.carrier.wait(460)
    assert talk.transcript.said()[-1] == ("agent", "One two", True)
    assert talk.transcript.lines[-1].speaker is Speaker.AGENT

"""The parts of a voice: sound, sentences, pacing, threads that are shared fairly, and what stays in a conversation."""

import asyncio
import threading
from typing import Any

import pytest
from doubles.voice_stages import tone
from hypothesis import given
from hypothesis import strategies as st

from meshhost.agents.context import AgentChatContext
from meshhost.errors import InvalidRequestError, LimitExceededError, SettingsError
from meshhost.room.services.messaging import RoomMessage
from meshhost.testing.clock import FakeClock
from meshhost.voice import Line, Speaker, messages
from meshhost.voice.audio import Framer, Sound, check_rate, frame_bytes, silence
from meshhost.voice.carriers.messages import LEAD_MS
from meshhost.voice.cascade.heard import keep_heard
from meshhost.voice.cascade.sentences import SentenceFeed, speakable
from meshhost.voice.cpu import FairPool
from meshhost.voice.inbox import FrameInbox
from meshhost.voice.pacing import Playhead
from meshhost.voice.resampling import Resampler, check_libraries, resample

# Sound


@given(st.lists(st.integers(0, 1000)))
def test_sound_in_pieces_of_any_length_becomes_frames_of_20_ms(lengths: list[int]) -> None:
    framer, given_pcm, frames = Framer(8_000), b"", []
    for number, length in enumerate(lengths):
        piece = bytes([number % 256]) * (2 * length)
        given_pcm += piece
        frames += framer.feed(Sound(piece, 8_000))
    if (rest := framer.flush()) is not None:
        frames.append(rest)
    assert {len(frame.pcm) for frame in frames} <= {frame_bytes(8_000)}
    assert b"".join(frame.pcm for frame in frames).startswith(given_pcm)
    assert framer.flush() is None


def test_sound_says_how_long_and_how_loud_it_is() -> None:
    assert (silence(500, 16_000).ms, silence(500, 16_000).samples) == (500, 8_000)
    assert silence(500, 16_000).level == 0
    assert round(tone(0.25, 20, 8_000).level, 3) == 0.25
    assert Sound(b"", 8_000).level == 0
    with pytest.raises(ValueError, match="expected sound at 8000 Hz, got 16000 Hz"):
        list(Framer(8_000).feed(silence(20, 16_000)))


@pytest.mark.parametrize("rate", [8_000, 11_025 * 2, 44_100, 48_000])
def test_usual_rates_are_accepted(rate: int) -> None:
    assert check_rate(rate) == rate


@pytest.mark.parametrize("rate", [7_999, 16_001, 96_000, True, "16000", None, 16_000.0])
def test_other_rates_are_refused(rate: Any) -> None:
    with pytest.raises(InvalidRequestError, match="rate: expected a multiple of 50 from 8000 to 48000"):
        check_rate(rate)


@pytest.mark.parametrize(("source", "target"), [(8_000, 16_000), (48_000, 16_000), (22_050, 24_000)])
def test_resampling_keeps_length_and_loudness(source: int, target: int) -> None:
    sound = tone(0.5, 1000, source)
    whole = resample(sound, target)
    assert abs(whole.ms - 1000) < 5
    assert 0.4 < whole.level < 0.8
    stream = Resampler(source, target)
    pieces = [stream.feed(frame) for frame in Framer(source).feed(sound)]
    pieces.append(stream.feed(Sound(b"", source), is_last=True))
    assert abs(sum(piece.ms for piece in pieces) - 1000) < 25


def test_equal_rates_are_not_touched() -> None:
    sound = tone(0.5, 20, 16_000)
    assert resample(sound, 16_000) is sound
    assert Resampler(16_000, 16_000).feed(sound) is sound


def test_a_missing_library_is_named_with_what_to_install() -> None:
    with pytest.raises(SettingsError, match=r"\(no_such_module\): pip install 'meshhost\[voice\]'"):
        check_libraries("asyncio", "no_such_module")


# Sentences


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One is here. Two is there! Three?", ["One is here.", "Two is there!", "Three?"]),
        ("It costs 3.50 euros. Fine.", ["It costs 3.50 euros.", "Fine."]),
        ("No. That is not so.", ["No. That is not so."]),  # what is short is said with what follows
        ("A line\nand another\n\nend", ["A line and another", "end"]),
        ('He said "yes." Then he left.', ['He said "yes."', "Then he left."]),
        ("", []),
        ("   ", []),
    ],
)
def test_a_text_is_cut_into_sentences(text: str, sentences: list[str]) -> None:
    feed = SentenceFeed()
    found = feed.feed(text) + feed.flush()
    assert [" ".join(each.split()) for each in found] == sentences


@given(st.text(alphabet="ab .,!?\n\"')", max_size=600), st.integers(1, 20))
def test_nothing_of_a_text_is_lost_however_it_comes(text: str, size: int) -> None:
    feed, found = SentenceFeed(), []
    for begin in range(0, len(text), size):
        found += feed.feed(text[begin : begin + size])
    found += feed.flush()
    assert "".join("".join(found).split()) == "".join(text.split())
    assert all(len(each) <= 260 for each in found)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("**Bold** and `code`", "Bold and code"),
        ("# Title\n- one\n- two", "Title one two"),
        ("see [the page](https://example.com/x)", "see the page"),
        ("at https://www.example.com/a?b=c now", "at example.com now"),
        ("snake_case stays, _this_ does not", "snake_case stays, this does not"),
        ("---", ""),
        ("…", ""),
    ],
)
def test_what_is_for_the_eye_is_not_said(text: str, said: str) -> None:
    assert speakable(text) == said


# Pacing


def test_the_playhead_follows_the_clock() -> None:
    clock = FakeClock()
    head = Playhead(clock, lead_ms=LEAD_MS)
    assert (head.unheard_ms, head.seconds_to_wait) == (0, 0)
    for _ in range(20):
        head.sent(silence(20, 8_000))
    assert round(head.unheard_ms) == 400
    assert round(head.seconds_to_wait, 3) == 0.4 - LEAD_MS / 2000
    clock.skip(0.3)
    assert round(head.unheard_ms) == 100
    assert head.seconds_to_wait == 0
    assert round(head.drop()) == 100
    assert head.unheard_ms == 0
    clock.skip(5)
    head.sent(silence(20, 8_000))
    assert round(head.unheard_ms) == 20


async def test_an_inbox_drops_the_oldest_when_nobody_listens() -> None:
    inbox = FrameInbox(8_000, call_id="1", max_ms=100)
    for level in range(1, 11):
        inbox.put(tone(level / 20, 20, 8_000))
    inbox.close()
    levels = [round(frame.level * 20) async for frame in inbox]
    assert levels == [6, 7, 8, 9, 10]
    assert inbox.dropped == 5


async def test_an_inbox_ends_when_nothing_comes_for_too_long() -> None:
    inbox = FrameInbox(8_000, call_id="1", idle_seconds=0.02)
    assert [frame async for frame in inbox] == []


# Threads


class Busy:
    """Keeps the thread of a pool busy until `go` is set."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self._begun = threading.Event()

    def work(self) -> None:
        self._begun.set()
        self.go.wait(5)

    async def begin(self, pool: FairPool) -> asyncio.Task[None]:
        """Return when the thread has begun."""
        task = asyncio.create_task(pool.run("a", self.work))
        await asyncio.sleep(0)
        await asyncio.to_thread(self._begun.wait, 5)
        return task


async def test_calls_take_turns_in_the_threads() -> None:
    pool, busy, order = FairPool("test", threads=1), Busy(), []
    first = await busy.begin(pool)
    rest = [asyncio.create_task(pool.run(call, order.append, call)) for call in ("a", "a", "a", "b", "c")]
    await asyncio.sleep(0)
    busy.go.set()
    await asyncio.gather(first, *rest)
    assert order == ["a", "b", "c", "a", "a"]


async def test_what_one_call_has_waiting_is_bounded_and_others_are_served() -> None:
    pool, busy = FairPool("test", threads=1, max_waiting=2), Busy()
    held = [await busy.begin(pool)]
    held += [asyncio.create_task(pool.run("a", busy.work)) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(LimitExceededError, match="2 pieces of work of one voice call wait for test"):
        await pool.run("a", busy.work)
    other = asyncio.create_task(pool.run("b", int, "7"))
    await asyncio.sleep(0)
    busy.go.set()
    assert await other == 7
    await asyncio.gather(*held)


async def test_an_error_reaches_its_call_and_a_cancelled_one_is_not_begun() -> None:
    pool, busy, done = FairPool("test", threads=1), Busy(), []
    held = await busy.begin(pool)
    cancelled = asyncio.create_task(pool.run("b", done.append, 1))
    failing = asyncio.create_task(pool.run("c", int, "x"))
    await asyncio.sleep(0)
    cancelled.cancel()
    await asyncio.wait({cancelled})
    busy.go.set()
    with pytest.raises(ValueError, match="invalid literal"):
        await failing
    await held
    assert done == []


# What stays in the conversation


def chat_with(*added: dict[str, Any]) -> tuple[AgentChatContext, Any]:
    chat = AgentChatContext()
    chat.append_user_message("hello")
    before = chat.checkpoint()
    chat.messages.extend(added)
    return chat, before


def said(text: str) -> dict[str, Any]:
    return {"type": "message", "role": "assistant", "id": "m", "content": [{"type": "output_text", "text": text}]}


CALL = {"type": "function_call", "call_id": "c", "name": "add", "arguments": "{}"}
OUTPUT = {"type": "function_call_output", "call_id": "c", "output": "3"}
THOUGHT = {"type": "reasoning", "summary": []}


@pytest.mark.parametrize(
    ("added", "heard", "kept"),
    [
        ([said("One two. Three.")], "One", [{"role": "assistant", "content": "One …"}]),
        ([said("One two.")], "One two.", [{"role": "assistant", "content": "One two."}]),
        ([said("One two.")], "", []),
        ([], "One", [{"role": "assistant", "content": "One …"}]),
        ([said("I look."), CALL, OUTPUT, said("It is three.")], "I look. It is", [
            {"role": "assistant", "content": "I look."}, CALL, OUTPUT, {"role": "assistant", "content": "It is …"}]),
        ([THOUGHT, CALL, OUTPUT, THOUGHT, said("Three.")], "", [THOUGHT, CALL, OUTPUT]),
        ([{"role": "assistant", "content": "Plain text."}], "Plain", [{"role": "assistant", "content": "Plain …"}]),
    ],
)  # fmt: skip
def test_an_interrupted_answer_is_reduced_to_what_was_heard(
    added: list[dict[str, Any]], heard: str, kept: list[dict[str, Any]]
) -> None:
    chat, before = chat_with(*added)
    keep_heard(chat, before, heard)
    assert chat.messages[1:] == kept


# Messages


def test_a_line_comes_through_messages_as_it_was() -> None:
    line = Line(Speaker.AGENT, "Hello.", 1.5, 2.5, is_cut=True)
    assert messages.line_in(messages.line_message(line)) == line
    with pytest.raises(InvalidRequestError, match="voice_line: not a line of a transcript"):
        messages.line_in({"speaker": "nobody"})
    with pytest.raises(InvalidRequestError, match="voice_line: not a line of a transcript"):
        messages.line_in({"speaker": "agent", "text": "", "began": 10**400, "ended": 1})


@pytest.mark.parametrize(
    ("message", "attachment", "reason"),
    [
        ({}, b"x", "attachment: expected whole samples"),
        ({}, bytes(16_000), "attachment: expected at most 500 ms of sound, got 1000 ms"),
        ({"data": "?"}, None, "data: expected PCM16 in base64"),
        ({"data": 7}, None, "data: expected PCM16 in base64"),
    ],
)
def test_what_is_no_sound_is_refused(message: dict[str, Any], attachment: bytes | None, reason: str) -> None:
    with pytest.raises(InvalidRequestError, match=reason):
        messages.audio_in(RoomMessage("ann", "voice_audio", message, attachment), 8_000)


def test_an_empty_message_is_a_sign_of_life() -> None:
    assert messages.audio_in(RoomMessage("ann", "voice_audio", {}), 8_000).pcm == b""

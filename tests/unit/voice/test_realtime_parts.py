"""The parts of a realtime call that do no I/O: history, playback, incoming sound, transcript lines."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshhost.errors import SettingsError
from meshhost.testing.clock import FakeClock
from meshhost.voice.realtime.history import History, Said, ToolUse
from meshhost.voice.realtime.incoming import Incoming
from meshhost.voice.realtime.lines import OrderedLines
from meshhost.voice.realtime.options import Endpoint, RealtimeOptions
from meshhost.voice.realtime.playback import Cut, Playback
from meshhost.voice.transcript import Line, Speaker


def texts(history: History) -> list[str]:
    return [str(item.get("output") or item.get("name") or item["content"][0].get("text")) for item in history.seed()]


# History


def test_a_history_begins_with_the_conversation_before_it() -> None:
    parts = [{"type": "input_text", "text": "hi"}, {"type": "input_image"}]
    earlier = [{"role": "system", "content": "rules"}, {"role": "user", "content": parts}, {"role": "assistant"}]
    assert texts(History(earlier)) == ["hi"]


@pytest.mark.parametrize(
    ("heard_ms", "text"),
    [(None, "one two three four"), (1_000.0, "one two three four"), (500.0, "one two …"), (0.0, ""), (10.0, "")],
)
def test_of_an_answer_counts_what_was_heard(heard_ms: float | None, text: str) -> None:
    said = Said(is_agent=True, text="one two three four", ms=1_000.0, heard_ms=heard_ms)
    assert said.heard == text
    history = History()
    history.add(said)
    assert texts(history) == ([text] if text else [])


def test_a_turn_whose_words_are_not_known_is_given_as_sound() -> None:
    history = History()
    first, second = Said(is_agent=False), Said(is_agent=False)
    history.add(first)
    history.heard_sound(b"11")
    history.add(second)
    history.heard_sound(b"22")
    assert first.sound == b""
    unclear, sound = history.seed()
    assert unclear["content"][0] == {"type": "input_text", "text": "(inaudible)"}
    assert base64.b64decode(sound["content"][0]["audio"]) == b"22"


def test_calls_of_tools_without_an_output_are_left_out() -> None:
    history = History()
    history.add(ToolUse("1", "lookup", "{}", output="found"))
    history.add(ToolUse("2", "lookup", "{}"))
    assert [item["type"] for item in history.seed()] == ["function_call", "function_call_output"]
    assert [use.call_id for use in history.finished_uses()] == ["1"]


def test_who_waits_for_an_answer_is_known() -> None:
    history = History()
    assert not history.is_unanswered
    history.add(Said(is_agent=False, text="hello"))
    assert history.is_unanswered
    history.add(Said(is_agent=True, text="hi", ms=100, heard_ms=0.0))
    assert history.is_unanswered  # the answer was not heard
    history.add(Said(is_agent=True, text="hi", ms=100))
    assert not history.is_unanswered
    history.add(ToolUse("1", "lookup", "{}"))
    assert not history.is_unanswered
    history.add(ToolUse("2", "lookup", "{}", output="x"))
    assert history.is_unanswered


def test_of_a_long_conversation_the_newest_turns_count() -> None:
    history = History()
    for number in range(500):
        history.add(Said(is_agent=number % 2 == 1, text=f"turn {number}"))
    assert len(history) == 200
    assert texts(history)[-1] == "turn 499"
    history.add(Said(is_agent=False, text="x" * 59_995))
    assert len(texts(history)) == 1


# Playback


def test_an_interruption_says_how_much_of_each_item_was_heard() -> None:
    playback = Playback()
    playback.add("a", 100)
    playback.add("b", 100)
    playback.add("b", 100)
    playback.add("c", 100)
    assert playback.cut(220) == (["a"], [Cut("b", 120), Cut("c", 0)])
    assert playback.cut(0) == ([], [])


def test_what_was_heard_whole_is_not_cut() -> None:
    playback = Playback()
    playback.add("a", 100)
    assert playback.cut(99) == (["a"], [])
    playback.add("b", 100)
    assert playback.heard_all() == ["b"]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 500)), max_size=8), st.floats(-100, 3_000))
def test_no_item_is_heard_longer_than_it_is(parts: list[tuple[str, int]], heard: float) -> None:
    playback = Playback()
    lengths: dict[str, float] = {}
    for number, (name, ms) in enumerate(parts):
        playback.add(f"{name}{number}", ms)
        lengths[f"{name}{number}"] = ms
    whole, cuts = playback.cut(heard)
    assert [*whole, *(cut.item_id for cut in cuts)] == list(lengths)
    assert all(0 <= cut.heard_ms <= lengths[cut.item_id] for cut in cuts)


# Incoming


def test_sound_is_given_once_and_in_order() -> None:
    incoming = Incoming(1)
    for piece in (b"a" * 20, b"b" * 20, b"c" * 20):
        incoming.add(piece)
    assert incoming.waiting_ms == 60
    assert incoming.take(30) == b"a" * 20 + b"b" * 20
    assert incoming.take(30) == b"c" * 20
    assert incoming.take(30) == b""


def test_what_waits_is_bounded_and_the_oldest_is_dropped() -> None:
    incoming = Incoming(1, most_ms=50)
    for number in range(10):
        incoming.add(bytes([number]) * 20)
    assert incoming.take(1_000) == bytes([8]) * 20 + bytes([9]) * 20


def test_a_turn_in_progress_is_sent_again_from_before_its_begin() -> None:
    incoming = Incoming(1)
    for piece in (b"-" * 2_000, b"-" * 900, b"s" * 100):
        incoming.add(piece)
        incoming.take(5_000)
    incoming.begin_speech()
    incoming.add(b"t" * 3_000)
    incoming.take(5_000)
    incoming.add(b"u" * 10)
    incoming.rewind()
    assert incoming.take(10_000) == b"-" * 900 + b"s" * 100 + b"t" * 3_000 + b"u" * 10


def test_without_a_turn_in_progress_nothing_is_sent_again() -> None:
    incoming = Incoming(1)
    incoming.add(b"s" * 100)
    incoming.take(1_000)
    incoming.begin_speech()
    assert incoming.end_speech() == b"s" * 100
    incoming.add(b"t" * 10)
    incoming.rewind()
    assert incoming.take(1_000) == b"t" * 10


# Lines


class Taken:
    def __init__(self) -> None:
        self.texts: list[str] = []

    async def add(self, line: Line) -> None:
        self.texts.append(f"{line.speaker}: {line.text}")


async def test_lines_are_in_the_order_in_which_they_were_begun() -> None:
    taken = Taken()
    lines = OrderedLines(taken, FakeClock())
    lines.begin("1", Speaker.CALLER)
    lines.begin("2", Speaker.AGENT)
    await lines.end("2", "hi")
    assert taken.texts == []
    await lines.end("1", "hello")
    await lines.end("1", "again")
    assert taken.texts == ["caller: hello", "agent: hi"]


async def test_a_line_that_does_not_come_holds_the_others_up_for_some_seconds_only() -> None:
    taken, clock = Taken(), FakeClock()
    lines = OrderedLines(taken, clock)
    lines.begin("1", Speaker.CALLER)
    await clock.advance(11)
    lines.begin("2", Speaker.AGENT)
    await lines.end("2", "hi")
    assert taken.texts == ["agent: hi"]
    await lines.end("1", "hello")
    assert taken.texts == ["agent: hi"]


async def test_what_will_not_be_known_is_left_out() -> None:
    taken = Taken()
    lines = OrderedLines(taken, FakeClock())
    lines.begin("1", Speaker.CALLER)
    lines.begin("2", Speaker.AGENT)
    await lines.end("2", "hi")
    await lines.give_up(Speaker.CALLER)
    assert taken.texts == ["agent: hi"]


async def test_at_the_end_all_that_is_known_is_written() -> None:
    taken = Taken()
    lines = OrderedLines(taken, FakeClock())
    lines.begin("1", Speaker.CALLER)
    lines.begin("2", Speaker.AGENT)
    await lines.end("2", "hi")
    await lines.finish()
    assert taken.texts == ["agent: hi"]


# Options


def test_settings_may_be_added_to() -> None:
    more = {"audio": {"input": {"turn_detection": {"type": "semantic_vad"}}}, "reasoning": {"effort": "low"}}
    options = RealtimeOptions(more=more, voice="marin", transcription=None)
    session = options.session(instructions="x", voice=None, tools=[{"type": "web_search"}])
    assert session["audio"]["input"]["turn_detection"]["type"] == "semantic_vad"
    assert session["audio"]["output"]["voice"] == "marin"
    assert session["audio"]["input"]["format"]["rate"] == 24_000
    assert "transcription" not in session["audio"]["input"]
    assert "tools" not in session
    assert session["reasoning"] == {"effort": "low"}


def test_a_session_ends_after_it_could_have_been_renewed() -> None:
    with pytest.raises(SettingsError, match="limit_seconds"):
        RealtimeOptions(renew_seconds=10, limit_seconds=5)


@pytest.mark.parametrize(
    ("base", "url"),
    [
        ("https://api.openai.com/v1/", "https://api.openai.com/v1/realtime?model=m"),
        ("wss://h:1/v1", "https://h:1/v1/realtime?model=m"),
    ],
)
def test_the_address_of_a_direct_provider(base: str, url: str) -> None:
    found, headers = Endpoint(base, "k").of(None, "m")  # type: ignore[arg-type]
    assert (str(found), headers) == (url, {"Authorization": "Bearer k"})
    assert "k" not in repr(Endpoint(base, "secret-k")).replace("http", "").replace("Endpoint", "")


def test_an_address_of_another_kind_is_refused() -> None:
    with pytest.raises(SettingsError, match="base_url"):
        Endpoint("api.openai.com", "k").of(None, "m")  # type: ignore[arg-type]

"""The session of a realtime model without I/O: who may answer when, whatever the order of events."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshhost.voice.realtime.events import (
    AnswerEnded,
    CallerSaid,
    Event,
    Expired,
    Failed,
    Ready,
    SessionFull,
    SoundArrived,
    SoundEnded,
    SpeechBegan,
    SpeechEnded,
    ToolCalled,
)
from meshhost.voice.realtime.history import History, ToolUse
from meshhost.voice.realtime.playback import Cut
from meshhost.voice.realtime.session import RealtimeSession

SETTINGS = {"type": "realtime", "audio": {"input": {"transcription": {"model": "t"}}}}
PCM = bytes(4_800)  # 100 ms


class Provider:
    """Sends events to a session, and sees what it sends."""

    def __init__(self) -> None:
        self.session = RealtimeSession(SETTINGS, History(), prefix="1")
        self.send("session.created")
        [update] = self.sent()
        assert (update["type"], update["session"]) == ("session.update", SETTINGS)
        assert self.send("session.updated") == [Ready()]

    def send(self, kind: str, **members: Any) -> list[Event]:
        return self.session.receive(json.dumps({"type": kind, **members}))

    def sent(self) -> list[dict[str, Any]]:
        sent, self.session.outgoing = self.session.outgoing, []
        return sent

    def types(self) -> list[str]:
        return [event["type"] for event in self.sent()]

    def begin(self, response: str = "r1", item: str = "i1") -> None:
        self.send("response.created", response={"id": response})
        self.send("response.output_item.added", response_id=response, item={"id": item, "type": "message"})

    def end(self, response: str = "r1", status: str = "completed", **details: Any) -> list[Event]:
        return self.send("response.done", response={"id": response, "status": status, **details})

    def sound(self, response: str = "r1", item: str = "i1") -> list[Event]:
        delta = base64.b64encode(PCM).decode()
        return self.send("response.output_audio.delta", response_id=response, item_id=item, delta=delta)

    def words(self, text: str, response: str = "r1", item: str = "i1") -> None:
        self.send("response.output_audio_transcript.delta", response_id=response, item_id=item, delta=text)

    def call(self, call_id: str, response: str = "r1") -> list[Event]:
        item = {"id": f"i{call_id}", "type": "function_call", "name": "look", "call_id": call_id, "arguments": "{}"}
        return self.send("response.output_item.done", response_id=response, item=item)

    def speech(self, item: str = "u1") -> list[Event]:
        return self.send("input_audio_buffer.speech_started", item_id=item)

    def speech_ends(self, item: str = "u1") -> list[Event]:
        self.send("input_audio_buffer.speech_stopped", item_id=item)
        return self.send("input_audio_buffer.committed", item_id=item)

    def add_outputs(self) -> None:
        """Take the items of tools that the session has sent."""
        for event in self.sent():
            self.send("conversation.item.added", item=event["item"])


@pytest.fixture
def provider() -> Provider:
    return Provider()


def answered(call_id: str) -> ToolUse:
    return ToolUse(call_id, "look", "{}", output="found")


def test_a_turn_is_heard_recognised_and_answered(provider: Provider) -> None:
    assert provider.speech() == [SpeechBegan("u1")]
    assert not provider.session.is_quiet
    assert provider.speech_ends() == [SpeechEnded("u1")]
    provider.begin()
    provider.words("it is noon")
    assert provider.sound() == [SoundArrived("i1", PCM)]
    assert provider.send("response.output_audio.done", response_id="r1", item_id="i1") == [SoundEnded("i1")]
    assert provider.end() == [AnswerEnded(has_sound=True)]
    assert provider.session.is_quiet
    assert not provider.session.is_settled
    kind = "conversation.item.input_audio_transcription.completed"
    assert provider.send(kind, item_id="u1", transcript=" how late? ") == [CallerSaid("u1", "how late?")]
    assert provider.session.is_settled
    assert [item["content"][0]["text"] for item in provider.session.history.seed()] == ["how late?", "it is noon"]
    assert provider.sent() == []


def test_words_that_are_not_recognised_are_known_to_be_unknown(provider: Provider) -> None:
    provider.speech()
    provider.speech_ends()
    kind = "conversation.item.input_audio_transcription.failed"
    assert provider.send(kind, item_id="u1", error={"message": "m"}) == [CallerSaid("u1", None)]
    provider.begin()
    provider.end()
    assert provider.session.is_settled


def test_pieces_of_an_answer_that_the_caller_interrupted_are_dropped(provider: Provider) -> None:
    provider.begin()
    provider.sound()
    provider.speech()
    assert provider.sound() == []
    provider.words("late words")
    assert provider.call("c1") == []
    assert provider.end(status="cancelled") == [AnswerEnded(has_sound=True)]
    provider.speech_ends()
    provider.begin("r2", "i2")
    assert provider.sound("r2", "i2") == [SoundArrived("i2", PCM)]


def test_the_provider_is_told_what_was_heard_and_never_more_than_there_is(provider: Provider) -> None:
    provider.begin()
    provider.sound()
    provider.words("one two three four")
    provider.session.truncate([Cut("i1", 50.6), Cut("of another session", 10)])
    [event] = provider.sent()
    assert (event["item_id"], event["content_index"], event["audio_end_ms"]) == ("i1", 0, 50)
    said = provider.session.said("i1")
    assert said is not None
    assert said.heard == "one two …"
    provider.session.truncate([Cut("i1", 5_000)])
    assert provider.sent()[0]["audio_end_ms"] == 100


def test_words_without_sound_were_not_heard(provider: Provider) -> None:
    provider.begin()
    provider.words("never said")
    provider.speech()
    assert provider.session.history.seed() == []


def test_the_model_goes_on_when_it_has_all_outputs(provider: Provider) -> None:
    provider.begin()
    assert provider.call("a") == [ToolCalled("a", "look", "{}")]
    assert provider.call("a") == []  # named by two events
    provider.call("b")
    provider.end()
    provider.session.answer_tool(answered("a"))
    provider.add_outputs()
    assert provider.types() == []
    provider.session.answer_tool(answered("b"))
    provider.add_outputs()
    assert provider.types() == ["response.create"]


def test_an_output_during_an_answer_is_followed_by_another_answer(provider: Provider) -> None:
    provider.begin()
    provider.call("a")
    provider.session.answer_tool(answered("a"))
    provider.add_outputs()
    assert provider.types() == []  # r1 is still being written
    provider.end()
    assert provider.types() == ["response.create"]


def test_an_answer_that_began_after_the_output_knows_it(provider: Provider) -> None:
    provider.begin()
    provider.call("a")
    provider.end()
    provider.speech()
    provider.session.answer_tool(answered("a"))
    provider.add_outputs()
    assert provider.types() == []  # the caller speaks, and will be answered
    provider.speech_ends()
    provider.begin("r2", "i2")
    provider.end("r2")
    assert provider.types() == []


def test_an_answer_that_began_before_the_output_does_not_know_it(provider: Provider) -> None:
    provider.begin()
    provider.call("a")
    provider.end()
    provider.speech()
    provider.speech_ends()
    provider.begin("r2", "i2")
    provider.session.answer_tool(answered("a"))
    provider.add_outputs()
    provider.end("r2")
    assert provider.types() == ["response.create"]


def test_a_call_of_an_earlier_session_is_given_with_its_output(provider: Provider) -> None:
    provider.session.answer_tool(answered("old"))
    items = [event["item"]["type"] for event in provider.sent()]
    assert items == ["function_call", "function_call_output"]
    assert provider.session.knows("old")


def test_a_session_is_full_when_the_last_item_has_arrived(provider: Provider) -> None:
    assert not provider.session.seed([])
    items = [{"type": "message", "role": "user", "content": []}, {"type": "function_call", "call_id": "c", "name": "n"}]
    assert provider.session.seed(items)
    first, last = provider.sent()
    assert provider.send("conversation.item.added", item=first["item"]) == []
    assert provider.send("conversation.item.added", item=last["item"]) == [SessionFull()]
    assert provider.session.knows("c")
    assert len(last["item"]["id"]) <= 32


def test_nothing_is_asked_for_twice(provider: Provider) -> None:
    provider.session.ask("greet")
    provider.session.ask()
    [event] = provider.sent()
    assert event["response"] == {"instructions": "greet"}
    provider.begin()
    provider.session.ask()
    assert provider.sent() == []


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("insufficient_quota", Failed("text", is_final=True)),
        ("rate_limit_exceeded", Failed("text", is_final=False)),
        ("", Failed("text", is_final=False)),
    ],
)
def test_an_answer_may_fail(provider: Provider, code: str, expected: Failed) -> None:
    provider.begin()
    details = {"type": "failed", "error": {"code": code, "message": "text"}}
    assert provider.end(status="failed", status_details=details) == [expected]
    assert provider.session.is_quiet


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("session_expired", [Expired()]),
        ("invalid_api_key", [Failed("text", is_final=True)]),
        ("response_cancel_not_active", []),
        ("conversation_already_has_active_response", []),
        ("something_new", []),
    ],
)
def test_an_error_has_the_effect_that_it_says(provider: Provider, code: str, expected: list[Event]) -> None:
    assert provider.send("error", error={"code": code, "message": "text"}) == expected


def test_an_error_about_what_was_asked_for_means_that_it_does_not_come(provider: Provider) -> None:
    provider.session.ask()
    assert provider.send("error", error={"code": "x", "message": "text"}) == [Failed("text", is_final=False)]
    assert provider.session.is_quiet


def test_settings_that_are_refused_are_final() -> None:
    session = RealtimeSession(SETTINGS, History())
    session.receive('{"type": "session.created"}')
    assert session.receive('{"type": "error", "error": {"code": "x", "message": "no voice"}}') == [
        Failed("no voice", is_final=True)
    ]


KINDS = [
    "session.updated", "input_audio_buffer.speech_started", "input_audio_buffer.committed", "conversation.item.added",
    "conversation.item.input_audio_transcription.completed", "response.created", "response.output_item.added",
    "response.output_item.done", "response.output_audio.delta", "response.output_audio_transcript.done",
    "response.function_call_arguments.done", "response.done", "error", "rate_limits.updated",
]  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["id", "type", "error"]), inner),
    max_leaves=6,
)
NAMES = ["item_id", "item", "response", "response_id", "delta", "transcript", "call_id", "name", "arguments", "error"]


@given(st.lists(st.tuples(st.sampled_from(KINDS), st.dictionaries(st.sampled_from(NAMES), VALUES)), max_size=8))
def test_nothing_that_a_provider_sends_raises(events: list[tuple[str, dict[str, Any]]]) -> None:
    session = RealtimeSession(SETTINGS, History())
    for kind, members in events:
        session.receive(json.dumps({"type": kind, **members}))
    for text in ("", "null", "[]", '"x"', "{", '{"type": null}', '{"type": []}', "[" * 5_000):
        assert session.receive(text) == []
    session.history.seed()
    assert isinstance(session.history.is_unanswered, bool)


def test_what_is_no_event_is_counted(provider: Provider) -> None:
    for text in ("no json", "{}", '{"type": "response.done"}'):
        assert provider.session.receive(text) == []
    assert provider.session.malformed == 3

"""Messages between a host and its agents' processes as bytes, and errors that cross."""

import warnings
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshhost.errors import ConnectionLostError, MeshhostError, RemoteProtocolError, RoomRefusedError
from meshhost.hosting.processes.messages import (
    MAX_FRAME_BYTES,
    Abort,
    Assign,
    Boot,
    BootFailed,
    Call,
    Drain,
    Ended,
    EndForGood,
    FrameReader,
    Log,
    Message,
    Ping,
    Pong,
    Ready,
    RemoteError,
    Renew,
    Started,
    Unforkable,
    encode,
    sendable,
)
from meshhost.usage import BOUNDS, OUTCOMES, Durations, UsageSums

texts = st.text(st.characters(codec="utf-8"), max_size=20)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
calls = st.builds(
    Call,
    tenant=texts,
    room_name=texts,
    room_url=texts,
    identity=texts,
    arguments=st.dictionaries(texts, json_values, max_size=3),
    expires_at=st.none() | st.floats(0, 1e12),
    token=texts,
)
remote_errors = st.builds(RemoteError, type=texts, text=texts, traceback=texts)
counts = st.integers(0, 2**53)
durations = st.builds(
    Durations,
    counts=st.lists(counts, min_size=len(BOUNDS) + 1, max_size=len(BOUNDS) + 1),
    total=st.floats(0, 1e12),
)
usages = st.builds(
    UsageSums,
    messages=st.dictionaries(st.sampled_from(OUTCOMES), counts),
    waits=durations,
    works=durations,
    input_tokens=counts,
    output_tokens=counts,
)
named = st.dictionaries(texts, texts, max_size=3)
messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(
        Boot,
        program=texts,
        is_module=st.booleans(),
        argv=st.lists(texts, max_size=3),
        path=st.lists(texts, max_size=3),
        paths=st.lists(texts, max_size=3),
        log_level=st.integers(0, 50),
        silence_seconds=st.floats(0.1, 1e6),
    ),
    st.builds(Assign, path=texts, call=calls, call_id=texts, grace=st.floats(0, 1e6), log_fields=named, trace=named),
    st.builds(Renew, call=calls),
    st.builds(Ping, number=st.integers(0, 2**40)),
    st.builds(Pong, number=st.integers(0, 2**40), activity=st.none() | texts, usage=st.none() | usages),
    st.builds(Ready, seconds=st.floats(0, 1e6)),
    st.builds(BootFailed, error=remote_errors),
    st.builds(EndForGood, reason=texts),
    st.builds(Unforkable, reason=texts),
    st.builds(Ended, error=st.none() | remote_errors, usage=st.none() | usages),
    st.builds(
        Log,
        name=texts,
        level=st.integers(0, 50),
        text=texts,
        created=st.floats(0, 1e12),
        where=texts,
        line=st.integers(0, 10**6),
        fields=st.dictionaries(texts, texts | st.booleans() | st.integers(-(2**53), 2**53) | st.none(), max_size=3),
        error=st.none() | remote_errors,
    ),
    st.sampled_from([Abort(), Drain(), Started()]),
)


@given(st.lists(messages, max_size=4), st.lists(st.integers(1, 400), min_size=1, max_size=10))
def test_messages_come_out_as_they_went_in_however_the_stream_is_cut(sent: list[Message], sizes: list[int]) -> None:
    stream = b"".join(map(encode, sent))
    reader, received, position, turn = FrameReader(), [], 0, 0
    while position < len(stream):
        size = sizes[turn % len(sizes)]
        received += reader.feed(stream[position : position + size])
        position, turn = position + size, turn + 1
    assert received == sent


@pytest.mark.parametrize(
    "data",
    [
        b"\x00\x00\x00\x02{}",
        b"\x00\x00\x00\x04null",
        b"\x00\x00\x00\x03\xff\xfe{",
        b'\x00\x00\x00\x11{"kind":"unknown"}'[:21],
        b'\x00\x00\x00\x0f{"kind":"ping"}',
        b"\xff\xff\xff\xff",
    ],
)
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        FrameReader().feed(data)


def test_a_message_that_is_too_long_is_not_sent() -> None:
    with pytest.raises(ValueError, match=rf"a log message of \d+ bytes: at most {MAX_FRAME_BYTES}"):
        encode(Log("x", 20, "x" * MAX_FRAME_BYTES, 0.0, "", 1, {}))


def test_a_token_is_not_shown() -> None:
    call = Call("t", "room", "ws://x", "me", {}, None, "secret-token")
    assert "secret-token" not in repr(Assign("/a", call, "id", 1.0, {}, {}))


class Unprintable(Exception):  # noqa: N818 - the name is what crosses
    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    ("error", "cls", "text"),
    [
        (ValueError("bad"), ValueError, "bad"),
        (ConnectionLostError("gone"), ConnectionLostError, "gone"),
        (ExceptionGroup("one", [LookupError("inner")]), LookupError, "inner"),
        (RoomRefusedError("no", status=403), "RoomRefusedError", "no"),
        (KeyError("key"), "KeyError", "'key'"),
        (Unprintable(), "Unprintable", "(the error cannot be shown as text)"),
        (SystemExit(3), "SystemExit", "3"),
        (type("print", (Exception,), {})("x"), "print", "x"),
        (type("no name", (Exception,), {})("x"), MeshhostError, "x"),
        (ValueError("\ud800"), ValueError, "?"),
        (ValueError(), ValueError, ""),
    ],
)
def test_an_error_crosses_with_its_class_or_at_least_its_name(error: Any, cls: type | str, text: str) -> None:
    rebuilt = RemoteError.of(error).rebuilt()
    if isinstance(cls, type):
        assert type(rebuilt) is cls
    else:
        assert isinstance(rebuilt, MeshhostError)
        assert type(rebuilt).__name__ == cls
    assert str(rebuilt) == text
    assert rebuilt.__notes__[0].startswith("In the agent's process:\n")


def test_an_errors_size_is_bounded_and_a_traceback_is_not_invented() -> None:
    remote = RemoteError.of(ValueError("x" * 100_000))
    assert len(remote.text) < 5_000
    assert len(remote.traceback) < 20_000
    assert not hasattr(RemoteError("Odd", "").rebuilt(), "__notes__")


def test_lone_surrogates_become_question_marks() -> None:
    assert sendable("a\udcffb") == "a?b"


@pytest.mark.parametrize(
    "usage",
    [
        UsageSums(input_tokens=-1),
        UsageSums(output_tokens=2**60),
        UsageSums(messages={"done": -1}),
        UsageSums(messages={"my own outcome": 1}),  # type: ignore[dict-item]
        UsageSums(waits=Durations(total=-1.0)),
        UsageSums(works=Durations(counts=[1])),
    ],
)
def test_sums_that_cannot_be_are_no_message(usage: UsageSums) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the sender, whose sums are not what their types say
        frame = encode(Pong(1, usage=usage))
    with pytest.raises(RemoteProtocolError):
        FrameReader().feed(frame)

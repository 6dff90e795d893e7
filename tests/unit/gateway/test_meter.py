"""The meter reads usage from passing bytes and keeps a bounded number of sums."""

import itertools
import json
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshhost.gateway.meter import Meter, MeterCounts, MeterKey, UsageReader
from meshhost.gateway.provider import Caller
from meshhost.gateway.sse import DONE, DataLines, encode_event
from meshhost.identity.tenant import RoomKey, TenantId


class StepClock:
    """Moves by two seconds at each look."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        self.now += 2.0
        return self.now

    def time(self) -> float:
        return self.monotonic()

    async def sleep(self, seconds: float) -> None:
        raise NotImplementedError


def caller(identity: str = "bob") -> Caller:
    return Caller(TenantId("acme"), RoomKey(TenantId("acme"), "lobby"), identity)


def read(pieces: Iterable[bytes]) -> tuple[int, int] | None:
    reader = UsageReader()
    for piece in pieces:
        reader.feed(piece)
    return reader.usage()


STREAM = b"".join(
    [
        encode_event({"type": "response.created", "response": {"usage": None}}),
        encode_event({"type": "response.output_text.delta", "delta": 'the word "usage": {"input_tokens": 9}'}),
        encode_event({"type": "response.completed", "response": {"usage": {"input_tokens": 12, "output_tokens": 34}}}),
        DONE,
    ]
)


@given(st.lists(st.integers(0, len(STREAM)), max_size=20))
def test_usage_is_found_however_the_stream_is_cut(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(STREAM)]

    assert read(STREAM[a:b] for a, b in itertools.pairwise(edges)) == (12, 34)


def test_usage_of_the_chat_api_is_read_from_a_document_and_from_a_stream() -> None:
    usage = {"usage": {"prompt_tokens": 3, "completion_tokens": 4}}

    assert read([b"\n", json.dumps(usage, indent=2).encode()]) == (3, 4)
    assert read([encode_event({"choices": [], **usage}).replace(b"\n", b"\r\n")]) == (3, 4)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"data: [DONE]\n\n",
        b'{"usage": null}',
        b'{"usage": 3, "response": 4}',
        b'data: {"usage"\n',
        b"<html>",
        b'{"x": "',
    ],
)
def test_an_answer_without_usage_has_none(answer: bytes) -> None:
    assert read([answer]) is None


def test_odd_numbers_count_as_nothing() -> None:
    assert read([b'{"usage": {"input_tokens": "7", "output_tokens": -1}}']) == (0, 0)


def test_a_line_or_document_too_long_is_not_kept() -> None:
    lines = DataLines(max_line=10)
    assert list(lines.feed(b"data: 12345678901234567890\ndata: 1\n")) == [b"1"]
    assert lines.dropped == 1
    assert list(lines.feed(b"data: 123456")) + list(lines.feed(b"7890")) + list(lines.feed(b"1\ndata: 2\n")) == [b"2"]

    assert read([b'{"x": "' + b"y" * 1024 * 1024, b'", "usage": {"input_tokens": 1}}']) is None


def test_requests_tokens_and_seconds_are_summed_by_caller_and_model() -> None:
    meter = Meter(clock=StepClock())
    for _ in range(2):
        with meter.measure(caller(), "m") as usage:
            usage.feed(STREAM)
    with pytest.raises(ValueError, match="broke"), meter.measure(caller("eve"), "x" * 500):
        raise ValueError("broke")

    assert meter.snapshot() == {
        MeterKey("acme", "lobby", "bob", "m"): MeterCounts(2, 24, 68, 4.0, 0),
        MeterKey("acme", "lobby", "eve", "x" * 128): MeterCounts(1, 0, 0, 2.0, 1),
    }


def test_when_the_table_is_full_newcomers_are_counted_together() -> None:
    meter = Meter(max_keys=2, clock=StepClock())
    for identity in ("a", "b", "c", "d", "a"):
        with meter.measure(caller(identity), "m"):
            pass

    requests = {key.identity: counts.requests for key, counts in meter.snapshot().items()}
    assert requests == {"a": 2, "b": 1, "other": 2}

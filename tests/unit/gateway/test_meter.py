"""The meter reads usage from passing bytes and keeps a bounded number of sums."""

import itertools
import json
from collections.abc import Iterable, Mapping
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshhost.errors import RoomError, SettingsError
from meshhost.gateway.meter import Meter
from meshhost.gateway.prices import Price
from meshhost.gateway.provider import Caller
from meshhost.gateway.tokens import TokenReader, Tokens
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.llm.sse import DONE, DataLines, encode_event
from meshhost.stores.memory.usage import MemoryUsageStore
from meshhost.stores.usage import UsageCounts, UsageKey
from meshhost.testing.clock import FakeClock


class StepClock:
    """Its monotonic time moves by two seconds at each look."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        self.now += 2.0
        return self.now

    def time(self) -> float:
        return 0.0

    async def sleep(self, seconds: float) -> None:
        raise NotImplementedError


def caller(identity: str = "bob") -> Caller:
    return Caller(TenantId("acme"), RoomKey(TenantId("acme"), "lobby"), identity)


def price(input: str) -> Price:
    return Price.of("USD", Decimal(input), Decimal(10))


def read(pieces: Iterable[bytes]) -> Tokens | None:
    reader = TokenReader()
    for piece in pieces:
        reader.feed(piece)
    return reader.tokens()


USAGE = {"input_tokens": 12, "input_tokens_details": {"cached_tokens": 5}, "output_tokens": 34}
STREAM = b"".join(
    [
        encode_event({"type": "response.created", "response": {"usage": None}}),
        encode_event({"type": "response.output_text.delta", "delta": 'the word "usage": {"input_tokens": 9}'}),
        encode_event({"type": "response.completed", "response": {"usage": USAGE}}),
        DONE,
    ]
)


@given(st.lists(st.integers(0, len(STREAM)), max_size=20))
def test_usage_is_found_however_the_stream_is_cut(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(STREAM)]

    assert read(STREAM[a:b] for a, b in itertools.pairwise(edges)) == (12, 5, 34, 0)


def test_usage_of_the_chat_api_is_read_from_a_document_and_from_a_stream() -> None:
    details = {"prompt_tokens_details": {"cached_tokens": 2}}
    usage = {"usage": {"prompt_tokens": 3, "completion_tokens": 4, **details}}

    assert read([b"\n", json.dumps(usage, indent=2).encode()]) == (3, 2, 4, 0)
    assert read([encode_event({"choices": [], **usage}).replace(b"\n", b"\r\n")]) == (3, 2, 4, 0)


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
    odd = b'{"usage": {"input_tokens": "7", "input_tokens_details": {"cached_tokens": null}, "output_tokens": -1}}'
    assert read([odd]) == (0, 0, 0, 0)


def test_a_number_beyond_belief_is_cut_so_that_sums_can_be_stored() -> None:
    huge = json.dumps({"usage": {"input_tokens": 10**30, "output_tokens": 1}}).encode()
    assert read([huge]) == (10**9, 0, 1, 0)


def test_a_line_or_document_too_long_is_not_kept() -> None:
    lines = DataLines(max_line=10)
    assert list(lines.feed(b"data: 12345678901234567890\ndata: 1\n")) == [b"1"]
    assert lines.dropped == 1
    assert list(lines.feed(b"data: 123456")) + list(lines.feed(b"7890")) + list(lines.feed(b"1\ndata: 2\n")) == [b"2"]

    assert read([b'{"x": "' + b"y" * 1024 * 1024, b'", "usage": {"input_tokens": 1}}']) is None


def test_what_a_cache_gave_and_took_is_a_part_of_the_input_whichever_api_says_it() -> None:
    start = {"input_tokens": 5, "cache_read_input_tokens": 20, "cache_creation_input_tokens": 7, "output_tokens": 1}
    messages = [
        {"type": "message_start", "message": {"model": "claude-x", "usage": start}},
        {"type": "message_delta", "usage": {"output_tokens": 9}},
    ]
    whole = {"usage": start | {"output_tokens": 9}}
    details = {"cached_tokens": 20, "cache_write_tokens": 7}
    chat = {"usage": {"prompt_tokens": 32, "prompt_tokens_details": details, "completion_tokens": 9}}
    responses = {"response": {"usage": {"input_tokens": 32, "input_tokens_details": details, "output_tokens": 9}}}

    assert read(encode_event(each) for each in messages) == (32, 20, 9, 7)
    for answer in (whole, chat, responses):
        assert read([json.dumps(answer).encode()]) == (32, 20, 9, 7)


async def test_each_request_has_the_price_of_its_model_in_its_key() -> None:
    prices = {"gpt-5": price("1"), "gpt-5*": price("2"), "*-not-a-prefix": price("3")}
    with pytest.raises(SettingsError, match=r"expected a model name, a prefix"):
        Meter(MemoryUsageStore(), prices=prices)
    del prices["*-not-a-prefix"]
    meter = Meter(MemoryUsageStore(), prices=prices)
    for model in ("gpt-5", "gpt-5-2026-01-31", "qwen", ""):
        with meter.measure(caller(), model) as tokens:
            tokens.feed(b'{"model": "gpt-5-mini", "usage": {"input_tokens": 1}}')

    found = {key.model: key.price for key in meter.pending()}
    one, two = price("1").as_text(), price("2").as_text()
    assert found == {"gpt-5": one, "gpt-5-2026-01-31": two, "qwen": "", "gpt-5-mini": two}


async def test_names_beyond_the_bound_keep_their_price() -> None:
    meter = Meter(MemoryUsageStore(), prices={"gpt": price("1")}, max_keys=1)
    for identity in ("a", "b", "c"):
        with meter.measure(caller(identity), "gpt"):
            pass
    assert [(key.model, key.price) for key in meter.pending()] == [
        ("gpt", price("1").as_text()),
        ("other", price("1").as_text()),
    ]


async def test_requests_tokens_and_seconds_are_summed_by_caller_and_model() -> None:
    meter = Meter(MemoryUsageStore(), clock=StepClock())
    for _ in range(2):
        with meter.measure(caller(), "m") as tokens:
            tokens.feed(STREAM)
    with pytest.raises(ValueError, match="broke"), meter.measure(caller("eve\ud800"), "x" * 500):
        raise ValueError("broke")

    sums = {
        UsageKey(TenantId("acme"), "lobby", "bob", "m", 0): UsageCounts(2, 24, 10, 68, 4.0, 0),
        UsageKey(TenantId("acme"), "lobby", "eve?", "x" * 128, 0): UsageCounts(1, 0, 0, 0, 2.0, 1),
    }
    assert meter.pending() == sums
    assert dict(await meter.read(TenantId("acme"))) == sums
    assert meter.pending() == {}


def test_when_a_tenant_has_too_many_names_newcomers_are_counted_together() -> None:
    clock = FakeClock()
    meter = Meter(MemoryUsageStore(), max_keys=2, clock=clock)
    for identity in ("a", "b", "c", "d", "a"):
        with meter.measure(caller(identity), "m"):
            pass
    with meter.measure(Caller(TenantId("rival"), RoomKey(TenantId("rival"), "lobby"), "c"), "m"):
        pass

    requests = {(key.tenant, key.identity): counts.requests for key, counts in meter.pending().items()}
    assert requests == {("acme", "a"): 2, ("acme", "b"): 1, ("acme", "other"): 2, ("rival", "c"): 1}
    [other] = [key for key in meter.pending() if key.identity == "other"]
    assert (other.room, other.model) == ("other", "other")


async def test_the_next_hour_has_rows_of_its_own() -> None:
    clock = FakeClock()
    meter = Meter(MemoryUsageStore(), max_keys=1, clock=clock)
    hours = []
    for _ in range(2):
        with meter.measure(caller(), "m"):
            pass
        hours.append(int(clock.time() // 3600) * 3600)
        await clock.advance(3600)

    assert [(key.identity, key.hour) for key in meter.pending()] == [("bob", hour) for hour in hours]


async def test_a_started_meter_writes_in_batches_and_the_rest_when_it_stops() -> None:
    clock, store = FakeClock(), MemoryUsageStore()
    async with Meter(store, flush_seconds=5.0, clock=clock) as meter:
        for _ in range(3):
            with meter.measure(caller(), "m"):
                pass
        assert await store.read(TenantId("acme")) == []
        await clock.advance(5.0)
        [(_, counts)] = await store.read(TenantId("acme"))
        assert (counts.requests, meter.pending()) == (3, {})
        with meter.measure(caller(), "m"):
            pass

    [(_, counts)] = await store.read(TenantId("acme"))
    assert counts.requests == 4


@pytest.mark.parametrize("error", [OSError("disk full"), RoomError("the usage store is not open")])
async def test_a_failed_write_is_tried_again_with_the_next_batch(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing(MemoryUsageStore):
        fails = True

        async def add(self, sums: Mapping[UsageKey, UsageCounts]) -> None:
            if self.fails:
                raise error
            await super().add(sums)

    clock, store = FakeClock(), Failing()
    async with Meter(store, flush_seconds=5.0, clock=clock) as meter:
        with meter.measure(caller(), "m"):
            pass
        await clock.advance(5.0)
        assert caplog.messages == ["usage was not stored"]
        with pytest.raises(type(error)):
            await meter.flush()
        with meter.measure(caller(), "m"):
            pass
        store.fails = False
        await clock.advance(5.0)
        [(_, counts)] = await store.read(TenantId("acme"))
        assert counts.requests == 2

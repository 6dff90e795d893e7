"""Spans are reported together, in the background, and dropped rather than waited for."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from meshhost.errors import AccessDeniedError
from meshhost.protocol.messages import ErrorResponse, JsonResponse
from meshhost.room.client import RoomClient
from meshhost.room.services.reports.traces import MOST_WAITING
from meshhost.traces.span import MAX_BATCH, Span
from meshhost.usage import Tally, reporting_to

Joined = Callable[..., AbstractAsyncContextManager[RoomClient]]
KEPT = JsonResponse(json={"kept": 1})


def span(number: int = 0) -> Span:
    return Span("a" * 32, f"{number:016x}", "", "work", 5.0, 1.0)


def ids_of(message: Any) -> list[int]:
    return [int(each["id"], 16) for each in message.header["spans"]]


class WatchedTally(Tally):
    """Says when something was dropped."""

    def __init__(self) -> None:
        super().__init__()
        self.counted = asyncio.Event()

    def dropped(self, spans: int) -> None:
        super().dropped(spans)
        self.counted.set()


def dropped(tally: Tally) -> int:
    return tally.sums().dropped_spans


@pytest.fixture
def offering(fake: Any) -> Any:
    """A server that keeps spans."""
    fake.hello[-1][1]["meshhost"] = {"version": 1, "extensions": ["traces"]}
    return fake


async def test_spans_that_come_within_a_moment_go_together(offering: Any, joined: Joined) -> None:
    async with joined() as room:
        for number in range(MAX_BATCH + 5):
            room.traces.add(span(number))
        assert ids_of(await offering.answer(KEPT, "traces.report")) == list(range(MAX_BATCH))
        assert ids_of(await offering.answer(KEPT, "traces.report")) == list(range(MAX_BATCH, MAX_BATCH + 5))
        room.traces.add(span(1))
        assert ids_of(await offering.answer(KEPT, "traces.report")) == [1]


async def test_a_thread_may_report(offering: Any, joined: Joined) -> None:
    async with joined() as room:
        traces = room.traces
        thread = threading.Thread(target=lambda: traces.add(span(7)))
        thread.start()
        assert ids_of(await offering.answer(KEPT, "traces.report")) == [7]
        thread.join()


async def test_what_is_too_much_is_dropped_and_counted(offering: Any, joined: Joined) -> None:
    tally = Tally()
    async with joined() as room:
        with reporting_to(tally):
            for number in range(MOST_WAITING + 3):
                room.traces.add(span(number))
        assert dropped(tally) == 3
        for _ in range(MOST_WAITING // MAX_BATCH):
            await offering.answer(KEPT, "traces.report")
    assert dropped(tally) == 3


async def test_the_last_spans_are_sent_when_the_room_is_left(offering: Any, joined: Joined) -> None:
    async with joined() as room:
        room.traces.add(span(9))
        answering = asyncio.get_running_loop().create_task(offering.answer(KEPT, "traces.report"))
    assert ids_of(await answering) == [9]


async def test_a_silent_server_holds_nobody_and_its_spans_are_counted(offering: Any, joined: Joined) -> None:
    tally = Tally()
    async with joined() as room:
        with reporting_to(tally):
            room.traces.add(span())
        async with asyncio.timeout(10):
            await room.close()
        assert dropped(tally) == 1
        with reporting_to(tally):
            room.traces.add(span())
        assert dropped(tally) == 2
        room.traces.add(span())  # nobody counts


async def test_spans_that_the_server_refuses_are_counted_and_none_are_offered_any_more(
    offering: Any, joined: Joined
) -> None:
    tally = WatchedTally()
    async with joined() as room:
        assert room.traces.is_offered
        with reporting_to(tally):
            room.traces.add(span())
        denied = ErrorResponse("traces.report is not allowed", code=AccessDeniedError.code)
        await offering.answer(denied, "traces.report")
        await tally.counted.wait()
        assert not room.traces.is_offered
        assert not room.traces.may_begin()


async def test_a_server_that_keeps_none_is_not_bothered(fake: Any, joined: Joined) -> None:
    async with joined() as room:
        assert not room.traces.is_offered
        assert not room.traces.may_begin()
    assert not RoomClient(protocol=fake).traces.is_offered


async def test_few_traces_begin_without_a_message(offering: Any, joined: Joined) -> None:
    async with joined() as room:
        begun = sum(room.traces.may_begin() for _ in range(100))
        assert 5 <= begun < 50

"""Requests that one connection makes at the same time are answered together, and each exactly once."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from meshhost.errors import ConnectionLostError, NotFoundError
from meshhost.protocol.messages import ErrorResponse, JsonResponse
from meshhost.server.core.dispatch import Dispatcher
from meshhost.server.core.peer import CloseReason
from meshhost.server.core.requests import Answer, Body, Operation, Request


class _Number(Body):
    number: int = 0


class _Adds:
    """Answers requests together when `go` is set, and notes which came together."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.go = asyncio.Event()
        self.begun = asyncio.Event()
        self.error: Exception | None = None
        self.counted: list[tuple[str, str]] = []
        self.dispatch = Dispatcher(
            {
                "add": Operation(_Number, self._one, run_many=self._many),
                "other": Operation(_Number, self._one),
            },
            count=lambda *outcome: self.counted.append(outcome),
        )

    async def _one(self, request: Request, body: _Number) -> Answer:
        self.batches.append([-body.number])
        return JsonResponse(json=-body.number)

    async def _many(self, requests: Sequence[tuple[Request, _Number]]) -> Sequence[Answer | Exception]:
        self.batches.append([body.number for _, body in requests])
        self.begun.set()
        await self.go.wait()
        if self.error is not None:
            raise self.error
        return [NotFoundError("zero") if not body.number else JsonResponse(json=body.number) for _, body in requests]


@pytest.fixture
def adds() -> _Adds:
    return _Adds()


def ask(served: Any, numbers: Sequence[int], type: str = "add") -> None:
    """Make these requests in one turn of the loop."""
    for number in numbers:
        assert served.far.send_at_once(served.client.request(type, {"number": number})[1])


async def test_each_is_answered_for_itself(serving: Any, adds: _Adds) -> None:
    adds.go.set()
    async with serving(adds.dispatch) as served:
        ask(served, [1, 0, 2])
        assert await served.reply() == JsonResponse(json=1)
        refused = await served.reply()
        assert (refused.text, refused.code) == ("zero", NotFoundError.code)
        assert await served.reply() == JsonResponse(json=2)
    assert adds.batches == [[1, 0, 2]]
    assert adds.counted == [("add", "accepted"), ("add", "refused"), ("add", "accepted")]


async def test_what_comes_after_another_operation_is_not_answered_with_what_came_before(
    serving: Any, adds: _Adds
) -> None:
    adds.go.set()
    async with serving(adds.dispatch) as served:
        ask(served, [1])
        ask(served, [2], "other")
        ask(served, [3, 4])
        assert [(await served.reply()).json for _ in range(4)] == [1, -2, 3, 4]
    assert adds.batches == [[1], [-2], [3, 4]]


async def test_those_that_come_while_others_are_answered_wait_for_none_of_them(serving: Any, adds: _Adds) -> None:
    async with serving(adds.dispatch) as served:
        ask(served, [1])
        await adds.begun.wait()
        adds.begun.clear()
        ask(served, [2])
        await adds.begun.wait()
        adds.go.set()
        assert [(await served.reply()).json for _ in range(2)] == [1, 2]


async def test_a_failure_of_all_is_the_answer_of_each(serving: Any, adds: _Adds) -> None:
    adds.go.set()
    adds.error = NotFoundError("gone")
    async with serving(adds.dispatch) as served:
        ask(served, [1, 2])
        assert [await served.reply() for _ in range(2)] == [ErrorResponse(text="gone", code=NotFoundError.code)] * 2


async def test_no_more_are_in_progress_than_may_be(serving: Any, adds: _Adds) -> None:
    async with serving(adds.dispatch, max_requests=2) as served:
        ask(served, [1, 2, 3, 4, 5])
        await adds.begun.wait()
        assert adds.batches == [[1, 2]]
        adds.go.set()
        assert [(await served.reply()).json for _ in range(5)] == [1, 2, 3, 4, 5]


async def test_all_in_progress_get_the_reason_of_a_close_once(serving: Any, adds: _Adds) -> None:
    async with serving(adds.dispatch) as served:
        ask(served, [1, 2])
        await adds.begun.wait()
        served.connection.close(CloseReason.ROOM_ENDED, "over")
        refusal = ErrorResponse(text="over", code=ConnectionLostError.code)
        assert [await served.reply() for _ in range(2)] == [refusal] * 2
        with pytest.raises(ConnectionLostError):
            await served.next()
    assert adds.counted == [("add", "cancelled")] * 2


async def test_an_answer_that_waits_for_room_at_a_close_is_replaced_by_its_reason(
    serving: Any, adds: _Adds, until: Any
) -> None:
    async with serving(adds.dispatch, max_waiting_bytes=1) as served:
        ask(served, [1, 2, 3])
        await adds.begun.wait()
        served.far.hold()
        adds.go.set()
        await until(lambda: len(adds.counted) == 3)
        served.connection.close(CloseReason.ROOM_ENDED, "over")
        served.far.release()
        refusal = ErrorResponse(text="over", code=ConnectionLostError.code)
        assert [await served.reply() for _ in range(3)] == [JsonResponse(json=1), refusal, refusal]


async def test_a_request_that_is_given_up_meanwhile_leaves_the_others_alone(serving: Any, adds: _Adds) -> None:
    async with serving(adds.dispatch) as served:
        first = await served.send("add", {"number": 1})
        ask(served, [2])
        await adds.begun.wait()
        await served.notify("request.cancel", {"id": first})
        adds.go.set()
        assert [(await served.reply()).json for _ in range(2)] == [1, 2]


async def test_a_connection_that_breaks_leaves_none_in_progress(serving: Any, adds: _Adds) -> None:
    async with serving(adds.dispatch) as served:
        ask(served, [1, 2])
        await adds.begun.wait()
    assert adds.counted == [("add", "cancelled")] * 2

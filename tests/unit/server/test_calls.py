"""Calls that await the answer of a participant."""

import asyncio
from typing import Any

import pytest

from meshhost.errors import LimitExceededError, RequestTimeoutError, ToolError
from meshhost.identity.grants import ApiScope
from meshhost.server.core.participants import Participant
from meshhost.server.services.agents.calls import Call, PendingCalls

SOMEWHERE: Any = object()


def participant(name: str) -> Participant:
    return Participant(name=name, role="agent", scope=ApiScope(), key_id=None, expires_at=None)


def a_call(provider: Participant, key: int | str, caller_key: str | None = None) -> Call:
    return Call(provider, key, SOMEWHERE, CALLER, caller_key)


CALLER = participant("caller")


async def test_each_call_ends_by_what_happens_to_it() -> None:
    calls, one, two = PendingCalls(), participant("one"), participant("two")
    made = [a_call(one, 1), a_call(one, "task"), a_call(two, 1, "key"), a_call(two, 2, "other")]
    async with asyncio.TaskGroup() as tasks:
        waiting = [tasks.create_task(_outcome(calls.wait(call, timeout=60))) for call in made]
        await asyncio.sleep(0)
        assert len(calls) == 4
        calls.answer(one, 1, {"a": 1}, b"x")
        calls.fail(one)  # what is answered already stays so
        calls.answer(one, 1, {"a": 2}, b"")
        calls.abandon(CALLER, "key")
        calls.abandon(two, "other")  # not its call
        calls.answer(two, 3, {}, b"")  # not a call
        calls.answer_unreadable(two, 2, LimitExceededError("too large"))
    outcomes = [task.result() for task in waiting]
    assert outcomes[0] == ({"a": 1}, b"x")
    assert outcomes[1] == "the participant that was called has left the room"
    assert outcomes[2] == "the caller no longer waits for the answer"
    assert outcomes[3][0]["text"] == "the answer cannot be passed on: too large"
    assert len(calls) == 0


async def test_the_deadline_ends_a_wait() -> None:
    calls = PendingCalls()
    with pytest.raises(RequestTimeoutError):
        await calls.wait(a_call(participant("one"), 1), timeout=0)
    assert len(calls) == 0


async def test_a_wait_that_is_cancelled_as_its_call_fails_leaves_nothing_unlooked_at() -> None:
    calls, one = PendingCalls(), participant("one")
    task = asyncio.get_running_loop().create_task(calls.wait(a_call(one, 1), timeout=60))
    await asyncio.sleep(0)
    calls.fail(one)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(calls) == 0


async def _outcome(waiting: Any) -> Any:
    try:
        return await waiting
    except ToolError as error:
        return str(error)

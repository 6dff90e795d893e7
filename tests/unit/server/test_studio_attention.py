"""What a room server says needs attention, and in which order; and answers that are made once for all who ask."""

import asyncio

import pytest

from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.quotas.quota import Resource, ServerQuota
from meshhost.server.calling.records import CallOutcome, CallRecord
from meshhost.server.fresh import Fresh
from meshhost.server.studio.attention import Attention, near_quota, of_queue, of_service, of_waiting, worst_first
from meshhost.stores.queues import QueueKey, QueueStats
from meshhost.testing.clock import FakeClock

ROOM = RoomKey(TenantId("acme"), "den")
JOBS = QueueKey(ROOM, "jobs")


def stats(*, ready: int = 0, dead: int = 0, is_paused: bool = False) -> QueueStats:
    return QueueStats("jobs", ready, 0, 0, dead, None, 0, is_paused)


def test_a_queue_in_order_needs_no_attention() -> None:
    assert list(of_queue(JOBS, stats(ready=3))) == []
    assert list(of_queue(JOBS, stats(is_paused=True))) == []


def test_dead_messages_are_an_error_and_a_paused_queue_with_work_a_warning() -> None:
    dead, paused = of_queue(JOBS, stats(ready=1, dead=2, is_paused=True))
    assert (dead.kind, dead.severity, dead.value, dead.text) == (
        "dead",
        "error",
        2,
        "2 dead messages: read why, then replay",
    )
    assert (paused.kind, paused.severity, paused.text) == ("paused", "warning", "paused, with 1 message ready")


def test_a_message_that_nobody_takes_for_five_minutes_is_stuck() -> None:
    assert list(of_waiting(JOBS, 1, since=1000, now=1299)) == []
    [stuck] = of_waiting(JOBS, 1, since=1000, now=1301)
    assert (stuck.kind, stuck.severity, stuck.since, stuck.queue) == ("stuck", "error", 1000, "jobs")


def test_an_agent_that_is_not_in_its_room_is_shown_with_the_reason() -> None:
    record = CallRecord("http://host/agent", "/agent", "poet")
    record.called("http://host/agent", 10.0, CallOutcome.UNREACHABLE, error="connection refused")
    record.called("http://host/agent", 20.0, CallOutcome.REFUSED, status=429, error="quarantined")
    found = of_service(ROOM, record)
    assert (found.kind, found.service, found.since, found.value) == ("service", "poet", 10.0, 2)
    assert found.text == "not in its room: refused (429), quarantined"


@pytest.mark.parametrize(("used", "severity"), [(79, None), (80, "warning"), (100, "error")])
def test_a_quota_that_is_nearly_used_up_is_a_warning(used: int, severity: str | None) -> None:
    found = list(near_quota("acme", {Resource.AGENTS: used, Resource.FILES: 10**9}, ServerQuota(max_agents=100)))
    assert [each.severity for each in found] == ([] if severity is None else [severity])


def test_errors_come_first_then_what_is_about_more() -> None:
    few = Attention("dead", "error", "acme", "a", "q", value=1)
    many = Attention("dead", "error", "acme", "b", "q", value=9)
    warning = Attention("paused", "warning", "acme", "a", "q", value=100)
    assert worst_first([warning, few, many]) == [many, few, warning]


async def test_an_answer_is_made_once_for_all_who_ask_meanwhile() -> None:
    clock, made, go = FakeClock(), list[str](), asyncio.Event()

    async def make(key: str) -> int:
        await go.wait()
        made.append(key)
        return len(made) // 3

    fresh = Fresh(make, seconds=1.0, clock=clock)
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(fresh.of("a")) for _ in range(5)]
        go.set()
    assert {task.result().number for task in asked} == {1}
    assert made == ["a"]
    clock.skip(0.9)
    await fresh.of("a")
    assert made == ["a"]
    clock.skip(0.2)
    assert (await fresh.of("a")).number == 1, "the value is the same"
    clock.skip(1.1)
    assert (await fresh.of("a")).number == 2, "the value is another one"
    assert made == ["a"] * 3


async def test_what_takes_long_is_made_more_rarely_and_what_nobody_asks_for_is_forgotten() -> None:
    clock, made = FakeClock(), list[str]()

    async def make(key: str) -> str:
        made.append(key)
        clock.skip(1.0)
        return key

    fresh = Fresh(make, seconds=1.0, most=2, clock=clock)
    await fresh.of("a")
    clock.skip(19.0)
    await fresh.of("a")
    assert made == ["a"]
    for key in ("b", "c", "a"):
        await fresh.of(key)
    assert made == ["a", "b", "c", "a"]

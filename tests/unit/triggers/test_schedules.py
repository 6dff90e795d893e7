"""Schedules are made, changed, paused and sent for: each occurrence once, missed ones as their owner says."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from meshhost.errors import InvalidRequestError, LimitExceededError, NotFoundError, RoomError, TenantSuspendedError
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.queues.over_engine import queue_service
from meshhost.queues.service import QueueService
from meshhost.stores.engine import Engine
from meshhost.stores.memory.triggers import MemoryTriggerStore
from meshhost.stores.queues import HolderId, QueueKey
from meshhost.stores.triggers.contract import LogEntry, Trigger, TriggerKind, TriggerLimits
from meshhost.testing.clock import FakeClock
from meshhost.triggers.scheduler import MOST_MISSED, ON_TIME_SECONDS, Scheduler, is_undone
from meshhost.triggers.schedules import Schedule, Schedules, ScheduleSpec, ScheduleState

ROOM, RIVAL = RoomKey(TenantId("acme"), "lobby"), TenantId("rival")
JOBS = QueueKey(ROOM, "jobs")
HOUR = 3600.0


@pytest.fixture
async def queues(engine: Engine, clock: FakeClock) -> AsyncIterator[QueueService]:
    async with queue_service(engine, clock=clock) as service:
        yield service


@pytest.fixture
def scheduler(engine: Engine, queues: QueueService, clock: FakeClock) -> Scheduler:
    return Scheduler(engine.triggers, queues, clock=clock)


@pytest.fixture
def schedules(engine: Engine, queues: QueueService, clock: FakeClock, scheduler: Scheduler) -> Schedules:
    return Schedules(engine.triggers, queues, clock=clock, on_change=scheduler.wake)


def hourly(**values: Any) -> ScheduleSpec:
    return ScheduleSpec.parse({"queue": "jobs", "message": {"do": "it"}, "every": HOUR} | values)


async def sent(queues: QueueService, clock: FakeClock) -> list[str]:
    """The occurrences for which there is a message, as hours after the begin, in order of sending."""
    try:
        found = await queues.store.stored(JOBS, after=0, limit=1000, max_bytes=10**9)
    except NotFoundError:
        return []
    return [message.headers.get("meshhost-occurrence", "now") for message in found]


async def settle_next(queues: QueueService) -> None:
    delivery = await queues.receive(JOBS, HolderId("worker"))
    assert delivery is not None
    await queues.ack(delivery.lease)


async def test_an_occurrence_puts_the_message_into_the_queue(
    schedules: Schedules, scheduler: Scheduler, queues: QueueService, clock: FakeClock
) -> None:
    made = await schedules.create(ROOM, hourly(headers={"x": "y"}, name="each hour"))
    clock.skip(HOUR)
    assert await scheduler.send_due() == pytest.approx(5.0)

    delivery = await queues.receive(JOBS, HolderId("worker"))
    assert delivery is not None
    assert json.loads(delivery.body) == {"do": "it"}
    assert delivery.headers == {
        "x": "y",
        "meshhost-schedule": made.id,
        "meshhost-occurrence": "2027-03-27T13:00:00Z",
    }
    shown = (await schedules.get(ROOM.tenant, made.id)).shown()
    assert shown["next_at"] == clock.time() + HOUR
    assert (shown["sent"], shown["last_at"], shown["last_message_id"]) == (1, clock.time(), "1")
    assert await schedules.runs(made) == [
        {"at": clock.time(), "outcome": "sent", "occurrence": clock.time(), "message_id": "1", "sent": 1}
    ]


async def test_the_task_sleeps_until_the_next_one_and_notices_one_that_is_made(
    schedules: Schedules, scheduler: Scheduler, queues: QueueService, clock: FakeClock
) -> None:
    task = asyncio.create_task(scheduler.run())
    await clock.advance(60.0)
    await schedules.create(ROOM, hourly(every=10.0))
    await clock.advance(31.0)
    assert len(await sent(queues, clock)) == 3
    clock.step(HOUR)  # the wall clock is set forward: 360 occurrences were missed, and one is sent for them
    await clock.advance(6.0)
    assert len(await sent(queues, clock)) == 4
    clock.step(-HOUR)  # and back: none is repeated
    await clock.advance(60.0)
    assert len(await sent(queues, clock)) == 4
    await clock.advance(HOUR)
    assert len(await sent(queues, clock)) > 5
    task.cancel()


async def test_a_store_that_fails_is_tried_again(
    engine: Engine, queues: QueueService, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing(MemoryTriggerStore):
        fails = True

        async def due(self, kind: TriggerKind, *, until: float, limit: int) -> Any:
            if self.fails:
                raise OSError("the disk is gone")
            return await super().due(kind, until=until, limit=limit)

    store = Failing(is_open=True)
    task = asyncio.create_task(Scheduler(store, queues, clock=clock).run())
    await Schedules(store, queues, clock=clock).create(ROOM, hourly(every=10.0))
    await clock.advance(11.0)
    store.fails = False
    await clock.advance(60.0)
    task.cancel()

    assert len(await sent(queues, clock)) >= 4
    assert "schedules are not known" in caplog.text


@pytest.mark.parametrize(
    ("missed", "late", "expected"),
    [
        ("skip", 5 * HOUR + ON_TIME_SECONDS + 1, []),
        ("skip", 5 * HOUR + ON_TIME_SECONDS, ["2027-03-27T17:00:00Z"]),
        ("once", 5 * HOUR + 600, ["2027-03-27T17:00:00Z"]),
        ("all", 3 * HOUR + 600, ["2027-03-27T13:00:00Z", "2027-03-27T14:00:00Z", "2027-03-27T15:00:00Z"]),
    ],
)
async def test_missed_occurrences_are_sent_as_the_owner_says(
    schedules: Schedules,
    scheduler: Scheduler,
    queues: QueueService,
    clock: FakeClock,
    missed: str,
    late: float,
    expected: list[str],
) -> None:
    made = await schedules.create(ROOM, hourly(missed=missed))
    clock.skip(late)
    await scheduler.send_due()

    assert await sent(queues, clock) == expected
    after = await schedules.get(ROOM.tenant, made.id)
    assert after.state.next == made.state.created_at + (late // HOUR + 1) * HOUR
    [run] = await schedules.runs(made)
    assert run["outcome"] == ("sent" if expected else "missed")
    assert run.get("left_out", 0) == late // HOUR - len(expected)


async def test_of_a_thousand_missed_occurrences_the_newest_hundred_are_sent(
    schedules: Schedules, scheduler: Scheduler, queues: QueueService, clock: FakeClock
) -> None:
    await schedules.create(ROOM, hourly(cron="*/10 * * * *", every=None, missed="all"))
    clock.skip(1000 * 600.0)
    await scheduler.send_due()
    await scheduler.send_due()
    found = await sent(queues, clock)
    assert len(found) == MOST_MISSED
    assert found[-1] == "2027-04-03T10:40:00Z"


async def test_without_overlap_none_is_sent_while_one_is_undone(
    schedules: Schedules, scheduler: Scheduler, queues: QueueService, clock: FakeClock
) -> None:
    made = await schedules.create(ROOM, hourly(overlap=False, missed="all"))
    clock.skip(3 * HOUR)
    await scheduler.send_due()  # of three that were missed, one
    clock.skip(HOUR)
    await scheduler.send_due()
    assert await sent(queues, clock) == ["2027-03-27T13:00:00Z"]
    assert [run["outcome"] for run in await schedules.runs(made)] == ["overlap", "sent"]

    await settle_next(queues)
    clock.skip(HOUR)
    await scheduler.send_due()
    assert await sent(queues, clock) == ["2027-03-27T17:00:00Z"]
    await queues.delete(JOBS)
    clock.skip(HOUR)
    await scheduler.send_due()
    assert await sent(queues, clock) == ["2027-03-27T18:00:00Z"]
    assert not await is_undone(queues, QueueKey(ROOM, "nothing"), 1)


async def test_a_server_killed_between_sending_and_moving_on_sends_no_second_message(
    schedules: Schedules, engine: Engine, queues: QueueService, scheduler: Scheduler, clock: FakeClock
) -> None:
    class Killed(MemoryTriggerStore):
        async def replace(self, trigger: Trigger, entry: LogEntry | None = None) -> bool:
            raise asyncio.CancelledError

    killed = Killed(is_open=True)
    made = await schedules.create(ROOM, hourly(missed="all"))
    await killed.add(made.trigger())
    clock.skip(2 * HOUR)
    with pytest.raises(asyncio.CancelledError):
        await Scheduler(killed, queues, clock=clock).send_due()
    assert len(await sent(queues, clock)) == 2

    clock.skip(50 * HOUR)  # however long it takes until a server is there again
    await queues.drain(JOBS)
    await scheduler.send_due()
    assert len(await sent(queues, clock)) == 50
    assert (await schedules.get(ROOM.tenant, made.id)).state.message_id == 52


async def test_what_was_read_long_ago_is_read_again_before_it_is_sent(
    engine: Engine, queues: QueueService, clock: FakeClock
) -> None:
    class Slow(MemoryTriggerStore):
        async def due(self, kind: TriggerKind, *, until: float, limit: int) -> Any:
            found = await super().due(kind, until=until, limit=limit)
            clock.skip(self.stopped_for)
            return found

        stopped_for = 3 * HOUR  # as with SIGSTOP

    store = Slow(is_open=True)
    await Schedules(store, queues, clock=clock).create(ROOM, hourly())
    clock.skip(HOUR)
    scheduler = Scheduler(store, queues, clock=clock)
    await scheduler.send_due()
    assert await sent(queues, clock) == []
    store.stopped_for = 0.0
    await scheduler.send_due()
    assert await sent(queues, clock) == ["2027-03-27T16:00:00Z"]


async def test_a_schedule_that_cannot_be_moved_on_is_sent_for_once(queues: QueueService, clock: FakeClock) -> None:
    class ReadOnly(MemoryTriggerStore):
        fails = True

        async def replace(self, trigger: Trigger, entry: LogEntry | None = None) -> bool:
            if self.fails:
                raise OSError("the disk is read-only")
            return await super().replace(trigger, entry)

    store = ReadOnly(is_open=True)
    await Schedules(store, queues, clock=clock).create(ROOM, hourly())
    scheduler = Scheduler(store, queues, clock=clock)
    clock.skip(HOUR)
    with pytest.raises(OSError, match="read-only"):
        await scheduler.send_due()
    store.fails = False
    await scheduler.send_due()
    assert await sent(queues, clock) == ["2027-03-27T13:00:00Z"]


async def test_an_occurrence_that_cannot_be_sent_is_tried_again(
    schedules: Schedules, engine: Engine, queues: QueueService, clock: FakeClock
) -> None:
    suspended = True

    def check(room: RoomKey) -> None:
        if suspended:
            raise TenantSuspendedError("unpaid")

    scheduler = Scheduler(engine.triggers, queues, clock=clock, check_room=check)
    made = await schedules.create(ROOM, hourly())
    clock.skip(HOUR)
    for _ in range(3):
        await scheduler.send_due()
        clock.skip(31.0)
    found = await schedules.get(ROOM.tenant, made.id)
    assert "unpaid" in (found.state.error or "")
    assert [run["outcome"] for run in await schedules.runs(made)] == ["failed"]  # told once

    clock.skip(HOUR)
    await scheduler.send_due()
    assert await engine.triggers.next_due(TriggerKind.SCHEDULE) == clock.time() + 600.0

    suspended = False
    clock.skip(600.0)
    await scheduler.send_due()
    assert await sent(queues, clock) == ["2027-03-27T14:00:00Z"]
    assert (await schedules.get(ROOM.tenant, made.id)).state.error is None


async def test_what_was_sent_before_an_error_is_not_sent_again(
    schedules: Schedules, engine: Engine, queues: QueueService, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await schedules.create(ROOM, hourly(missed="all"))
    send, calls = queues.send, 0

    async def failing(*args: Any, **kwargs: Any) -> int:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise LimitExceededError("the queue is full")
        return await send(*args, **kwargs)

    monkeypatch.setattr(queues, "send", failing)
    scheduler = Scheduler(engine.triggers, queues, clock=clock)
    clock.skip(3 * HOUR)
    await scheduler.send_due()
    assert (await schedules.get(ROOM.tenant, made.id)).state.next == made.state.created_at + 2 * HOUR
    clock.skip(31.0)
    await scheduler.send_due()
    assert (await schedules.get(ROOM.tenant, made.id)).state.sent == 3
    assert len(await sent(queues, clock)) == 3


async def test_one_that_nobody_understands_does_not_hold_up_others(
    schedules: Schedules, engine: Engine, scheduler: Scheduler, queues: QueueService, clock: FakeClock
) -> None:
    await engine.triggers.add(Trigger("broken", TriggerKind.SCHEDULE, ROOM, "[]", clock.time()))
    await schedules.create(ROOM, hourly())
    clock.skip(HOUR)
    await scheduler.send_due()
    assert len(await sent(queues, clock)) == 1
    broken = await engine.triggers.find("broken")
    assert broken is not None
    assert broken.due_at == clock.time() + 30.0


async def test_the_second_of_two_servers_lets_the_first_know_the_newest_message(
    schedules: Schedules, engine: Engine, queues: QueueService, clock: FakeClock
) -> None:
    """The first found the former message undone and left the occurrence out; the second had sent for it."""
    made = await schedules.create(ROOM, hourly())

    class Second(MemoryTriggerStore):
        raced = False

        async def replace(self, trigger: Trigger, entry: LogEntry | None = None) -> bool:
            if not self.raced:
                self.raced = True
                present = Schedule.of(trigger)
                first = replace(present, state=replace(present.state, message_id=None))
                await super().replace(first.trigger())
            return await super().replace(trigger, entry)

    store = Second(is_open=True)
    await store.add(made.trigger())
    clock.skip(HOUR)
    await Scheduler(store, queues, clock=clock).send_due()
    found = await store.find(made.id)
    assert found is not None
    assert Schedule.of(found).state.message_id == 1
    # A schedule that was deleted meanwhile is let go.
    await store.delete_all(ROOM.tenant)
    await store.add(replace(Schedule.of(made.trigger()), id="other").trigger())
    store.raced = True

    async def gone(trigger: Trigger, entry: LogEntry | None = None) -> bool:
        await MemoryTriggerStore.delete_all(store, ROOM.tenant)
        return False

    store.replace = gone  # type: ignore[method-assign]
    await Scheduler(store, queues, clock=clock).send_due()


async def test_a_paused_schedule_sends_nothing_and_goes_on_with_its_next_occurrence(
    schedules: Schedules, scheduler: Scheduler, queues: QueueService, clock: FakeClock
) -> None:
    made = await schedules.create(ROOM, hourly(missed="all"))
    paused = await schedules.pause(made)
    assert paused.shown()["next_at"] is None
    clock.skip(5.5 * HOUR)
    await scheduler.send_due()
    assert await sent(queues, clock) == []
    resumed = await schedules.resume(made)
    assert resumed.state.next == made.state.created_at + 6 * HOUR
    assert (await schedules.resume(made)).state.next == resumed.state.next


async def test_a_single_time_that_passed_while_paused_is_sent_for_on_resume(
    schedules: Schedules, scheduler: Scheduler, queues: QueueService, clock: FakeClock
) -> None:
    made = await schedules.create(ROOM, hourly(every=None, at=clock.time() + 10), paused=True)
    clock.skip(HOUR)
    await schedules.resume(made)
    await scheduler.send_due()
    assert await sent(queues, clock) == ["2027-03-27T12:00:10Z"]
    ended = await schedules.get(ROOM.tenant, made.id)
    assert ended.state.next is None
    assert (await schedules.resume(ended)).state.next is None


async def test_once_ends_a_schedule_after_its_first_occurrence(
    schedules: Schedules, scheduler: Scheduler, queues: QueueService, clock: FakeClock
) -> None:
    await schedules.create(ROOM, hourly(once=True))
    clock.skip(HOUR)
    await scheduler.send_due()
    clock.skip(HOUR)
    await scheduler.send_due()
    assert await sent(queues, clock) == ["2027-03-27T13:00:00Z"]


async def test_a_run_now_is_beside_the_occurrences(
    schedules: Schedules, scheduler: Scheduler, queues: QueueService, clock: FakeClock
) -> None:
    made = await schedules.create(ROOM, hourly(), paused=True)
    assert [await schedules.run_now(made), await schedules.run_now(made)] == [1, 2]
    assert await sent(queues, clock) == ["now", "now"]
    assert (await schedules.get(ROOM.tenant, made.id)).state.sent == 2
    assert [run["outcome"] for run in await schedules.runs(made)] == ["run-now", "run-now"]


async def test_a_schedule_gets_another_spec(schedules: Schedules, clock: FakeClock) -> None:
    made = await schedules.create(ROOM, hourly())
    changed = await schedules.change(made, hourly(every=None, cron="0 18 * * *", timezone="Europe/Berlin"), paused=True)
    assert changed.state.next == made.state.created_at + 5 * HOUR
    assert changed.state.is_paused
    assert not (await schedules.change(made, hourly(), paused=False)).state.is_paused
    with pytest.raises(InvalidRequestError, match="at: expected a time in the future"):
        await schedules.change(made, hourly(every=None, at=5.0))
    with pytest.raises(InvalidRequestError, match="at: expected a time in the future"):
        await schedules.create(ROOM, hourly(every=None, at=5.0))


async def test_schedules_belong_to_a_tenant_and_a_room(
    schedules: Schedules, engine: Engine, queues: QueueService, clock: FakeClock
) -> None:
    made = await schedules.create(ROOM, hourly())
    assert [each.id for each in await schedules.list(ROOM.tenant, "lobby")] == [made.id]
    assert await schedules.list(RIVAL) == []
    for tenant, room in ((RIVAL, None), (ROOM.tenant, "mail")):
        with pytest.raises(NotFoundError):
            await schedules.get(tenant, made.id, room=room)
    few = Schedules(engine.triggers, queues, clock=clock, limits=TriggerLimits(1, 1))
    with pytest.raises(LimitExceededError):
        await few.create(ROOM, hourly())
    await schedules.delete(made)
    with pytest.raises(NotFoundError):
        await schedules.delete(made)


async def test_a_change_that_is_always_second_is_given_up(queues: QueueService, clock: FakeClock) -> None:
    class Busy(MemoryTriggerStore):
        async def replace(self, trigger: Trigger, entry: LogEntry | None = None) -> bool:
            return False

    schedules = Schedules(Busy(is_open=True), queues, clock=clock)
    made = await schedules.create(ROOM, hourly())
    with pytest.raises(RoomError, match="changed by others"):
        await schedules.pause(made)


async def test_a_room_knows_what_is_due_soon(schedules: Schedules, scheduler: Scheduler) -> None:
    await schedules.create(ROOM, hourly())
    assert await scheduler.has_due(ROOM, within=HOUR)
    assert not await scheduler.has_due(ROOM, within=HOUR - 1)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"queue": ""}, "queue: "),
        ({"queue": "a\0"}, "name: expected text without the character NUL"),
        ({"message": "x" * 70_000}, "message: expected at most 65536 bytes"),
        ({"queue": "\ud800"}, "queue: .*unicode"),
        ({"every": None}, "cron, every, at: expected one of these three"),
        ({"cron": "* * * * *"}, "cron, every, at: expected one of these three"),
        ({"every": 1}, "every: expected from 10 seconds"),
        ({"every": None, "cron": "x * * * *"}, "cron: minute: "),
        ({"every": None, "at": "tomorrow"}, "at: expected seconds since 1970, or a time"),
        ({"every": None, "at": -5}, "at: expected a time between"),
        ({"timezone": "Mars"}, "timezone: expected the name"),
        ({"missed": "twice"}, "missed: "),
        ({"more": 1}, "more: "),
        ({"headers": {"a": 1}}, "headers.a: "),
        ({"headers": {"Meshhost-Hook": "x"}}, "headers: expected no names that begin with 'meshhost-'"),
    ],
)
def test_a_wrong_spec_is_told_which_field_is_wrong(values: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidRequestError, match=says):
        hourly(**values)


def test_a_time_without_an_offset_is_in_the_zone_of_the_schedule() -> None:
    for at in ("2027-07-01T12:00", "2027-07-01T10:00Z", "2027-07-01T05:30-04:30"):
        spec = hourly(every=None, at=at, timezone="Europe/Berlin")
        schedule = Schedule.of(Schedule("i", ROOM, spec, ScheduleState(0.0, 1.0)).trigger())
        assert schedule.timing.after(0.0) == 1_814_436_000.0

"""Sends the messages of schedules that are due: a task that runs in every room server.

All servers over one store find the same schedules due, and each may be killed between any two steps. An occurrence is sent
once all the same. Its message has a name made of the schedule and the occurrence, under which a queue stores one message, no
matter how many servers send it; then the schedule moves on by compare-and-set, and the second server does nothing. A server
that was killed in between leaves the occurrence due, and the next one sends it under the same name, which stores nothing. The
queue remembers names for a week: a schedule that was read is sent for at once, or read again.

What is due is judged by the wall clock, and what comes next by the occurrence before. So a clock that is set back delays
occurrences and repeats none; one that is set forward makes occurrences missed, as when no server was there. The task looks
every few seconds of the monotonic clock, which notices both, and what other servers made.

An occurrence that cannot be sent (its queue is full, its tenant is over its quota or suspended, its room is being imported, the
key of its maker has ended) stays due and is tried again; by then it may count as missed. `run` may be cancelled at any moment.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from meshhost.backoff import Backoff
from meshhost.clock import Clock, SystemClock
from meshhost.errors import MeshhostError, NotFoundError
from meshhost.identity.tenant import RoomKey
from meshhost.protocol.json_values import dump_json
from meshhost.queues.service import QueueService
from meshhost.queues.waiters import wait_at_most
from meshhost.stores.messages import ENDED
from meshhost.stores.queues import QueueKey
from meshhost.stores.triggers.contract import LogEntry, Trigger, TriggerKind, TriggerStore
from meshhost.triggers.makers import CheckMaker
from meshhost.triggers.schedules import Schedule, message_for

__all__ = ["MOST_MISSED", "ON_TIME_SECONDS", "Scheduler", "is_undone"]

logger = logging.getLogger(__name__)

# An occurrence that is later than this was missed.
ON_TIME_SECONDS: Final = 60.0
# With `missed = "all"`, how many are sent at once; older ones are left out.
MOST_MISSED: Final = 100
LOOK_SECONDS: Final = 5.0
RETRY_SECONDS: Final = 30.0
LONGEST_RETRY_SECONDS: Final = 600.0
# A schedule that was read longer ago may have been dealt with elsewhere, and the queue forgets names.
_STALE_SECONDS: Final = 30.0
_AT_ONCE: Final = 50
# A due time and the clock may differ by rounding: wait a moment instead of spinning.
_SHORTEST_SECONDS: Final = 0.01
_BACKOFF: Final = Backoff(first_delay=0.5, max_delay=30.0)


class Scheduler:
    """Sends for the schedules in `store`. `check_room` raises a MeshhostError when a room may be sent nothing now,
    `check_maker` when the key of a schedule has ended.

    `count` counts what became of a schedule that was due: its kind, and the outcome.
    """

    def __init__(
        self,
        store: TriggerStore,
        queues: QueueService,
        *,
        clock: Clock | None = None,
        check_room: Callable[[RoomKey], None] = lambda _: None,
        check_maker: CheckMaker = lambda *_: None,
        count: Callable[[str, str], None] = lambda *_: None,
    ) -> None:
        self._count = count
        self._store = store
        self._queues = queues
        self._clock = clock or SystemClock()
        self._check_room = check_room
        self._check_maker = check_maker
        self._changed = asyncio.Event()

    def wake(self) -> None:
        """Look again now: something may be due earlier than was known."""
        self._changed.set()

    async def has_due(self, room: RoomKey, *, within: float) -> bool:
        """Whether a schedule of the room is due within `within` seconds."""
        return await self._store.is_due(room, TriggerKind.SCHEDULE, until=self._clock.time() + within)

    async def run(self) -> None:
        """Send until cancelled. A store that fails is tried again."""
        failures = 0
        while True:
            self._changed.clear()
            try:
                pause = await self.send_due()
                failures = 0
            except (OSError, TimeoutError, MeshhostError) as error:
                failures += 1
                pause = _BACKOFF.longest(failures)
                logger.warning("schedules are not known", extra={"pause": pause, "reason": str(error)})
            await wait_at_most(self._changed, pause, self._clock)

    async def send_due(self) -> float:
        """Deal with what is due now; return the seconds until the next look. Raises what the store raises."""
        now = self._clock.time()
        found = await self._store.due(TriggerKind.SCHEDULE, until=now, limit=_AT_ONCE)
        results = await asyncio.gather(*(self._handle(trigger, now) for trigger in found), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        due = await self._store.next_due(TriggerKind.SCHEDULE)
        left = LOOK_SECONDS if due is None else due - self._clock.time()
        return min(max(left, _SHORTEST_SECONDS), LOOK_SECONDS)

    async def _handle(self, trigger: Trigger, now: float) -> None:
        try:
            await self._run_due(trigger, now)
        except (OSError, TimeoutError, MeshhostError):
            raise
        except Exception:
            # One that nobody understands must not stand before the others for ever.
            logger.exception("schedule failed", extra={"tenant": trigger.room.tenant, "schedule": trigger.id})
            await self._store.replace(replace(trigger, due_at=now + RETRY_SECONDS, version=trigger.version + 1))

    async def _run_due(self, trigger: Trigger, now: float) -> None:
        run = _Run(Schedule.of(trigger), now)
        try:
            self._check_room(trigger.room)
            self._check_maker(trigger.room, run.schedule.maker)
            await self._follow(run)
        except (OSError, TimeoutError, MeshhostError) as error:
            run.failed(str(error) or type(error).__name__)
        if run.is_stale:
            return
        # Beside us, another server may have done the same.
        if await self._store.replace(run.next_version(), run.entry()):
            self._count(trigger.kind, run.outcome)
        elif run.message_id is not None:
            await self._remember(trigger.id, run.message_id)

    async def _follow(self, run: "_Run") -> None:
        for occurrence in run.chosen():
            if abs(self._clock.time() - run.now) > _STALE_SECONDS:
                run.is_stale = True
                return
            run.at = occurrence
            schedule, last = run.schedule, run.message_id or run.schedule.state.message_id
            if not schedule.spec.overlap and last is not None and await is_undone(self._queues, schedule.queue, last):
                run.overlapping += 1
                continue
            run.message_id = await self._queues.send(schedule.queue, message_for(schedule, occurrence))
            run.sent += 1

    async def _remember(self, schedule_id: str, message_id: int) -> None:
        """Another server moved the schedule on, perhaps without having sent: let it know the newest message all the same."""
        while (trigger := await self._store.find(schedule_id)) is not None:
            present = Schedule.of(trigger)
            if (present.state.message_id or 0) >= message_id:
                return
            if await self._store.replace(present.changed(message_id=message_id).trigger(due_at=trigger.due_at)):
                return


async def is_undone(queues: QueueService, queue: QueueKey, message_id: int) -> bool:
    """Whether a message waits or is worked on: it has not ended, and its queue is there."""
    try:
        record = await queues.store.get(queue, message_id)
    except NotFoundError:
        return False
    return record is not None and record.state not in ENDED


class _Run:
    """What is done for one schedule that is due, and what it becomes by that."""

    def __init__(self, schedule: Schedule, now: float) -> None:
        self.schedule = schedule
        self.now = now
        self.at: float | None = None  # the occurrence that is dealt with
        self.message_id: int | None = None
        self.sent = 0
        self.overlapping = 0
        self.is_stale = False
        self._error: str | None = None
        since = now if schedule.state.next is None else schedule.state.next
        self._due = schedule.timing.up_to(now, since=since, most=MOST_MISSED)

    def chosen(self) -> list[float]:
        """The occurrences to send for. The newest may be on time; those before it were missed."""
        if not self._due or self.schedule.spec.missed == "all":
            return [*self._due]
        newest = self._due[-1]
        is_wanted = self.schedule.spec.missed == "once" or self.now - newest <= ON_TIME_SECONDS
        return [newest] if is_wanted else []

    def failed(self, error: str) -> None:
        """The occurrence could not be sent."""
        self._error = error

    def next_version(self) -> Trigger:
        """The schedule as it is after this."""
        state = self.schedule.state
        sent = {"message_id": self.message_id or state.message_id, "sent": state.sent + self.sent}
        if self._error is not None:
            # What was sent before it failed is not sent again.
            due = state.next if self.at is None else self.at
            # The longer it fails, the longer it waits: a thousand schedules of a suspended tenant cost little.
            late = 0.0 if due is None or state.error is None else self.now - due
            retry = min(max(late / 2, RETRY_SECONDS), LONGEST_RETRY_SECONDS)
            return self.schedule.changed(next=due, error=self._error, **sent).trigger(due_at=self.now + retry)
        last = self._due[-1] if self._due else self.now
        following = None if self.schedule.spec.once else self.schedule.timing.after(max(self.now, last))
        return self.schedule.changed(next=following, last=last, error=None, **sent).trigger()

    def entry(self) -> LogEntry | None:
        """What its owner reads of it. An error that goes on is told once."""
        if self._error is not None and self._error == self.schedule.state.error:
            return None
        content: dict[str, Any] = {"outcome": self.outcome, "occurrence": self._due[-1] if self._due else self.now}
        if self.message_id is not None:
            content |= {"message_id": str(self.message_id), "sent": self.sent}
        if left_out := len(self._due) - self.sent:
            content["left_out"] = left_out
        if self._error is not None:
            content["error"] = self._error
        return LogEntry(self.now, dump_json(content))

    @property
    def outcome(self) -> str:
        """What became of it, in a word."""
        if self._error is not None:
            return "failed"
        if self.sent:
            return "sent"
        return "overlap" if self.overlapping else "missed"

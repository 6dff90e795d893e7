"""Schedules of rooms: what one is, and how it is made, changed and shown.

A schedule puts one message into one queue at each of its occurrences. `ScheduleSpec` is what its owner says;
`ScheduleState` is what became of it so far, above all `next`, the time of the first occurrence that nobody has dealt with. Both
are kept as the content of one trigger, so that they change together or not at all. The scheduler (`scheduler.py`) moves the
state on; `Schedules` does everything else, for REST. Every change is a compare-and-set: one that came too late reads the
schedule again and tries again.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from meshhost.clock import Clock, SystemClock
from meshhost.errors import InvalidRequestError, NotFoundError, RoomError
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.protocol.json_values import dump_json
from meshhost.queues.reserved import check_header_names, server_id
from meshhost.queues.service import QueueService
from meshhost.stores.messages import NewMessage
from meshhost.stores.queues import QueueKey
from meshhost.stores.shared.refusals import check_name
from meshhost.stores.triggers.contract import LogEntry, Trigger, TriggerKind, TriggerLimits, TriggerStore
from meshhost.triggers.makers import NOBODY, CheckMaker, Maker, check_share, reason_against
from meshhost.triggers.timing import Cron, Interval, Once, Timing, check_time, shortest_gap, zone_of
from meshhost.validation import invalid_request

__all__ = ["Schedule", "ScheduleSpec", "ScheduleState", "Schedules", "message_for", "new_trigger_id", "timing_of"]

MAX_MESSAGE_BYTES: Final = 64 * 1024
# A server that was killed after it sent for an occurrence has this long to come back and not send again.
REMEMBER_SECONDS: Final = 7 * 24 * 3600.0
# How often somebody else may be first before a change is given up.
_TRIES: Final = 20
Name: TypeAlias = Annotated[str, Field(max_length=200)]


class ScheduleSpec(BaseModel):
    """What a schedule does and when. Exactly one of `cron`, `every` (seconds) and `at` says when.

    `at` is a time in seconds since the epoch or in ISO 8601; one without an offset is in `timezone`, as a cron line is. `once`
    ends the schedule after its first occurrence. `missed` is what is done with occurrences that no server was there for: none
    is sent, the last one, or all. Without `overlap`, an occurrence is left out while the message of an earlier one is undone.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    queue: str = Field(min_length=1, max_length=200)
    message: Any
    name: Name = ""
    headers: dict[Name, Annotated[str, Field(max_length=2000)]] = Field(default_factory=dict, max_length=20)
    cron: str | None = None
    every: float | None = None
    at: float | str | None = None
    timezone: str = "UTC"
    once: bool = False
    missed: Literal["skip", "once", "all"] = "once"
    overlap: bool = True
    annotations: dict[Name, Annotated[str, Field(max_length=2000)]] = Field(default_factory=dict, max_length=20)

    @staticmethod
    def parse(values: Any) -> ScheduleSpec:
        """Return what these JSON values say. Raises InvalidRequestError, which names the field."""
        try:
            spec = ScheduleSpec.model_validate(values)
        except ValidationError as error:
            raise invalid_request(error) from None
        check_name(QueueKey(RoomKey(TenantId(""), ""), spec.queue))
        check_header_names(spec.headers)
        if len(dump_json(spec.model_dump())) > MAX_MESSAGE_BYTES:
            raise InvalidRequestError("message", f"expected at most {MAX_MESSAGE_BYTES} bytes, headers included")
        timing_of(spec, created_at=0.0)
        return spec


@dataclass(frozen=True, slots=True)
class ScheduleState:
    """What became of a schedule. `next` is None when it has ended; `last` is the newest occurrence that was dealt with.

    `error` says why the occurrence at `next` could not be sent yet; `sent` counts messages. `made_by` and
    `key_id` say who made it (see `Maker`). `gap` is the shortest time between two occurrences, as far as it was looked ahead.
    """

    created_at: float
    next: float | None
    is_paused: bool = False
    last: float | None = None
    message_id: int | None = None
    sent: int = 0
    error: str | None = None
    made_by: str = ""
    key_id: str | None = None
    gap: float | None = None


@dataclass(frozen=True, slots=True)
class Schedule:
    """A schedule of a room at one version."""

    id: str
    room: RoomKey
    spec: ScheduleSpec
    state: ScheduleState
    version: int = 1

    @property
    def queue(self) -> QueueKey:
        """Where its messages go."""
        return QueueKey(self.room, self.spec.queue)

    @property
    def maker(self) -> Maker:
        """Who made it."""
        return Maker(self.state.made_by, self.state.key_id)

    @property
    def timing(self) -> Timing:
        """When it is due."""
        return timing_of(self.spec, created_at=self.state.created_at)

    @staticmethod
    def of(trigger: Trigger) -> Schedule:
        """Return the schedule that a trigger keeps."""
        content = json.loads(trigger.content)
        spec, state = ScheduleSpec.model_construct(**content["spec"]), ScheduleState(**content["state"])
        return Schedule(trigger.id, trigger.room, spec, state, trigger.version)

    def trigger(self, *, due_at: float | None = None) -> Trigger:
        """Return how it is kept. It is looked at when it is due next, or at `due_at`."""
        due = None if self.state.is_paused or self.state.next is None else due_at or self.state.next
        content = dump_json({"spec": self.spec.model_dump(), "state": asdict(self.state)})
        return Trigger(self.id, TriggerKind.SCHEDULE, self.room, content, due, self.version)

    def changed(self, **state: Any) -> Schedule:
        """Return the next version of it, with this of its state changed."""
        return replace(self, state=replace(self.state, **state), version=self.version + 1)

    def shown(self) -> dict[str, Any]:
        """Return it as JSON for its owner."""
        state = self.state
        return {
            "id": self.id,
            "room": self.room.name,
            **self.spec.model_dump(),
            "paused": state.is_paused,
            "made_by": state.made_by,
            "key_id": state.key_id,
            "created_at": state.created_at,
            "next_at": None if state.is_paused else state.next,
            "last_at": state.last,
            "last_message_id": None if state.message_id is None else str(state.message_id),
            "sent": state.sent,
            "error": state.error,
        }


def timing_of(spec: ScheduleSpec, *, created_at: float) -> Timing:
    """Return when a schedule is due that was made at a time. Raises InvalidRequestError for what cannot be."""
    if [spec.cron, spec.every, spec.at].count(None) != 2:
        raise InvalidRequestError("cron, every, at", "expected one of these three")
    if spec.cron is not None:
        return Cron(spec.cron, spec.timezone)
    zone = zone_of(spec.timezone)
    if spec.every is not None:
        return Interval(spec.every, created_at + spec.every)
    if not isinstance(spec.at, str):
        return Once(check_time(spec.at or 0.0))
    try:
        time = datetime.fromisoformat(spec.at)
        return Once(check_time((time if time.tzinfo else time.replace(tzinfo=zone)).timestamp()))
    except (ValueError, OverflowError):
        raise InvalidRequestError("at", "expected seconds since 1970, or a time such as 2026-12-24T18:00") from None


def message_for(schedule: Schedule, occurrence: float | None) -> NewMessage:
    """Return the message of an occurrence, or of a run in between. An occurrence is stored once, however often it is sent."""
    headers = {**schedule.spec.headers, "meshhost-schedule": schedule.id}
    if occurrence is None:
        return NewMessage(dump_json(schedule.spec.message), headers)
    headers["meshhost-occurrence"] = datetime.fromtimestamp(occurrence, UTC).isoformat().replace("+00:00", "Z")
    return NewMessage(
        dump_json(schedule.spec.message),
        headers,
        sender_id=server_id("schedule", schedule.id, f"{occurrence:.3f}"),
        remember_seconds=REMEMBER_SECONDS,
    )


def new_trigger_id(now: float, random_bytes: int = 4) -> str:
    """Return an id; later ones are greater. With 16 random bytes nobody can guess it."""
    return f"{int(now * 1_000_000):014x}{secrets.token_hex(random_bytes)}"


class Schedules:
    """The schedules in `store`. `on_change` is called when one may be due earlier than was known.

    `check_maker` raises a MeshhostError when the key of a schedule has ended.
    """

    def __init__(
        self,
        store: TriggerStore,
        queues: QueueService,
        *,
        clock: Clock | None = None,
        limits: TriggerLimits = TriggerLimits(),  # noqa: B008 - immutable
        on_change: Callable[[], None] = lambda: None,
        check_maker: CheckMaker = lambda *_: None,
    ) -> None:
        self._store = store
        self._queues = queues
        self._clock = clock or SystemClock()
        self._limits = limits
        self._on_change = on_change
        self._check_maker = check_maker
        self._adding = asyncio.Lock()  # so that of several at once none sees the others too late

    async def create(
        self, room: RoomKey, spec: ScheduleSpec, *, paused: bool = False, maker: Maker = NOBODY
    ) -> Schedule:
        """Make a schedule. Raises LimitExceededError, InvalidRequestError when it is never due; OSError."""
        now = self._clock.time()
        timing = timing_of(spec, created_at=now)
        due = timing.after(now)
        if due is None:
            raise InvalidRequestError("at", "expected a time in the future")
        made_by, key_id, gap = maker.name, maker.key_id, shortest_gap(timing, now)
        state = ScheduleState(now, due, is_paused=paused, made_by=made_by, key_id=key_id, gap=gap)
        schedule = Schedule(new_trigger_id(now), room, spec, state)
        async with self._adding:
            if maker.name:
                check_share(maker, [each.maker for each in await self.list(*room)], "schedules")
            await self._store.add(schedule.trigger(), self._limits)
        self._on_change()
        return schedule

    async def list(
        self, tenant: TenantId, room: str | None = None, *, after: str = "", limit: int = 1000
    ) -> Sequence[Schedule]:
        """Return schedules of a tenant or room, the oldest first, at most `limit` after this id."""
        found = await self._store.list(tenant, room, kind=TriggerKind.SCHEDULE, after=after, limit=limit)
        return [Schedule.of(trigger) for trigger in found]

    async def get(self, tenant: TenantId, schedule_id: str, *, room: str | None = None) -> Schedule:
        """Return a schedule of a tenant, or of one of its rooms. Raises NotFoundError."""
        found = await self._store.find(schedule_id)
        if found is None or found.kind is not TriggerKind.SCHEDULE or not found.room.is_of(tenant, room):
            raise NotFoundError("no such schedule")
        return Schedule.of(found)

    async def runs(self, schedule: Schedule) -> Sequence[dict[str, Any]]:
        """Return what happened at its last occurrences, the newest first."""
        return [{"at": entry.at, **json.loads(entry.content)} for entry in await self._store.entries(schedule.id)]

    async def delete(self, schedule: Schedule) -> None:
        """Delete it. Messages that were sent stay. Raises NotFoundError."""
        await self._store.delete(schedule.room.tenant, schedule.id)

    async def pause(self, schedule: Schedule) -> Schedule:
        """Let it send nothing until it is resumed; what is due meanwhile is not missed but left out."""
        return await self._change(schedule, lambda present: present.changed(is_paused=True))

    def shown(self, schedule: Schedule) -> dict[str, Any]:
        """Return it as JSON for its owner; `error` says why it sends nothing now."""
        reason = reason_against(self._check_maker, schedule.room, schedule.maker)
        return schedule.shown() if reason is None else {**schedule.shown(), "error": reason}

    async def resume(self, schedule: Schedule, *, maker: Maker = NOBODY) -> Schedule:
        """Let it send again, from its next occurrence on; one whose only time has passed is due at once.

        Of one whose key has ended, `maker` is the maker from now on.
        """

        def resumed(present: Schedule) -> Schedule:
            taken = self._taken_over(present, maker)
            if present.state.next is None or not (present.state.is_paused or taken):
                return present.changed(is_paused=False, **taken)
            due = present.timing.after(self._clock.time())
            return present.changed(is_paused=False, next=present.state.next if due is None else due, **taken)

        return await self._change(schedule, resumed)

    async def change(
        self, schedule: Schedule, spec: ScheduleSpec, *, paused: bool | None = None, maker: Maker = NOBODY
    ) -> Schedule:
        """Give it another spec; it is due next when that says. With `paused` False it is resumed too.

        Raises InvalidRequestError when it is never due.
        """

        def changed(present: Schedule) -> Schedule:
            now = self._clock.time()
            timing = timing_of(spec, created_at=present.state.created_at)
            due = timing.after(now)
            if due is None:
                raise InvalidRequestError("at", "expected a time in the future")
            is_paused = present.state.is_paused if paused is None else paused
            state = {"next": due, "is_paused": is_paused, "error": None, "gap": shortest_gap(timing, now)}
            taken = self._taken_over(present, maker) if paused is False else {}
            return replace(present, spec=spec).changed(**(state | taken))

        return await self._change(schedule, changed)

    def _taken_over(self, present: Schedule, maker: Maker) -> dict[str, Any]:
        """The new maker in the state of a schedule whose key has ended; nothing for others."""
        if reason_against(self._check_maker, present.room, present.maker) is None:
            return {}
        return {"made_by": maker.name, "key_id": maker.key_id, "error": None}

    async def run_now(self, schedule: Schedule) -> int:
        """Send its message now, beside its occurrences and also when it is paused; return the id of the message."""
        message_id = await self._queues.send(schedule.queue, message_for(schedule, None))
        entry = LogEntry(self._clock.time(), dump_json({"outcome": "run-now", "message_id": str(message_id)}))
        await self._change(schedule, lambda present: _sent_beside(present, message_id), entry)
        return message_id

    async def _change(
        self, schedule: Schedule, changed: Callable[[Schedule], Schedule], entry: LogEntry | None = None
    ) -> Schedule:
        """Change what is stored. Raises NotFoundError, RoomError when others change it all the time."""
        for _ in range(_TRIES):
            present = await self.get(schedule.room.tenant, schedule.id)
            made = changed(present)
            if await self._store.replace(made.trigger(), entry):
                self._on_change()
                return made
            await asyncio.sleep(0)
        raise RoomError("the schedule was changed by others all the time: try again")


def _sent_beside(schedule: Schedule, message_id: int) -> Schedule:
    newest = max(message_id, schedule.state.message_id or 0)
    return schedule.changed(message_id=newest, sent=schedule.state.sent + 1)

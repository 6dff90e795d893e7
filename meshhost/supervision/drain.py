"""Agents leave at once, each within its own time. Whoever watches is told who is still there, and why."""

import logging
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby

from meshhost.clock import Clock
from meshhost.supervision.deadlines import deadline
from meshhost.supervision.isolation import Child
from meshhost.supervision.spawn import ABORT_SECONDS, Spawn
from meshhost.supervision.state import TERMINAL
from meshhost.tasks import TaskOwner

__all__ = ["PROGRESS_SECONDS", "DrainReport", "drain_together"]

logger = logging.getLogger(__name__)

PROGRESS_SECONDS = 5.0
"""How often it is told who is still there."""

_NAMED = 10


@dataclass(frozen=True, slots=True)
class DrainReport:
    """How a drain went, by names: `finished` left by themselves, `aborted` had to be cut short, `stuck` are still there."""

    finished: tuple[str, ...]
    aborted: tuple[str, ...]
    stuck: tuple[str, ...]


async def drain_together(
    spawns: Iterable[Spawn], clock: Clock, *, grace: float | None = None, tell: bool = False
) -> DrainReport:
    """Drain these at once. Who is not gone after its spec's `drain_seconds` is aborted, and has ABORT_SECONDS more.

    With `grace` all have so many seconds instead. A drain that comes later lengthens no time that runs already. With `tell`
    the log says how it goes. Raises nothing for an agent's fault. When the wait is cancelled they go on draining, and a
    second drain goes on waiting.
    """
    leaving = [spawn for spawn in spawns if spawn.state not in TERMINAL]
    tasks = TaskOwner("drain")
    try:
        due = _ask_all_to_leave(leaving, clock, grace, tasks)
        if tell and leaving:
            seconds = max(due.values()) - clock.monotonic()
            logger.info("agents are asked to leave", extra={"agents": len(leaving), "seconds": round(seconds, 1)})
            tasks.spawn(_tell(leaving, clock), name="progress")
        await _ended_or_aborted(due, clock)
    finally:
        await tasks.stop(timeout=1.0)
    return _report(leaving, tell=tell)


def _ask_all_to_leave(
    leaving: Sequence[Spawn], clock: Clock, grace: float | None, tasks: TaskOwner
) -> dict[Spawn, float]:
    """Returns when each has to be gone, on `clock.monotonic()`."""
    now, due = clock.monotonic(), {}
    for spawn in leaving:
        due[spawn] = spawn.leave_by(now + (spawn.spec.drain_seconds if grace is None else grace))
        if (child := spawn.begin_drain()) is not None:
            tasks.spawn(_ask_to_leave(spawn, child), name=spawn.name)
    return due


async def _ask_to_leave(spawn: Spawn, child: Child) -> None:
    try:
        await child.drain()
    except Exception:
        # It has until the deadline to leave all the same, and is aborted then.
        logger.exception("agent could not be drained", extra={"agent": spawn.name, "spawn_id": spawn.id})


async def _ended_or_aborted(due: dict[Spawn, float], clock: Clock) -> None:
    aborted_at = clock.monotonic()
    for moment, together in groupby(sorted(due, key=due.__getitem__), key=due.__getitem__):
        group = list(together)
        await _ended(group, moment - clock.monotonic(), clock)
        aborted_at = _abort_late(group, clock.monotonic()) or aborted_at
    await _ended(due, aborted_at + ABORT_SECONDS - clock.monotonic(), clock)


def _abort_late(group: Sequence[Spawn], now: float) -> float | None:
    """Returns `now` when somebody was late."""
    late = _left(group)
    if not late:
        return None
    logger.warning("agents are aborted at their deadline", extra=_described(late))
    for spawn in late:
        spawn.abort()
    return now


async def _ended(spawns: Iterable[Spawn], seconds: float, clock: Clock) -> None:
    if not _left(spawns):
        return
    with suppress(TimeoutError):
        async with deadline(clock, seconds):
            for spawn in spawns:
                await spawn.wait_state(*TERMINAL)


def _left(spawns: Iterable[Spawn]) -> list[Spawn]:
    return [spawn for spawn in spawns if spawn.state not in TERMINAL]


async def _tell(leaving: Sequence[Spawn], clock: Clock) -> None:
    while True:
        await clock.sleep(PROGRESS_SECONDS)
        logger.info("agents still leave", extra=_described(_left(leaving)))


def _described(spawns: Sequence[Spawn]) -> dict[str, object]:
    """Who they are, for the log: those with the least time first, a few by name."""
    named = sorted(spawns, key=lambda spawn: spawn.seconds_left or 0.0)[:_NAMED]
    return {"agents": [_sentence(spawn) for spawn in named], "others": len(spawns) - len(named)}


def _sentence(spawn: Spawn) -> str:
    time = "aborted" if spawn.aborted else f"{spawn.seconds_left or 0.0:.0f} s left"
    activity = spawn.activity
    return f"{spawn.name} at {spawn.spec.log_fields.get('path', '?')}: {time}" + (f", {activity}" if activity else "")


def _report(leaving: Sequence[Spawn], *, tell: bool) -> DrainReport:
    stuck = tuple(spawn.name for spawn in _left(leaving))
    if stuck:
        logger.error("agents would not leave", extra=_described(_left(leaving)))
    gone = [spawn for spawn in leaving if spawn.state in TERMINAL]
    report = DrainReport(
        finished=tuple(spawn.name for spawn in gone if not spawn.aborted),
        aborted=tuple(spawn.name for spawn in gone if spawn.aborted),
        stuck=stuck,
    )
    if tell and leaving:
        fields = {"finished": len(report.finished), "aborted": report.aborted, "stuck": report.stuck}
        logger.info("agents drained", extra=fields)
    return report

"""Drains many agents at once, each within its own time, and reports how it went.

`drain_together` asks all of them to leave, waits, aborts each agent at its own deadline and waits a little longer for the
aborted ones. It runs in the task of its caller (`Supervisor.stop` and `Supervisor.drain_all`), with one short-lived task per
agent that passes the request on to its child, and one that logs the progress; these end with the call.

A drain must not raise for an agent's fault, and it never lasts longer than the longest deadline plus the cleanup time. When
the caller is cancelled the agents go on draining: a later drain finds their deadlines and waits for them.
"""

import logging
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from meshhost.clock import Clock
from meshhost.containment import is_requested
from meshhost.supervision.agent import CLEANUP_SECONDS, SupervisedAgent
from meshhost.supervision.deadlines import deadline
from meshhost.supervision.isolation import Child
from meshhost.supervision.state import TERMINAL
from meshhost.tasks import TaskOwner

__all__ = ["PROGRESS_SECONDS", "DrainReport", "drain_together"]

logger = logging.getLogger(__name__)

PROGRESS_SECONDS = 5.0
"""Interval between two log records about the agents that are still there."""

_MAX_NAMED = 10

_Agent = SupervisedAgent[Any]


@dataclass(frozen=True, slots=True)
class DrainReport:
    """The result of a drain, as agent names: `finished` by themselves, `aborted` at a deadline, `stuck` and still there."""

    finished: tuple[str, ...]
    aborted: tuple[str, ...]
    stuck: tuple[str, ...]


async def drain_together(
    agents: Iterable[_Agent],
    clock: Clock,
    *,
    grace: float | None = None,
    cleanup_seconds: float = CLEANUP_SECONDS,
    log_progress: bool = False,
) -> DrainReport:
    """Drain these agents at once. One that is late is aborted and has `cleanup_seconds` more.

    Each agent has the `drain_seconds` of its spec, or all have `grace` seconds. A later drain never extends the deadline of
    an earlier one. Raises nothing for an agent's fault.
    """
    leaving = [agent for agent in agents if agent.state not in TERMINAL]
    tasks = TaskOwner("drain")
    try:
        due = _ask_all_to_leave(leaving, clock, grace, tasks)
        if log_progress and leaving:
            seconds = max(due.values()) - clock.monotonic()
            logger.info("agents are asked to leave", extra={"agents": len(leaving), "seconds": round(seconds, 1)})
            tasks.spawn(_log_progress(leaving, clock), name="progress")
        await _wait_or_abort(due, clock, cleanup_seconds)
    finally:
        await tasks.stop(timeout=1.0)
    return _report(leaving, log_progress=log_progress)


def _ask_all_to_leave(
    leaving: Sequence[_Agent], clock: Clock, grace: float | None, tasks: TaskOwner
) -> dict[_Agent, float]:
    """Returns the deadline of each, on `clock.monotonic()`."""
    now, due = clock.monotonic(), {}
    for agent in leaving:
        due[agent] = agent.leave_by(now + (agent.spec.drain_seconds if grace is None else grace))
        if (child := agent.begin_drain()) is not None:
            tasks.spawn(_ask_to_leave(agent, child), name=agent.name)
    return due


async def _ask_to_leave(agent: _Agent, child: Child) -> None:
    try:
        await child.drain()
    except BaseException as error:
        if is_requested(error):
            raise
        # It still has until its deadline to leave, and is aborted then.
        logger.exception("agent could not be drained", extra={"agent": agent.name, "spawn_id": agent.id})


async def _wait_or_abort(due: dict[_Agent, float], clock: Clock, cleanup_seconds: float) -> None:
    aborted_at = clock.monotonic()
    for moment, together in groupby(sorted(due, key=due.__getitem__), key=due.__getitem__):
        group = list(together)
        await _wait_ended(group, moment - clock.monotonic(), clock)
        if late := _not_ended(group):
            logger.warning("agents are aborted at their deadline", extra=_described(late))
            aborted_at = clock.monotonic()
            for agent in late:
                agent.abort()
    await _wait_ended(due, aborted_at + cleanup_seconds - clock.monotonic(), clock)


async def _wait_ended(agents: Iterable[_Agent], seconds: float, clock: Clock) -> None:
    if not _not_ended(agents):
        return
    with suppress(TimeoutError):
        async with deadline(clock, seconds):
            for agent in agents:
                await agent.wait_state(*TERMINAL)


def _not_ended(agents: Iterable[_Agent]) -> list[_Agent]:
    return [agent for agent in agents if agent.state not in TERMINAL]


async def _log_progress(leaving: Sequence[_Agent], clock: Clock) -> None:
    while True:
        await clock.sleep(PROGRESS_SECONDS)
        logger.info("agents still draining", extra=_described(_not_ended(leaving)))


def _described(agents: Sequence[_Agent]) -> dict[str, object]:
    """Log fields: a few agents by name, those with the least time left first, and how many others there are."""
    named = sorted(agents, key=lambda agent: agent.seconds_left or 0.0)[:_MAX_NAMED]
    return {"agents": [_sentence(agent) for agent in named], "others": len(agents) - len(named)}


def _sentence(agent: _Agent) -> str:
    time = "aborted" if agent.aborted else f"{agent.seconds_left or 0.0:.0f} s left"
    activity = agent.activity
    return f"{agent.key}: {time}" + (f", {activity}" if activity else "")


def _report(leaving: Sequence[_Agent], *, log_progress: bool) -> DrainReport:
    stuck = _not_ended(leaving)
    if stuck:
        logger.error("agents did not end after they were aborted", extra=_described(stuck))
    ended = [agent for agent in leaving if agent.state in TERMINAL]
    report = DrainReport(
        finished=tuple(agent.name for agent in ended if not agent.aborted),
        aborted=tuple(agent.name for agent in ended if agent.aborted),
        stuck=tuple(agent.name for agent in stuck),
    )
    if log_progress and leaving:
        fields = {"finished": len(report.finished), "aborted": report.aborted, "stuck": report.stuck}
        logger.info("agents drained", extra=fields)
    return report

"""Drains a whole host: takes no more calls, lets all agents leave, and measures it.

`ServiceHost.stop` runs it and waits; the operator's `POST /drain` starts it in the background, and the process goes on
answering with no agents in it. If a stop follows, it takes over: the background wait is cancelled, the agents go on leaving
within the deadlines that they already have, and the stop waits for them and reports.
"""

import asyncio
import time

from meshhost.hosting.calls.intake import Intake
from meshhost.hosting.calls.ledger import AgentLedger
from meshhost.hosting.observe.metrics import HostMetrics
from meshhost.identity.tenant import AgentKey
from meshhost.supervision.drain import DrainReport
from meshhost.supervision.supervisor import Supervisor
from meshhost.tasks import TaskOwner

__all__ = ["HostDrain"]


class HostDrain:
    """Drains the agents of one host. `tasks` owns the background drain.

    `grace` bounds the whole drain in seconds; None gives each agent the time of its route.
    """

    def __init__(
        self,
        *,
        intake: Intake,
        supervisor: Supervisor[AgentKey],
        ledger: AgentLedger | None,
        metrics: HostMetrics,
        tasks: TaskOwner,
    ) -> None:
        self.grace: float | None = None
        self._intake = intake
        self._supervisor = supervisor
        self._ledger = ledger
        self._metrics = metrics
        self._tasks = tasks
        self._in_background: asyncio.Task[DrainReport] | None = None

    async def run(self) -> DrainReport:
        """Take no more calls and return when all agents have ended or are stuck. Never raises for an agent's fault."""
        self._take_no_more_calls()
        return await self._drain()

    def begin(self) -> None:
        """The same in the background."""
        self._take_no_more_calls()
        self._in_background = self._tasks.spawn(self._drain(), name="drain")

    def abort(self) -> None:
        """Abort all agents. A `run` afterwards waits only for their cleanup."""
        self._supervisor.abort_all()
        self.grace = 0.0

    def _take_no_more_calls(self) -> None:
        self._intake.close()
        if self._ledger is not None:
            # Agents that end from now on end because of the host: they stay recorded.
            self._ledger.freeze()
        if self._in_background is not None:
            self._in_background.cancel()
            self._in_background = None

    async def _drain(self) -> DrainReport:
        began = time.monotonic()
        report = await self._supervisor.drain_all(self.grace)
        self._metrics.observe_drain(time.monotonic() - began, aborted=len(report.aborted) + len(report.stuck))
        return report

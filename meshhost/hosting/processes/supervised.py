"""An agent in a process of the pool, as a child that a supervisor can run like any other.

The host supervises tasks. Here such a task follows a process: it takes one from the pool, assigns it the call, waits for its
end and raises what the agent crashed with. A drain of the child is passed on to the process as a message; an abort cancels the
task, which then ends the process, by force if need be (`ProcessPool.release` is not cut short by the cancellation).
"""

from opentelemetry import propagate

from meshhost.hosting.agents.assignment import Assignment, CallRequest
from meshhost.hosting.processes.messages import Assign, Call, Drain, Renew
from meshhost.hosting.processes.pool import ProcessPool
from meshhost.hosting.processes.process import AgentProcess
from meshhost.logs import current_log_context
from meshhost.supervision.isolation import Child, ChildContext, TaskChild
from meshhost.tasks import first_of
from meshhost.usage import current_sink

__all__ = ["ProcessLife", "process_child"]


def process_child(pool: ProcessPool, path: str, assignment: Assignment, *, grace: float) -> Child:
    """A child whose agent, that of this path, runs in a process of the pool. `grace` is the seconds that it may drain."""
    return TaskChild(ProcessLife(pool, path, assignment, grace).run, assignment.request.identity)


class ProcessLife:
    """One run of an agent in a process, for an assignment."""

    def __init__(self, pool: ProcessPool, path: str, assignment: Assignment, grace: float) -> None:
        self._pool = pool
        self._path = path
        self._assignment = assignment
        self._grace = grace
        self._renewals = 0
        self._is_ending = False

    async def run(self, child: ChildContext) -> None:
        """Returns when the agent left in order; raises what it, or its process, crashed with."""
        process = await self._pool.acquire()
        try:
            process.spawn_id = self._assignment.agent.id if self._assignment.agent is not None else ""
            process.on_end_for_good = self.end_for_good
            if (sink := current_sink()) is not None:
                process.on_usage = sink.add
            self._assignment.pid = process.pid
            self._assignment.on_renew = lambda request: self.renew(process, request)
            process.assign(self._assign_message())
            await process.wait_started()
            if not process.has_ended:
                child.started()
                child.current = process
            await first_of(process.wait_ended(), _pass_drain(child, process))
        finally:
            self._assignment.on_renew = self._assignment.pid = None
            await self._pool.release(process)
        process.raise_crash()

    def renew(self, process: AgentProcess, request: CallRequest) -> None:
        """Pass a repeated call on to the process."""
        self._renewals += 1
        process.send(Renew(_call(request)))

    def end_for_good(self, reason: str, renewals: int) -> None:
        """The process says that its agent ends for good, having seen so many repeated calls."""
        self._assignment.end_for_good(reason)
        if self._is_ending:
            return
        self._is_ending = True
        # The two messages have crossed: a call was answered with an agent that was about to end.
        if renewals < self._renewals and self._assignment.on_missed is not None:
            self._assignment.on_missed(self._assignment.request)

    def _assign_message(self) -> Assign:
        trace: dict[str, str] = {}
        propagate.inject(trace)
        return Assign(
            path=self._path,
            call=_call(self._assignment.request),
            call_id=self._assignment.id,
            grace=self._grace,
            log_fields={name: str(value) for name, value in current_log_context().items()},
            trace=trace,
        )


async def _pass_drain(child: ChildContext, process: AgentProcess) -> None:
    await child.draining.wait()
    process.send(Drain())
    await process.wait_exited()


def _call(request: CallRequest) -> Call:
    return Call(
        tenant=request.tenant,
        room_name=request.room_name,
        room_url=request.room_url,
        identity=request.identity,
        arguments=dict(request.arguments),
        expires_at=request.expires_at,
        token=request.token,
    )

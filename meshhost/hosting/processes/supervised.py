"""An agent in a process of the pool, as a child that a supervisor can run like any other.

The host supervises tasks. Here such a task follows a process: it takes one from the pool, assigns it the call, waits for its
end and raises what the agent crashed with. A drain of the child is passed on to the process as a message; an abort cancels the
task, which then ends the process, by force if need be (`ProcessPool.release` is not cut short by the cancellation).
"""

from opentelemetry import propagate

from meshhost.hosting.calls.admission import CallRequest
from meshhost.hosting.calls.life import Visit
from meshhost.hosting.processes.messages import Assign, Call, Drain, Renew
from meshhost.hosting.processes.pool import ProcessPool
from meshhost.hosting.processes.process import AgentProcess
from meshhost.logs import current_log_context
from meshhost.supervision.isolation import Child, ChildContext, TaskChild
from meshhost.tasks import unless
from meshhost.usage import current_sink

__all__ = ["process_child"]


def process_child(pool: ProcessPool, path: str, visit: Visit, *, grace: float) -> Child:
    """A child whose agent, that of this path, runs in a process of the pool. `grace` is the seconds that it may drain."""
    return TaskChild(_ProcessLife(pool, path, visit, grace).run, visit.request.identity)


class _ProcessLife:
    """One run of an agent in a process, for a visit."""

    def __init__(self, pool: ProcessPool, path: str, visit: Visit, grace: float) -> None:
        self._pool = pool
        self._path = path
        self._visit = visit
        self._grace = grace

    async def run(self, child: ChildContext) -> None:
        """Returns when the agent left in order; raises what it, or its process, crashed with."""
        process = await self._pool.acquire()
        try:
            process.spawn_id = self._visit.spawn.id if self._visit.spawn is not None else ""
            process.on_end_for_good = self._visit.end_for_good
            if (sink := current_sink()) is not None:
                process.on_usage = sink.add
            self._visit.pid = process.pid
            self._visit.on_renew = lambda request: process.send(Renew(_call(request)))
            process.assign(self._assignment())
            await process.wait_started()
            if not process.has_ended:
                child.started()
                child.doer = process
            await unless(process.wait_ended(), _pass_drain(child, process))
        finally:
            self._visit.on_renew = self._visit.pid = None
            await self._pool.release(process)
        process.raise_crash()

    def _assignment(self) -> Assign:
        trace: dict[str, str] = {}
        propagate.inject(trace)
        return Assign(
            path=self._path,
            call=_call(self._visit.request),
            call_id=self._visit.id,
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

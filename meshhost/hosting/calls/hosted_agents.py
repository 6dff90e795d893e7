"""Which agents live on a host: one per tenant, room, path and identity, unless its route says otherwise.

`http.routes` hands each admitted call to `HostedAgents.answer`; `resume` hands in the agents of the ledger when a host
starts. Both look for a live agent of the same key first, then check quotas and capacity, and add an agent to the supervisor.
From there on the agent's own task runs it: for each of its lives the supervisor asks `_next_child` for a child, which first
waits for its turn in the start queue and then runs in this process or in one of its own.

Invariant: between looking for a live agent and adding a new one nothing is awaited, so two calls at the same time cannot
start two agents for one key.
"""

import functools
import logging
from collections.abc import Callable, Mapping

from meshhost.errors import CallRefusedError, LifecycleError
from meshhost.hosting.agents.assignment import Assignment, CallRequest, HostedAgent
from meshhost.hosting.agents.current import acting_for
from meshhost.hosting.agents.life import STOP_SECONDS, AgentLife
from meshhost.hosting.calls.ledger import AgentLedger, LedgerEntry
from meshhost.hosting.calls.pauses import Pauses
from meshhost.hosting.calls.route import Route, Routes
from meshhost.hosting.processes.linux import memory_of
from meshhost.hosting.refusals import RETRY_SOON_SECONDS
from meshhost.hosting.tenants.tenancy import Tenancy, Turns
from meshhost.identity.called import called_at
from meshhost.identity.tenant import AgentKey
from meshhost.supervision.agent import AgentSpec
from meshhost.supervision.isolation import Child, in_tasks
from meshhost.supervision.policy import RestartPolicy
from meshhost.supervision.state import TERMINAL, State
from meshhost.supervision.supervisor import Supervisor
from meshhost.transport.base import ClientProtocol
from meshhost.transport.websocket_client import WebSocketClientProtocol
from meshhost.usage import UsageSink, reporting_to

__all__ = ["ChildFactory", "HostedAgents", "task_children"]

logger = logging.getLogger(__name__)

ChildFactory = Callable[[Route, Assignment], Child]
"""Makes what runs one life of an agent; one factory for each kind of isolation."""


def task_children(*, stop_seconds: float = STOP_SECONDS) -> ChildFactory:
    """For isolation `task`: agents that run as tasks of this event loop."""
    isolation = in_tasks()

    def make(route: Route, assignment: Assignment) -> Child:
        life = AgentLife(route.cls, assignment, grace=route.drain_seconds, stop_seconds=stop_seconds)
        return isolation(life.run, assignment.request.identity)

    return make


class HostedAgents:
    """Turns admitted calls into supervised agents. At most `max_agents` live at once, at most `max_processes` in processes.

    `routes` says which paths have processes. `children` makes what runs an agent, by isolation (`task`, `process`). `tenancy`
    decides who may start and when. `ledger`, if there is one, records who must live after a restart of the host.
    `protocol_for` is how an agent in a task joins its room (default: over a WebSocket of its own); it may be set later.
    `pauses` are the agents that an operator keeps away. `usage_sink` gives the sink for an agent's usage reports, by path and
    tenant.
    """

    def __init__(
        self,
        supervisor: Supervisor[AgentKey],
        *,
        routes: Routes,
        tenancy: Tenancy,
        children: Mapping[str, ChildFactory],
        max_agents: int,
        max_processes: int,
        pauses: Pauses | None = None,
        ledger: AgentLedger | None = None,
        usage_sink: Callable[[str, str], UsageSink | None] = lambda _path, _tenant: None,
        protocol_for: Callable[[CallRequest], ClientProtocol] | None = None,
    ) -> None:
        self._supervisor = supervisor
        self._routes = routes
        self._tenancy = tenancy
        self._children = children
        self._max_agents = max_agents
        self._max_processes = max_processes
        self._pauses = pauses
        self._ledger = ledger
        self._usage_sink = usage_sink
        self.protocol_for = protocol_for or _own_socket
        # The ids of the agents that have a process of their own or are about to get one.
        self._in_process: set[str] = set()
        self._assignments: dict[str, Assignment] = {}
        supervisor.on_change.append(self._changed)

    @property
    def is_full(self) -> bool:
        """Whether another agent would be refused."""
        return self._supervisor.count >= self._max_agents

    async def answer(
        self,
        route: Route,
        request: CallRequest,
        *,
        protocol: ClientProtocol | None = None,
        signature: str | None = None,
    ) -> HostedAgent:
        """The agent that answers this call: a live one, or a new one that is starting.

        `protocol` is an open connection to the room, for a call that came with one; such a call always gets a new agent.
        With a ledger, the agent and the call's `signature` are on disk when this returns. Raises CallRefusedError: 503 when
        the host is full, overloaded or draining, cannot record the agent, or an operator keeps it away; 429 when the tenant is
        over its quota, frozen or in quarantine.
        """
        self._tenancy.check_call(request.tenant)
        if self._pauses is not None:
            self._pauses.check(request.agent_key(route.path))
        if self._ledger is not None and protocol is not None and signature is not None:
            await self._ledger.record_signature(signature)
        agent, is_new = await self._find_or_start(route, request, protocol)
        if self._ledger is not None and protocol is None:
            try:
                await self._ledger.record(agent.id, route.path, request, signature)
            except CallRefusedError:
                if is_new:
                    agent.abort()
                raise
            if agent.state in TERMINAL:  # it ended while it was recorded
                self._ledger.ended(agent.id)
        return agent

    def answer_again(self, route: Route, request: CallRequest) -> HostedAgent:
        """The agent that answers a call whose signature was seen before; nothing is started or renewed.

        Raises CallRefusedError (409) where another answer than the first could come of it: the agent has ended, or each call
        to the path gets one of its own.
        """
        present = self._present(request.agent_key(route.path))
        if route.on_duplicate != "join" or not present:
            raise CallRefusedError("this call was made before (the same signature): sign another one", status=409)
        return present[-1]

    def resume(self, route: Route, entry: LedgerEntry) -> bool:
        """Start an agent of the ledger, unless one of its key lives already. Raises CallRefusedError (503)."""
        key = entry.request.agent_key(route.path)
        if route.on_duplicate != "allow" and self._supervisor.with_key(key):
            return False
        # It was admitted before: today's quota and load must not lose it.
        agent = self._start(route, entry.request, key, None, is_checked=True)
        if self._ledger is not None:
            self._ledger.resumed(agent.id, entry)
        return True

    def is_kept(self, agent: HostedAgent) -> bool:
        """Whether a room server keeps this live agent in its room by calling it again when it is gone."""
        assignment = self._assignments.get(agent.id)
        return assignment is not None and called_at(assignment.request.token) is not None

    def pid_of(self, agent: HostedAgent) -> int | None:
        """The process that a live agent has to itself now; None for others."""
        assignment = self._assignments.get(agent.id)
        return None if assignment is None else assignment.pid

    def memory_of(self, agent: HostedAgent) -> int | None:
        """The memory in bytes of an agent that has a process of its own now; None for others."""
        pid = self.pid_of(agent)
        return None if pid is None else memory_of(pid)

    def isolation_of(self, agent: HostedAgent) -> str:
        """The isolation of a live agent."""
        return "process" if agent.id in self._in_process else "task"

    def check_free(self) -> None:
        """Raises CallRefusedError (503) when the host is full."""
        if self.is_full:
            raise _refused(f"this host is full: {self._max_agents} agents live here")

    def check_takes_sockets(self, route: Route) -> None:
        """Raises CallRefusedError (405) when the agents of the route cannot use a socket of this process."""
        if route.isolation == "process":
            raise CallRefusedError("the agents of this path have processes of their own: call it with POST", status=405)

    def check_tenant(self, route: Route, request: CallRequest) -> None:
        """Raises CallRefusedError (429) when the tenant of the call is frozen or its path in quarantine."""
        self._tenancy.check_call(request.tenant)
        self._tenancy.check_path(request.tenant, route.path)

    async def _find_or_start(
        self, route: Route, request: CallRequest, protocol: ClientProtocol | None
    ) -> tuple[HostedAgent, bool]:
        """The agent, and whether it is new."""
        key = request.agent_key(route.path)
        present = self._present(key)
        if present and protocol is None and route.on_duplicate == "join":
            agent = present[-1]
            if agent.state in (State.BACKING_OFF, State.QUARANTINED):
                self._tenancy.check_path(request.tenant, route.path)
            self._assignments[agent.id].renew(request)
            return agent, False
        is_checked = route.on_duplicate == "replace" and bool(present)
        if is_checked:
            # Before anything is ended: a live agent must not be ended for one that may not start.
            in_process = self._routes.needs_process(route)
            self._tenancy.check_start(request.tenant, route.path, leaving=present, in_process=in_process)
        if route.on_duplicate == "replace":
            # Looked up again after each wait: another call may have started one meanwhile.
            while present := self._present(key):
                await self._supervisor.stop(present[0])
        return self._start(route, request, key, protocol, is_checked=is_checked), True

    def _present(self, key: AgentKey) -> list[HostedAgent]:
        return [agent for agent in self._supervisor.with_key(key) if agent.state is not State.DRAINING]

    def _start(
        self,
        route: Route,
        request: CallRequest,
        key: AgentKey,
        inbound: ClientProtocol | None,
        *,
        is_checked: bool = False,
    ) -> HostedAgent:
        in_process = inbound is None and self._routes.needs_process(route)
        self._check_capacity(in_process=in_process)
        if not is_checked:
            self._tenancy.check_start(request.tenant, route.path, in_process=in_process)
        turns = self._tenancy.turns(request.tenant, start_timeout=route.start_timeout)
        protocol = inbound or (_own_socket if in_process else self.protocol_for)(request)
        assignment = Assignment(request, protocol)
        spec = AgentSpec(
            name=f"{request.identity} in {request.room_name}",
            key=key,
            factory=functools.partial(self._next_child, turns, route, assignment, inbound is None),
            # A socket that the room server opened cannot be opened again from here.
            policy=route.restart if inbound is None else RestartPolicy(kind="temporary"),
            start_timeout=None,  # its turn bounds the start: the time begins when the turn has come
            drain_seconds=route.drain_seconds,
        )
        try:
            # The agent's task copies these contexts.
            with acting_for(key), reporting_to(self._usage_sink(route.path, request.tenant)):
                agent = assignment.agent = self._supervisor.add(spec)
        except LifecycleError:
            turns.leave()
            raise _refused("this host is draining") from None
        self._assignments[agent.id] = assignment
        if in_process:
            self._in_process.add(agent.id)
        # An agent that was checked earlier asks for its memory when its turn has come.
        self._tenancy.started(agent, turns, has_memory=in_process and not is_checked)
        return agent

    def _check_capacity(self, *, in_process: bool) -> None:
        self.check_free()
        if in_process and len(self._in_process) >= self._max_processes:
            raise _refused(f"this host is full: {self._max_processes} agents with processes of their own live here")

    def _next_child(self, turns: Turns, route: Route, assignment: Assignment, may_move: bool) -> Child:
        """The child of the agent's next life. Called by the agent's task, which begins after `_start` has returned."""
        agent = assignment.agent
        assert agent is not None
        # Its path may have been moved to processes since its last life.
        in_process = may_move and self._routes.needs_process(route)
        if in_process:
            self._in_process.add(agent.id)
            assignment.on_missed = functools.partial(self._start_for_missed, route)
        child = self._children["process" if in_process else "task"](route, assignment)
        return self._tenancy.queued(agent, turns, child, in_process=in_process)

    def _start_for_missed(self, route: Route, request: CallRequest) -> None:
        """Start another agent for a call that was answered with one that was about to end."""
        key = request.agent_key(route.path)
        if self._present(key):
            return
        try:
            agent = self._start(route, request, key, None, is_checked=True)
        except CallRefusedError as error:
            # The room server notices that no agent comes, and calls again.
            logger.warning("agent that was called cannot start", extra={**key.log_fields(), "reason": str(error)})
            return
        if self._ledger is not None:
            self._ledger.record_later(agent.id, route.path, request)

    def _changed(self, agent: HostedAgent, _: State, new: State) -> None:
        if new in TERMINAL:
            self._assignments.pop(agent.id, None)
            self._in_process.discard(agent.id)
            if self._ledger is not None:
                self._ledger.ended(agent.id)


def _own_socket(request: CallRequest) -> ClientProtocol:
    return WebSocketClientProtocol(url=request.room_url, token=request.token)


def _refused(text: str) -> CallRefusedError:
    return CallRefusedError(text, status=503, retry_after=RETRY_SOON_SECONDS)

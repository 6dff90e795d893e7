"""Which agents live on a host: one per tenant, room, path and identity, unless its path says otherwise."""

import functools
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from meshhost.errors import CallRefusedError, LifecycleError
from meshhost.hosting.calls.admission import CallRequest
from meshhost.hosting.calls.ledger import LedgerEntry, SpawnLedger
from meshhost.hosting.calls.life import AgentLife, Visit
from meshhost.hosting.processes.linux import memory_of
from meshhost.hosting.processes.pool import ProcessPool
from meshhost.hosting.processes.supervised import process_child
from meshhost.hosting.tenants.tenancy import Tenancy, Turns
from meshhost.identity.grants import ApiScope
from meshhost.supervision.isolation import Child, in_tasks
from meshhost.supervision.policy import RestartPolicy
from meshhost.supervision.spawn import ChildSpec, Spawn
from meshhost.supervision.state import State
from meshhost.supervision.supervisor import Supervisor
from meshhost.transport.base import ClientProtocol
from meshhost.transport.websocket_client import WebSocketClientProtocol
from meshhost.usage import UsageSink, reporting_to

__all__ = ["RETRY_AFTER_SECONDS", "OnDuplicate", "Route", "Spawns"]

logger = logging.getLogger(__name__)

OnDuplicate = Literal["join", "replace", "allow"]
RETRY_AFTER_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Route:
    """A path bound to an agent class.

    `on_duplicate` says what a call does for a tenant, room and identity that has a live agent: nothing (`join`), end it and
    start another (`replace`), or start one more (`allow`). `isolation` is `task` or `process`. `start_timeout` and
    `drain_seconds`, which is how long an agent that is to leave may take, are in seconds.
    """

    path: str
    cls: Callable[..., Any]
    identity: str | None = None
    permissions: ApiScope | None = None
    on_duplicate: OnDuplicate = "join"
    restart: RestartPolicy = field(default_factory=RestartPolicy)
    isolation: str = "task"
    start_timeout: float = 60.0
    drain_seconds: float = 30.0


SpawnKey = tuple[str, str, str, str]


class _Marks(Mapping[str, object]):
    """Whose agent it is, for logs and lists. A third of a dictionary, and there is one for each agent."""

    __slots__ = _NAMES = ("tenant", "room", "identity", "path")

    def __init__(self, tenant: str, room: str, identity: str, path: str) -> None:
        self.tenant = tenant
        self.room = room
        self.identity = identity
        self.path = path

    def __getitem__(self, name: str) -> str:
        if name not in self._NAMES:
            raise KeyError(name)
        value: str = getattr(self, name)
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._NAMES)

    def __len__(self) -> int:
        return len(self._NAMES)


class Spawns:
    """Turns admitted calls into supervised agents. At most `max_agents` live at once.

    `tenancy` says who may start and when, `ledger` keeps who shall live; both may be missing. `usage_sink` gives by path and
    tenant where agents report their work.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        *,
        max_agents: int,
        pool: ProcessPool | None = None,
        tenancy: Tenancy | None = None,
        ledger: SpawnLedger | None = None,
        usage_sink: Callable[[str, str], UsageSink | None] = lambda _path, _tenant: None,
    ) -> None:
        self._supervisor = supervisor
        self._usage_sink = usage_sink
        self._tenancy = tenancy
        self._ledger = ledger
        self._max_agents = max_agents
        self._pool = pool
        self._in_task = in_tasks()
        self._isolated: set[str] = set()
        self._in_process: set[str] = set()
        self._visits: dict[str, Visit] = {}
        supervisor.on_change.append(self._forget)

    @property
    def is_full(self) -> bool:
        """Whether another agent would be refused."""
        return self._supervisor.count >= self._max_agents

    def isolation_of(self, route: Route) -> str:
        """How the next agent of the path is kept from the others: `task` or `process`."""
        return "process" if route.path in self._isolated else route.isolation

    def isolate(self, path: str) -> None:
        """Give the agents of this path processes of their own from their next start on."""
        self._isolated.add(path)

    async def answer(self, route: Route, request: CallRequest, *, protocol: ClientProtocol | None = None) -> Spawn:
        """The agent that answers this call: a live one, or a new one that is starting.

        `protocol` is how the room is reached when not by dialling its URL; such a call always gets an agent of its own.
        With a ledger the agent is recorded when this returns. Raises CallRefusedError: 503 when the host is full, overloaded
        or draining or cannot record the agent, 429 when the tenant is over its quota, frozen or in quarantine.
        """
        if self._tenancy is not None:
            self._tenancy.check_call(request.tenant)
        spawn, is_new = await self._answered(route, request, protocol)
        if self._ledger is not None and protocol is None:
            try:
                await self._ledger.record(spawn.id, route.path, request)
            except CallRefusedError:
                if is_new:
                    spawn.abort()
                raise
        return spawn

    def resume(self, route: Route, entry: LedgerEntry) -> bool:
        """Start an agent of the ledger again, unless one of its key lives already. Raises CallRefusedError (503)."""
        request = entry.request
        key = (request.tenant, request.room_name, route.path, request.identity)
        if route.on_duplicate != "allow" and self._supervisor.with_key(key):
            return False
        # It was admitted once: the quota and the load of now are no reason to lose it.
        spawn = self._start(route, request, key, None, is_checked=True)
        if self._ledger is not None:
            self._ledger.resumed(spawn.id, entry)
        return True

    def memory_of(self, spawn: Spawn) -> int | None:
        """The memory in bytes of an agent that has a process of its own now; None for others."""
        visit = self._visits.get(spawn.id)
        return None if visit is None or visit.pid is None else memory_of(visit.pid)

    def isolation_of_spawn(self, spawn: Spawn) -> str:
        """How an agent that lives is kept from the others."""
        return "process" if spawn.id in self._in_process else "task"

    async def _answered(
        self, route: Route, request: CallRequest, protocol: ClientProtocol | None
    ) -> tuple[Spawn, bool]:
        """The agent, and whether it is new."""
        key = (request.tenant, request.room_name, route.path, request.identity)
        present = self._present(key)
        if present and protocol is None and route.on_duplicate == "join":
            if self._tenancy is not None and present[-1].state in (State.BACKING_OFF, State.QUARANTINED):
                self._tenancy.check_path(request.tenant, route.path)
            self._renew(present[-1], request)
            return present[-1], False
        is_checked = route.on_duplicate == "replace" and bool(present)
        if self._tenancy is not None and is_checked:
            # First: an agent must not be ended for one that may not start.
            in_process = self.isolation_of(route) == "process"
            self._tenancy.check_start(request.tenant, route.path, leaving=present, in_process=in_process)
        if route.on_duplicate == "replace":
            # Looked up again after each wait: another call may have started one meanwhile.
            while present := self._present(key):
                await self._supervisor.stop(present[0])
        return self._start(route, request, key, protocol, is_checked=is_checked), True

    def check_free(self) -> None:
        """Raises CallRefusedError (503) when the host is full."""
        if self.is_full:
            raise CallRefusedError(
                f"this host is full: {self._max_agents} agents live here", status=503, retry_after=RETRY_AFTER_SECONDS
            )

    def check_takes_sockets(self, route: Route) -> None:
        """Raises CallRefusedError (405) when the path's agents cannot use a socket of this process."""
        if route.isolation == "process":
            raise CallRefusedError("the agents of this path have processes of their own: call it with POST", status=405)

    def check_tenant(self, route: Route, request: CallRequest) -> None:
        """Raises CallRefusedError (429) when the call's tenant is frozen or its path in quarantine."""
        if self._tenancy is not None:
            self._tenancy.check_call(request.tenant)
            self._tenancy.check_path(request.tenant, route.path)

    def _check_free_for(self, isolation: str) -> None:
        self.check_free()
        most = self._pool.options.max_running if self._pool is not None else 0
        if isolation == "process" and len(self._in_process) >= most:
            raise CallRefusedError(
                f"this host is full: {most} agents with processes of their own live here",
                status=503,
                retry_after=RETRY_AFTER_SECONDS,
            )

    def _present(self, key: SpawnKey) -> list[Spawn]:
        return [spawn for spawn in self._supervisor.with_key(key) if spawn.state is not State.DRAINING]

    def _start(
        self,
        route: Route,
        request: CallRequest,
        key: SpawnKey,
        inbound: ClientProtocol | None,
        *,
        is_checked: bool = False,
    ) -> Spawn:
        isolation = self.isolation_of(route) if inbound is None else "task"
        self._check_free_for(isolation)
        turns = None if self._tenancy is None else self._turns(self._tenancy, route, request, isolation, is_checked)
        protocol = inbound or WebSocketClientProtocol(url=request.room_url, token=request.token)
        visit = Visit(request, protocol)
        # A socket that the room server opened cannot be opened again from here.
        restart = route.restart if inbound is None else RestartPolicy(kind="temporary")
        spec = ChildSpec(
            name=f"{request.identity} in {request.room_name}",
            key=key,
            factory=functools.partial(self._queued, turns, route, visit, inbound is None),
            policy=restart,
            start_timeout=route.start_timeout if turns is None else None,
            drain_seconds=route.drain_seconds,
            log_fields=_Marks(request.tenant, request.room_name, request.identity, route.path),
        )
        try:
            # As with its log fields: the spawn's task has a copy of the context.
            with reporting_to(self._usage_sink(route.path, request.tenant)):
                spawn = visit.spawn = self._supervisor.add(spec)
        except LifecycleError:
            if turns is not None:
                turns.leave()
            raise CallRefusedError("this host is draining", status=503, retry_after=RETRY_AFTER_SECONDS) from None
        self._visits[spawn.id] = visit
        if isolation == "process":
            self._in_process.add(spawn.id)
        if self._tenancy is not None and turns is not None:
            # One that was checked before it had to wait, or long ago, asks for its memory when its turn has come.
            self._tenancy.started(spawn, turns, has_memory=isolation == "process" and not is_checked)
        return spawn

    @staticmethod
    def _turns(tenancy: Tenancy, route: Route, request: CallRequest, isolation: str, is_checked: bool) -> Turns:
        """The new agent's place in the queue. Raises CallRefusedError, unless that it may start `is_checked`."""
        if not is_checked:
            tenancy.check_start(request.tenant, route.path, in_process=isolation == "process")
        return tenancy.turns(request.tenant, start_timeout=route.start_timeout)

    def _queued(self, turns: Turns | None, route: Route, visit: Visit, may_move: bool) -> Child:
        child = self._child(route, visit, may_move=may_move)
        if self._tenancy is None or turns is None or visit.spawn is None:
            return child
        in_process = may_move and self.isolation_of(route) == "process"
        return self._tenancy.queued(visit.spawn, turns, child, in_process=in_process)

    def _renew(self, spawn: Spawn, request: CallRequest) -> None:
        self._visits[spawn.id].renew(request)

    def _child(self, route: Route, visit: Visit, *, may_move: bool) -> Child:
        if self._pool is not None and may_move and self.isolation_of(route) == "process":
            if visit.spawn is not None:  # it may have been moved since its first life
                self._in_process.add(visit.spawn.id)
            return process_child(self._pool, route.path, visit, grace=route.drain_seconds)
        return self._in_task(AgentLife(route.cls, visit, grace=route.drain_seconds).run, visit.request.identity)

    def _forget(self, spawn: Spawn, _: State, new: State) -> None:
        if new in (State.STOPPED, State.FAILED):
            self._visits.pop(spawn.id, None)
            self._in_process.discard(spawn.id)
            if self._ledger is not None:
                self._ledger.ended(spawn.id)

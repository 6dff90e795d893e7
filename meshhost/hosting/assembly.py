"""The parts of one host: made in order, started in order, stopped in reverse.

`HostAssembly` is the only place in hosting that knows all parts. Its constructor makes each part from earlier ones only; where
a part must call a later one, the later part adds itself to a list of observers. `start` starts them on an exit stack, so that a
start that fails half-way and a stop undo exactly what was done. `ServiceHost` is the public face in front of it.

Start: ledger, health server, HTTP server, link to a room server, process pool, watchdog, background tasks, agents of the
ledger; then the intake opens. Stop: the intake closes and all agents are drained while everything still runs; then the parts
stop in reverse, the ledger last.

Tasks of a host in its event loop: one per agent (supervision), one per agent in a task (its code), one or two per agent in a
process (following it); "tenancy" (once a second), "start-up" (waits for the first process), "drain" (of an operator), those of
the process pool, and aiohttp's for each request. Threads: the watchdog, the health server, the ledger.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from typing import Any

from aiohttp import web

from meshhost.clock import Clock, SystemClock
from meshhost.containment import contain_exits
from meshhost.edge.listener import GuardedSite
from meshhost.errors import SettingsError
from meshhost.hosting.agents.assignment import Assignment
from meshhost.hosting.block_response import BlockResponse
from meshhost.hosting.calls.admission import AllowedRooms
from meshhost.hosting.calls.guard import CallGuard
from meshhost.hosting.calls.hosted_agents import ChildFactory, HostedAgents, task_children
from meshhost.hosting.calls.intake import Intake
from meshhost.hosting.calls.ledger import AgentLedger, Ledger, LedgerEntry
from meshhost.hosting.calls.pauses import Pauses
from meshhost.hosting.calls.resume import resume
from meshhost.hosting.calls.route import Route, Routes
from meshhost.hosting.draining import HostDrain
from meshhost.hosting.http.admin import AdminGuard, AdminRoutes
from meshhost.hosting.http.routes import HostRoutes, http_logger
from meshhost.hosting.linking import HostLink, LinkTo
from meshhost.hosting.observe.health import Health, HealthServer
from meshhost.hosting.observe.load import LoadMeter
from meshhost.hosting.observe.metrics import HostMetrics
from meshhost.hosting.observe.process_metrics import ProcessMetrics
from meshhost.hosting.observe.recent_logs import RecentLogs
from meshhost.hosting.observe.watchdog import LoopWatchdog
from meshhost.hosting.options import HostOptions
from meshhost.hosting.processes.interpreter import hide_api_key
from meshhost.hosting.processes.pool import ProcessPool
from meshhost.hosting.processes.supervised import process_child
from meshhost.hosting.startup import StartUp
from meshhost.hosting.tenants.freezes import Freezes
from meshhost.hosting.tenants.quotas import Quotas
from meshhost.hosting.tenants.tenancy import Tenancy, TenancyCollector
from meshhost.identity.tenant import AgentKey
from meshhost.supervision.drain import DrainReport
from meshhost.supervision.isolation import Child
from meshhost.supervision.supervisor import Supervisor
from meshhost.tasks import TaskOwner

__all__ = ["HostAssembly"]

logger = logging.getLogger(__name__)

_STOP_TASKS_SECONDS = 2.0
# How long a connection may wait for its next request.
_KEEP_ALIVE_SECONDS = 75.0


class HostAssembly:
    """The parts of one host, from its options. `routes` may grow later; `describe` returns the service description.

    `port` is the port that is listened on; before `start`, the one in the options. If that is 0, `usual_port` is taken where it
    is free.
    """

    def __init__(self, options: HostOptions, routes: Routes, describe: Callable[[], dict[str, Any]]) -> None:
        self.options = options
        self.routes = routes
        self.port = options.port
        self.usual_port = 0
        self._clock = clock = SystemClock()
        self._stack = AsyncExitStack()
        self._tasks = TaskOwner("host")
        self.intake = Intake()
        self.supervisor: Supervisor[AgentKey] = Supervisor(clock=clock, cleanup_seconds=options.cleanup_seconds)
        self.ledger = None if options.ledger is None else AgentLedger(Ledger(options.ledger, clock=clock))
        self.metrics = HostMetrics(
            lambda: self.supervisor.live, tenant_labels=options.tenant_labels, tenant_label=options.tenant_label
        )
        self.pool = ProcessPool(
            options.processes, paths=routes.process_paths, observe=self.metrics.observe_process_start
        )
        self.tenancy = _tenancy(options, clock, self.supervisor, self.pool, self.ledger)
        self.pauses = Pauses(clock)
        self.agents = HostedAgents(
            self.supervisor,
            routes=routes,
            tenancy=self.tenancy,
            children={
                "task": task_children(stop_seconds=options.stop_seconds),
                "process": _process_children(self.pool),
            },
            max_agents=options.max_agents,
            max_processes=options.processes.max_running,
            pauses=self.pauses,
            ledger=self.ledger,
            usage_sink=self.metrics.usage_sink,
        )
        self.watchdog = LoopWatchdog(threshold=options.block_seconds)
        self.health = Health(self.watchdog, live_seconds=options.live_seconds, is_path=routes.__contains__)
        self.startup = StartUp(self.pool, seconds=options.start_seconds)
        self.drain = HostDrain(
            intake=self.intake,
            supervisor=self.supervisor,
            ledger=self.ledger,
            metrics=self.metrics,
            tasks=self._tasks,
        )
        self.guard = CallGuard(options.webhook_secret, clock=clock, secrets=options.webhook_secrets)
        self.allowed = AllowedRooms(options.allowed_room_urls)
        self.logs = RecentLogs()
        self.admin = AdminRoutes(
            guard=AdminGuard(options.admin_key),
            supervisor=self.supervisor,
            tenancy=self.tenancy,
            clock=clock,
            drain=self.drain.begin,
            memory_of=self.agents.memory_of,
            isolation_of=self.agents.isolation_of,
            logs=self.logs,
            is_kept=self.agents.is_kept,
            pauses=self.pauses,
        )
        self.http = HostRoutes(
            routes=routes,
            intake=self.intake,
            guard=self.guard,
            allowed=self.allowed,
            agents=self.agents,
            metrics=self.metrics,
            describe=describe,
            live=self.health.live,
            startup=self.startup,
            load=lambda: self.tenancy.load.load,
            admin=self.admin,
            body_seconds=options.body_seconds,
        )
        self.link = None if options.link is None else self._link_to(options.link)
        self._connect()

    def _link_to(self, to: LinkTo) -> HostLink:
        link = HostLink(
            to,
            name=self.options.name,
            max_agents=self.options.max_agents,
            routes=self.routes,
            intake=self.intake,
            agents=self.agents,
            live=lambda: self.supervisor.count,
            load=lambda: self.tenancy.load.load,
            startup=self.startup,
            metrics=self.metrics,
        )
        self.agents.protocol_for = link.protocol_for
        hide_api_key()
        return link

    def _connect(self) -> None:
        """Add the observers, whose parts are all there now."""
        options = self.options
        self.supervisor.on_change += [self.metrics.changed, self.tenancy.changed]
        self.metrics.register(TenancyCollector(self.tenancy))
        self.metrics.register(ProcessMetrics(self.pool))
        self.metrics.show_ready(lambda: self.intake.refuses is None and not self.startup.missing)
        self.pool.judge = self.tenancy.memory.judge
        blocks_allowed = options.blocks_allowed if options.on_block == "isolate" else None
        response = BlockResponse(
            routes=self.routes, pool=self.pool, metrics=self.metrics, blocks_allowed=blocks_allowed
        )
        self.watchdog.on_block.append(response.blocked)
        self.watchdog.on_lag += [self.metrics.observe_lag, self.tenancy.load.observe_lag]
        if options.health_port:
            self.watchdog.on_lag.append(lambda _: self.health.remember(self.http.readiness()))

    async def start(self) -> None:
        """Start all parts, and the agents of the ledger. Raises SettingsError; then nothing runs."""
        contain_exits(asyncio.get_running_loop())
        if self.options.listens:
            self.guard.explain()
        if needs_pool := bool(self.routes.process_paths()):
            self.pool.check_program()
        async with AsyncExitStack() as stack:
            self.logs.attach()
            stack.callback(self.logs.detach)
            entries = await self._open_ledger(stack)
            self._start_health_server(stack)
            if self.options.listens:
                await self._listen(stack)
            if self.link is not None:
                self.link.start()
                stack.push_async_callback(self.link.stop)
            stack.push_async_callback(self.pool.close)
            if needs_pool:
                self.pool.open()
                self.startup.need_pool()
            self.watchdog.start()
            stack.callback(self.watchdog.stop)
            stack.push_async_callback(self.admin.close)
            stack.push_async_callback(self._tasks.stop, timeout=_STOP_TASKS_SECONDS)
            self._tasks.spawn(self.tenancy.run(), name="tenancy")
            await self._start_agents(entries)
            self._stack = stack.pop_all()

    async def stop(self) -> DrainReport:
        """Drain the agents, then stop all parts. Never raises for an agent's fault."""
        report = await self.drain.run()
        await self._stack.aclose()
        return report

    async def _open_ledger(self, stack: AsyncExitStack) -> Sequence[LedgerEntry]:
        if self.ledger is None:
            return ()
        stack.push_async_callback(self.ledger.close)
        try:
            entries = await self.ledger.open()
            await self.tenancy.frozen.restore()
            self.guard.remember(await self.ledger.signatures())
        except OSError as error:
            raise SettingsError(f"the host's ledger cannot be used: {error}; see MESHHOST_LEDGER") from None
        return entries

    def _start_health_server(self, stack: AsyncExitStack) -> None:
        # Before the HTTP server, so that it stops after it: probes are answered to the end.
        if self.options.health_port:
            server = HealthServer(self.health, host=self.options.host, port=self.options.health_port)
            server.start()
            stack.callback(server.stop)

    async def _listen(self, stack: AsyncExitStack) -> None:
        runner = web.AppRunner(
            self.http.application(),
            access_log=None,
            handle_signals=False,
            shutdown_timeout=1.0,
            logger=http_logger(),
            lingering_time=self.options.linger_seconds,
            keepalive_timeout=_KEEP_ALIVE_SECONDS,
            auto_decompress=False,  # see edge/encodings.py
        )
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        host = self.options.host
        if self.port == 0 and self.usual_port:
            with suppress(OSError):  # taken: then any other
                await GuardedSite(runner, host, self.usual_port, limits=self.options.edge).start()
        try:
            if not runner.addresses:
                await GuardedSite(runner, host, self.port, limits=self.options.edge).start()
        except OSError as error:
            text = f"cannot listen on {host}:{self.port}: {error.strerror or error}; choose another port"
            raise SettingsError(text) from None
        self.port = runner.addresses[0][1]

    async def _start_agents(self, entries: Sequence[LedgerEntry]) -> None:
        """Start the agents of the ledger, those with processes when the first process is up; then open the intake."""
        missing = self.startup.missing
        later = [entry for entry in entries if missing and self._is_for_process(entry)]
        await self._resume([entry for entry in entries if not (missing and self._is_for_process(entry))])
        self.intake.open()
        where = {"host": self.options.host, "port": self.port, "paths": list(self.routes)}
        if missing:
            logger.info("service host listens, not ready yet", extra={**where, "missing": list(missing)})
            self._tasks.spawn(self._finish_start(later, where), name="start-up")
        else:
            logger.info("service host ready", extra=where)

    async def _finish_start(self, later: Sequence[LedgerEntry], where: Mapping[str, object]) -> None:
        await self.startup.wait()
        await self._resume(later)
        logger.info("service host ready", extra=where)

    def _is_for_process(self, entry: LedgerEntry) -> bool:
        route = self.routes.get(entry.path)
        return route is not None and self.routes.needs_process(route)

    async def _resume(self, entries: Sequence[LedgerEntry]) -> None:
        if self.ledger is not None:
            await resume(
                entries,
                ledger=self.ledger,
                agents=self.agents,
                routes=self.routes,
                allowed=self.allowed,
                now=self._clock.time(),
            )


def _tenancy(
    options: HostOptions,
    clock: Clock,
    supervisor: Supervisor[AgentKey],
    pool: ProcessPool,
    ledger: AgentLedger | None,
) -> Tenancy:
    return Tenancy(
        clock=clock,
        live=lambda: supervisor.live,
        load=LoadMeter(
            clock=clock, live=lambda: supervisor.count, max_agents=options.max_agents, limits=options.load_limits
        ),
        quotas=Quotas(clock=clock, default=options.default_quota, overrides=options.quotas),
        max_starts=options.max_starts,
        quarantine=options.quarantine,
        expected_memory=pool.expected_memory,
        frozen=Freezes(clock=clock, store=ledger),
    )


def _process_children(pool: ProcessPool) -> ChildFactory:
    def make(route: Route, assignment: Assignment) -> Child:
        return process_child(pool, route.path, assignment, grace=route.drain_seconds)

    return make

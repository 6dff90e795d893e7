"""`ServiceHost`: serves agent classes at paths, and starts them for the rooms that call."""

import asyncio
import gc
import logging
import math
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from aiohttp import web

from meshhost.clock import Clock, SystemClock
from meshhost.errors import SettingsError
from meshhost.hosting.calls.admission import AllowedRooms
from meshhost.hosting.calls.guard import CallGuard
from meshhost.hosting.calls.ledger import Ledger, LedgerEntry, SpawnLedger
from meshhost.hosting.calls.resume import resume
from meshhost.hosting.calls.spawns import OnDuplicate, Route, Spawns
from meshhost.hosting.calls.specs import WELL_KNOWN_PATHS, service_spec
from meshhost.hosting.http.admin import RESERVED_PREFIXES, AdminGuard, AdminRoutes
from meshhost.hosting.http.routes import LINGER_SECONDS, HostRoutes, http_logger
from meshhost.hosting.observe.health import Health, HealthServer, StartUp
from meshhost.hosting.observe.load import LoadMeter
from meshhost.hosting.observe.metrics import HostMetrics
from meshhost.hosting.observe.watchdog import Block, LoopWatchdog
from meshhost.hosting.processes.child import current_role
from meshhost.hosting.processes.pool import ProcessOptions, ProcessPool
from meshhost.hosting.tenants.freezes import Freezes
from meshhost.hosting.tenants.quarantine import QuarantinePolicy
from meshhost.hosting.tenants.quotas import Quotas, TenantQuota
from meshhost.hosting.tenants.tenancy import Tenancy, TenancyCollector, who
from meshhost.identity.grants import ApiScope
from meshhost.settings import Settings, read_settings
from meshhost.signals import StopSignals, stop_signals
from meshhost.supervision.drain import DrainReport
from meshhost.supervision.policy import RestartPolicy
from meshhost.supervision.spawn import Spawn
from meshhost.supervision.supervisor import Supervisor
from meshhost.tasks import TaskOwner, Won, first_of

__all__ = ["ServiceHost"]

logger = logging.getLogger(__name__)

AgentClass = TypeVar("AgentClass", bound=Callable[..., Any])
Hook = TypeVar("Hook", bound=Callable[[], Any])
OnBlock = Literal["report", "isolate"]
_RESERVED = {"/", "/livez", "/readyz", "/metrics", "/agents", *WELL_KNOWN_PATHS}


class ServiceHost:
    """Hosts agents: `@host.path("/worker", identity="storage-worker")` above a class, then `await host.run()`.

    `host` and `port` are where calls come in (default MESHHOST_HOST or 127.0.0.1, and MESHHOST_PORT or a free port).
    `webhook_secret` (default MESHHOST_WEBHOOK_SECRET) signs calls, `webhook_secrets` by tenant those of tenants with one
    of their own; without one only this machine may call. Calls may name
    room servers at `allowed_room_urls` (default MESHHOST_ALLOWED_ROOM_URLS, separated by commas) and at MESHHOST_API_URL.
    `max_agents` live at once (default MESHHOST_MAX_AGENTS or 10,000); `drain_seconds` is how long they may take to finish
    when the host stops (default MESHHOST_DRAIN_SECONDS or 30).

    Paths with `isolation="process"` run each agent in a process of its own, which runs this program again up to `run()`,
    or is forked from one that did (MESHHOST_PROCESS_START: auto, fork or boot).
    `process_pool` says how many wait warm (default MESHHOST_PROCESS_POOL or 1), or in full how processes are kept.
    Agents that block the event loop longer than MESHHOST_BLOCK_SECONDS are reported; with `on_block="isolate"` those of a
    path that did so `blocks_allowed` times get processes from their next start on.

    `quotas` say by tenant what it may take, `default_quota` what others may (default MESHHOST_TENANT_MAX_AGENTS,
    MESHHOST_TENANT_STARTS_PER_SECOND, MESHHOST_TENANT_MAX_WAITING, MESHHOST_TENANT_MEMORY_MB); at most MESHHOST_MAX_STARTS
    agents start at once.
    `quarantine` says when a tenant's agents that go on crashing are held. `ledger` is a file in which the agents that shall
    live and the tenants that are frozen are kept, for when the host starts again (default MESHHOST_LEDGER; "" for none).
    `admin_key` (default
    MESHHOST_ADMIN_KEY) guards the operator's routes; without one they answer this machine only.

    `health_port` (default MESHHOST_HEALTH_PORT; 0 for none) answers /livez and /readyz also while the event loop is held.
    """

    def __init__(
        self,
        *,
        host: str | None = None,
        webhook_secret: str | None = None,
        port: int | None = None,
        name: str | None = None,
        allowed_room_urls: Sequence[str] | None = None,
        max_agents: int | None = None,
        drain_seconds: float | None = None,
        process_pool: int | ProcessOptions | None = None,
        on_block: OnBlock = "report",
        blocks_allowed: int = 3,
        quotas: Mapping[str, TenantQuota] | None = None,
        default_quota: TenantQuota | None = None,
        quarantine: QuarantinePolicy | None = None,
        ledger: str | Path | None = None,
        admin_key: str | None = None,
        webhook_secrets: Mapping[str, str] | None = None,
        health_port: int | None = None,
    ) -> None:
        settings = read_settings()
        self._host = host or settings.host or "127.0.0.1"
        self._port = port if port is not None else settings.port or 0
        self._name = name or "meshhost-service"
        self._drain_seconds = settings.drain_seconds if drain_seconds is None else drain_seconds
        self._routes: dict[str, Route] = {}
        self._clock = SystemClock()
        self._supervisor = Supervisor(clock=self._clock)
        self._metrics = HostMetrics(
            lambda: self._supervisor.live,
            lambda spawn: who(spawn)[1],
            self._processes,
            tenant_of=lambda spawn: who(spawn)[0],
            tenant_labels=settings.tenant_labels,
        )
        self._hooks: list[Callable[[], Any]] = []
        self._pool = ProcessPool(
            _process_options(process_pool, settings),
            paths=lambda: [route.path for route in self._routes.values() if self._needs_process(route)],
            observe=self._metrics.observe_process_start,
            judge=lambda looks: self._tenancy.memory.judge(looks),  # noqa: PLW0108 - the tenancy is made later
        )
        most = max_agents or settings.max_agents
        self._tasks = TaskOwner("host")
        self._ledger = _spawn_ledger(ledger, settings, self._clock)
        self._tenancy = Tenancy(
            clock=self._clock,
            live=lambda: self._supervisor.live,
            load=LoadMeter(clock=self._clock, live=lambda: self._tenancy.agents, max_agents=most),
            quotas=Quotas(clock=self._clock, default=default_quota or _default_quota(settings), overrides=quotas),
            max_starts=settings.max_starts,
            quarantine=quarantine,
            expected_memory=self._pool.expected_memory,
            frozen=Freezes(clock=self._clock, store=self._ledger),
        )
        self._metrics.register(TenancyCollector(self._tenancy))
        self._spawns = Spawns(
            self._supervisor,
            max_agents=most,
            pool=self._pool,
            tenancy=self._tenancy,
            ledger=self._ledger,
            usage_sink=self._metrics.usage_sink,
        )
        self._on_block = on_block
        self._blocks_allowed = blocks_allowed
        self._blocks: Counter[str] = Counter()
        self._watchdog = LoopWatchdog(threshold=settings.block_seconds, on_lag=self._lagged, on_block=self._blocked)
        self._supervisor.on_change += [self._metrics.changed, self._tenancy.changed]
        self._guard = CallGuard(_secret(webhook_secret, settings), clock=self._clock, secrets=webhook_secrets)
        self._allowed = AllowedRooms(_allowed(allowed_room_urls, settings))
        self._admin = AdminRoutes(
            guard=AdminGuard(_admin_key(admin_key, settings)),
            supervisor=self._supervisor,
            tenancy=self._tenancy,
            clock=self._clock,
            drain=self._drain_in_background,
            memory_of=self._spawns.memory_of,
            isolation_of=self._spawns.isolation_of_spawn,
        )
        self._health = Health(
            self._watchdog, live_seconds=settings.live_seconds, is_path=self._routes.__contains__, vitals=self._vitals
        )
        self._startup = StartUp(self._pool, seconds=settings.start_seconds)
        port_of_health = (settings.health_port if health_port is None else health_port) or 0
        self._health_server = (
            HealthServer(self._health, host=self._host, port=port_of_health) if port_of_health else None
        )
        self._serving = HostRoutes(
            routes=self._routes,
            guard=self._guard,
            allowed=self._allowed,
            spawns=self._spawns,
            metrics=self._metrics,
            describe=self.get_service_spec,
            live=self._health.live,
            startup=self._startup,
            load=lambda: self._tenancy.load.load,
            admin=self._admin,
        )
        self._metrics.show_ready(lambda: self._serving.refuses is None and not self._startup.missing)
        self._runner: web.AppRunner | None = None
        self._drain_grace: float | None = None  # each agent has its path's
        self._draining: asyncio.Task[DrainReport] | None = None

    def __repr__(self) -> str:
        return f"<ServiceHost {self._host}:{self._port} paths={list(self._routes)} agents={len(self.agents)}>"

    @property
    def port(self) -> int:
        """The port that is listened on; before `start`, the one asked for (0: a free one)."""
        return self._port

    @property
    def agents(self) -> tuple[Spawn, ...]:
        """The agents that live here."""
        return self._supervisor.live

    def path(
        self,
        path: str,
        *,
        identity: str | None = None,
        permissions: ApiScope | None = None,
        on_duplicate: OnDuplicate = "join",
        restart: RestartPolicy | None = None,
        isolation: str = "task",
        start_timeout: float = 60.0,
        drain_seconds: float | None = None,
    ) -> Callable[[AgentClass], AgentClass]:
        """Decorate an agent class: a call to `path` starts it, by default as `identity` with `permissions`.

        `drain_seconds` is how long its agents may take to finish when they are to leave (default: the host's).
        """

        def bind(cls: AgentClass) -> AgentClass:
            self.add_path(
                path,
                cls=cls,
                identity=identity,
                permissions=permissions,
                on_duplicate=on_duplicate,
                restart=restart,
                isolation=isolation,
                start_timeout=start_timeout,
                drain_seconds=drain_seconds,
            )
            return cls

        return bind

    def prewarm(self, hook: Hook) -> Hook:
        """Decorate a function that each process of an agent calls (and awaits) before it counts as ready.

        A class may have a hook of its own: a class method or static method `prewarm()`. Agents in tasks have none.
        """
        self._hooks.append(hook)
        return hook

    def add_path(
        self,
        path: str,
        *,
        cls: Callable[..., Any],
        identity: str | None = None,
        permissions: ApiScope | None = None,
        on_duplicate: OnDuplicate = "join",
        restart: RestartPolicy | None = None,
        isolation: str = "task",
        start_timeout: float = 60.0,
        drain_seconds: float | None = None,
    ) -> None:
        """Bind a path to an agent class, as `path` does. Raises SettingsError for a path that is taken or reserved."""
        if not path.startswith("/") or path in _RESERVED or _is_the_operators(path):
            raise SettingsError(f"path {path!r}: expected a path such as /worker that is not one of the host's own")
        if path in self._routes:
            raise SettingsError(f"path {path!r} is bound already")
        if on_duplicate not in ("join", "replace", "allow"):
            raise SettingsError("on_duplicate: expected join, replace or allow")
        if isolation not in ("task", "process"):
            raise SettingsError("isolation: expected task or process")
        if drain_seconds is not None and not 0 <= drain_seconds < math.inf:
            raise SettingsError("drain_seconds: expected a number of seconds, 0 or more")
        self._routes[path] = Route(
            path=path,
            cls=cls,
            identity=identity,
            permissions=permissions,
            on_duplicate=on_duplicate,
            restart=restart or RestartPolicy(),
            isolation=isolation,
            start_timeout=start_timeout,
            drain_seconds=self._drain_seconds if drain_seconds is None else drain_seconds,
        )

    def get_service_spec(self, *, image: str = "") -> dict[str, Any]:
        """The service description: paths, identities and what the agents may do."""
        endpoints = [(route.path, route.identity, route.permissions) for route in self._routes.values()]
        longest = max((route.drain_seconds for route in self._routes.values()), default=self._drain_seconds)
        return service_spec(name=self._name, port=self._port, endpoints=endpoints, image=image, drain_seconds=longest)

    async def start(self) -> None:
        """Listen for calls, and start the agents of the ledger again: those with processes when the first process is up.

        Until then /readyz says what is missing, and calls to their paths are refused with it.
        Raises SettingsError when the address cannot be listened on or the ledger cannot be used.
        In an agent's process this is where the agent lives; it ends with SystemExit.
        """
        if (role := current_role()) is not None:
            await role.serve({path: route.cls for path, route in self._routes.items()}, self._hooks)
        self._guard.explain()
        if any(self._needs_process(route) for route in self._routes.values()):
            self._pool.check_program()
        entries = await self._open_ledger()
        runner = web.AppRunner(
            self._serving.application(),
            access_log=None,
            handle_signals=False,
            shutdown_timeout=1.0,
            logger=http_logger,
            lingering_time=LINGER_SECONDS,
        )
        await runner.setup()
        try:
            await self._listen(runner)
        except SettingsError:
            await runner.cleanup()
            if self._ledger is not None:
                await self._ledger.close()
            raise
        self._runner = runner
        self._port = runner.addresses[0][1]
        if any(self._needs_process(route) for route in self._routes.values()):
            self._pool.open()
            self._startup.need_pool()
        self._watchdog.start()
        self._tasks.spawn(self._tenancy.run(), name="tenancy")
        missing = self._startup.missing
        later = [entry for entry in entries if missing and self._is_for_process(entry)]
        await self._resume([entry for entry in entries if not (missing and self._is_for_process(entry))])
        if self._serving.refuses == "starting":
            self._serving.refuses = None
        where = {"host": self._host, "port": self._port, "paths": list(self._routes)}
        if missing:
            logger.info("service host listens, not ready yet", extra={**where, "missing": list(missing)})
            self._tasks.spawn(self._finish_start(later, where), name="start-up")
        else:
            logger.info("service host ready", extra=where)

    async def _listen(self, runner: web.AppRunner) -> None:
        """Raises SettingsError; what the runner listens on then is for whoever owns it to end."""
        try:
            await web.TCPSite(runner, self._host, self._port).start()
        except OSError as error:
            where = f"{self._host}:{self._port}"
            raise SettingsError(f"cannot listen on {where}: {error.strerror or error}; choose another port") from None
        if self._health_server is not None:
            self._health_server.start()

    async def _finish_start(self, later: Sequence[LedgerEntry], where: Mapping[str, object]) -> None:
        await self._startup.wait()
        await self._resume(later)
        logger.info("service host ready", extra=where)

    def _is_for_process(self, entry: LedgerEntry) -> bool:
        route = self._routes.get(entry.path)
        return route is not None and self._needs_process(route)

    async def _resume(self, entries: Sequence[LedgerEntry]) -> None:
        if self._ledger is not None:
            await resume(
                entries,
                ledger=self._ledger,
                spawns=self._spawns,
                routes=self._routes,
                allowed=self._allowed,
                now=self._clock.time(),
            )

    async def stop(self) -> DrainReport:
        """Take no more calls, let the agents finish, and stop listening. Never raises for an agent's fault.

        Each agent has the time of its path; who is not gone then is aborted, and left behind a few seconds later.
        """
        self._take_no_more()
        self._end_draining()
        report = await self._drain()
        await self._pool.close()
        self._watchdog.stop()
        await self._admin.close()
        await self._tasks.stop(timeout=2.0)
        if self._ledger is not None:
            await self._ledger.close()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        if self._health_server is not None:
            self._health_server.stop()
        return report

    def _take_no_more(self) -> None:
        self._serving.refuses = "draining"
        if self._ledger is not None:
            self._ledger.freeze()

    def _drain_in_background(self) -> None:
        """For the operator: the process goes on answering, with nobody living in it any more."""
        self._take_no_more()
        self._end_draining()
        self._draining = self._tasks.spawn(self._drain(), name="drain")

    def _end_draining(self) -> None:
        """The agents go on leaving; who drains next waits for them, and tells of it."""
        if self._draining is not None:
            self._draining.cancel()
            self._draining = None

    async def _drain(self) -> DrainReport:
        began = time.monotonic()
        report = await self._supervisor.drain_all(self._drain_grace)
        self._metrics.observe_drain(time.monotonic() - began, aborted=len(report.aborted) + len(report.stuck))
        return report

    async def _open_ledger(self) -> list[LedgerEntry]:
        if self._ledger is None:
            return []
        try:
            entries = await self._ledger.open()
            await self._tenancy.frozen.restore()
        except OSError as error:
            await self._ledger.close()
            raise SettingsError(f"the host's ledger cannot be used: {error}; see MESHHOST_LEDGER") from None
        return entries

    def _lagged(self, seconds: float) -> None:
        self._metrics.observe_lag(seconds)
        self._tenancy.load.observe_lag(seconds)
        if self._health_server is not None:
            self._health.remember(self._serving.readiness())

    def _needs_process(self, route: Route) -> bool:
        return self._spawns.isolation_of(route) == "process"

    def _processes(self) -> Iterator[tuple[str, int]]:
        for use, processes in (("idle", self._pool.idle), ("agent", self._pool.running)):
            for process in processes:
                yield use, process.memory()
        if (template := self._pool.template) is not None:
            yield "template", template.memory()

    def _blocked(self, block: Block) -> None:
        """An agent held the event loop; told when it is over."""
        path = str(block.fields.get("path", ""))
        route = self._routes.get(path)
        self._metrics.count_block(path if route is not None else "")
        self._blocks[path] += 1
        if self._on_block != "isolate" or route is None or self._blocks[path] < self._blocks_allowed:
            return
        if self._needs_process(route):
            return
        try:
            self._pool.check_program()
        except SettingsError as error:
            logger.warning("path cannot be given processes", extra={"path": path, "reason": str(error)})
            return
        logger.warning(
            "path blocks the event loop and gets processes", extra={"path": path, "blocks": self._blocks[path]}
        )
        self._spawns.isolate(path)

    def _vitals(self) -> dict[str, Any]:
        block = self._watchdog.last_block
        if block is None:
            return {}
        ago = time.monotonic() - block.began - block.seconds
        path = block.fields.get("path")
        return {"last_block": {"path": path, "seconds": round(block.seconds, 3), "seconds_ago": round(ago, 3)}}

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT, then drain and return. A second signal aborts the agents at once."""
        if current_role() is not None:
            await self.start()
        async with stop_signals() as signals:
            await self.start()
            # What the program imported stays for good: not to look at it again makes each collection of garbage, which
            # holds all agents up, many times shorter.
            gc.collect()
            gc.freeze()
            try:
                await signals.wait()
            finally:  # also when cancelled: agents are never left alone
                report = await self._stop_unless_forced(signals)
        if report.stuck:
            # Their tasks cannot be ended, and the loop would wait for them for ever: the process is ended instead.
            logging.shutdown()
            os._exit(0)

    async def _stop_unless_forced(self, signals: StopSignals) -> DrainReport:
        outcome = await first_of(self.stop(), signals.wait_forced())
        if isinstance(outcome, Won):
            return outcome.result
        logger.warning("second signal: agents are aborted")
        self._supervisor.abort_all()
        self._drain_grace = 0.0
        return await self.stop()


def _process_options(given: int | ProcessOptions | None, settings: Settings) -> ProcessOptions:
    if isinstance(given, ProcessOptions):
        return given
    return ProcessOptions(
        size=settings.process_pool if given is None else given,
        memory_mb=settings.process_memory_mb,
        stuck_seconds=settings.process_stuck_seconds,
        max_running=settings.max_processes,
        start=settings.process_start,
    )


def _is_the_operators(path: str) -> bool:
    return any(path == prefix or path.startswith(f"{prefix}/") for prefix in RESERVED_PREFIXES)


def _default_quota(settings: Settings) -> TenantQuota:
    return TenantQuota(
        max_agents=settings.tenant_max_agents,
        starts_per_second=settings.tenant_starts_per_second,
        max_waiting=settings.tenant_max_waiting,
        memory_mb=settings.tenant_memory_mb,
    )


def _admin_key(given: str | None, settings: Settings) -> str | None:
    if given is not None:
        return given or None
    return settings.admin_key.get_secret_value() if settings.admin_key is not None else None


def _spawn_ledger(given: str | Path | None, settings: Settings, clock: Clock) -> SpawnLedger | None:
    path = given if given is not None else settings.ledger
    if path in (None, "", "0", "off"):
        return None
    if path in ("1", "on"):
        path = settings.data_dir / "host-ledger.db"
    return SpawnLedger(Ledger(Path(path).expanduser(), clock=clock))


def _secret(given: str | None, settings: Settings) -> str | None:
    if given is not None:
        return given or None
    return settings.webhook_secret.get_secret_value() if settings.webhook_secret is not None else None


def _allowed(given: Sequence[str] | None, settings: Settings) -> list[str]:
    urls = list(given) if given is not None else (settings.allowed_room_urls or "").split(",")
    return [settings.api_url, *(url.strip() for url in urls if url.strip())]

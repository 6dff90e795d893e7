"""`ServiceHost`: serves agent classes at paths, and starts them for the rooms that call.

This is what users touch; the parts behind it are made and connected in `assembly.py`. A program makes a host, binds classes
with `@host.path`, and awaits `host.run()`, which takes SIGTERM and SIGINT, serves until one comes, and drains. Tests and
programs with a life of their own use `start` and `stop` instead.

In the process of an agent the same program runs again up to `run()` or `start()`, which then serves that one agent and ends
the process (`processes.child`).
"""

import asyncio
import contextlib
import gc
import inspect
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from meshhost.errors import SettingsError
from meshhost.hosting.agents.assignment import HostedAgent
from meshhost.hosting.assembly import HostAssembly
from meshhost.hosting.calls.route import IsolationKind, OnDuplicate, Route, Routes
from meshhost.hosting.calls.specs import service_spec
from meshhost.hosting.options import HostOptions, OnBlock
from meshhost.hosting.processes.child.roles import current_role
from meshhost.hosting.processes.options import ProcessOptions
from meshhost.hosting.tenants.quarantine import QuarantinePolicy
from meshhost.hosting.tenants.quotas import TenantQuota
from meshhost.hosting.threads import busy_threads, leave, threads_end
from meshhost.hosting.unrun import forget, remember
from meshhost.identity.grants import ApiScope
from meshhost.logs import configure_logs, is_configured
from meshhost.settings import read_settings
from meshhost.signals import StopSignals, stop_signals
from meshhost.supervision.drain import DrainReport
from meshhost.supervision.policy import RestartPolicy
from meshhost.tasks import Won, first_of

__all__ = ["USUAL_PORT", "ServiceHost", "ServicePath"]

logger = logging.getLogger(__name__)

USUAL_PORT = 8081
"""Where a program whose host is run listens when nothing says otherwise; if it is taken, at any free port."""

AgentClass = TypeVar("AgentClass", bound=Callable[..., Any])
Hook = TypeVar("Hook", bound=Callable[[], Any])

# How long threads may take to end after a drain that used up its time.
_THREAD_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class ServicePath:
    """A path as MeshAgent programs append it to `ServiceHost.paths`; `add_path` says more."""

    path: str
    cls: Callable[..., Any]
    identity: str | None = None
    permissions: ApiScope | None = None


class _Paths(Sequence[ServicePath]):
    """The paths of a host. What is appended is bound as by `add_path`."""

    def __init__(self, host: "ServiceHost") -> None:
        self._host = host
        self._paths: list[ServicePath] = []

    def append(self, path: ServicePath) -> None:
        """Bind a path. Raises SettingsError as `add_path` does."""
        self._host.add_path(path.path, cls=path.cls, identity=path.identity, permissions=path.permissions)

    def note(self, path: ServicePath) -> None:
        """Remember a path that was bound."""
        self._paths.append(path)

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: Any) -> Any:
        return self._paths[index]


class ServiceHost:
    """Hosts agents: `@host.path("/worker", identity="storage-worker")` above a class, then `await host.run()`.

    `host` and `port` are where calls come in (default MESHHOST_HOST or 127.0.0.1, and MESHHOST_PORT or, with `run()`, 8081, or
    a free port where that is taken and with `start()`). A port of 0 is a free one.
    `webhook_secret` (default MESHHOST_WEBHOOK_SECRET) signs calls; `webhook_secrets` has by tenant the secrets of tenants with
    one of their own. Without a secret only this machine may call. Calls may name room servers at `allowed_room_urls` (default
    MESHHOST_ALLOWED_ROOM_URLS, separated by commas) and at MESHHOST_API_URL. At most `max_agents` live at once (default
    MESHHOST_MAX_AGENTS or 10,000). `drain_seconds` is how long agents may take to finish when the host stops (default
    MESHHOST_DRAIN_SECONDS or 30).

    Paths with `isolation="process"` run each agent in a process of its own, which runs this program again up to `run()`, or is
    forked from one that did (MESHHOST_PROCESS_START: auto, fork or boot). `process_pool` says how many processes wait warm
    (default MESHHOST_PROCESS_POOL or 1), or in full how processes are kept. Agents that block the event loop longer than
    MESHHOST_BLOCK_SECONDS are logged; with `on_block="isolate"` the agents of a path that blocked it `blocks_allowed` times get
    processes from their next start on.

    `quotas` are the limits by tenant, `default_quota` those of all others (default MESHHOST_TENANT_MAX_AGENTS,
    MESHHOST_TENANT_STARTS_PER_SECOND, MESHHOST_TENANT_MAX_WAITING, MESHHOST_TENANT_MEMORY_MB); at most MESHHOST_MAX_STARTS
    agents start at once. `quarantine` says when agents that keep crashing are held. `ledger` is a file that records the
    agents that must live and the tenants that are frozen, for the next start of the host (default MESHHOST_LEDGER; "" for
    none).
    `admin_key` (default MESHHOST_ADMIN_KEY) protects the operator's routes; without one they answer this machine only.
    `health_port` (default MESHHOST_HEALTH_PORT; 0 for none) answers /livez and /readyz also while the event loop is blocked.

    With a `room_server` (default MESHHOST_ROOM_SERVER) the host dials in there with an `api_key` (default MESHHOST_API_KEY) and
    is called over this link: it needs no address that others can reach and no webhook secret, and listens only if a port is
    set. Its agents take part over the link, but for those in processes. They are called into the `rooms` of these names or
    patterns (default MESHHOST_LINK_ROOMS), and into those that the room server's configuration names; `labels` (default
    MESHHOST_LABELS) are what services there may require.

    Raises SettingsError for an argument or variable that is wrong.
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
        room_server: str | None = None,
        api_key: str | None = None,
        rooms: Sequence[str] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> None:
        settings = read_settings()
        if current_role() is not None:
            # This process runs an agent, whose code must not find here what the host is operated with.
            webhook_secret, webhook_secrets, admin_key, room_server, api_key = "", None, "", "", ""
        self._options = HostOptions.merged(
            settings,
            host=host,
            webhook_secret=webhook_secret,
            port=port,
            name=name,
            allowed_room_urls=allowed_room_urls,
            max_agents=max_agents,
            drain_seconds=drain_seconds,
            process_pool=process_pool,
            on_block=on_block,
            blocks_allowed=blocks_allowed,
            quotas=quotas,
            default_quota=default_quota,
            quarantine=quarantine,
            ledger=ledger,
            admin_key=admin_key,
            webhook_secrets=webhook_secrets,
            health_port=health_port,
            room_server=room_server,
            api_key=api_key,
            rooms=rooms,
            labels=labels,
        )
        self._is_usual_port = port is None and settings.port is None and self._options.listens
        self._routes = Routes()
        self.paths = _Paths(self)
        self._hooks: list[Callable[[], Any]] = []
        self._is_started = False
        self._parts = HostAssembly(self._options, self._routes, self.get_service_spec)

    @property
    def is_linked(self) -> bool:
        """Whether the link to the room server is up now; False for a host that does not dial in."""
        return self._parts.link is not None and self._parts.link.is_connected

    def __repr__(self) -> str:
        return f"<ServiceHost {self._options.host}:{self.port} paths={list(self._routes)} agents={len(self.agents)}>"

    @property
    def port(self) -> int:
        """The port that is listened on; before `start`, the requested one (0: a free one)."""
        return self._parts.port

    @property
    def agents(self) -> tuple[HostedAgent, ...]:
        """The live agents."""
        return self._parts.supervisor.live

    @property
    def options(self) -> HostOptions:
        """The options, merged from arguments and environment."""
        return self._options

    def tune(self, **changes: Any) -> None:
        """Change options by their names in `HostOptions`, also those that have no argument. Only before `start`, for tests."""
        self._options = replace(self._options, **changes)
        self._parts = HostAssembly(self._options, self._routes, self.get_service_spec)

    @property
    def parts(self) -> HostAssembly:
        """The parts of this host, for tests and tools that look inside."""
        return self._parts

    def path(
        self,
        path: str,
        *,
        identity: str | None = None,
        permissions: ApiScope | None = None,
        on_duplicate: OnDuplicate = "join",
        restart: RestartPolicy | None = None,
        isolation: IsolationKind = "task",
        start_timeout: float = 60.0,
        drain_seconds: float | None = None,
    ) -> Callable[[AgentClass], AgentClass]:
        """Decorate an agent class: a call to `path` starts it, by default as `identity` with `permissions`.

        The class needs `start(room=…)` and `stop()`, and is made without arguments or with `call=`; else SettingsError.
        `drain_seconds` is how long its agents may take to finish when they have to leave (default: the host's).
        """

        def bind(cls: AgentClass) -> AgentClass:
            if inspect.isfunction(cls):
                # `add_path` takes a factory; under a decorator a function is more likely meant to be the agent.
                raise SettingsError(f"path {path!r}: expected a class with start(room=…) and stop(), not a function")
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

        A class may also have one: a class method or static method `prewarm()`. Agents in tasks have no such hooks.
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
        isolation: IsolationKind = "task",
        start_timeout: float = 60.0,
        drain_seconds: float | None = None,
    ) -> None:
        """Bind a path to an agent class, as `path` does. Raises SettingsError for a path that is taken or reserved."""
        if not self._is_started:
            remember(self)
        self._routes.add(
            Route(
                path=path,
                cls=cls,
                identity=identity,
                permissions=permissions,
                on_duplicate=on_duplicate,
                restart=restart or RestartPolicy(),
                isolation=isolation,
                start_timeout=start_timeout,
                drain_seconds=self._options.drain_seconds if drain_seconds is None else drain_seconds,
            )
        )
        self.paths.note(ServicePath(path, cls, identity, permissions))

    def get_service_spec(self, *, image: str = "") -> dict[str, Any]:
        """The service description: paths, identities and what the agents may do."""
        routes, options = self._routes.values(), self._options
        return service_spec(
            name=options.name,
            port=self.port,
            endpoints=[(route.path, route.identity, route.permissions) for route in routes],
            image=image,
            drain_seconds=max((route.drain_seconds for route in routes), default=options.drain_seconds),
        )

    async def start(self) -> None:
        """Listen for calls, and start the agents of the ledger again: those with processes when the first process is up.

        Until then /readyz says what is missing, and calls to their paths are refused. Raises SettingsError when the address
        cannot be used or the ledger cannot be opened. In the process of an agent this is where the agent lives; it ends with
        SystemExit.
        """
        self._is_started = True
        forget(self)
        if (role := current_role()) is not None:
            await role.serve({path: route.cls for path, route in self._routes.items()}, self._hooks)
        await self._parts.start()

    async def stop(self) -> DrainReport:
        """Take no more calls, let the agents finish, and stop listening. Never raises for an agent's fault.

        Each agent has the time of its path; one that is late is aborted, and reported as stuck if it does not end even then.
        """
        return await self._parts.stop()

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT, then drain and return. A second signal aborts the agents at once.

        Threads that agents have started may take as long as the drain. Those that are left then are logged by name and
        stack, and the process ends with exit code 0 without them; nothing after `run()` is run.
        A host that cannot start ends the program with one line and exit code 1, through SystemExit.
        A program that has not configured logging gets readable logs on stderr: MESHHOST_LOG_LEVEL, MESHHOST_LOG_FORMAT.
        """
        if current_role() is not None:
            await self.start()
        if not is_configured():
            settings = read_settings()
            configure_logs(settings.log_level_number, is_json=settings.log_format == "json")
        async with stop_signals() as signals:
            if self._is_usual_port:
                self._parts.usual_port = USUAL_PORT
            try:
                await self.start()
            except SettingsError as error:
                # A mistake of the operator, not of the code: a traceback through asyncio would hide the one useful line.
                raise SystemExit(f"meshhost: {error}") from None
            if self._parts.link is not None and not self._options.listens:
                self._print_line(f"service host dials in at {self._parts.link.url}, with {self._shown_paths()}")
            if self._is_usual_port:
                # Where the port was chosen by a setting, as by `meshhost service run`, the address is known.
                self._print_address()
            # Imported modules stay for good. Frozen, they are not scanned again by each garbage collection, which stops all
            # agents for its time.
            gc.collect()
            gc.freeze()
            loop = asyncio.get_running_loop()
            due = None
            try:
                await signals.wait()
                due = loop.time() + self._longest_drain()
            finally:  # also when cancelled: the agents are always drained
                report = await self._stop_unless_forced(signals)
            if due is not None:
                # Only after a signal: a program that cancels this goes on, and so may its threads.
                waiting = threads_end(max(due - loop.time(), _THREAD_SECONDS))
                outcome = await first_of(waiting, signals.wait_forced())
                if outcome != Won(True) and busy_threads():
                    leave()
        if report.stuck:
            # Their tasks cannot be ended, and asyncio.run would wait for them forever: end the process instead.
            leave()

    def _print_address(self) -> None:
        host = f"[{self._options.host}]" if ":" in self._options.host else self._options.host
        taken = "" if self.port == USUAL_PORT else f" (port {USUAL_PORT} is taken)"
        self._print_line(f"service host listens at http://{host}:{self.port}{taken}, with {self._shown_paths()}")

    def _shown_paths(self) -> str:
        return ", ".join(self._routes) or "no path yet"

    @staticmethod
    def _print_line(text: str) -> None:
        with contextlib.suppress(OSError, ValueError, AttributeError):  # a closed stream is no reason not to serve
            sys.stderr.write(f"meshhost: {text}\n")
            sys.stderr.flush()

    def _longest_drain(self) -> float:
        times = [route.drain_seconds for route in self._routes.values()]
        return max(times, default=self._options.drain_seconds)

    async def _stop_unless_forced(self, signals: StopSignals) -> DrainReport:
        outcome = await first_of(self.stop(), signals.wait_forced())
        if isinstance(outcome, Won):
            return outcome.result
        logger.warning("second signal: agents are aborted")
        self._parts.drain.abort()
        return await self.stop()

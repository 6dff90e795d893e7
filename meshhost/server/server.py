"""`RoomServer`: rooms, their REST API and their LLM gateway on one port of one process.

The parts are made by `assembly.py`; this module starts and stops them. Starting is: open the HTTP client, listen, run the
services' background tasks. Stopping goes the other way: nobody may join any more, the participants are disconnected in order
and waited for, then the background tasks are cancelled and the socket is closed. Every step of it is bounded in time.

Tasks: one per connection (`http/sockets.py`), those of the rooms (`core/directory.py`), one per service
(`RoomService.run`) and the one that deletes tenants and rooms (`data/deletion.py`), which this object owns.
"""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import TypeVar

from aiohttp import web

from meshhost.edge.listener import GuardedSite
from meshhost.errors import SettingsError
from meshhost.gateway.meter import Meter
from meshhost.gateway.provider import ProviderTable
from meshhost.identity.keys import ApiKey
from meshhost.queues.service import QueueService
from meshhost.quotas.counts import LocalCounts, TenantCounts
from meshhost.server.address import Address
from meshhost.server.assembly import Engines, Parts, assemble
from meshhost.server.calling.service import CallingService
from meshhost.server.config import ConfiguredService, ServerConfig
from meshhost.server.configured.sealing import Sealer, SealingKey
from meshhost.server.configured.secrets import Secrets
from meshhost.server.core.ownership import RoomOwnership, SingleServer
from meshhost.server.core.room import Room
from meshhost.server.core.service import RoomService
from meshhost.server.http.errors import http_logger
from meshhost.server.studio.codes import CodeOf
from meshhost.server.studio.signing_in import link_with
from meshhost.server.wire.dialect import Dialect
from meshhost.stores.configuration.contract import ConfigurationStore
from meshhost.stores.documents import DocumentStore
from meshhost.stores.files import RoomFiles
from meshhost.stores.identity_service import IdentityService
from meshhost.stores.memory.configuration import MemoryConfigurationStore
from meshhost.stores.memory.triggers import MemoryTriggerStore
from meshhost.stores.memory.usage import MemoryUsageStore
from meshhost.stores.traces.contract import TraceStore
from meshhost.stores.triggers.contract import TriggerStore
from meshhost.tables.contract import TableStore
from meshhost.tasks import TaskOwner

__all__ = ["RoomServer"]

S = TypeVar("S")

# Seconds for the participants to leave, and again for the background tasks to end.
STOP_TIMEOUT = 10.0
# How long a connection may wait for its next request.
_KEEP_ALIVE_SECONDS = 75.0


class RoomServer:
    """A room server. Make it in a running event loop, `start` it once, and `stop` it.

    The engines (`queues`, `documents`, `files`, `identity`, `providers`, `meter`, `triggers`, `configuration`, `traces`,
    `tables`) belong to the caller, who opens them before `start` and closes them after `stop`. Without a `meter`, usage is kept
    in memory only, without `triggers` schedules and hooks are, without `configuration` what tenants configure is, without
    `traces` none are recorded, without `tables` rooms have none, and without `counts` only what is open is counted for the
    quotas of tenants. Without `secrets` tenants can store none. `services` and `dialects` are added to those that every server
    has; `ownership` decides which rooms this server may open (by default all).
    """

    def __init__(
        self,
        config: ServerConfig,
        *,
        queues: QueueService,
        documents: DocumentStore,
        files: RoomFiles,
        identity: IdentityService,
        providers: ProviderTable,
        meter: Meter | None = None,
        counts: TenantCounts | None = None,
        triggers: TriggerStore | None = None,
        configuration: ConfigurationStore | None = None,
        secrets: Secrets | None = None,
        traces: TraceStore | None = None,
        tables: TableStore | None = None,
        services: Sequence[RoomService] = (),
        dialects: Sequence[Dialect] = (),
        ownership: RoomOwnership | None = None,
    ) -> None:
        self._config = config
        self._address = Address(config)
        counts = counts or LocalCounts(identity.quota_of)
        meter = meter or Meter(MemoryUsageStore())
        configuration = configuration or MemoryConfigurationStore(is_open=True)
        self._engines = Engines(
            queues,
            documents,
            files,
            identity,
            providers,
            meter,
            counts,
            triggers or MemoryTriggerStore(is_open=True),
            configuration,
            secrets or Secrets(configuration, Sealer(_no_keys)),
            traces,
            tables,
        )
        self._parts = assemble(
            config,
            self._engines,
            self._address,
            services=services,
            dialects=dialects,
            ownership=ownership or SingleServer(),
        )
        self._stack = AsyncExitStack()
        self._tasks = TaskOwner("room server")

    @property
    def url(self) -> str:
        """The address of REST and rooms: the public URL, or the address listened on."""
        return self._address.url

    @property
    def local_url(self) -> str:
        """The address listened on, for programs of this machine."""
        return self._address.local_url

    @property
    def port(self) -> int:
        """The port that is listened on; before `start`, the configured one (0: a free one)."""
        return self._address.port

    @property
    def engines(self) -> Engines:
        """What this server works on, as it was given, for the program around it and for tests."""
        return self._engines

    @property
    def parts(self) -> Parts:
        """The parts of this server, for the program around it and for tests that look inside."""
        return self._parts

    @property
    def rooms(self) -> list[Room]:
        """The open rooms."""
        return self._parts.directory.rooms

    def service(self, kind: type[S]) -> S:
        """The service of this class, for programs and tests that look into it. Raises LookupError."""
        return self._parts.services.find(kind)

    def room_url(self, room_name: str) -> str:
        """The WebSocket URL of a room."""
        return self._address.room_url(room_name)

    def studio_link(self, key: ApiKey | None) -> str:
        """An address that signs a browser in to Studio as this key (None: as the operator), once and within ten minutes."""
        of = CodeOf(None, None) if key is None else CodeOf(key.project_id, key.id)
        return link_with(self.url, self._parts.codes.make(of))

    def replace_services(self, services: Sequence[ConfiguredService]) -> None:
        """Call these services into rooms from now on, instead of those before.

        Agents of services and paths that are gone are told to leave their rooms, as those are that a service has no more in a
        room by its pattern. New ones are called into open rooms at once. An agent that stays is not interrupted: what changed
        for it, as arguments and rights, counts from its next call on.
        """
        self.service(CallingService).replace_services(services, self.rooms)

    async def start(self) -> None:
        """Listen and serve. Raises SettingsError when the address cannot be listened on; nothing is left running then."""
        await self._parts.series_file.load()
        async with AsyncExitStack() as stack:
            stack.enter_context(self._parts.log.attached())
            await stack.enter_async_context(self._parts.sender)
            await stack.enter_async_context(self._parts.configured)
            await stack.enter_async_context(self._parts.hosts)
            await stack.enter_async_context(self._parts.oidc)
            runner = web.AppRunner(
                self._parts.app,
                access_log=None,
                handle_signals=False,
                shutdown_timeout=1.0,
                keepalive_timeout=_KEEP_ALIVE_SECONDS,
                logger=http_logger(),
                auto_decompress=False,  # see edge/encodings.py
            )
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await self._listen(runner)
            await stack.enter_async_context(self._parts.mail)
            self._stack = stack.pop_all()
        for service in self._parts.services:
            self._tasks.spawn(service.run(), name=type(service).__name__)
        self._tasks.spawn(self._parts.deletions.run(), name="deletions")
        self._tasks.spawn(self._parts.series.run(), name="series of queues")
        self._tasks.spawn(self._parts.series_file.run(), name="file of series")
        self._tasks.spawn(self._parts.traces.recorder.run(), name="traces")

    async def stop(self) -> None:
        """Disconnect all participants in order and stop listening, within a bounded time. Idempotent."""
        await self._parts.directory.stop(timeout=STOP_TIMEOUT)
        await self._parts.links.stop(timeout=STOP_TIMEOUT)
        await self._tasks.stop(timeout=STOP_TIMEOUT)
        await self._parts.series_file.save()
        await self._parts.traces.stop(timeout=STOP_TIMEOUT)
        await self._stack.aclose()

    async def _listen(self, runner: web.AppRunner) -> None:
        site = GuardedSite(runner, self._config.host, self._config.port, limits=self._config.edge)
        try:
            await site.start()
        except OSError as error:
            where = f"{self._config.host}:{self._config.port}"
            raise SettingsError(f"cannot listen on {where}: {error.strerror or error}; choose another --port") from None
        self._address.port = runner.addresses[0][1]


def _no_keys() -> Sequence[SealingKey]:
    raise SettingsError("this room server was made without keys for secrets")

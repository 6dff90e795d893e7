"""Room servers over real sockets, with times short enough for tests."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from meshhost.backoff import Backoff
from meshhost.gateway.provider import ProviderTable
from meshhost.identity.keys import ApiKey, new_api_key
from meshhost.protocol.frames import Limits
from meshhost.queues.bodies import LargeBodies
from meshhost.queues.over_engine import queue_service
from meshhost.server.config import ServerConfig
from meshhost.server.configured.sealing import Sealer, SealingKey
from meshhost.server.configured.secrets import Secrets
from meshhost.server.core.ownership import RoomOwnership
from meshhost.server.core.service import RoomService
from meshhost.server.server import RoomServer
from meshhost.server.wire.dialect import Dialect
from meshhost.stores.bodies.objects import BodyObjects
from meshhost.stores.document_files import FilesAndDocuments
from meshhost.stores.engine import Engine
from meshhost.stores.files import open_object_store
from meshhost.stores.identity_service import IdentityService
from meshhost.stores.listing.area import ObjectArea
from meshhost.stores.memory.configuration import MemoryConfigurationStore
from meshhost.stores.memory.queues import MemoryQueueStore
from meshhost.stores.memory.triggers import MemoryTriggerStore
from meshhost.stores.memory.usage import MemoryUsageStore
from meshhost.stores.queues import QueueLimits
from meshhost.stores.shared.local_notifier import LocalNotifier
from meshhost.stores.sqlite.documents import SqliteDocumentStore
from meshhost.stores.sqlite.identity import SqliteIdentityStore
from meshhost.stores.sqlite.queues import SqliteQueueStore
from meshhost.tables.store import LanceTables
from meshhost.testing.server import RunningServer

PROJECT = "11111111-2222-3333-4444-555555555555"
OTHER_PROJECT = "99999999-2222-3333-4444-555555555555"

Serve = Callable[..., AbstractAsyncContextManager[RunningServer]]


@pytest.fixture
def other_key() -> ApiKey:
    """A key of a second tenant."""
    return new_api_key(OTHER_PROJECT)


@pytest.fixture
def serve(tmp_path: Path, other_key: ApiKey) -> Serve:
    """Make room servers; keyword arguments are those of ServerConfig and RoomServer. All share one key and one directory."""
    own = new_api_key(PROJECT)

    @asynccontextmanager
    async def _serve(
        *,
        limits: QueueLimits | None = None,
        queues_on_disk: bool = False,
        wire: Limits | None = None,
        default_secret: str | None = None,
        room_services: Sequence[RoomService] = (),
        dialects: Sequence[Dialect] = (),
        ownership: RoomOwnership | None = None,
        **config: Any,
    ) -> AsyncIterator[RunningServer]:
        values = {"port": 0, "resume_seconds": 5.0, "receive_seconds": 5.0, "limits": wire or Limits()} | config
        engine = Engine(
            name="test",
            queues=SqliteQueueStore(tmp_path / f"queues-{uuid.uuid4()}.db", limits=limits or QueueLimits())
            if queues_on_disk
            else MemoryQueueStore(limits=limits or QueueLimits()),
            documents=SqliteDocumentStore(tmp_path / f"documents-{uuid.uuid4()}.db"),
            identity=SqliteIdentityStore(tmp_path / "identity.db"),
            usage=MemoryUsageStore(),
            triggers=MemoryTriggerStore(),
            configuration=MemoryConfigurationStore(),
            notifier=LocalNotifier(),
        )
        identity = IdentityService(engine.identity, extra_keys=lambda: [own, other_key], default_secret=default_secret)
        store = open_object_store(tmp_path / "storage")
        files = FilesAndDocuments(store, engine.documents)
        most = (limits or QueueLimits()).max_message_bytes
        bodies = LargeBodies(engine.queues, BodyObjects(store), max_bytes=most)
        retry = Backoff(first_delay=0.0, max_delay=0.0)
        tables = LanceTables(ObjectArea(store, "tables"), tmp_path / "storage")
        async with (
            engine,
            identity,
            tables,
            queue_service(engine, lease_seconds=30.0, retry=retry, bodies=bodies) as queues,
        ):
            server = RoomServer(
                ServerConfig(**values),
                queues=queues,
                documents=engine.documents,
                files=files,
                identity=identity,
                providers=ProviderTable({}),
                triggers=engine.triggers,
                configuration=engine.configuration,
                secrets=Secrets(engine.configuration, Sealer(lambda: [SealingKey("k1", bytes(32))])),
                tables=tables,
                services=room_services,
                dialects=dialects,
                ownership=ownership,
            )
            try:
                await server.start()
                yield RunningServer(server, own)
            finally:
                await server.stop()

    return _serve


@pytest.fixture
async def server(serve: Serve) -> AsyncIterator[RunningServer]:
    """A room server."""
    async with serve() as running:
        yield running


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """An HTTP client."""
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    """Closes at the end of the test what it was given."""
    async with asyncio.timeout(50), AsyncExitStack() as own:
        yield own


Heard = Callable[..., asyncio.Queue[Any]]


@pytest.fixture
def heard() -> Heard:
    """`heard(room.messaging, "message", "message")`: a queue of that field of every such event to come."""

    def listen(emitter: Any, event: str, field: str | None = None) -> asyncio.Queue[Any]:
        queue: asyncio.Queue[Any] = asyncio.Queue()
        emitter.on(event, lambda **fields: queue.put_nowait(fields if field is None else fields[field]))
        return queue

    return listen


@pytest.fixture
def until() -> Callable[[Callable[[], bool]], Any]:
    """Wait for something that no event tells of."""

    async def wait(holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not holds():  # noqa: ASYNC110 - see above
                await asyncio.sleep(0.005)

    return wait

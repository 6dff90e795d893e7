"""`RoomServer`: one process's rooms behind one address, for REST and WebSockets alike."""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from io import BytesIO
from typing import Any
from urllib.parse import quote

import aiohttp
from aiohttp import web

from meshhost.documents.thread_schema import thread_schema
from meshhost.errors import (
    AccessDeniedError,
    AlreadyExistsError,
    CallRefusedError,
    InvalidRequestError,
    MeshhostError,
    NotFoundError,
    RoomError,
    SettingsError,
    TokenError,
)
from meshhost.gateway.meter import Meter
from meshhost.gateway.provider import Caller, ProviderTable
from meshhost.gateway.routes import add_gateway_routes
from meshhost.identity.grants import ApiScope
from meshhost.identity.tenant import RoomKey
from meshhost.queues.service import QueueService
from meshhost.server.calling.caller import ServiceCaller
from meshhost.server.calling.webhooks import WebhookSender
from meshhost.server.config import ServerConfig
from meshhost.server.core.directory import RoomDirectory
from meshhost.server.core.dispatch import Dispatcher
from meshhost.server.core.room import Room
from meshhost.server.http.access import Access
from meshhost.server.http.rest import LoginRoutes, RestRoutes
from meshhost.server.http.sockets import RoomSockets
from meshhost.server.metrics import ServerMetrics
from meshhost.server.services import developer, messaging
from meshhost.server.services.agents import AgentHandlers
from meshhost.server.services.queues import QueueHandlers
from meshhost.server.services.storage import StorageHandlers
from meshhost.server.services.sync import MAX_DOCUMENT_BYTES, SyncHandlers
from meshhost.stores.documents import DocumentStore
from meshhost.stores.files import RoomFiles, clean_path, mime_type_of
from meshhost.stores.identity_service import IdentityService
from meshhost.tasks import TaskOwner

__all__ = ["RoomServer"]

logger = logging.getLogger(__name__)

STOP_TIMEOUT = 10.0
_BUILT_IN = "http://localhost:8080/"
# A file keeps clear of the frame around it.
_ENVELOPE_BYTES = 64 * 1024


class RoomServer:
    """Rooms, their REST API and their LLM gateway on one port.

    The engines (`queues`, `documents`, `files`, `identity`, `providers`) are opened and closed by whoever made them: opened
    before `start`, closed after `stop`. `start` raises SettingsError when the address cannot be listened on.
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
    ) -> None:
        self._config = config
        self._queues = queues
        self._documents = documents
        self._files = files
        self._providers = providers
        self._access = Access(identity)
        self._stack = AsyncExitStack()
        self._tasks = TaskOwner("room server")
        self._port = config.port
        self._sockets: RoomSockets | None = None

    @property
    def url(self) -> str:
        """Where REST and rooms are: the public URL, or the address listened on."""
        if self._config.public_url is not None:
            return self._config.public_url.rstrip("/")
        host = self._config.host
        shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
        return f"http://{shown}:{self._port}"

    def room_url(self, room_name: str) -> str:
        """The WebSocket URL of a room."""
        return f"ws{self.url.removeprefix('http')}/rooms/{quote(room_name)}"

    async def start(self) -> None:
        """Listen and serve."""
        async with AsyncExitStack() as stack:
            session = await stack.enter_async_context(aiohttp.ClientSession())
            app = self._build(session)
            runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await self._listen(runner)
            self._stack = stack.pop_all()

    async def stop(self) -> None:
        """Send everybody away in order and stop listening, within a bounded time. Idempotent."""
        if self._sockets is not None and not self._sockets.is_stopping:
            self._sockets.is_stopping = True
            await self._directory.stop(timeout=STOP_TIMEOUT)
        await self._tasks.stop(timeout=STOP_TIMEOUT)
        await self._stack.aclose()

    def _build(self, session: aiohttp.ClientSession) -> web.Application:
        config = self._config
        sender = self._sender = WebhookSender(session)
        queues = QueueHandlers(self._queues, receive_seconds=config.receive_seconds, lease_seconds=config.lease_seconds)
        self._directory = RoomDirectory(
            url_of=self.room_url,
            has_work=self._has_work,
            on_lost=queues.participant_gone,
            on_started=self._on_started,
            on_ended=self._on_ended,
            linger_seconds=config.linger_seconds,
            resume_seconds=config.resume_seconds,
        )
        self._metrics = ServerMetrics(lambda: self._directory.rooms)
        self._caller = ServiceCaller(
            sender,
            services=config.services,
            key_for=self._access.key_for,
            call_urls=config.call_urls,
            call_secret=config.webhook_secret,
            count=self._metrics.count_call,
        )
        self._sockets = RoomSockets(
            config=config,
            access=self._access,
            directory=self._directory,
            dispatcher=self._dispatcher(queues),
            queues=queues,
            metrics=self._metrics,
        )
        self._tasks.spawn(queues.keep_leases(), name="lease keeper")
        return self._routes(self._sockets)

    def _dispatcher(self, queues: QueueHandlers) -> Dispatcher:
        config = self._config
        storage = StorageHandlers(
            self._files,
            sign_url=self._file_url,
            max_upload_bytes=config.max_upload_bytes,
            max_download_bytes=config.limits.message_bytes - _ENVELOPE_BYTES,
        )
        # Updates travel as base64.
        max_document_bytes = min(MAX_DOCUMENT_BYTES, (config.limits.message_bytes - _ENVELOPE_BYTES) // 4 * 3)
        agents = AgentHandlers(call_seconds=config.call_seconds, call_out=self._call_out)
        return Dispatcher(
            messaging.operations(dismiss=queues.dismiss),
            queues.operations(),
            storage.operations(),
            agents.operations(),
            developer.operations(),
            SyncHandlers(self._documents, self._files, max_bytes=max_document_bytes).operations(),
            count=self._metrics.count_request,
        )

    def _routes(self, sockets: RoomSockets) -> web.Application:
        app = web.Application(middlewares=[_errors_as_json])
        app.add_routes(
            [
                web.get("/rooms/{room}", sockets.handle),
                web.get("/files/{token}", self._file),
                web.get("/", self._root),
                web.get("/livez", self._root),
                web.get("/readyz", self._ready),
                web.get("/metrics", self._show_metrics),
            ]
        )
        routes = RestRoutes(self._access, self._directory, url_of=self.room_url, calls_of=self._caller.calls)
        routes.add_to(app)
        if self._config.oauth:
            LoginRoutes(self._access).add_to(app)
        add_gateway_routes(app, providers=self._providers, authenticate=self._gateway_caller, meter=Meter())
        return app

    async def _listen(self, runner: web.AppRunner) -> None:
        site = web.TCPSite(runner, self._config.host, self._config.port, reuse_address=True)
        try:
            await site.start()
        except OSError as error:
            where = f"{self._config.host}:{self._config.port}"
            raise SettingsError(f"cannot listen on {where}: {error.strerror or error}; choose another --port") from None
        self._port = runner.addresses[0][1]

    async def _on_started(self, room: Room) -> None:
        await self._tell_webhooks("room.started", {"room_name": room.key.name, "room_url": room.url})
        await self._caller.keep_called(room)

    async def _on_ended(self, room: Room) -> None:
        await self._tell_webhooks("room.ended", {"room_name": room.key.name})

    async def _tell_webhooks(self, event: str, data: dict[str, str]) -> None:
        for url in self._config.webhook_urls:
            try:
                await self._sender.send(url, event, data, secret=self._config.webhook_secret)
            except CallRefusedError as error:
                logger.warning("webhook failed", extra={"event": event, "reason": str(error)})

    async def _has_work(self, room: RoomKey) -> bool:
        stats = await self._queues.stats(room)
        return any(queue.ready + queue.leased + queue.delayed for queue in stats)

    async def _call_out(self, room: Room, url: str, identity: str, arguments: dict[str, Any], scope: ApiScope) -> None:
        # MeshAgent's agents call for a schema or toolkit at this address also when the room has it (room-protocol §11.6).
        kind, _, name = url.removeprefix(_BUILT_IN).partition("/")
        if url.startswith(_BUILT_IN) and await self._provide(room, kind, name):
            return
        await self._caller.call_out(room, url, identity, arguments, scope)

    async def _provide(self, room: Room, kind: str, name: str) -> bool:
        """Whether the room has this schema or toolkit; the schema of threads is stored when it is missing."""
        if kind == "toolkits":
            return any(toolkit.name == name for toolkit in room.toolkits.values())
        if kind != "schemas":
            return False
        path = clean_path(f".schemas/{name}.json")
        if await self._files.stat(room.key, path) is not None:
            return True
        if name != "thread":
            return False
        with suppress(AlreadyExistsError):  # another was faster
            schema = BytesIO(json.dumps(thread_schema.to_json()).encode())
            await self._files.write(room.key, path, schema, overwrite=False)
        return True

    async def _gateway_caller(self, request: web.Request) -> Caller:
        key, token = self._access.participant(request, request.match_info["room"])
        return Caller(tenant=key.tenant, room=key, identity=token.name)

    def _file_url(self, room: RoomKey, path: str) -> str:
        return f"{self.url}/files/{self._access.sign_file(room, path)}"

    async def _file(self, request: web.Request) -> web.StreamResponse:
        room, path = self._access.read_file(request.match_info["token"])
        chunks = await self._files.stream(room, path)
        name = quote(path.rpartition("/")[2])
        response = web.StreamResponse(
            headers={
                "Content-Type": mime_type_of(path),
                # Never shown as a page of this origin: the file may be anybody's HTML.
                "Content-Disposition": f"attachment; filename*=UTF-8''{name}",
                "X-Content-Type-Options": "nosniff",
            }
        )
        await response.prepare(request)
        async for chunk in chunks:
            await response.write(bytes(chunk))
        await response.write_eof()
        return response

    async def _root(self, _: web.Request) -> web.Response:
        return web.json_response({"ok": True})

    async def _ready(self, _: web.Request) -> web.Response:
        """Whether participants can join: not stopping, and the queue store answers."""
        if self._sockets is None or self._sockets.is_stopping:
            return web.json_response({"ok": False, "reason": "stopping"}, status=503)
        with suppress(OSError, RoomError, TimeoutError):
            async with asyncio.timeout(2.0):
                await self._queues.check()
                return web.json_response({"ok": True})
        return web.json_response({"ok": False, "reason": "the queue store does not answer"}, status=503)

    async def _show_metrics(self, _: web.Request) -> web.Response:
        stats = [queue for room in self._directory.rooms for queue in await self._queues.stats(room.key)]
        return web.Response(body=self._metrics.render(stats), content_type="text/plain", charset="utf-8")


_STATUS: dict[type[MeshhostError], int] = {
    TokenError: 401,
    AccessDeniedError: 403,
    NotFoundError: 404,
    AlreadyExistsError: 409,
    InvalidRequestError: 400,
}


@web.middleware
async def _errors_as_json(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except MeshhostError as error:
        status = next((code for kind, code in _STATUS.items() if isinstance(error, kind)), 500)
        if status == 500:
            logger.exception("request failed", extra={"route": request.path.split("/")[1]})
            return web.json_response({"error": "the room server failed; its log says why"}, status=500)
        return web.json_response({"error": str(error)}, status=status)

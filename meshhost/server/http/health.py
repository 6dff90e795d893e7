"""Probes and metrics of a room server.

`/livez` (and `/`) answers while the event loop runs. `/readyz` answers 200 while participants can join: the server is not
stopping and the queue store has proved, within the last seconds, that it can store a message. `/metrics` has the numbers in
Prometheus form. They need no key, so what the store counts for them is counted for all who ask at the time.
"""

import asyncio
import errno
from collections.abc import Sequence

from aiohttp import web

from meshhost.errors import RoomError, StorageFullError
from meshhost.identity.tenant import RoomKey
from meshhost.queues.service import QueueService
from meshhost.server.core.directory import RoomDirectory
from meshhost.server.fresh import Fresh
from meshhost.server.metrics import ServerMetrics
from meshhost.stores.disk.space import storage_full
from meshhost.stores.queues import QueueStats

__all__ = ["HealthRoutes"]

# A store that takes longer is as good as down.
_CHECK_SECONDS = 2.0


class HealthRoutes:
    """Serves `/`, `/livez`, `/readyz` and `/metrics`."""

    def __init__(self, directory: RoomDirectory, queues: QueueService, metrics: ServerMetrics) -> None:
        self._directory = directory
        self._queues = queues
        self._metrics = metrics
        self._counted = Fresh[None, tuple[Sequence[tuple[RoomKey, QueueStats]], QueueStats]](self._count, seconds=0.0)

    def add_to(self, app: web.Application) -> None:
        """Register the routes."""
        app.add_routes(
            [
                web.get("/", self._live),
                web.get("/livez", self._live),
                web.get("/readyz", self._ready),
                web.get("/metrics", self._show_metrics),
            ]
        )

    async def _live(self, _: web.Request) -> web.Response:
        return web.json_response({"ok": True})

    async def _ready(self, _: web.Request) -> web.Response:
        if self._directory.is_stopping:
            return web.json_response({"ok": False, "reason": "stopping"}, status=503)
        reason = "the queue store does not answer"
        try:
            async with asyncio.timeout(_CHECK_SECONDS):
                await self._queues.check()
                return web.json_response({"ok": True})
        except (OSError, RoomError) as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                error = storage_full()  # also of PostgreSQL's
            if isinstance(error, StorageFullError):
                reason = str(error)
        return web.json_response({"ok": False, "reason": reason}, status=503)

    async def _show_metrics(self, _: web.Request) -> web.Response:
        queues, totals = (await self._counted.of(None)).value
        body = self._metrics.render(self._directory.rooms, queues, totals)
        return web.Response(body=body, content_type="text/plain", charset="utf-8")

    async def _count(self, _: None) -> tuple[Sequence[tuple[RoomKey, QueueStats]], QueueStats]:
        return await self._queues.overview(), await self._queues.totals()

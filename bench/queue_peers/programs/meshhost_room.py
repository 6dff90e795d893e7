"""meshhost: a room client sends, and a `FunctionWorker` works, over a WebSocket to a room server of its own process."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Any

from common import Options, run

from meshhost.agents.function_worker import FunctionWorker
from meshhost.room.client import RoomClient
from meshhost.room.services.queues import NewMessage
from meshhost.transport.websocket_client import WebSocketClientProtocol


class Meshhost:
    """See common.Contender."""

    is_threaded = False

    def __init__(self, options: Options, job: Callable[[float], None]) -> None:
        protocol = WebSocketClientProtocol(url=options.address["url"], token=options.address["token"])
        self._room = RoomClient(protocol=protocol)
        self._queue = "bench"

        async def noop(body: dict[str, Any]) -> None:
            job(body["sent"])

        self._worker = FunctionWorker(queue=self._queue, function=noop, concurrency=options.concurrency)

    async def open(self) -> None:
        """Join the room, and let the queue have more than a million messages."""
        await self._room.connect()
        await self._room.queues.open(name=self._queue)
        await self._room.queues.configure(self._queue, max_depth=10_000_000)

    async def close(self) -> None:
        """Leave it."""
        await self._room.close()

    async def send(self, body: dict[str, Any]) -> None:
        """See common.Contender."""
        await self._room.queues.send(name=self._queue, message=body)

    async def send_many(self, bodies: Sequence[dict[str, Any]]) -> None:
        """See common.Contender."""
        await self._room.queues.send_many(name=self._queue, messages=[NewMessage(body) for body in bodies])

    async def work(self, _: threading.Event) -> None:
        """See common.Contender."""
        await self._worker.start(room=self._room)
        await asyncio.Event().wait()


run(Meshhost)

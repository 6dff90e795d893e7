"""streaQ over Redis streams."""

import threading
from collections.abc import Callable, Sequence
from typing import Any

from common import Options, run
from streaq import Worker


class Streaq:
    """See common.Contender."""

    is_threaded = False

    def __init__(self, options: Options, job: Callable[[float], None]) -> None:
        self._is_worker = options.is_worker
        url = f"redis://127.0.0.1:{options.address['port']}"
        self._worker = Worker(redis_url=url, queue_name="bench", concurrency=options.concurrency, handle_signals=False)

        @self._worker.task(ttl=0)
        async def noop(body: dict[str, Any]) -> None:
            job(body["sent"])

        self._task = noop

    async def open(self) -> None:
        """Connect; a worker does so itself."""
        if not self._is_worker:
            await self._worker.__aenter__()

    async def close(self) -> None:
        """Disconnect."""

    async def send(self, body: dict[str, Any]) -> None:
        """See common.Contender."""
        await self._task.enqueue(body)

    async def send_many(self, bodies: Sequence[dict[str, Any]]) -> None:
        """See common.Contender."""
        await self._worker.enqueue_many([self._task.enqueue(body) for body in bodies])

    async def work(self, _: threading.Event) -> None:
        """See common.Contender."""
        await self._worker.run_async()


run(Streaq)

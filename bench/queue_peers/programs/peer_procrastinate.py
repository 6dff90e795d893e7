"""Procrastinate over PostgreSQL."""

import contextlib
import threading
from collections.abc import Callable, Sequence
from typing import Any

import procrastinate
from common import Options, run


class Procrastinate:
    """See common.Contender."""

    is_threaded = False

    def __init__(self, options: Options, job: Callable[[float], None]) -> None:
        most = min(max(options.callers, options.concurrency) + 3, 40)
        connector = procrastinate.PsycopgConnector(conninfo=options.address["url"], min_size=1, max_size=most)
        self._app = procrastinate.App(connector=connector)
        self._concurrency = options.concurrency

        @self._app.task(name="noop", queue="bench")
        async def noop(body: dict[str, Any]) -> None:
            job(body["sent"])

        self._task = noop

    async def open(self) -> None:
        """Make the tables, unless they are there."""
        await self._app.open_async()
        if not await self._app.check_connection_async():
            with contextlib.suppress(procrastinate.exceptions.ConnectorException):
                await self._app.schema_manager.apply_schema_async()

    async def close(self) -> None:
        """Disconnect."""
        await self._app.close_async()

    async def send(self, body: dict[str, Any]) -> None:
        """See common.Contender."""
        await self._task.defer_async(body=body)

    async def send_many(self, bodies: Sequence[dict[str, Any]]) -> None:
        """See common.Contender."""
        await self._task.batch_defer_async(*({"body": body} for body in bodies))

    async def work(self, _: threading.Event) -> None:
        """See common.Contender."""
        await self._app.run_worker_async(
            queues=["bench"], concurrency=self._concurrency, delete_jobs="always", install_signal_handlers=False
        )


run(Procrastinate)

"""Huey over SQLite with `synchronous=FULL`. It deletes a task before it runs it: at most once."""

import threading
from collections.abc import Callable, Sequence
from typing import Any

from common import Options, run
from huey import SqliteHuey


class Huey:
    """See common.Contender."""

    is_threaded = True

    def __init__(self, options: Options, job: Callable[[float], None]) -> None:
        self._huey = SqliteHuey("bench", filename=options.address["file"], fsync=True, timeout=30, results=False)
        self._concurrency = options.concurrency

        @self._huey.task()
        def noop(body: dict[str, Any]) -> None:
            job(body["sent"])

        self._task = noop

    def open(self) -> None:
        """Nothing has to exist."""

    def close(self) -> None:
        """Disconnect."""
        self._huey.storage.close()

    def send(self, body: dict[str, Any]) -> None:
        """See common.Contender."""
        self._task(body)

    def send_many(self, _: Sequence[dict[str, Any]]) -> None:
        """It has no batches."""
        raise NotImplementedError

    def work(self, is_done: threading.Event) -> None:
        """See common.Contender; it looks for work every millisecond at best."""
        consumer = self._huey.create_consumer(
            workers=self._concurrency, periodic=False, initial_delay=0.001, max_delay=0.05, check_worker_health=False
        )
        consumer.start()
        is_done.wait()


run(Huey)

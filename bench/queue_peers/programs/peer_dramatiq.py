"""Dramatiq over Redis: a message is acked when its actor has returned. A worker's `concurrency` is its threads."""

import threading
from collections.abc import Callable, Sequence
from typing import Any

import dramatiq
import redis
from common import Options, run
from dramatiq.brokers.redis import RedisBroker


class Dramatiq:
    """See common.Contender."""

    is_threaded = True

    def __init__(self, options: Options, job: Callable[[float], None]) -> None:
        port, most = options.address["port"], max(options.callers, options.concurrency) + 8
        pool = redis.ConnectionPool(host="127.0.0.1", port=port, max_connections=most)
        self._broker = RedisBroker(client=redis.Redis(connection_pool=pool))
        dramatiq.set_broker(self._broker)
        self._concurrency = options.concurrency

        @dramatiq.actor(queue_name="bench")
        def noop(body: dict[str, Any]) -> None:
            job(body["sent"])

        self._actor = noop

    def open(self) -> None:
        """Nothing has to exist."""

    def close(self) -> None:
        """Disconnect."""
        self._broker.close()

    def send(self, body: dict[str, Any]) -> None:
        """See common.Contender."""
        self._actor.send(body)

    def send_many(self, _: Sequence[dict[str, Any]]) -> None:
        """It has no batches."""
        raise NotImplementedError

    def work(self, is_done: threading.Event) -> None:
        """See common.Contender."""
        worker = dramatiq.Worker(self._broker, worker_threads=self._concurrency, worker_timeout=100)
        worker.start()
        is_done.wait()


run(Dramatiq)

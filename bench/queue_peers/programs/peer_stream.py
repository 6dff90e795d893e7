"""A raw Redis stream, the floor. A worker reads `concurrency` entries, and acks and deletes them together."""

import contextlib
import json
import threading
from collections.abc import Callable, Sequence
from typing import Any

import redis
import redis.asyncio
from common import Options, run


class Stream:
    """See common.Contender."""

    is_threaded = False

    def __init__(self, options: Options, job: Callable[[float], None]) -> None:
        self._redis = redis.asyncio.Redis(
            host="127.0.0.1", port=options.address["port"], max_connections=options.callers + 2
        )
        self._concurrency = options.concurrency
        self._job = job

    async def open(self) -> None:
        """Make the group, unless it is there."""
        with contextlib.suppress(redis.ResponseError):
            await self._redis.xgroup_create("bench", "workers", id="0", mkstream=True)

    async def close(self) -> None:
        """Disconnect."""
        await self._redis.aclose()

    async def send(self, body: dict[str, Any]) -> None:
        """See common.Contender."""
        await self._redis.xadd("bench", {"body": json.dumps(body)})

    async def send_many(self, bodies: Sequence[dict[str, Any]]) -> None:
        """See common.Contender."""
        async with self._redis.pipeline(transaction=True) as pipe:
            for body in bodies:
                pipe.xadd("bench", {"body": json.dumps(body)})
            await pipe.execute()

    async def work(self, _: threading.Event) -> None:
        """See common.Contender."""
        while True:
            found = await self._redis.xreadgroup("workers", "one", {"bench": ">"}, count=self._concurrency, block=1000)
            for _, entries in found:
                for _, fields in entries:
                    self._job(json.loads(fields[b"body"])["sent"])
                ids = [entry_id for entry_id, _ in entries]
                async with self._redis.pipeline(transaction=True) as pipe:
                    pipe.xack("bench", "workers", *ids)
                    pipe.xdel("bench", *ids)
                    await pipe.execute()


run(Stream)

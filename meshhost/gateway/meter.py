"""`Meter`: measures every request that passes the gateway, and writes the sums to a usage store.

`routes.py` wraps each request in `measure`, which counts it when its answer has ended, however it ended. Counting only adds
to sums in memory. One task, owned by the meter from `start` to `stop`, writes them to the `UsageStore` every
`flush_seconds`; so the request path never waits for a disk. `stop` writes the rest. A crash of the process loses at most
what was counted since the last flush.

Invariants: a request is counted once (a failed write is tried again with the next batch; one whose outcome is unknown is
not), and memory is bounded: a tenant has at most `max_keys` different (room, identity, model) per hour, since callers
choose these names; further ones are counted as "other", still under their tenant.

What is counted has the price that was in force when the request ended in its key. A request that names no model is counted and
priced as the one that its answer names.
"""

import asyncio
import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Self

from meshhost.clock import Clock, SystemClock
from meshhost.errors import RoomError
from meshhost.gateway.patterns import ModelPatterns
from meshhost.gateway.prices import Price
from meshhost.gateway.provider import Caller
from meshhost.gateway.tokens import TokenReader, Tokens
from meshhost.identity.tenant import TenantId
from meshhost.stores.usage import UsageCounts, UsageKey, UsageRow, UsageStore, hour_of
from meshhost.tasks import TaskOwner, uninterrupted

__all__ = ["Meter"]

logger = logging.getLogger(__name__)

_MAX_MODEL_NAME = 128
_OTHER = "other"
# Seconds for one write of a batch.
_WRITE_TIMEOUT = 10.0


class Meter:
    """Counts requests, tokens and seconds into `store`, which the caller opens and closes.

    `prices` are by patterns of model names (`ModelPatterns`). Raises SettingsError for a pattern that is none.
    """

    def __init__(
        self,
        store: UsageStore,
        *,
        prices: Mapping[str, Price] | None = None,
        flush_seconds: float = 5.0,
        max_keys: int = 1_000,
        clock: Clock | None = None,
    ) -> None:
        self._store = store
        self._prices = ModelPatterns(prices or {})
        self._flush_seconds = flush_seconds
        self._max_keys = max_keys
        self._clock = clock or SystemClock()
        self._pending: dict[UsageKey, UsageCounts] = {}
        self._hour = 0
        self._seen: dict[TenantId, set[UsageKey]] = {}  # the keys of each tenant in `_hour`
        self._writing = asyncio.Lock()
        self._tasks = TaskOwner("meter")

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def start(self) -> None:
        """Write to the store from now on, every `flush_seconds`."""
        self._tasks.spawn(self._keep_flushing(), name="flush")

    async def stop(self) -> None:
        """Write what is not stored yet. When the store fails, it is lost and logged."""
        await self._tasks.stop(timeout=_WRITE_TIMEOUT + 1)
        await self._try_flush()

    @contextlib.contextmanager
    def measure(self, caller: Caller, model: str) -> Iterator[TokenReader]:
        """Count one request when the block ends; feed its answer to the reader."""
        reader, begin = TokenReader(), self._clock.monotonic()
        try:
            yield reader
        finally:
            tokens = reader.tokens()  # reads the answer to its end, where it may name its model
            self.count(caller, model or reader.model, tokens, self._clock.monotonic() - begin)

    def count(self, caller: Caller, model: str, tokens: Tokens | None, seconds: float) -> None:
        """Count one request that has ended; `tokens` is None when its answer named none."""
        spent = tokens or Tokens(0, 0, 0)
        self._add(
            self._key(caller, model),
            UsageCounts(
                requests=1,
                input_tokens=spent.input,
                cached_tokens=spent.cached,
                output_tokens=spent.output,
                seconds=seconds,
                unmeasured=int(tokens is None),
                cache_write_tokens=spent.cache_write,
            ),
        )

    def pending(self) -> Mapping[UsageKey, UsageCounts]:
        """Return the sums that are not in the store yet."""
        return MappingProxyType(dict(self._pending))

    async def read(
        self,
        tenant: TenantId,
        *,
        room: str | None = None,
        since: float | None = None,
        until: float | None = None,
        limit: int = 1000,
        offset: int = 0,
    ) -> Sequence[UsageRow]:
        """Return the rows of a tenant as UsageStore.read does, with all that this process has counted so far.

        What other processes counted appears with their next flush. Raises OSError when the store fails.
        """
        await self._try_flush()
        return await self._store.read(tenant, room=room, since=since, until=until, limit=limit, offset=offset)

    async def totals(
        self,
        *,
        since: float | None = None,
        until: float | None = None,
        hours: int = 1,
        limit: int = 1000,
        offset: int = 0,
    ) -> Sequence[UsageRow]:
        """Return the sums of all tenants as UsageStore.totals does, as up to date as `read`. Raises OSError."""
        await self._try_flush()
        return await self._store.totals(since=since, until=until, hours=hours, limit=limit, offset=offset)

    async def restore(self, rows: Sequence[UsageRow]) -> None:
        """Store what a tenant spent elsewhere, of an archive. Raises OSError or RoomError."""
        await self._store.add({row.key: row.counts for row in rows})

    async def forget(self, tenant: TenantId) -> None:
        """Delete what a tenant spent. Raises OSError or RoomError; it may be repeated then."""
        self._pending = {key: counts for key, counts in self._pending.items() if key.tenant != tenant}
        async with self._writing:
            await self._store.delete(tenant)

    async def flush(self) -> None:
        """Write what is not stored yet. Raises OSError or RoomError when the store fails; then it is kept for the next try."""
        async with self._writing:
            batch, self._pending = self._pending, {}
            if not batch:
                return
            try:
                # Not cut short by our own cancellation: we would not know whether the batch was stored.
                await uninterrupted(self._store.add(batch), timeout=_WRITE_TIMEOUT)
            except TimeoutError:
                # The store may still write it. Losing a batch is better than counting it twice.
                logger.warning("usage may be lost: the store did not answer in time", extra={"rows": len(batch)})
            except (OSError, RoomError, asyncio.CancelledError) as error:
                # Cancelled while the write went on: its own error, if it failed, is the cause.
                if isinstance(error if isinstance(error, Exception) else error.__cause__, OSError | RoomError):
                    for key, counts in batch.items():
                        self._add(key, counts)
                raise

    async def _keep_flushing(self) -> None:
        while True:
            await self._clock.sleep(self._flush_seconds)
            await self._try_flush()

    async def _try_flush(self) -> None:
        try:
            await self.flush()
        except (OSError, RoomError) as error:
            logger.warning("usage was not stored", extra={"rows": len(self._pending), "reason": str(error)})

    def _key(self, caller: Caller, model: str) -> UsageKey:
        hour = hour_of(self._clock.time())
        if hour != self._hour:
            self._hour, self._seen = hour, {}
        seen = self._seen.setdefault(caller.tenant, set())
        price = self._prices.find(model)
        shown = "" if price is None else price.as_text()
        name = _storable(model[:_MAX_MODEL_NAME])
        key = UsageKey(caller.tenant, caller.room.name, _storable(caller.identity), name, hour, shown)
        if key not in seen and len(seen) >= self._max_keys:
            return UsageKey(caller.tenant, _OTHER, _OTHER, _OTHER, hour, shown)
        seen.add(key)
        return key

    def _add(self, key: UsageKey, counts: UsageCounts) -> None:
        self._pending[key] = self._pending.get(key, UsageCounts()).plus(counts)


def _storable(text: str) -> str:
    # Names come from JSON, which can hold lone surrogates; no store takes those.
    return text.encode(errors="replace").decode()

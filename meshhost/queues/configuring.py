"""Changes some of a queue's settings and keeps the others.

The store writes the settings of a queue as a whole, so a change is read, changed and written: one at a time for each queue of
this process. Two processes that change different settings of one queue at the same moment may undo each other's change.
`QueueService.configure` is the caller.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any
from weakref import WeakValueDictionary

from meshhost.errors import InvalidRequestError
from meshhost.stores.queue_settings import QueueSettings
from meshhost.stores.queues import QueueKey, QueueStore

__all__ = ["Configuring"]

_NAMES = sorted(field.name for field in fields(QueueSettings))


class Configuring:
    """Changes settings in `store`."""

    def __init__(self, store: QueueStore) -> None:
        self._store = store
        # A lock is there while somebody holds it or waits for it.
        self._locks: WeakValueDictionary[QueueKey, asyncio.Lock] = WeakValueDictionary()

    async def change(self, queue: QueueKey, changes: Mapping[str, Any]) -> QueueSettings:
        """Set these settings and return all. Raises InvalidRequestError that names the setting, NotFoundError."""
        for name in changes:
            if name not in _NAMES:
                raise InvalidRequestError(f"settings.{name}", f"expected one of {', '.join(_NAMES)}")
        lock = self._locks.get(queue) or asyncio.Lock()
        self._locks[queue] = lock
        async with lock:
            before = await self._store.settings(queue)
            after = replace(before, **changes)
            if after != before:
                await self._store.configure(queue, after)
            return after

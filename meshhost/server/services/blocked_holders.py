"""Keeps the leases of workers that live but cannot renew them, because their event loop is blocked.

A worker renews the lease of its message while it works. Code that holds its event loop (`time.sleep`, a long calculation, a
library without await) prevents that, and the message would be handed out again and again while the first delivery still runs.
So the server watches each lease that it handed to a client. Halfway to its end without a renewal, it asks the holder's
connection for a sign of life, which any running event loop gives at once. Shortly before the end it decides:

- the client answered: it lives and chose not to renew, so the lease ends at its time;
- the connection is over: the process has died, and its leases go back as for every lost connection;
- silence on an open connection: the process is there and its loop is blocked. The lease is extended, and so on.

That has an end: after `max_seconds` of silence the message is given up, which the log says, and comes back when its lease
expires. Fencing is untouched: the lease keeps its token, and a holder that was given up is refused when it wakes.

`QueuesService` reports every lease that is handed out, renewed or settled, and runs `run`, the only task. Leases that are
settled meanwhile cost one entry in a heap, which is dropped when its time comes or there are many.
"""

import asyncio
import heapq
import itertools
import logging
from dataclasses import dataclass

from meshhost.clock import Clock
from meshhost.errors import LeaseLostError, RoomError
from meshhost.queues.service import QueueService
from meshhost.queues.waiters import wait_at_most
from meshhost.server.core.participants import Participant
from meshhost.stores.queues import Lease

__all__ = ["BlockedHolders"]

logger = logging.getLogger(__name__)

# Parts of a lease: when to ask for a sign of life, and when to decide.
_ASK, _DECIDE = 0.5, 5 / 6
_IDLE_SECONDS = 3600.0
# Entries of settled leases that may wait in the heap for their time: a lease may last an hour.
_MOST_SETTLED = 1000


@dataclass(slots=True)
class _Watched:
    lease: Lease
    seconds: float
    participant: Participant
    renewed_at: float
    # When the client was asked, on the clock of its peer; None until then.
    asked_at: float | None = None
    silent_since: float | None = None

    @property
    def due(self) -> float:
        """When to ask or to decide (monotonic)."""
        return self.renewed_at + self.seconds * (_ASK if self.asked_at is None else _DECIDE)


class BlockedHolders:
    """Watches leases and extends those of blocked holders; see the module."""

    def __init__(self, queues: QueueService, *, max_seconds: float, clock: Clock) -> None:
        self._queues = queues
        self._max_seconds = max_seconds
        self._clock = clock
        self._watched: dict[tuple[int, int], _Watched] = {}
        self._order = itertools.count()
        self._due: list[tuple[float, int, _Watched]] = []
        self._next = 0.0
        self._earlier = asyncio.Event()

    def watch(self, lease: Lease, seconds: float, participant: Participant) -> None:
        """The participant was given this lease, or renewed it, for so many seconds from now."""
        if self._max_seconds <= 0:
            return
        now = self._clock.monotonic()
        watched = self._watched.get(_key(lease))
        if watched is None:
            watched = self._watched[_key(lease)] = _Watched(lease, seconds, participant, now)
            self._push(watched)
            return
        sooner = now + seconds * _ASK < watched.due
        watched.seconds, watched.renewed_at = seconds, now
        watched.asked_at = watched.silent_since = None
        if sooner:
            self._push(watched)

    def forget(self, lease: Lease) -> None:
        """The lease is settled or lost."""
        self._watched.pop(_key(lease), None)

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            now = self._clock.monotonic()
            while self._due and self._due[0][0] <= now:
                _, _, watched = heapq.heappop(self._due)
                await self._check(watched, now)
            self._next = self._due[0][0] if self._due else now + _IDLE_SECONDS
            self._earlier.clear()
            await wait_at_most(self._earlier, self._next - now, self._clock)

    def _push(self, watched: _Watched) -> None:
        if len(self._due) > 2 * len(self._watched) + _MOST_SETTLED:
            self._due = [entry for entry in self._due if self._watched.get(_key(entry[2].lease)) is entry[2]]
            heapq.heapify(self._due)
        heapq.heappush(self._due, (watched.due, next(self._order), watched))
        if watched.due < self._next:
            self._earlier.set()

    async def _check(self, watched: _Watched, now: float) -> None:
        if self._watched.get(_key(watched.lease)) is not watched:
            return
        if watched.due > now:  # renewed meanwhile
            self._push(watched)
            return
        peer = watched.participant.peer
        if peer is None:
            self.forget(watched.lease)
        elif watched.asked_at is None:
            watched.asked_at = peer.probe(patience=watched.seconds)
            self._push(watched)
        elif peer.heard_at >= watched.asked_at:
            self.forget(watched.lease)
        else:
            await self._keep(watched, now)

    async def _keep(self, watched: _Watched, now: float) -> None:
        fields = {"queue": watched.lease.queue.name, "identity": watched.participant.name}
        if watched.silent_since is None:
            watched.silent_since = watched.renewed_at
            logger.warning("a worker's event loop is blocked: its lease is kept", extra=fields)
        silent = now - watched.silent_since
        if silent + watched.seconds > self._max_seconds:
            logger.warning(
                "a worker is blocked for too long: its message is given up", extra={**fields, "seconds": round(silent)}
            )
            self.forget(watched.lease)
            return
        try:
            await self._queues.extend(watched.lease, seconds=watched.seconds)
        except LeaseLostError:
            self.forget(watched.lease)
            return
        except (OSError, RoomError) as error:
            logger.warning("lease not extended", extra={**fields, "reason": str(error)})
        watched.renewed_at, watched.asked_at = self._clock.monotonic(), None
        self._push(watched)


def _key(lease: Lease) -> tuple[int, int]:
    return lease.message_id, lease.token

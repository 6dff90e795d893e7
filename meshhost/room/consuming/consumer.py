"""Leases the messages of one queue for a worker, as many at once as it works on, and keeps the leases of those in progress.

`QueueConsumer.run` is the loop. It asks for as many messages as there is room for, runs each as a `Job` (a task of its own),
and asks again as soon as one was processed: its settlement and the next lease are under way side by side. One further task
renews the leases of all jobs; it exists while there are any.

Cancelling `run` cancels the jobs, which give their messages back, and returns when they have ended. `drain` lets them finish.
Invariant: every message that was leased is in a job that settles it, or is given back. A task that fails by a bug of ours ends
`run` with its error, instead of leaving messages without renewals.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import Sequence
from typing import Any

from meshhost.errors import AccessDeniedError, RoomError
from meshhost.room.client import RoomClient
from meshhost.room.consuming.job import SETTLE_TIMEOUT, Failures, Job, Process
from meshhost.room.consuming.settling import Acks
from meshhost.room.reconnect import ReconnectPolicy
from meshhost.room.services.queues import MAX_LEASED, LeasedMessage
from meshhost.tasks import LightEvent, TaskOwner, uninterrupted, until

__all__ = ["QueueConsumer"]

logger = logging.getLogger(__name__)

LEASE_SECONDS = 30.0
# Messages that were processed and are not settled yet, above the concurrency: a server that does not answer gets no more work
# done.
_MAX_SETTLING = 32
# The lease of a message may end this much later than its renewal is due.
_RENEWALS_PER_LEASE = 3


class QueueConsumer:
    """Takes the messages of one queue, up to `concurrency` at once, and passes each to `process`.

    A message is acked after `process` returned, with what it returned as its result, and nacked with the traceback when it
    raised or took longer than `deadline` seconds (None: than the queue allows). When the consumer is cancelled, the messages
    are returned as interrupted, which does not count as a failed attempt. When a lease is lost, another worker may have the
    message, so the processing is cancelled; so it is when the message was cancelled. `idle` is set while no message is
    processed or settled.
    """

    def __init__(
        self,
        *,
        room: RoomClient,
        queue: str,
        process: Process,
        concurrency: int = 1,
        deadline: float | None = None,
        lease_seconds: float = LEASE_SECONDS,
        backoff: ReconnectPolicy | None = None,
    ) -> None:
        self._room = room
        self._queue = queue
        self._process = process
        self._concurrency = concurrency
        self._deadline = deadline
        self._lease_seconds = lease_seconds
        self._backoff = backoff or ReconnectPolicy()
        self._failures = Failures()
        self._running: asyncio.Task[object] | None = None
        self._is_over = False
        self._processing: set[Job] = set()
        self._tasks = TaskOwner(f"queue {queue}")
        # Of their own: a job that is cancelled waits for the ack that is under way.
        self._acking = TaskOwner(f"queue {queue} acks")
        self._acks = Acks(room=room, queue=queue, tasks=self._acking) if concurrency > 1 else None
        self._renewing: asyncio.Task[None] | None = None
        self._crash: BaseException | None = None
        # LightEvents, because a host has thousands of idle workers.
        self._draining = LightEvent()
        self._changed = LightEvent()
        self.idle = LightEvent()
        self.idle.set()
        self._jobs = 0

    @property
    def processing(self) -> Sequence[Job]:
        """The jobs whose messages are being processed."""
        return tuple(self._processing)

    def drain(self) -> None:
        """Take no further message; `run()` returns when those in progress are settled."""
        self._draining.set()
        self._changed.set()

    async def run(self) -> None:
        """Consume until drained. Raises RoomError when the room was left for good or the token does not grant the queue."""
        self._running, self._is_over = asyncio.current_task(), False
        failures = 0
        try:
            while (limit := await self._room_left()) > 0:
                try:
                    received = await self._next(limit)
                except RoomError as error:
                    failures += 1
                    await self._back_off(failures, error)
                    continue
                failures = 0
                for leased in received:
                    self._begin(leased)
            while self._jobs and self._crash is None:
                self._changed.clear()
                await self._changed.wait()
            if self._crash is not None:
                raise self._crash
        finally:
            # Cancelled, or the room is lost, or a task has failed: the jobs give their messages back.
            await self._end()

    async def _room_left(self) -> int:
        """Wait until there is room for another message, and return for how many; 0 when draining."""
        while not self._draining.is_set():
            self._changed.clear()
            left = self._concurrency - len(self._processing)
            if left > 0 and self._jobs < self._concurrency + _MAX_SETTLING:
                return left
            await self._changed.wait()
        return 0

    async def _next(self, limit: int) -> Sequence[LeasedMessage]:
        """The next messages; none when the server had none for a while, or when draining began."""
        received: Sequence[LeasedMessage] = ()

        async def receive() -> None:
            nonlocal received
            queues, name, seconds = self._room.queues, self._queue, self._lease_seconds
            # Large messages are fetched by their jobs, so that no more of them are in memory than are processed.
            options: Any = {"create": True, "wait": True, "seconds": seconds, "load": False}
            if limit > 1:
                most = min(limit, MAX_LEASED)
                received = await queues.lease_many(name=name, limit=most, **options)
            elif (leased := await queues.lease(name=name, **options)) is not None:
                received = (leased,)

        try:
            await until(self._draining, receive())
        except asyncio.CancelledError:
            # Received in the same turn of the loop in which we are stopped: nobody else would return it.
            for leased in received:
                with contextlib.suppress(RoomError, TimeoutError):
                    await uninterrupted(leased.nack(reason="released", delay=0.0), timeout=SETTLE_TIMEOUT)
            raise
        return received

    async def _back_off(self, failures: int, error: RoomError) -> None:
        # Without the grant another try is pointless: the token of an open connection does not change.
        if self._room.is_closed or isinstance(error, AccessDeniedError):
            raise error
        delay = self._backoff.delay(failures, random.random)
        logger.warning(
            "receiving from the queue failed", extra={"queue": self._queue, "reason": str(error), "retry_in": delay}
        )
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay):
                await self._draining.wait()

    def _begin(self, leased: LeasedMessage) -> None:
        deadlines = [each for each in (self._deadline, leased.deadline) if each is not None]
        job = Job(
            leased,
            room=self._room,
            process=self._process,
            deadline=min(deadlines, default=None),
            backoff=self._backoff,
            failures=self._failures,
            is_ending=self._is_ending,
            on_processed=self._processed,
            acks=self._acks,
        )
        self._processing.add(job)
        self._jobs += 1
        self.idle.clear()
        task = self._tasks.spawn(job.run(), name="message")
        task.add_done_callback(self._ended)
        task.add_done_callback(self._note_crash)
        # A server without leases cannot give a message to another worker.
        if leased.seconds is not None and (self._renewing is None or self._renewing.done()):
            self._renewing = self._tasks.spawn(self._renew(leased.seconds), name="renewals")
            self._renewing.add_done_callback(self._note_crash)

    def _processed(self, job: Job) -> None:
        self._processing.discard(job)
        self._changed.set()

    def _ended(self, _: object) -> None:
        self._jobs -= 1
        self._changed.set()
        if not self._jobs:
            self.idle.set()

    def _note_crash(self, task: asyncio.Task[None]) -> None:
        if self._crash is None and not task.cancelled() and (error := task.exception()) is not None:
            self._crash = error
            self.drain()

    def _is_ending(self) -> bool:
        # The second: the event loop ends, and cancels all tasks in any order.
        return self._is_over or (self._running is not None and self._running.cancelling() > 0)

    async def _renew(self, seconds: float) -> None:
        """Extend all leases after each third of their duration, so that one failed try is not fatal; end when there is none."""
        while self._processing:
            await self._room.clock.sleep(seconds / _RENEWALS_PER_LEASE)
            jobs = self.processing
            await asyncio.gather(*(job.renew() for job in jobs))
            seconds = min((job.leased.seconds for job in jobs if job.leased.seconds is not None), default=seconds)

    async def _end(self) -> None:
        self._is_over = True
        left = await self._tasks.stop(timeout=SETTLE_TIMEOUT + 1)
        await self._acking.stop(timeout=SETTLE_TIMEOUT)
        if left:
            logger.warning("messages were not given back in time", extra={"queue": self._queue, "messages": len(left)})

"""Acks of many messages in few requests, for a consumer that works on several at once.

Jobs call `Acks.ack`, each for its own message. While one request is under way, the acks of the jobs that end meanwhile wait and
go together in the next one; a lone ack goes at once. The server stores those of one request in one commit. A job that does not
wait any longer changes nothing for the others: its ack may be done all the same.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

from meshhost.errors import ConnectionLostError, InvalidRequestError, LeaseLostError
from meshhost.room.client import RoomClient
from meshhost.room.services.queues import MAX_ACKS, LeasedMessage
from meshhost.tasks import TaskOwner

__all__ = ["Acked", "Acks"]


class Acked(asyncio.Future[None]):
    """Done when an ack is, or has failed. A cancellation of the task that awaits it is raised there only then."""

    def cancel(self, msg: object = None) -> bool:
        """Refuse: the ack goes on, and its outcome has to be known."""
        return False


_Waiting = tuple[LeasedMessage, Any, "asyncio.Future[None]"]


class Acks:
    """Acks messages of one queue; the tasks that do it are owned by `tasks`."""

    def __init__(self, *, room: RoomClient, queue: str, tasks: TaskOwner) -> None:
        self._room = room
        self._queue = queue
        self._tasks = tasks
        self._waiting: list[_Waiting] = []
        self._sending: asyncio.Task[None] | None = None

    async def ack(self, leased: LeasedMessage, result: Any) -> None:
        """As `LeasedMessage.ack`, and raises what it raises."""
        await self._add(leased, result, asyncio.get_running_loop().create_future())

    def begin(self, leased: LeasedMessage, result: Any) -> Acked:
        """Begin to ack; await what is returned. It raises what `ack` raises, and ConnectionLostError when it was not tried."""
        acked = Acked()
        self._add(leased, result, acked)
        return acked

    def _add(self, leased: LeasedMessage, result: Any, acked: asyncio.Future[None]) -> asyncio.Future[None]:
        self._waiting.append((leased, result, acked))
        if self._sending is None or self._sending.done():
            self._sending = self._tasks.spawn(self._send(), name="acks")
        return acked

    async def _send(self) -> None:
        try:
            await self._send_waiting()
        finally:
            # Cancelled, when the consumer ends: a job that waits for its ack tries by itself.
            left, self._waiting = self._waiting, []
            _finish(left, [ConnectionLostError("the worker is ending")] * len(left))

    async def _send_waiting(self) -> None:
        while self._waiting:
            # Those whose job was given up meanwhile are left out.
            left = [each for each in self._waiting if not each[2].done()]
            batch, self._waiting = left[:MAX_ACKS], left[MAX_ACKS:]
            if batch:
                await self._send_batch(batch)

    async def _send_batch(self, batch: Sequence[_Waiting]) -> None:
        try:
            done = await self._room.queues.ack_many(self._queue, [(leased, result) for leased, result, _ in batch])
        except InvalidRequestError as error:
            if len(batch) < 2:
                _finish(batch, [error])
            # One of them is wrong; the others must not fail with it.
            for each in batch if len(batch) > 1 else ():
                await self._send_batch([each])
        except asyncio.CancelledError:
            _finish(batch, [ConnectionLostError("the worker is ending")] * len(batch))
            raise
        except Exception as error:  # noqa: BLE001 - raised where the acks are awaited
            _finish(batch, [error] * len(batch))
        else:
            _finish(batch, [None if is_done else LeaseLostError("lease lost") for is_done in done])


def _finish(batch: Sequence[_Waiting], errors: Sequence[Exception | None]) -> None:
    for error, (*_, acked) in zip(errors, batch, strict=True):
        if acked.done():
            continue
        if error is None:
            acked.set_result(None)
        else:
            acked.set_exception(error)

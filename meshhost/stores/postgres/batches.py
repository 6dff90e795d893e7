"""Operations that wait at the same time share one statement: group commit for a store that is a network away.

A statement costs a round trip and a commit, whether it stores one message or a hundred. `Batcher` runs the first operation at
once; what comes while it is under way is collected and runs as one batch when it has ended. So a lone caller waits for nobody,
and a hundred callers cost hardly more than one.

Invariants: operations of one tenant are run in the order of their calls, tenants by turns, one batch at a time; an operation
that was begun goes on when its caller is cancelled, since it may be durable already; an error of a batch reaches each of its
callers.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from meshhost.stores.shared.fair import FairQueue, TenantWeights
from meshhost.tasks import TaskOwner

__all__ = ["Batcher"]

Item = TypeVar("Item")
Result = TypeVar("Result")


class Batcher(Generic[Item, Result]):
    """Runs items in batches of at most `most`.

    `run` returns one result per item, in order; a result that is an Exception is raised to its caller.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Item]], Awaitable[Sequence[Result | Exception]]],
        *,
        most: int = 200,
        weights: TenantWeights | None = None,
    ) -> None:
        self._run = run
        self._most = most
        self._is_working = False
        self._waiting: FairQueue[tuple[Item, asyncio.Future[Result]]] = FairQueue(weights)
        self._tasks = TaskOwner("batches")

    async def do(self, item: Item, tenant: str = "") -> Result:
        """Run the item and return its result. Raises what its batch raised."""
        result: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.put((item, result), tenant)
        if not self._is_working:
            self._is_working = True
            self._tasks.spawn(self._work(), name="batch")
        return await result

    async def wait(self) -> None:
        """Return when all that was begun has ended."""
        await self._tasks.wait()

    async def _work(self) -> None:
        try:
            while self._waiting:
                batch = [self._waiting.get() for _ in range(min(self._most, len(self._waiting)))]
                try:
                    results = await self._run([item for item, _ in batch])
                except Exception as error:  # noqa: BLE001 - raised where the results are awaited
                    results = [error] * len(batch)
                for (_, future), result in zip(batch, results, strict=True):
                    if future.done():  # its caller was cancelled
                        continue
                    if isinstance(result, Exception):
                        future.set_exception(result)
                    else:
                        future.set_result(result)
        finally:
            self._is_working = False

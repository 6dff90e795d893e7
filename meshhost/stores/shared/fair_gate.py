"""Lets a fixed number of operations in at once, and tenants by turns when more want to.

`PostgresDatabase` has one before its connections. The pool behind it serves in the order of arrival, which would let one
tenant's thousand statements hold up everybody else's; at the gate they wait in a `FairQueue`. Operations of the server itself
(tenant `""`) do not wait here: there are few of them, and many carry the work of several tenants.

Invariant: each operation that is let in leaves once, also one that is cancelled at the moment at which its turn comes. Only one
event loop uses a gate.
"""

import asyncio
from types import TracebackType

from meshhost.stores.shared.fair import FairQueue, TenantWeights

__all__ = ["FairGate"]


class FairGate:
    """A gate with `places`."""

    def __init__(self, places: int, *, weights: TenantWeights | None = None) -> None:
        self._free = places
        self._waiting: FairQueue[asyncio.Future[None]] = FairQueue(weights)

    def place(self, tenant: str, *, seconds: float) -> "_Place":
        """A place for the time of an `async with`. Entering raises TimeoutError when none was free within `seconds`."""
        return _Place(self, tenant, seconds)

    async def enter(self, tenant: str, seconds: float) -> None:
        """Take a place; `leave` must follow. See `place`."""
        if self._free:
            self._free -= 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.put(turn, tenant)
        try:
            async with asyncio.timeout(seconds):
                await turn
        except BaseException:
            if turn.done() and not turn.cancelled():
                self.leave()
            turn.cancel()
            raise

    def leave(self) -> None:
        """Give the place to the operation whose turn it is."""
        while self._waiting:
            turn = self._waiting.get()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1


class _Place:
    def __init__(self, gate: FairGate, tenant: str, seconds: float) -> None:
        self._gate = gate
        self._tenant = tenant
        self._seconds = seconds

    async def __aenter__(self) -> None:
        if self._tenant:
            await self._gate.enter(self._tenant, self._seconds)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._tenant:
            self._gate.leave()

"""Requests of one connection that arrived at the same time and are answered together, in one task.

A sender that puts many messages into a queue makes a request for each. Answered one by one, each costs a task and an operation
of the store; those that are read in one turn of the event loop cost one of both. `Connection` makes a `Gathered` for the first
of them and adds those that follow, until another operation comes or the task begins. Which operations allow that, they say
themselves (`Operation.run_many`).
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from meshhost.server.core.dispatch import Dispatcher, Gatherable
from meshhost.server.core.requests import Answer, Operation, Request
from meshhost.server.wire.failures import error_answer

__all__ = ["Gathered"]


class Gathered:
    """Requests for one operation. `free` is called once for each, when its handler has returned or will never run."""

    def __init__(self, operation: Operation[Any], *, free: Callable[[], None]) -> None:
        self._operation = operation
        self._free = free
        self._bodies: list[Any] = []
        self._busy = 0
        self.held = 0
        # Those that have no answer yet.
        self.requests: list[Request] = []

    def takes(self, found: Gatherable) -> bool:
        """Whether this request is for the same operation."""
        return found.operation is self._operation

    def add(self, request: Request, found: Gatherable, held: int) -> None:
        """Answer this request too; its message holds so many bytes."""
        self.requests.append(request)
        self._bodies.append(found.body)
        self._busy += 1
        self.held += held

    async def answers(self, dispatch: Dispatcher) -> Sequence[Answer]:
        """Run the operation for all of them and report how each ended; the answer to each, in their order."""
        answers: list[Answer] = []
        try:
            outcomes = await self._outcomes()
        except asyncio.CancelledError as error:
            for request in self.requests:
                dispatch.finished(request, error)
            raise
        for request, outcome in zip(self.requests, outcomes, strict=True):
            if isinstance(outcome, Exception):
                dispatch.finished(request, outcome)
                answers.append(error_answer(outcome, request.message))
            else:
                dispatch.finished(request)
                answers.append(outcome)
        return answers

    async def _outcomes(self) -> Sequence[Answer | Exception]:
        assert self._operation.run_many is not None
        try:
            return await self._operation.run_many(list(zip(self.requests, self._bodies, strict=True)))
        except Exception as error:  # noqa: BLE001 - the answer of each
            return [error] * len(self.requests)
        finally:
            self.release()

    def release(self) -> None:
        """The handler has returned, or will never run: give the places of the requests to others. Idempotent."""
        for _ in range(self._busy):
            self._free()
        self._busy = 0

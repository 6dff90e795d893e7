"""Finds the operation of a request, checks the request, and runs it.

Every request passes through a `Dispatcher`, in the task that reads the connection. An unknown operation is refused; the body is
parsed once; the grant is checked before the handler sees anything. Each dialect has a dispatcher of its own over the operations
of the same services. The dispatcher does no I/O and never awaits: an operation that must wait returns a coroutine, and the
connection runs it in a task of its own.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from meshhost.errors import AccessDeniedError, InvalidRequestError, RoomError, StorageFullError
from meshhost.protocol.messages import ErrorResponse
from meshhost.quotas.rates import Rates
from meshhost.server.core.requests import Answer, Operation, Operations, Request
from meshhost.validation import invalid_request

__all__ = ["Dispatcher", "Gatherable"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Gatherable:
    """A request that was checked and may be answered together with others of the same operation (`Operation.run_many`)."""

    operation: Operation[Any]
    body: Any


class Dispatcher:
    """Runs the operations of a table.

    `count` is called with the operation's name (`unknown` for one that is not in the table) and the outcome: `accepted` when it
    was done, `refused` when its sender has to change something, `failed` when the server could not do it, `cancelled`.
    `rates` refuse the requests of a tenant that sends too many.
    """

    def __init__(
        self, operations: Operations, *, count: Callable[[str, str], None], rates: Rates | None = None
    ) -> None:
        self._operations = dict(operations)
        self._count = count
        self._rates = rates

    def __call__(self, request: Request) -> Answer | Coroutine[Any, Any, Answer] | Gatherable:
        """Answer a request, at once or by a coroutine; one that is gatherable is left to the caller to run.

        Raises RoomError for one that is refused.
        """
        name = request.operation
        operation = self._operations.get(name)
        if operation is None:
            self._count("unknown", "refused")
            raise InvalidRequestError("type", f"this room server does not offer {name!r}")
        try:
            if self._rates is not None:
                may_refuse = not (operation.frees or operation.is_one_way)
                self._rates.take(request.room.key.tenant, may_refuse=may_refuse)
            body = self._check(operation, request)
        except RoomError as error:
            self._count(name, "refused")
            if not operation.is_one_way:
                raise
            logger.info("one-way message refused", extra={"message_type": name, "reason": str(error)})
            return None
        if operation.run_many is not None:
            return Gatherable(operation, body)
        try:
            answer = operation.run(request, body)
        except BaseException as error:
            self.finished(request, error)
            raise
        if not isinstance(answer, Coroutine):
            self.finished(request)
        return answer

    def finished(self, request: Request, error: BaseException | None = None) -> None:
        """Count how a request ended. For one that is answered by a coroutine, the caller reports that."""
        self._count(request.operation, "accepted" if error is None else _outcome(error))

    def unreadable(self, request: Request, error: RoomError) -> Answer:
        """Answer a message that could not be read; `request.message` has its id and type only."""
        operation = self._operations.get(request.operation)
        if operation is None or operation.on_unreadable is None:
            return ErrorResponse(text=str(error), code=error.code)
        operation.on_unreadable(request, error)
        return None if operation.is_one_way else ErrorResponse(text=str(error), code=error.code)

    def _check(self, operation: Operation[Any], request: Request) -> Any:
        try:
            body = operation.body.model_validate(request.message.header)
        except ValidationError as error:
            raise invalid_request(error) from None
        if operation.grant is not None and not operation.grant(request.participant.scope, body):
            raise AccessDeniedError(request.message.type, operation.subject(body))
        return body


def _outcome(error: BaseException) -> str:
    if isinstance(error, asyncio.CancelledError):
        return "cancelled"
    return "refused" if isinstance(error, RoomError) and not isinstance(error, StorageFullError) else "failed"

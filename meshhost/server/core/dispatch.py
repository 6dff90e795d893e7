"""The one table of requests: what the body must be, which grant it needs, who answers it.

Each request passes here: an unknown type is answered with an error, a body is parsed once, and the grant is checked before
the handler sees anything.
"""

import logging
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from meshhost.errors import AccessDeniedError, InvalidRequestError, RoomError
from meshhost.identity.grants import ApiScope
from meshhost.server.wire.connection import Answer, Request

__all__ = ["Body", "Dispatcher", "Operation", "Operations"]

logger = logging.getLogger(__name__)


class Body(BaseModel):
    """The header of a request. Members that a newer client sends are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)


B = TypeVar("B", bound=Body)


@dataclass(frozen=True, slots=True)
class Operation(Generic[B]):
    """A request: its body, its handler, the grant it needs (None: none), and what the denial names.

    A one-way message gets no reply, so what is wrong with it is only logged.
    """

    body: type[B]
    run: Callable[[Request, B], Answer | Coroutine[Any, Any, Answer]]
    grant: Callable[[ApiScope, B], bool] | None = None
    subject: Callable[[B], str] = lambda _: ""
    is_one_way: bool = False


Operations = Mapping[str, Operation[Any]]


class Dispatcher:
    """Finds, checks and runs the operation of a request. `count` is told each request's type and whether it was refused."""

    def __init__(self, *tables: Operations, count: Callable[[str, str], None]) -> None:
        self._operations: dict[str, Operation[Any]] = {}
        for table in tables:
            self._operations |= table
        self._count = count

    def __call__(self, request: Request) -> Answer | Coroutine[Any, Any, Answer]:
        """Answer a request, at once or by a coroutine. Raises RoomError for one that is refused."""
        kind = request.operation
        operation = self._operations.get(kind)
        if operation is None:
            self._count("unknown", "refused")
            raise InvalidRequestError("type", f"this room server does not offer {request.message.type!r}")
        try:
            body = self._check(operation, request)
        except RoomError as error:
            self._count(kind, "refused")
            if not operation.is_one_way:
                raise
            logger.info("one-way message refused", extra={"message_type": kind, "reason": str(error)})
            return None
        self._count(kind, "accepted")
        return operation.run(request, body)

    def _check(self, operation: Operation[Any], request: Request) -> Any:
        try:
            body = operation.body.model_validate(request.message.header)
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False, include_context=False)[0]
            raise InvalidRequestError(".".join(map(str, first["loc"])), first["msg"]) from None
        if operation.grant is not None and not operation.grant(request.participant.scope, body):
            raise AccessDeniedError(request.message.type, operation.subject(body))
        return body

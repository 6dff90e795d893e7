"""`FunctionWorker`: a worker whose work is one plain function.

For programs that have a function and want it done for each message of a queue, without a class, a model or toolkits. The
message is checked against the type of the function's first argument by pydantic, so the function gets what it declares or is
not called. `Worker` does everything else: leases, retries, results, concurrency, drains.
"""

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, get_type_hints

from pydantic import PydanticSchemaGenerationError, TypeAdapter, ValidationError

from meshhost.agents.context import AgentChatContext
from meshhost.agents.worker import Worker, idempotency_key
from meshhost.errors import InvalidRequestError
from meshhost.guard import call
from meshhost.tools.toolkit import Toolkit

if TYPE_CHECKING:
    from meshhost.room.client import RoomClient
    from meshhost.room.services.queues import LeasedMessage

__all__ = ["FunctionWorker"]

_NAMED = ("room", "message_id", "attempt", "idempotency_key", "report_progress")


class FunctionWorker(Worker):
    """Calls `function` with each message of `queue`; what it returns is the message's result.

    The first argument is the message: a JSON value, checked and converted to the argument's type (a pydantic model, a
    dataclass, `list[int]`, …; without a type it is passed on as it came). The function may also take, by these names, `room`
    (RoomClient), `message_id`, `attempt`, `idempotency_key` (see `Worker.process_message`) and `report_progress` (an async
    function of one JSON value). It may be `async def`, or a plain `def`, which runs in a thread. A message that does not fit
    fails like one whose function raised: it is dead-lettered after its last attempt, with what is wrong as the reason.

    A pydantic model that is returned is kept as its JSON. Raises InvalidRequestError for a function that cannot be called so.
    """

    def __init__(
        self,
        *,
        queue: str | None,
        function: Callable[..., Any],
        name: str | None = None,
        concurrency: int = 1,
        deadline: float | None = None,
        title: str | None = None,
        description: str | None = None,
        labels: Sequence[str] | None = None,
    ) -> None:
        named = name or getattr(function, "__name__", "function-worker").replace("_", "-")
        super().__init__(
            queue=queue,
            name=named,
            title=title,
            description=description or inspect.getdoc(function),
            labels=labels,
            concurrency=concurrency,
            deadline=deadline,
        )
        self._function = function
        self._argument, self._type, self._also = _signature(function)
        self._is_async = inspect.iscoroutinefunction(function)

    async def _work(self, leased: "LeasedMessage") -> Any:
        if type(self).process_message is not FunctionWorker.process_message:
            return await super()._work(leased)
        # A function has no conversation and no toolkits: making them cost more than the rest.
        key = idempotency_key(self.room.room_name, leased) if "idempotency_key" in self._also else None
        message = self.decode_message(leased.message)
        return await self._call_function(message, self.room, leased.id, leased.attempt, key)

    async def process_message(
        self,
        *,
        chat_context: AgentChatContext,
        message: Any,
        toolkits: Sequence[Toolkit],
        room: "RoomClient | None" = None,
        message_id: str | None = None,
        attempt: int = 1,
        idempotency_key: str | None = None,
    ) -> Any:
        """Call the function. Raises InvalidRequestError when the message does not fit it, and what it raises."""
        return await self._call_function(message, room, message_id, attempt, idempotency_key)

    async def _call_function(
        self, message: Any, room: "RoomClient | None", message_id: str | None, attempt: int, key: str | None
    ) -> Any:
        try:
            argument = message if self._type is None else self._type.validate_python(message)
        except ValidationError as error:
            raise InvalidRequestError("message", _what_is_wrong(error)) from None

        arguments = {self._argument: argument}
        if self._also:
            values = {
                "room": room,
                "message_id": message_id,
                "attempt": attempt,
                "idempotency_key": key,
                "report_progress": partial(self.report_progress, message),
            }
            arguments |= {name: values[name] for name in self._also}
        if self._is_async:
            result = await self._function(**arguments)
        else:
            result = await call(self._function, **arguments)
        return result.model_dump(mode="json") if hasattr(result, "model_dump") else result


def _signature(function: Callable[..., Any]) -> tuple[str, TypeAdapter[Any] | None, Sequence[str]]:
    """Return the name of the message's argument, its type if it has one, and what else the function takes."""
    name = getattr(function, "__qualname__", repr(function))
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        raise InvalidRequestError("function", f"expected a function of one argument, got {function!r}") from None
    if (
        not parameters
        or parameters[0].name in _NAMED
        or parameters[0].kind
        not in (
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            inspect.Parameter.KEYWORD_ONLY,
        )
    ):
        raise InvalidRequestError("function", f"{name} has to take the message as its first argument")
    for parameter in parameters[1:]:
        if parameter.name not in _NAMED and parameter.default is parameter.empty:
            raise InvalidRequestError(
                "function", f"{name} takes {parameter.name!r}, which a worker does not have: {', '.join(_NAMED)}"
            )
    argument = parameters[0].name
    hint = get_type_hints(function).get(argument) if hasattr(function, "__annotations__") else None
    also = [parameter.name for parameter in parameters[1:] if parameter.name in _NAMED]
    if hint is None or hint is Any:
        return argument, None, also
    try:
        return argument, TypeAdapter(hint), also
    except PydanticSchemaGenerationError as error:
        raise InvalidRequestError(
            "function", f"{name}: {argument!r} has a type that JSON has no form for: {hint}"
        ) from error


def _what_is_wrong(error: ValidationError) -> str:
    """Each field that does not fit, and why; without the values, which a dead letter has already."""
    return "; ".join(
        f"{'.'.join(map(str, each['loc'])) or 'the message'}: {each['msg']}" for each in error.errors(include_url=False)
    )

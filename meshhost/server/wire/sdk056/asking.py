"""Asks the operations of the services in the name of a participant, whose client speaks of them in another way.

The dialect answers some requests by several operations, such as the chunks of a stream. Each passes the dispatcher as a request
of its own would, so its body and its grant are checked there. The request that the client made is what counts for its
tenant's rate and in the metrics.
"""

import dataclasses
from collections.abc import Coroutine
from typing import Any

from meshhost.errors import RoomError
from meshhost.protocol.messages import ErrorResponse, Header, JsonResponse, Response
from meshhost.server.core.dispatch import Dispatcher, Gatherable
from meshhost.server.core.requests import Answer, Operations, Request

__all__ = ["Ask", "json_of"]


class Ask:
    """Asks operations in a participant's name. `operations` are those of the server."""

    def __init__(self, operations: Operations) -> None:
        self._dispatch = Dispatcher(operations, count=lambda *_: None)

    async def __call__(self, request: Request, operation: str, header: Header, payload: bytes = b"") -> Answer:
        """Return the answer; None when it was given already. Raises what the operation raises."""
        message = dataclasses.replace(request.message, header=header, payload=payload)
        inner = dataclasses.replace(request, message=message, operation=operation)
        answer = self._dispatch(inner)
        if isinstance(answer, Gatherable):
            [gathered] = await _many(answer, inner)
            return gathered
        return await answer if isinstance(answer, Coroutine) else answer

    def unreadable(self, request: Request, operation: str, error: RoomError) -> None:
        """Tell an operation that a message for it could not be read."""
        self._dispatch.unreadable(dataclasses.replace(request, operation=operation), error)


async def _many(gatherable: Gatherable, request: Request) -> list[Answer]:
    assert gatherable.operation.run_many is not None
    answers = []
    for each in await gatherable.operation.run_many([(request, gatherable.body)]):
        if isinstance(each, Exception):
            raise each
        answers.append(each)
    return answers


def json_of(answer: Answer) -> Any:
    """Return the JSON value of an answer. Raises RoomError for one that is an error."""
    response: Response | None = answer[0] if isinstance(answer, tuple) else answer
    if isinstance(response, ErrorResponse):
        raise RoomError(response.text)
    assert isinstance(response, JsonResponse)
    return response.json

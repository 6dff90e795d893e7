"""Requests of participants, and what a service declares about each kind of request.

A service offers operations. An `Operation` is a row of a table: the shape of the request's header, the function that answers
it, the grant that the participant needs. The dispatcher (`dispatch.py`) reads the table, so no handler checks a grant or parses
a body itself. Operations have the server's own names (`queues.send`); what a client calls them on the wire is the business of
its dialect.
"""

from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict

from meshhost.errors import RoomError
from meshhost.identity.grants import ApiScope
from meshhost.protocol.connection import MessageReceived
from meshhost.protocol.messages import Header, Response
from meshhost.server.core.participants import Participant
from meshhost.server.core.peer import Peer
from meshhost.server.core.room import Room

__all__ = ["Answer", "Body", "Operation", "Operations", "Request"]

# The answer to a request, with members to add to its header if there are any. None: the request gets no reply from the
# dispatcher, because its operation is one-way or because the handler has replied itself.
Answer = Response | tuple[Response, Header] | None


@dataclass(frozen=True, slots=True)
class Request:
    """A message of a participant that asks for an operation.

    `operation` is the server's name of what is asked for; `message.type` is the client's name, which error texts show.
    `message.header` is the body in the server's form, translated by the dialect where its form differs.
    """

    room: Room
    participant: Participant
    peer: Peer
    message: MessageReceived
    operation: str

    async def reply(self, response: Response, extra: Header | None = None, *, reserved: int = 0) -> None:
        """Reply now, before the handler returns; the handler must then return None. Raises ConnectionLostError.

        `reserved` is what `Peer.reserve` holds for this answer.
        """
        await self.peer.reply(self.message.id, self.operation, response, extra, reserved=reserved)


class Body(BaseModel):
    """The header of a request. Unknown members are ignored, because newer clients may send more."""

    model_config = ConfigDict(extra="ignore", frozen=True)


B = TypeVar("B", bound=Body)


@dataclass(frozen=True, slots=True)
class Operation(Generic[B]):
    """What a service declares about one kind of request.

    `run` answers at once or returns a coroutine that does; only operations that do not wait may answer at once. `grant` tells
    whether a scope allows the request (None: every participant may), and `subject` what the denial names. A one-way operation
    gets no reply, so its errors are only logged. An operation that `frees` something (it settles a message), and a one-way one,
    is not refused when its tenant sends too many requests per second. `on_unreadable` handles a message that could not be read
    because it was too large or malformed; without it such a message is answered with the error.

    `run_many`, if there is one, answers requests that one connection made at the same time, in their order, in one task: each
    with an answer or with the error that `run` would have raised. Such a request is not cancelled when its client gives it up.
    """

    body: type[B]
    run: Callable[[Request, B], Answer | Coroutine[Any, Any, Answer]]
    grant: Callable[[ApiScope, B], bool] | None = None
    subject: Callable[[B], str] = lambda _: ""
    is_one_way: bool = False
    frees: bool = False
    on_unreadable: Callable[[Request, RoomError], None] | None = None
    run_many: Callable[[Sequence[tuple[Request, B]]], Coroutine[Any, Any, Sequence[Answer | Exception]]] | None = None


# Operations by the server's name of each.
Operations = Mapping[str, Operation[Any]]

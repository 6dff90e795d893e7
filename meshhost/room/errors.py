"""Errors that came over the wire, as the exceptions they were on the other side; and replies that make no sense."""

from collections.abc import Iterator
from contextlib import contextmanager

from meshhost.errors import (
    AccessDeniedError,
    AlreadyExistsError,
    InvalidRequestError,
    LeaseLostError,
    LimitExceededError,
    NotFoundError,
    RequestTimeoutError,
    RoomError,
    ToolError,
)
from meshhost.protocol.messages import ErrorResponse

__all__ = ["error_from", "reading"]

_PLAIN = (NotFoundError, AlreadyExistsError, RequestTimeoutError, LeaseLostError, LimitExceededError, ToolError)
_BY_CODE: dict[int, type[RoomError]] = {error.code: error for error in _PLAIN}


def error_from(response: ErrorResponse) -> RoomError:
    """The exception that an error body stands for. Servers that send no code give a plain RoomError."""
    match response.code:
        case AccessDeniedError.code:
            operation, _, subject = response.text.removeprefix("permission denied: ").partition(" ")
            return AccessDeniedError(operation, subject)
        case InvalidRequestError.code:
            return InvalidRequestError("", response.text)
        case int() as code if code in _BY_CODE:
            return _BY_CODE[code](response.text)
        case _:
            return RoomError(response.text)


@contextmanager
def reading(type: str) -> Iterator[None]:
    """Read the reply to this request inside: what it lacks, or has of the wrong kind, is a RoomError."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError):
        raise RoomError(f"the room server's reply to {type} is not what it should be") from None

"""Turn replies of the room server into Python values and exceptions.

`session.py` raises the error that a reply carries (`error_from`), `client.py` unpacks the value of any other reply
(`value_of`), and the service clients read the members of that value inside `with reading(…)`: a server that replies with
something unexpected causes a RoomError and never a KeyError in the application.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from meshhost.errors import (
    AccessDeniedError,
    AlreadyExistsError,
    InvalidRequestError,
    LeaseLostError,
    LimitExceededError,
    NotFoundError,
    QuotaExceededError,
    RequestTimeoutError,
    RoomError,
    StorageFullError,
    ToolError,
)
from meshhost.protocol.messages import (
    EmptyResponse,
    ErrorResponse,
    FileResponse,
    JsonResponse,
    Response,
    TextResponse,
)

__all__ = ["error_from", "reading", "value_of"]

# The errors that are made of their text alone.
_PLAIN = (
    NotFoundError,
    AlreadyExistsError,
    RequestTimeoutError,
    LeaseLostError,
    LimitExceededError,
    QuotaExceededError,
    StorageFullError,
    ToolError,
)
_BY_CODE: dict[int, type[RoomError]] = {error.code: error for error in _PLAIN}


def error_from(response: ErrorResponse) -> RoomError:
    """The exception that an error reply stands for. Servers that send no code give a plain RoomError."""
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


def value_of(response: Response, type: str) -> Any:
    """The value of the reply to a request of this type: a JSON value, a text, a FileResponse, or None. Raises RoomError."""
    match response:
        case JsonResponse():
            return response.json
        case TextResponse():
            return response.text
        case FileResponse():
            return response
        case EmptyResponse():
            return None
        case _:
            raise RoomError(f"unexpected {response.type} reply to {type}")


@contextmanager
def reading(type: str) -> Iterator[None]:
    """Read the reply to a request of this type inside: a member that is missing or of the wrong kind raises RoomError."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError):
        raise RoomError(f"the room server's reply to {type} is not what it should be") from None

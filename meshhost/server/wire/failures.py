"""What a participant is told when a request of theirs failed.

Errors that were raised on purpose say what is wrong. Anything else is a bug or a trouble of this server: it goes to the log,
and the participant learns only that it happened.
"""

import errno
import logging
from typing import TypeVar

from meshhost.errors import RoomError
from meshhost.protocol.connection import MessageReceived
from meshhost.protocol.messages import ErrorResponse
from meshhost.stores.disk.space import storage_full

__all__ = ["error_answer", "first_of"]

logger = logging.getLogger(__name__)

E = TypeVar("E", bound=BaseException)


def error_answer(error: Exception, message: MessageReceived) -> ErrorResponse:
    """The answer to a request whose handler raised this error."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        error = storage_full()
    if isinstance(error, RoomError):
        return ErrorResponse(text=str(error) or type(error).__name__, code=error.code)
    logger.error("request failed", exc_info=error, extra={"message_type": message.type})
    if isinstance(error, OSError) and not isinstance(error, ConnectionError | TimeoutError):
        return ErrorResponse(text=f"{message.type} failed: the room server cannot use its data now; its log says why")
    return ErrorResponse(text=f"{message.type} failed inside the room server; its log says why")


def first_of(group: BaseExceptionGroup[E]) -> E:
    """The first error of a group, however deep it is."""
    found = group.exceptions[0]
    return first_of(found) if isinstance(found, BaseExceptionGroup) else found

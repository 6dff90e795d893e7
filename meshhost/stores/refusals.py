"""The checks and error texts that all queue stores share, so that a caller cannot tell engines apart by them.

Called by the stores before they change anything. Texts are shown to users: they name the queue and the limit, never a body.
"""

import json

from meshhost.errors import InvalidRequestError, LeaseLostError, LimitExceededError, NotFoundError, RoomError
from meshhost.stores.queues import Lease, NewMessage, QueueKey, QueueLimits

__all__ = ["check_message", "check_name", "lease_lost", "not_open", "queue_full", "queue_missing"]


def check_message(message: NewMessage, limits: QueueLimits) -> str:
    """Return the headers as JSON text.

    Raises LimitExceededError for a message that is too large, InvalidRequestError for one that is not Unicode.
    """
    headers = json.dumps(dict(message.headers), ensure_ascii=False)
    try:
        (message.sender_id or "").encode()
    except UnicodeEncodeError:
        raise InvalidRequestError("id", "expected Unicode text, without lone surrogates") from None
    try:
        size = len(message.body.encode()) + len(headers.encode())
    except UnicodeEncodeError:
        raise InvalidRequestError("message", "expected Unicode text, without lone surrogates") from None
    if size > limits.max_message_bytes:
        raise LimitExceededError(f"message of {size} bytes, a queue takes at most {limits.max_message_bytes}")
    return headers


def check_name(queue: QueueKey) -> None:
    """Raise InvalidRequestError when the queue's name is not Unicode, or has a NUL: some store could not keep it."""
    try:
        queue.name.encode()
    except UnicodeEncodeError:
        raise InvalidRequestError("name", "expected Unicode text, without lone surrogates") from None
    if "\0" in queue.name:
        raise InvalidRequestError("name", "expected text without the character NUL")


def queue_missing(queue: QueueKey) -> NotFoundError:
    """Return the error for a queue that was never created or is deleted."""
    return NotFoundError(f"no queue {queue.name!r} in this room")


def queue_full(queue: QueueKey, limits: QueueLimits) -> LimitExceededError:
    """Return the error for a queue at its limit."""
    return LimitExceededError(f"queue {queue.name!r} is full: it holds {limits.max_depth} messages")


def lease_lost(lease: Lease) -> LeaseLostError:
    """Return the error for a lease that is not the present one."""
    return LeaseLostError(
        f"lease lost: message {lease.message_id} of queue {lease.queue.name!r} was leased again or settled"
    )


def not_open() -> RoomError:
    """Return the error for using a store before `open` or after `close`."""
    return RoomError("the queue store is not open")

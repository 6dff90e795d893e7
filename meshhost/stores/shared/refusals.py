"""The checks and error texts that all queue stores share, so that a caller cannot tell engines apart by them.

Called by the stores before they change anything. Texts are shown to users: they name the queue and the limit, never a body.
"""

import json
from collections.abc import Sequence

from meshhost.errors import (
    InvalidRequestError,
    LeaseLostError,
    LimitExceededError,
    NotFoundError,
    RoomError,
    TooLargeError,
)
from meshhost.stores.messages import HIGHEST_PRIORITY, NewMessage
from meshhost.stores.queues import LONGEST_DELAY, MAX_BATCH, Lease, QueueKey, QueueLimits

__all__ = ["check_batch", "check_message", "check_name", "lease_lost", "not_open", "queue_full", "queue_missing"]


def check_message(message: NewMessage, limits: QueueLimits) -> str:
    """Return the headers as JSON text.

    Raises TooLargeError for a message that is too large, InvalidRequestError for one that is not Unicode or has an
    option out of its bounds.
    """
    if not 0 <= message.delay <= LONGEST_DELAY:
        raise InvalidRequestError("delay", f"expected 0 to {LONGEST_DELAY:.0f} seconds, got {message.delay}")
    if message.ttl is not None and not 0 < message.ttl <= LONGEST_DELAY:
        raise InvalidRequestError("ttl", f"expected seconds above 0 and at most {LONGEST_DELAY:.0f}, got {message.ttl}")
    if not -HIGHEST_PRIORITY <= message.priority <= HIGHEST_PRIORITY:
        raise InvalidRequestError(
            "priority", f"expected {-HIGHEST_PRIORITY} to {HIGHEST_PRIORITY}, got {message.priority}"
        )
    _check_text("key", message.key)
    headers = json.dumps(dict(message.headers), ensure_ascii=False)
    _check_text("id", message.sender_id)
    try:
        size = len(message.body.encode()) + len(headers.encode())
    except UnicodeEncodeError:
        raise InvalidRequestError("message", "expected Unicode text, without lone surrogates") from None
    if size > limits.max_message_bytes:
        raise TooLargeError(f"message of {size} bytes, a queue takes at most {limits.max_message_bytes}")
    return headers


def check_batch(messages: Sequence[NewMessage]) -> None:
    """Raise InvalidRequestError when there are too many messages for one call, or none."""
    if not 1 <= len(messages) <= MAX_BATCH:
        raise InvalidRequestError("messages", f"expected 1 to {MAX_BATCH} messages, got {len(messages)}")


def _check_text(field: str, text: str | None) -> None:
    try:
        (text or "").encode()
    except UnicodeEncodeError:
        raise InvalidRequestError(field, "expected Unicode text, without lone surrogates") from None


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


def queue_full(queue: QueueKey, most: int) -> LimitExceededError:
    """Return the error for a queue that holds as many messages as it may."""
    return LimitExceededError(f"queue {queue.name!r} is full: it holds {most} messages")


def lease_lost(lease: Lease) -> LeaseLostError:
    """Return the error for a lease that is not the present one."""
    return LeaseLostError(
        f"lease lost: message {lease.message_id} of queue {lease.queue.name!r} was leased again or settled"
    )


def not_open() -> RoomError:
    """Return the error for using a store before `open` or after `close`."""
    return RoomError("the queue store is not open")

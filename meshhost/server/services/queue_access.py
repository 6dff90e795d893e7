"""Which queue a request of `queues.*` is about, and whether a scope allows it: shared by the services of the queues.

Sending and receiving are granted by queue. What changes or reads a whole queue needs the right to receive from it; what became
of one message may also be asked by its sender (`queue_messages.py` leaves the contents out then). A participant that may only
send is known for that by `sender_of`, which the store keeps beside its messages.
"""

import hashlib
import json

from meshhost.errors import AccessDeniedError, InvalidRequestError
from meshhost.identity.grants import ApiScope
from meshhost.queues.reader import QueueReader
from meshhost.server.core.requests import Body, Request
from meshhost.server.services import queue_bodies as bodies
from meshhost.stores.queues import HolderId, Lease, QueueKey

__all__ = [
    "check_reads",
    "key_of",
    "lease_of",
    "may_list",
    "may_receive",
    "may_send",
    "may_use",
    "name_of",
    "not_sent_by_you",
    "sender_of",
    "sent_by",
]


def may_list(scope: ApiScope, _: Body) -> bool:
    """Whether the scope grants to list the queues."""
    return scope.queues is not None and scope.queues.list


def may_send(scope: ApiScope, body: bodies.Named) -> bool:
    """Whether it grants to send to the queue."""
    return scope.queues is not None and scope.queues.can_send(body.name)


def may_receive(scope: ApiScope, body: bodies.Named) -> bool:
    """Whether it grants to receive from the queue."""
    return scope.queues is not None and scope.queues.can_receive(body.name)


def may_use(scope: ApiScope, body: bodies.Named) -> bool:
    """Whether it grants one of the two."""
    return may_send(scope, body) or may_receive(scope, body)


def name_of(body: bodies.Named) -> str:
    """What a denial names."""
    return body.name


def key_of(request: Request, body: bodies.Named) -> QueueKey:
    """The queue of the request's room."""
    return QueueKey(request.room.key, body.name)


def lease_of(queue: QueueKey, text: str) -> Lease:
    """The lease that a client shows. Its holder is a secret that only the receiver of the delivery knows."""
    parts = text.split(".")
    if len(parts) != 3 or not (parts[0].isdecimal() and parts[1].isdecimal()):
        raise InvalidRequestError("lease", "expected the lease of a delivery")
    message_id, token, holder = int(parts[0]), int(parts[1]), HolderId(parts[2])
    return Lease(queue, message_id, token, holder, expires_at=0.0)


def sender_of(name: str, key_id: str | None) -> str:
    """Who sends: a participant, by its name and the key that signed its token, as a short text that shows neither."""
    return hashlib.sha256(json.dumps([name, key_id]).encode()).hexdigest()[:32]


def sent_by(request: Request, body: bodies.Named) -> str | None:
    """`sender_of` a participant that may read of the queue only what it sent itself; None for those that may read all."""
    who = request.participant
    return None if may_receive(who.scope, body) else sender_of(who.name, who.key_id)


def not_sent_by_you(queue: str) -> AccessDeniedError:
    """The error for a participant that may only send, and asks for a message of somebody else, or one that never was."""
    return AccessDeniedError("read a message that another participant sent to queue", queue)


async def check_reads(request: Request, body: bodies.OfMessage, queues: QueueReader) -> bool:
    """Return whether the participant reads the contents of a message; without them it reads the message if it sent it.

    Raises AccessDeniedError when it did not.
    """
    sender = sent_by(request, body)
    if sender is not None and not await queues.is_sent_by(key_of(request, body), body.id, sender):
        raise not_sent_by_you(body.name)
    return sender is None

"""Hands a large body to a client that does not fetch it: SDK 0.6, which reads a message of any size, and older ones of ours.

The body is then in the header of the answer. It is reserved among the bytes in flight before it is read, so that slow receivers
of large messages wait for each other instead of filling the memory. One that can never fit, or whose object is gone, would go
round for ever: its delivery counts as a failed attempt, and after the last one the message is dead with the reason.
"""

from collections.abc import Sequence
from typing import NamedTuple

from meshhost.errors import NotFoundError, TooLargeError
from meshhost.queues.service import QueueService
from meshhost.server.core.requests import Request
from meshhost.stores.bodies.reference import BodyReference, is_reference
from meshhost.stores.queues import Delivery, EndReason

__all__ = ["Inlined", "inlined"]


class Inlined(NamedTuple):
    """The deliveries to answer with, the text of the body if it is one large one, and what is reserved for it in bytes."""

    deliveries: Sequence[Delivery]
    text: str | None = None
    reserved: int = 0


async def inlined(queues: QueueService, request: Request, deliveries: Sequence[Delivery]) -> Inlined:
    """Return what fits into one answer: a large body alone, or the small ones before it. The others are given back."""
    large = next((number for number, each in enumerate(deliveries) if is_reference(each.body)), len(deliveries))
    kept = deliveries[: large or 1]
    for delivery in deliveries[len(kept) :]:
        queues.give_back(delivery.lease)
    if large:
        return Inlined(kept)
    (delivery,) = kept
    reference = BodyReference.parse(delivery.body)
    room, peer, reserved = delivery.lease.queue.room, request.peer, 0
    try:
        await peer.reserve(reference.size)
        reserved = reference.size
        data = await queues.bodies.read(room, reference, 0, reference.size)
        return Inlined(kept, data.decode(), reserved)
    except BaseException as error:
        peer.give_back(reserved)
        if not isinstance(error, TooLargeError | NotFoundError):
            queues.give_back(delivery.lease)
            raise
        await queues.nack(delivery.lease, reason=EndReason.FAILED, error=f"not delivered: {error}")
        return Inlined(())

"""Messages of different senders that are stored together, although each is accepted or refused for itself.

Senders that wait at the same moment would each cost an operation of the store. `send_each` makes one operation of them, all or
none, which is nearly always all. When it is refused nothing of it is stored, and each message is sent alone: so only those are
refused that have to be, and each sender learns its own reason.
"""

import asyncio
from collections.abc import Sequence

from meshhost.errors import MeshhostError
from meshhost.queues.service import QueueService
from meshhost.stores.queues import NewMessage, QueueKey

__all__ = ["send_each"]


async def send_each(
    queues: QueueService, queue: QueueKey, messages: Sequence[NewMessage], *, create: bool
) -> Sequence[int | Exception]:
    """Store these messages of one queue, in their order. The id of each, or what `QueueService.send` raised for it.

    Raises what the store raises when it fails as a whole.
    """
    try:
        return await queues.send_many(queue, messages, create=create)
    except MeshhostError as error:
        if len(messages) == 1:
            return [error]

    async def alone(message: NewMessage) -> int | Exception:
        try:
            return await queues.send(queue, message, create=create)
        except Exception as error:  # noqa: BLE001 - for its own sender
            return error

    return await asyncio.gather(*map(alone, messages))

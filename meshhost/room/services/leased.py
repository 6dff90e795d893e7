"""A message that a participant has leased, and how it settles it (room-protocol §9).

`queues.py` makes them, `consumer.py` and programs settle them. The lease is shown with each request; a server that does not
know leases (MeshAgent's) gave none, and the message then counts as settled on arrival.
"""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from meshhost.errors import ConnectionLostError, RoomError
from meshhost.protocol.json_values import check_finite
from meshhost.protocol.messages import Header, JsonResponse, Response
from meshhost.room.link import RoomLink
from meshhost.room.services.large_bodies import LargeBody, fetch, large_body, offers_large_bodies, upload
from meshhost.tasks import uninterrupted

__all__ = ["MAX_RESULT_CHARS", "LeasedMessage", "NackReason", "leased_message", "load_all"]

# Results of more than this are uploads.
MAX_RESULT_CHARS = 64 * 1024

NackReason = Literal["failed", "interrupted", "released"]


@dataclass(slots=True)
class LeasedMessage:
    """A message that is ours for a limited time. Settle it with `ack` or `nack`, or it comes back when the lease expires.

    `attempt` is 1 plus the failures so far, `delivery` 1 plus all earlier deliveries. `seconds` is the duration of the lease
    unless it is extended. From a server without leases (MeshAgent's), `seconds` is None, the message is settled already, and
    the methods do nothing.

    `deadline` is how many seconds the queue gives for it. `is_cancelled` becomes true when an `extend` learns that somebody
    cancelled the message: stop, and settle it in any way. `id` is None, and neither results nor progress are kept
    (`keeps_results`), on a server without these. Of a large message that was leased without fetching it, `body` says what is
    known, and `message` is None until `load`.
    """

    message: Any
    queue: str
    attempt: int = 1
    delivery: int = 1
    headers: Mapping[str, str] = field(default_factory=dict)
    sent_at: float | None = None
    seconds: float | None = None
    _lease: str | None = field(default=None, repr=False)
    _room: RoomLink | None = field(default=None, repr=False)
    id: str | None = None
    priority: int = 0
    key: str | None = None
    deadline: float | None = None
    is_cancelled: bool = False
    body: LargeBody | None = None

    @property
    def keeps_results(self) -> bool:
        """Whether the server keeps a result and progress."""
        return self.id is not None

    @property
    def keeps_large_results(self) -> bool:
        """Whether the server keeps a result of over 64 KiB."""
        return self.keeps_results and self._room is not None and offers_large_bodies(self._room)

    async def load(self) -> None:
        """Fetch a large message. Does nothing when it is here. Raises NotFoundError, RoomError when it is not what was sent."""
        if self.body is not None and self._room is not None:
            self.message = await fetch(self._room, self.queue, self.id or "", self.body)
            self.body = None

    async def ack(self, *, result: Any = None) -> None:
        """Report success: the message is done, with this result (a JSON value; None: none).

        A result of over 64 KiB goes to the server's object store; an older server of ours refuses it.

        Raises LeaseLostError when the lease was lost, InvalidRequestError when the result is too large or no JSON value (the
        message stays leased), RoomError when there is a result and the server keeps none.
        """
        if result is None:
            await self._settle("queues.ack", {})
            return
        text = self._kept(result, "result")
        if len(text) > MAX_RESULT_CHARS and self._room is not None and offers_large_bodies(self._room):
            await self._settle("queues.ack", {"upload": await upload(self._room, self.queue, text)})
        else:
            await self._settle("queues.ack", {"result": result})

    async def nack(self, *, reason: NackReason = "failed", error: str = "", delay: float | None = None) -> bool:
        """Return the message to the queue, to be delivered again after `delay` seconds (None: the server's backoff).

        `failed` counts as an attempt; after the last one the message is dead-lettered with `error`. Returns whether that
        happened. `interrupted` and `released` count as no attempt: the message did not cause them. Raises LeaseLostError.
        """
        header: Header = {"reason": reason, "error": error}
        reply = await self._settle("queues.nack", header if delay is None else header | {"delay": delay})
        return isinstance(reply, JsonResponse) and bool(reply.json.get("dead"))

    async def extend(self, *, seconds: float | None = None, progress: Any = None) -> None:
        """Extend the lease to `seconds` from now (None: its first duration), and learn whether the message was cancelled.

        `progress`, any JSON value of at most 64 KiB, replaces what was reported of this delivery before; who waits for the
        message sees it. Raises LeaseLostError, and for progress what `ack` raises for a result.
        """
        header: Header = {"seconds": self.seconds if seconds is None else seconds}
        if progress is not None:
            self._kept(progress, "progress")
            header["progress"] = progress
        reply = await self._settle("queues.extend", header)
        if isinstance(reply, JsonResponse) and reply.json.get("cancelled"):
            self.is_cancelled = True

    async def report_progress(self, progress: Any) -> None:
        """Let those who wait for the message see this; the lease is extended as well. See `extend`."""
        await self.extend(progress=progress)

    def shown(self, result: Any = None) -> Header:
        """What settles this message together with others (`QueuesClient.ack_many`). Raises as `ack` does for a result."""
        header: Header = {"lease": self._lease}
        if result is None:
            return header
        self._kept(result, "result")
        return header | {"result": result}

    def _kept(self, value: Any, field: str) -> str:
        """Return the text of a value that the server can keep."""
        if not self.keeps_results:
            raise RoomError(
                f"this room server keeps no {field} of a message: it is MeshAgent's, or an older one of ours"
            )
        return check_finite(value, field)

    async def _settle(self, request: str, header: Header) -> Response | None:
        if self._room is None or self._lease is None:
            return None
        response, _ = await self._room.request(request, {"name": self.queue, "lease": self._lease} | header)
        return response


def leased_message(message: Any, queue: str, delivery: Mapping[str, Any], room: RoomLink) -> LeasedMessage:
    """Make one of what the server says of a delivery. Raises KeyError when a member is missing."""
    return LeasedMessage(
        message=message,
        queue=queue,
        attempt=delivery["attempt"],
        delivery=delivery["delivery"],
        headers=delivery["headers"],
        sent_at=delivery["sent_at"],
        seconds=delivery["lease_seconds"],
        _lease=delivery["lease"],
        _room=room,
        id=delivery.get("id"),
        priority=delivery.get("priority", 0),
        key=delivery.get("key"),
        deadline=delivery.get("deadline"),
        body=large_body(delivery.get("body")),
    )


async def load_all(found: Sequence[LeasedMessage]) -> None:
    """Fetch the large ones. When that fails, nobody gets any of them: they are given back."""
    for each in found:
        try:
            await each.load()
        except BaseException as error:
            # Of one that cannot be fetched, this is a failed attempt, or it would go round for ever.
            is_bad = isinstance(error, RoomError) and not isinstance(error, ConnectionLostError)
            bad, reason = (each, str(error)) if is_bad else (None, "")
            with contextlib.suppress(TimeoutError):
                await uninterrupted(asyncio.gather(*(_give_back(one, reason if one is bad else None) for one in found)))
            raise


async def _give_back(leased: LeasedMessage, failure: str | None) -> None:
    with contextlib.suppress(RoomError, TimeoutError):
        await leased.nack(reason="released" if failure is None else "failed", error=failure or "")

"""A message that a participant has leased, and how it settles it (room-protocol §9).

`queues.py` makes them, `consumer.py` and programs settle them. The lease is shown with each request; a server that does not
know leases (MeshAgent's) gave none, and the message then counts as settled on arrival.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from meshhost.errors import RoomError
from meshhost.protocol.json_values import check_finite
from meshhost.protocol.messages import Header, JsonResponse, Response
from meshhost.room.link import RoomLink

__all__ = ["LeasedMessage", "NackReason", "leased_message"]

NackReason = Literal["failed", "interrupted", "released"]


@dataclass(slots=True)
class LeasedMessage:
    """A message that is ours for a limited time. Settle it with `ack` or `nack`, or it comes back when the lease expires.

    `attempt` is 1 plus the failures so far, `delivery` 1 plus all earlier deliveries. `seconds` is the duration of the lease
    unless it is extended. From a server without leases (MeshAgent's), `seconds` is None, the message is settled already, and
    the methods do nothing.

    `deadline` is how many seconds the queue gives for it. `is_cancelled` becomes true when an `extend` learns that somebody
    cancelled the message: stop, and settle it in any way. `id` is None, and neither results nor progress are kept
    (`keeps_results`), on a server without these.
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

    @property
    def keeps_results(self) -> bool:
        """Whether the server keeps a result and progress."""
        return self.id is not None

    async def ack(self, *, result: Any = None) -> None:
        """Report success: the message is done, with this result (a JSON value of at most 64 KiB; None: none).

        Raises LeaseLostError when the lease was lost, InvalidRequestError when the result is too large or no JSON value (the
        message stays leased), RoomError when there is a result and the server keeps none.
        """
        await self._settle("queues.ack", {} if result is None else {"result": self._kept(result, "result")})

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
            header["progress"] = self._kept(progress, "progress")
        reply = await self._settle("queues.extend", header)
        if isinstance(reply, JsonResponse) and reply.json.get("cancelled"):
            self.is_cancelled = True

    async def report_progress(self, progress: Any) -> None:
        """Let those who wait for the message see this; the lease is extended as well. See `extend`."""
        await self.extend(progress=progress)

    def shown(self, result: Any = None) -> Header:
        """What settles this message together with others (`QueuesClient.ack_many`). Raises as `ack` does for a result."""
        header: Header = {"lease": self._lease}
        return header if result is None else header | {"result": self._kept(result, "result")}

    def _kept(self, value: Any, field: str) -> Any:
        if not self.keeps_results:
            raise RoomError(
                f"this room server keeps no {field} of a message: it is MeshAgent's, or an older one of ours"
            )
        check_finite(value, field)
        return value

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
    )

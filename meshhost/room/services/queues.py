"""Durable queues of the room, as a participant uses them (room-protocol §9).

There are two ways to take a message. `receive` is MeshAgent's: the message is settled by the next `receive`. `lease` is ours:
the message stays in the queue, invisible to others, until it is acked, nacked or its lease expires; `consumer.py` uses it. On
the wire both are the request `queues.receive`; a server that does not know leases ignores the extra member, and the message
then counts as settled on arrival.
"""

import builtins
import contextlib
import secrets
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from meshhost.errors import ConnectionLostError, RoomError
from meshhost.protocol.json_values import check_finite
from meshhost.protocol.messages import EmptyResponse, Header, JsonResponse, Response, TextResponse
from meshhost.room.link import Reply, RoomLink
from meshhost.room.replies import reading, value_of

__all__ = ["DeadMessage", "LeasedMessage", "NackReason", "Queue", "QueuesClient"]

NackReason = Literal["failed", "interrupted", "released"]
DEFAULT_LEASE_SECONDS = 30.0
# As many as the server takes.
MAX_LOST = 64
# The extension of servers that store a message once, however often it is sent under one id.
_SEND_ID = "send_id"
# The extension of servers that settle what a receive without waiting got when the client confirms that its caller has it.
_CONFIRM = "confirm_receive"


@dataclass(frozen=True, slots=True)
class Queue:
    """The size of a queue. `size` counts the waiting messages; a MeshAgent server reports nothing else (the rest is None).

    `ready`, `leased`, `delayed` and `dead` count messages; `oldest_age` is the age of the oldest one in seconds.
    """

    name: str
    size: int
    ready: int | None = None
    leased: int | None = None
    delayed: int | None = None
    dead: int | None = None
    oldest_age: float | None = None


@dataclass(frozen=True, slots=True)
class DeadMessage:
    """A message that was dead-lettered after its last attempt. `reason` is the last error, times are in Unix seconds."""

    id: str
    message: Any
    headers: Mapping[str, str]
    attempts: int
    reason: str
    sent_at: float
    died_at: float


@dataclass(slots=True)
class LeasedMessage:
    """A message that is ours for a limited time. Settle it with `ack` or `nack`, or it comes back when the lease expires.

    `attempt` is 1 plus the failures so far, `delivery` 1 plus all earlier deliveries. `seconds` is the duration of the lease
    unless it is extended. From a server without leases (MeshAgent's), `seconds` is None, the message is settled already, and
    the methods do nothing.
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

    async def ack(self) -> None:
        """Report success: the message is deleted. Raises LeaseLostError when the lease has expired."""
        await self._settle("queues.ack", {})

    async def nack(self, *, reason: NackReason = "failed", error: str = "", delay: float | None = None) -> bool:
        """Return the message to the queue, to be delivered again after `delay` seconds (None: the server's backoff).

        `failed` counts as an attempt; after the last one the message is dead-lettered with `error`. Returns whether that
        happened. `interrupted` and `released` count as no attempt: the message did not cause them. Raises LeaseLostError.
        """
        header: Header = {"reason": reason, "error": error}
        reply = await self._settle("queues.nack", header if delay is None else header | {"delay": delay})
        return isinstance(reply, JsonResponse) and bool(reply.json.get("dead"))

    async def extend(self, *, seconds: float | None = None) -> None:
        """Extend the lease to `seconds` from now (None: its first duration). Raises LeaseLostError."""
        await self._settle("queues.extend", {"seconds": self.seconds if seconds is None else seconds})

    async def _settle(self, request: str, header: Header) -> Response | None:
        if self._room is None or self._lease is None:
            return None
        response, _ = await self._room.request(request, {"name": self.queue, "lease": self._lease} | header)
        return response


class QueuesClient:
    """Send to and receive from the room's queues. All methods raise RoomError; AccessDeniedError without the grant."""

    def __init__(self, *, room: RoomLink) -> None:
        self._room = room
        # Calls whose replies the lost connection may have swallowed: the server gives back what those carried.
        self._lost: tuple[str, ...] = ()

    async def list(self, *, name: str | None = None, message: Any = None, create: bool = True) -> list[Queue]:
        """All queues of the room. The arguments exist for compatibility with the MeshAgent SDK and have no effect."""
        answer = await self._room.send_request("queues.list", {})
        with reading("queues.list"):
            return [_queue(entry) for entry in answer["queues"]]

    async def open(self, *, name: str) -> None:
        """Create the queue if it does not exist."""
        await self._room.send_request("queues.open", {"name": name})

    async def send(
        self, *, name: str, message: Any, create: bool = True, headers: Mapping[str, str] | None = None
    ) -> str | None:
        """Put a message (any JSON value) at the end of the queue.

        Returns its id once it is on the server's disk (None from a MeshAgent server). `headers` are delivered with it. When the
        connection is lost before the server answered, the message is sent again over the next one; our server stores it once
        (from another, ConnectionLostError leaves open whether it was stored). Raises
        NotFoundError when the queue does not exist and `create` is false, LimitExceededError when message or queue are too
        large, InvalidRequestError that names the field when a number is NaN or infinite.
        """
        check_finite(message, "message")
        request: Header = {"name": name, "create": create, "message": message}
        if headers:
            request["headers"] = dict(headers)
        resume = _SEND_ID if self._offers(_SEND_ID) else None
        if resume is not None:
            request["id"] = _new_send_id()
        response, _ = await self._room.request("queues.send", request, resume=resume)
        answer = value_of(response, "queues.send")
        return str(answer["id"]) if isinstance(answer, dict) and "id" in answer else None

    def _offers(self, extension: str) -> bool:
        with contextlib.suppress(RoomError):  # not connected yet, which the request says better
            return extension in self._room.extensions.get("extensions", ())
        return False

    async def receive(self, *, name: str, create: bool = True, wait: bool = True) -> Any:
        """Take the next message, or return None. With `wait`, the server replies within about 20 s.

        The message is settled by the next `receive` on this queue (without `wait`, as soon as this returns it). If the
        connection is lost or the caller is cancelled before that, it comes back. Use `lease` to settle explicitly.
        """
        header: Header = {"name": name, "create": create, "wait": wait}
        call = None if wait or not self._offers(_CONFIRM) else uuid.uuid4().hex
        if call is not None:
            header |= {"call": call, "confirm": True}
        response, _ = await self._room.request("queues.receive", header)
        if call is not None and not isinstance(response, EmptyResponse):
            # In the same turn of the loop in which the caller gets the message. When the caller was cancelled before, the
            # session has given the request up, and the message goes back.
            with contextlib.suppress(ConnectionLostError):
                await self._room.notify("queues.received", {"name": name, "call": call})
        return _message(response)

    async def lease(
        self, *, name: str, create: bool = True, wait: bool = True, seconds: float = DEFAULT_LEASE_SECONDS
    ) -> LeasedMessage | None:
        """Lease the next message for `seconds`, or return None. With `wait`, the server replies within about 20 s.

        When the caller is cancelled or the reply is lost with the connection, the server takes the message back at once.
        """
        header: Header = {"name": name, "create": create, "wait": wait, "lease": seconds}
        response, extra = await self._request_lease(header)
        if isinstance(response, EmptyResponse):
            return None
        delivery = extra.get("delivery")
        if not isinstance(delivery, dict):
            return LeasedMessage(message=_message(response), queue=name)
        with reading("queues.receive"):
            return LeasedMessage(
                message=_message(response),
                queue=name,
                attempt=delivery["attempt"],
                delivery=delivery["delivery"],
                headers=delivery["headers"],
                sent_at=delivery["sent_at"],
                seconds=delivery["lease_seconds"],
                _lease=delivery["lease"],
                _room=self._room,
            )

    async def _request_lease(self, header: Header) -> Reply:
        lost, call = self._lost, uuid.uuid4().hex
        try:
            named = header | {"call": call} | ({"given_up": builtins.list(lost)} if lost else {})
            reply = await self._room.request("queues.receive", named)
        except ConnectionLostError:
            self._lost = (*self._lost, call)[-MAX_LOST:]
            raise
        self._lost = tuple(each for each in self._lost if each not in lost)
        return reply

    async def drain(self, *, name: str) -> None:
        """Delete all messages of the queue except the dead ones."""
        await self._room.send_request("queues.drain", {"name": name})

    async def close(self, *, name: str) -> None:
        """Delete the queue with all its messages."""
        await self._room.send_request("queues.close", {"name": name})

    async def dead(self, *, name: str, limit: int = 100) -> builtins.list[DeadMessage]:
        """The newest dead messages of the queue."""
        found: builtins.list[DeadMessage] = []
        request: dict[str, Any] = {"name": name}
        while True:
            answer = await self._room.send_request("queues.dead", request | {"limit": limit - len(found)})
            with reading("queues.dead"):
                found += [DeadMessage(**letter) for letter in answer["dead"]]
                # A server of ours answers with a part of what is large.
                if not answer.get("more") or not answer["dead"] or len(found) >= limit:
                    return found
                request["before"] = [found[-1].died_at, int(found[-1].id)]

    async def replay(self, *, name: str, ids: Sequence[str] | None = None) -> int:
        """Make dead messages ready again, all of them or those with these ids; returns how many."""
        request: Header = {"name": name} if ids is None else {"name": name, "ids": builtins.list(ids)}
        answer = await self._room.send_request("queues.replay", request)
        with reading("queues.replay"):
            return int(answer["replayed"])


def _new_send_id() -> str:
    # The time comes first, so that the server's index of ids grows at its end.
    return f"{time.time_ns():016x}{secrets.token_hex(8)}"


def _message(response: Response) -> Any:
    match response:
        case JsonResponse():
            return response.json
        case TextResponse():
            return response.text
        case EmptyResponse():
            return None
        case _:
            raise RoomError(f"unexpected {response.type} reply to queues.receive")


def _queue(entry: Mapping[str, Any]) -> Queue:
    extra = {key: entry.get(key) for key in ("ready", "leased", "delayed", "dead", "oldest_age")}
    return Queue(name=entry["name"], size=int(entry["size"]), **extra)

"""Durable queues of the room, as a participant uses them (room-protocol §9).

There are two ways to take a message. `receive` is MeshAgent's: the message is settled by the next `receive`. `lease` is ours:
the message stays in the queue, invisible to others, until it is acked, nacked or its lease expires; `consumer.py` uses it. On
the wire both are the request `queues.receive`; a server that does not know leases ignores the extra member, and the message
then counts as settled on arrival. What became of messages, and the settings of queues, are `queue_messages.py`; messages that
are too large for a header are `large_bodies.py`.

Longer than 400 lines because sending and receiving, with all their options, are what programs look up here.
"""

import builtins
import contextlib
import secrets
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, overload

from meshhost.errors import (
    ConnectionLostError,
    InvalidRequestError,
    LeaseLostError,
    MessageFailedError,
    RequestTimeoutError,
    RoomError,
)
from meshhost.protocol.json_values import check_finite
from meshhost.protocol.messages import EmptyResponse, Header, JsonResponse, Response, TextResponse
from meshhost.room.link import Reply, RoomLink
from meshhost.room.replies import reading, value_of
from meshhost.room.services.large_bodies import LARGE_CHARS, LargeBody, offers_large_bodies, with_uploads
from meshhost.room.services.leased import LeasedMessage, NackReason, leased_message, load_all
from meshhost.room.services.queue_messages import MESSAGE_LIFE, QueueMessagesClient, unix_seconds
from meshhost.room.services.queue_values import (
    Attempt,
    DeadMessage,
    MessageRecord,
    MessageState,
    NewMessage,
    Queue,
    QueueSettings,
    SentIds,
    dead_message,
    queue,
)

__all__ = [
    "Attempt",
    "DeadMessage",
    "LargeBody",
    "LeasedMessage",
    "MessageRecord",
    "MessageState",
    "NackReason",
    "NewMessage",
    "Queue",
    "QueueSettings",
    "QueuesClient",
    "SentIds",
]

DEFAULT_LEASE_SECONDS = 30.0
# For how long the server remembers an id that the caller of `send` chose.
DEFAULT_ID_SECONDS = 24 * 3600.0
# As many as the server takes.
MAX_LOST = 64
MAX_LEASED = 50
# The extension of servers that take several acks in one request, and how many they take.
ACK_MANY = "ack_many"
MAX_ACKS = 100
# The extension of servers that store a message once, however often it is sent under one id.
_SEND_ID = "send_id"
_MAX_REPLAYED = 1000
# The extension of servers that settle what a receive without waiting got when the client confirms that its caller has it.
_CONFIRM = "confirm_receive"


class QueuesClient(QueueMessagesClient):
    """Send to and receive from the room's queues. All methods raise RoomError; AccessDeniedError without the grant."""

    def __init__(self, *, room: RoomLink) -> None:
        super().__init__(room=room)
        # Calls whose replies the lost connection may have swallowed: the server gives back what those carried.
        self._lost: tuple[str, ...] = ()

    async def list(self, *, name: str | None = None, message: Any = None, create: bool = True) -> list[Queue]:
        """All queues of the room. The arguments exist for compatibility with the MeshAgent SDK and have no effect."""
        answer = await self._room.send_request("queues.list", {})
        with reading("queues.list"):
            return [queue(entry) for entry in answer["queues"]]

    async def open(self, *, name: str) -> None:
        """Create the queue if it does not exist."""
        await self._room.send_request("queues.open", {"name": name})

    @overload
    async def send(
        self,
        name: str,
        message: Any,
        *,
        create: bool = True,
        headers: Mapping[str, str] | None = None,
        id: str | None = None,
        id_seconds: float | None = None,
        delay: float | None = None,
        at: datetime | float | None = None,
        priority: int = 0,
        key: str | None = None,
        ttl: float | None = None,
        reply: Literal[False] = False,
    ) -> str | None: ...

    @overload
    async def send(
        self,
        name: str,
        message: Any,
        *,
        create: bool = True,
        headers: Mapping[str, str] | None = None,
        id: str | None = None,
        id_seconds: float | None = None,
        delay: float | None = None,
        at: datetime | float | None = None,
        priority: int = 0,
        key: str | None = None,
        ttl: float | None = None,
        reply: Literal[True],
        timeout: float | None = None,
        on_progress: Callable[[MessageRecord], Awaitable[None] | None] | None = None,
    ) -> Any: ...

    async def send(
        self,
        name: str,
        message: Any,
        *,
        create: bool = True,
        headers: Mapping[str, str] | None = None,
        id: str | None = None,
        id_seconds: float | None = None,
        delay: float | None = None,
        at: datetime | float | None = None,
        priority: int = 0,
        key: str | None = None,
        ttl: float | None = None,
        reply: bool = False,
        timeout: float | None = None,
        on_progress: Callable[[MessageRecord], Awaitable[None] | None] | None = None,
    ) -> Any:
        """Put a message (any JSON value) at the end of the queue.

        Returns its id once it is on the server's disk (None from a MeshAgent server). `headers` are delivered with it. When the
        connection is lost before the server answered, the message is sent again over the next one; our server stores it once
        (from another, ConnectionLostError leaves open whether it was stored).

        `id` is your own name for the message: sent again under it within `id_seconds` (a day unless given), it is stored once,
        and the first one's id is returned. It is delivered after `delay` seconds or at the time `at` (with a time zone, or in
        seconds since the epoch), a higher `priority` (-100 to 100) first. Messages of one `key` are delivered one at a time, in
        order. One that nobody has begun when `ttl` seconds are over is never delivered.

        With `reply`, wait for the result that its worker acks it with, at most `timeout` seconds, and return that instead;
        see `wait` for `on_progress`. Raises MessageFailedError when the message ends otherwise, RequestTimeoutError when the
        time is over (the message goes on; so it does when the caller is cancelled).

        Raises NotFoundError when the queue does not exist and `create` is false, LimitExceededError when message or queue are
        too large, InvalidRequestError that names the field when a value is wrong, and RoomError when the server is not ours and
        cannot keep an option.
        """
        new = NewMessage(message, headers or {}, id, id_seconds, delay, at, priority, key, ttl)
        if reply:
            self._require("results of messages")
        entry, text = self._new_message(new)
        request: Header = {"name": name, "create": create} | entry
        if len(text) > LARGE_CHARS and offers_large_bodies(self._room):
            answer = await self._send_large("queues.send", request, [(request, text)])
        else:
            answer = await self._request_send("queues.send", request)
        message_id = str(answer["id"]) if isinstance(answer, dict) and "id" in answer else None
        return await self._result(name, message_id or "", timeout, on_progress) if reply else message_id

    async def send_many(self, name: str, messages: Sequence[NewMessage | Any], *, create: bool = True) -> SentIds:
        """Put up to 1000 messages at the end of the queue, in this order, all or none; return their ids, a list.

        Each is a NewMessage, with options of its own, or any JSON value. The `before` of the list is how many of them were sent
        before under the same id, and not stored again. Raises what `send` raises.
        """
        self._require("sending many messages at once")
        new = [each if isinstance(each, NewMessage) else NewMessage(each) for each in messages]
        entries = [self._new_message(each, path=f"messages[{number}].") for number, each in enumerate(new)]
        request: Header = {"name": name, "create": create, "messages": [entry for entry, _ in entries]}
        large = [(entry, text) for entry, text in entries if len(text) > LARGE_CHARS]
        if large and offers_large_bodies(self._room):
            answer = await self._send_large("queues.send_many", request, large)
        else:
            answer = await self._request_send("queues.send_many", request)
        with reading("queues.send_many"):
            return SentIds((str(message_id) for message_id in answer["ids"]), before=answer.get("before"))

    async def _request_send(self, type: str, request: Header) -> Any:
        resume = _SEND_ID if self._offers(_SEND_ID) else None
        response, _ = await self._room.request(type, request, resume=resume)
        return value_of(response, type)

    async def _send_large(self, type: str, request: Header, large: Sequence[tuple[Header, str]]) -> Any:
        """Send messages whose texts are uploaded: `large` are their entries in the request, and the texts."""

        async def send(handles: Sequence[str]) -> Any:
            for (entry, _), handle in zip(large, handles, strict=True):
                entry |= {"message": None, "upload": handle}
            return await self._request_send(type, request)

        return await with_uploads(self._room, request["name"], [text for _, text in large], send)

    def _new_message(self, new: NewMessage, path: str = "") -> tuple[Header, str]:
        """The message as the server reads it, only with what was asked for, and its JSON text.

        `path` is where it is in the request.
        """
        text = check_finite(new.message, f"{path}message")
        if new.id_seconds is not None and new.id is None:
            raise InvalidRequestError(f"{path}id_seconds", "expected together with `id`")
        options: dict[str, Any] = {
            "delay": new.delay,
            "at": unix_seconds(f"{path}at", new.at),
            "priority": new.priority or None,
            "key": new.key,
            "ttl": new.ttl,
            "id_seconds": new.id_seconds,
        }
        options = {name: value for name, value in options.items() if value is not None}
        for name, value in options.items():
            check_finite(value, f"{path}{name}")
            self._require(f"the option `{name}` of messages")
        if new.id is not None:
            self._require("the option `id` of messages", _SEND_ID)
            options = {"id": new.id, "id_seconds": DEFAULT_ID_SECONDS} | options
        elif self._offers(_SEND_ID):
            options["id"] = _new_send_id()
        return {"message": new.message} | ({"headers": dict(new.headers)} if new.headers else {}) | options, text

    async def _result(
        self,
        name: str,
        message_id: str,
        timeout: float | None,
        on_progress: Callable[[MessageRecord], Awaitable[None] | None] | None,
    ) -> Any:
        record = await self.wait(name, message_id, timeout=timeout, on_progress=on_progress)
        if record is None:
            raise MessageFailedError(message_id, state=None)
        if record.state == "done":
            return record.result
        if record.has_ended:
            raise MessageFailedError(message_id, state=record.state, reason=record.reason or "")
        raise RequestTimeoutError(f"message {message_id} was not done within {timeout:g} s")

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
        self,
        *,
        name: str,
        create: bool = True,
        wait: bool = True,
        seconds: float = DEFAULT_LEASE_SECONDS,
        load: bool = True,
    ) -> LeasedMessage | None:
        """Lease the next message for `seconds`, or return None. With `wait`, the server replies within about 20 s.

        When the caller is cancelled or the reply is lost with the connection, the server takes the message back at once. A
        large message is fetched, unless `load` is false: see `LeasedMessage.load`.
        """
        header: Header = {"name": name, "create": create, "wait": wait, "lease": seconds}
        response, extra = await self._request_lease(header)
        if isinstance(response, EmptyResponse):
            return None
        delivery = extra.get("delivery")
        if not isinstance(delivery, dict):
            return LeasedMessage(message=_message(response), queue=name)
        with reading("queues.receive"):
            leased = leased_message(_message(response), name, delivery, self._room)
        if load and leased.body is not None:
            await load_all([leased])
        return leased

    async def lease_many(
        self,
        name: str,
        *,
        limit: int,
        create: bool = True,
        wait: bool = True,
        seconds: float = DEFAULT_LEASE_SECONDS,
        load: bool = True,
    ) -> builtins.list[LeasedMessage]:
        """Lease up to `limit` messages at once (at most 50, of about 1 MiB); with `wait`, wait for the first as `lease` does.

        Large messages are fetched one after the other, unless `load` is false. A server that cannot lease several leases one.
        """
        if not self._offers(MESSAGE_LIFE):
            leased = await self.lease(name=name, create=create, wait=wait, seconds=seconds, load=load)
            return [] if leased is None else [leased]
        limit = min(limit, MAX_LEASED)
        header: Header = {"name": name, "create": create, "wait": wait, "lease": seconds, "limit": limit}
        response, extra = await self._request_lease(header)
        if isinstance(response, EmptyResponse):
            return []
        with reading("queues.receive"):
            pairs = zip(_message(response), extra["delivery"], strict=True)
            found = [leased_message(message, name, delivery, self._room) for message, delivery in pairs]
        if load and any(each.body is not None for each in found):
            await load_all(found)
        return found

    async def ack_many(self, name: str, settled: Sequence[tuple[LeasedMessage, Any]]) -> builtins.list[bool]:
        """Report success of up to 100 leased messages of one queue, each with its result (None: none), in one request.

        Returns for each whether it is done; False: its lease was lost. Raises what `LeasedMessage.ack` raises for any other
        reason; some may be done then, and acking them again says that their leases are lost. A server that cannot settle
        several at once is asked for one after the other.
        """
        if not self._offers(ACK_MANY):
            return [await _is_acked(leased, result) for leased, result in settled]
        acks = [leased.shown(result) for leased, result in settled]
        answer = await self._room.send_request("queues.ack_many", {"name": name, "acks": acks})
        with reading("queues.ack_many"):
            lost = set(answer["lost"])
        return [number not in lost for number in range(len(acks))]

    async def _request_lease(self, header: Header) -> Reply:
        lost, call = self._lost, uuid.uuid4().hex
        try:
            named = header | {"call": call, "by_reference": True} | ({"given_up": builtins.list(lost)} if lost else {})
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
        request: dict[str, Any] = {"name": name, "by_reference": True}
        while True:
            answer = await self._room.send_request("queues.dead", request | {"limit": limit - len(found)})
            with reading("queues.dead"):
                found += [dead_message(letter) for letter in answer["dead"]]
                # A server of ours answers with a part of what is large.
                if not answer.get("more") or not answer["dead"] or len(found) >= limit:
                    return found
                request["before"] = [found[-1].died_at, int(found[-1].id)]

    async def replay(self, *, name: str, ids: Sequence[str] | None = None) -> int:
        """Make dead messages ready again, all of them or those with these ids; returns how many."""
        requests: builtins.list[Header] = [{"name": name}]
        if ids is not None:  # a server takes so many at once
            starts = range(0, len(ids), _MAX_REPLAYED)
            requests = [{"name": name, "ids": builtins.list(ids[at : at + _MAX_REPLAYED])} for at in starts]
        replayed = 0
        for request in requests:
            answer = await self._room.send_request("queues.replay", request)
            with reading("queues.replay"):
                replayed += int(answer["replayed"])
        return replayed


async def _is_acked(leased: LeasedMessage, result: Any) -> bool:
    try:
        await leased.ack(result=result)
    except LeaseLostError:
        return False
    return True


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

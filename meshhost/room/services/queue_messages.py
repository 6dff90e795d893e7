"""What became of the messages of a room's queues, and the settings of queues, as a participant sees them (room-protocol §9).

`QueuesClient` is a `QueueMessagesClient` that also sends and receives. All of this is ours: a server that does not offer it is
known by its handshake, and a request is refused here with an error that says so. What is only read is asked again over the next
connection when one is lost; `wait` asks until the message has ended, however long that takes.
"""

import asyncio
import builtins
import contextlib
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Literal

from meshhost.errors import ConnectionLostError, InvalidRequestError, NotFoundError, RequestTimeoutError, RoomError
from meshhost.protocol.messages import Header
from meshhost.room.link import RoomLink
from meshhost.room.replies import reading, value_of
from meshhost.room.services.large_bodies import LARGE_BODIES, fetch
from meshhost.room.services.queue_values import (
    MessageRecord,
    MessageState,
    QueueSettings,
    message_record,
    queue_settings,
)

__all__ = ["MESSAGE_LIFE", "QueueMessagesClient", "unix_seconds"]

# The extension of servers that offer the options of messages, their life and the settings of queues.
MESSAGE_LIFE = "message_life"
# One request of a `wait`; the server answers earlier if it wants.
_WAIT_SECONDS = 20.0
_PAUSE_SECONDS = 1.0
# Waits on the wire at once, below what the server accepts on one connection. When there are more, they take turns.
_MOST_WAITS = 200
_TURN_SECONDS = 1.0
_PAGE = 50


class QueueMessagesClient:
    """Looks at and changes queues and messages. All methods raise RoomError; AccessDeniedError without the grant.

    `get` and `wait` need the right to send to the queue or to receive from it, the others that to receive.
    """

    def __init__(self, *, room: RoomLink) -> None:
        self._room = room
        self._waits = asyncio.Semaphore(_MOST_WAITS)

    async def get(self, name: str, id: str) -> MessageRecord | None:
        """What is known of a message; None when nothing is (any more).

        A message that ended is known for the `result_ttl` of its queue (an hour unless set), a dead one until it is replayed,
        cancelled or the queue is deleted. With only the right to send, contents and history are left out.
        """
        answer = await self._ask("queues.get", {"name": name, "id": id})
        with reading("queues.get"):
            return None if answer["message"] is None else message_record(answer["message"])

    async def wait(
        self,
        name: str,
        id: str,
        *,
        timeout: float | None = None,
        on_progress: Callable[[MessageRecord], Awaitable[None] | None] | None = None,
    ) -> MessageRecord | None:
        """Wait until a message has ended and return what is known of it; None when nothing is known of it (any more).

        After `timeout` seconds it is returned as it is: see `has_ended`. `on_progress` is called, and awaited, with what is
        known when the state or the progress changed; of changes in quick succession only the last one may be seen. The wait
        goes on over lost connections, until the room is closed. A large result is fetched.
        """
        self._require("waiting for a message")
        clock = self._room.clock
        deadline = None if timeout is None else clock.monotonic() + timeout
        seen = None if on_progress is None else ""
        while True:
            left = _WAIT_SECONDS if deadline is None else max(deadline - clock.monotonic(), 0.0)
            try:
                answer = await self._wait_once(name, id, min(left, _WAIT_SECONDS), seen)
            except (ConnectionLostError, RequestTimeoutError):
                if self._room.is_closed or (deadline is not None and clock.monotonic() >= deadline):
                    raise
                await clock.sleep(_PAUSE_SECONDS)
                continue
            with reading("queues.get"):
                entry = answer["message"]
                record = None if entry is None else message_record(entry)
            if record is None or record.has_ended:
                return await self._with_result(name, record)
            if on_progress is not None and entry.get("seen") != seen:
                seen = entry.get("seen")
                called = on_progress(record)
                if inspect.isawaitable(called):
                    await called
            if deadline is not None and clock.monotonic() >= deadline:
                return record

    async def body(self, name: str, id: str, *, part: Literal["body", "result"] = "body") -> Any:
        """Fetch the contents of a message, or its result, however large. Raises NotFoundError when there is none (any more).

        Contents need the right to receive from the queue.
        """
        self._require("large messages", LARGE_BODIES)
        return await fetch(self._room, name, id, None, part=part)

    async def _with_result(self, name: str, record: MessageRecord | None) -> MessageRecord | None:
        if record is None or record.result_body is None:
            return record
        with contextlib.suppress(NotFoundError):  # forgotten just now
            result = await fetch(self._room, name, record.id, record.result_body, part="result")
            return replace(record, result=result)
        return record

    async def _wait_once(self, name: str, id: str, seconds: float, seen: str | None) -> Any:
        request: Header = {"name": name, "id": id}
        try:
            async with asyncio.timeout(seconds):
                await self._waits.acquire()
        except TimeoutError:  # others have their turn: look instead of waiting
            return await self._ask("queues.get", request)
        request["wait"] = min(seconds, _TURN_SECONDS) if self._waits.locked() else seconds
        if seen is not None:
            request["seen"] = seen
        try:
            return await self._ask("queues.get", request, timeout=seconds + self._room.request_timeout)
        finally:
            self._waits.release()

    async def find(
        self,
        name: str,
        *,
        states: Sequence[MessageState] | None = None,
        key: str | None = None,
        text: str | None = None,
        since: datetime | float | None = None,
        until: datetime | float | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[MessageRecord]:
        """Iterate over the messages that fit everything that is given, the newest first; at most `limit` of them.

        `text` is looked for in the contents (as JSON text), or in the reason of a dead message. `since` and `until` bound the
        time of sending. The messages have no history: `get` one for it.
        """
        bounds = {"since": unix_seconds("since", since), "until": unix_seconds("until", until)}
        query = {"name": name, "states": states and builtins.list(states), "key": key, "text": text} | bounds
        request = {member: value for member, value in query.items() if value is not None}
        found = 0
        while limit is None or found < limit:
            page = _PAGE if limit is None else min(_PAGE, limit - found)
            answer = await self._ask("queues.find", request | {"limit": page})
            with reading("queues.find"):
                records = [message_record(entry) for entry in answer["messages"]]
                after = answer["next"]
            for record in records:
                yield record
            found += len(records)
            if after is None:
                return
            request["before"] = after

    async def peek(self, name: str, *, limit: int = 1) -> builtins.list[MessageRecord]:
        """The next messages, in the order in which they will be delivered, without leasing them. At most 50, of about 1 MiB."""
        answer = await self._ask("queues.peek", {"name": name, "limit": limit})
        with reading("queues.peek"):
            return [message_record(entry) for entry in answer["messages"]]

    async def cancel(self, name: str, id: str) -> MessageState:
        """Cancel a message that was not begun, and have the worker of one that was begun told. Returns its state by now.

        That is `cancelled`, or `leased` while the worker was not told yet. One that ended before stays as it is. Raises
        NotFoundError when nothing is known of it.
        """
        answer = await self._ask("queues.cancel", {"name": name, "id": id})
        with reading("queues.cancel"):
            state: MessageState | None = answer["state"]
        if state is None:
            raise NotFoundError(f"nothing is known of message {id} of queue {name!r}")
        return state

    async def settings(self, name: str) -> QueueSettings:
        """The settings of the queue."""
        answer = await self._ask("queues.settings", {"name": name})
        with reading("queues.settings"):
            return queue_settings(answer["settings"])

    async def configure(self, name: str, **settings: bool | float | str | None) -> QueueSettings:
        """Change these settings (see QueueSettings) of an existing queue, keep the others, and return all.

        None is the server's default. Raises InvalidRequestError that names the setting.
        """
        answer = await self._ask("queues.configure", {"name": name, "settings": settings})
        with reading("queues.configure"):
            return queue_settings(answer["settings"])

    async def pause(self, name: str) -> None:
        """Deliver nothing of this queue until it is resumed. What was delivered already may be settled."""
        await self.configure(name, paused=True)

    async def resume(self, name: str) -> None:
        """Deliver the messages of this queue again."""
        await self.configure(name, paused=False)

    async def purge(self, name: str) -> int | None:
        """Delete all messages of the queue except the dead ones; return how many (None from a MeshAgent server)."""
        answer = await self._room.send_request("queues.drain", {"name": name})
        with reading("queues.drain"):
            return None if answer is None else int(answer["drained"])

    async def _ask(self, type: str, request: Header, *, timeout: float | None = None) -> Any:
        """Send a request that may be sent twice."""
        self._require(type)
        response, _ = await self._room.request(type, request, timeout=timeout, resume=MESSAGE_LIFE)
        return value_of(response, type)

    def _offers(self, extension: str) -> bool:
        with contextlib.suppress(RoomError):  # not connected yet, which the request says better
            return extension in self._room.extensions.get("extensions", ())
        return False

    def _require(self, what: str, extension: str = MESSAGE_LIFE) -> None:
        """Raise RoomError when the server cannot do this."""
        try:
            offered = self._room.extensions.get("extensions", ())
        except RoomError:  # not connected yet, which the request says better
            return
        if extension not in offered:
            raise RoomError(f"this room server does not offer {what}: it is MeshAgent's, or an older one of ours")


def unix_seconds(field: str, time: datetime | float | None) -> float | None:
    """Return a time as seconds since the epoch. Raises InvalidRequestError for one without a time zone."""
    if not isinstance(time, datetime):
        return time
    if time.tzinfo is None:
        raise InvalidRequestError(field, "expected a time with a time zone")
    return time.timestamp()

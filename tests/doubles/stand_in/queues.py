"""Queues of the stand-in: a message is gone once it was delivered."""

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from doubles.stand_in.member import Member
from meshhost.errors import RoomError
from meshhost.protocol.connection import MessageReceived
from meshhost.protocol.messages import EmptyResponse, Header, JsonResponse, Response, TextResponse

__all__ = ["Queues"]


@dataclass(slots=True)
class _Queue:
    messages: deque[Any] = field(default_factory=deque)
    waiters: deque[asyncio.Future[Any]] = field(default_factory=deque)

    def put(self, message: Any) -> None:
        while self.waiters:
            waiter = self.waiters.popleft()
            if not waiter.done():
                waiter.set_result(message)
                return
        self.messages.append(message)


class Queues:
    """All queues of a room."""

    def __init__(self, receive_seconds: float) -> None:
        self.queues: dict[str, _Queue] = {}
        self._receive_seconds = receive_seconds

    def handlers(self) -> dict[str, Any]:
        """What handles each request."""
        return {
            "queues.list": self._list_queues,
            "queues.open": self._open_queue,
            "queues.send": self._enqueue,
            "queues.receive": self._receive,
            "queues.drain": self._drain_queue,
            "queues.close": self._close_queue,
        }

    def _queue(self, header: Header) -> _Queue:
        if header["name"] not in self.queues and not header.get("create", False):
            raise RoomError("no such queue")
        return self.queues.setdefault(header["name"], _Queue())

    async def _list_queues(self, _: Member, __: MessageReceived) -> Response:
        sizes = [{"name": name, "size": len(queue.messages)} for name, queue in self.queues.items()]
        return JsonResponse(json={"queues": sizes})

    async def _open_queue(self, _: Member, message: MessageReceived) -> Response:
        self.queues.setdefault(message.header["name"], _Queue())
        return EmptyResponse()

    async def _enqueue(self, _: Member, message: MessageReceived) -> Response:
        self._queue(message.header).put(message.header["message"])
        return EmptyResponse()

    async def _receive(self, _: Member, message: MessageReceived) -> Response:
        queue = self._queue(message.header)
        if queue.messages:
            return _body(queue.messages.popleft())
        if not message.header.get("wait", True):
            return EmptyResponse()
        waiter = asyncio.get_running_loop().create_future()
        queue.waiters.append(waiter)
        try:
            async with asyncio.timeout(self._receive_seconds):
                return _body(await waiter)
        except TimeoutError:
            return EmptyResponse()

    async def _drain_queue(self, _: Member, message: MessageReceived) -> Response:
        self._queue(message.header).messages.clear()
        return EmptyResponse()

    async def _close_queue(self, _: Member, message: MessageReceived) -> Response:
        queue = self._queue(message.header)
        del self.queues[message.header["name"]]
        for waiter in queue.waiters:
            if not waiter.done():
                waiter.set_exception(RoomError("the queue was closed"))
        return EmptyResponse()


def _body(message: Any) -> Response:
    return TextResponse(text=message) if isinstance(message, str) else JsonResponse(json=message)

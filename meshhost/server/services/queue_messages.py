"""What became of messages, and the settings of queues (room-protocol §9): requests that hand over no delivery.

`QueuesService` adds these operations to its own. A participant that may only send learns the state, the progress and the result
of the messages that it sent itself, but neither contents nor history: those belong to the receivers. A wait for a message's end
is answered after a bounded time, as a receive is, and the client asks again.
"""

from dataclasses import asdict

from meshhost.errors import LimitExceededError
from meshhost.protocol.messages import JsonResponse
from meshhost.queues.service import QueueService
from meshhost.server.core.requests import Answer, Operation, Operations, Request
from meshhost.server.core.slots import Slot
from meshhost.server.services import queue_bodies as bodies
from meshhost.server.services import queue_replies as replies
from meshhost.server.services.queue_access import check_reads, key_of, may_receive, may_use, name_of
from meshhost.server.services.queue_leases import Waiting

__all__ = ["QueueMessages"]

# Waits for the end of a message, of one connection. A client of ours stays below it.
MAX_WATCHING = 256


class QueueMessages:
    """Answers these requests. `wait_seconds` bounds how long one waits."""

    def __init__(self, queues: QueueService, *, wait_seconds: float) -> None:
        self._queues = queues
        self._wait_seconds = wait_seconds
        self._waiting = Slot(Waiting)

    def operations(self) -> Operations:
        """The operations by name."""
        return {
            "queues.get": Operation(bodies.Get, self._get, may_use, name_of),
            "queues.find": Operation(bodies.Find, self._find, may_receive, name_of),
            "queues.peek": Operation(bodies.Peek, self._peek, may_receive, name_of),
            "queues.cancel": Operation(bodies.OfMessage, self._cancel, may_receive, name_of),
            "queues.settings": Operation(bodies.Named, self._settings, may_receive, name_of),
            "queues.configure": Operation(bodies.Configure, self._configure, may_receive, name_of),
        }

    async def _get(self, request: Request, body: bodies.Get) -> Answer:
        queue = key_of(request, body)
        with_contents = await check_reads(request, body, self._queues)
        if body.wait is None:
            found = await self._queues.get(queue, body.id)
        else:
            waiting = self._waiting.of(request.peer)
            if waiting.count >= MAX_WATCHING:
                raise LimitExceededError(f"over {MAX_WATCHING} requests wait for messages on this connection")
            waiting.count += 1
            try:
                seconds = min(body.wait, self._wait_seconds)
                found = await self._queues.wait(queue, body.id, seconds, seen=body.seen)
            finally:
                waiting.count -= 1
        return JsonResponse(
            json={"message": None if found is None else replies.record(found, with_contents=with_contents)}
        )

    async def _find(self, request: Request, body: bodies.Find) -> Answer:
        page = await self._queues.find(key_of(request, body), body.query())
        return JsonResponse(json=replies.page(page, with_contents=True))

    async def _peek(self, request: Request, body: bodies.Peek) -> Answer:
        found = await self._queues.peek(key_of(request, body), limit=body.limit)
        messages, _ = replies.records(found, with_contents=True)
        return JsonResponse(json={"messages": messages})

    async def _cancel(self, request: Request, body: bodies.OfMessage) -> Answer:
        state = await self._queues.cancel(key_of(request, body), body.id)
        return JsonResponse(json={"state": None if state is None else state.value})

    async def _settings(self, request: Request, body: bodies.Named) -> Answer:
        return JsonResponse(json={"settings": asdict(await self._queues.settings(key_of(request, body)))})

    async def _configure(self, request: Request, body: bodies.Configure) -> Answer:
        changes = body.settings.changes(path="settings.")
        settings = await self._queues.configure(key_of(request, body), changes)
        return JsonResponse(json={"settings": asdict(settings)})

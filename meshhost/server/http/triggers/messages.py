"""`POST /rooms/{room}/queues/{queue}/messages`: sends to a queue of a room without joining it.

The answer comes when the messages are stored, and their room wakes as for every message. One JSON value is one message, an
array or lines of JSON are many, and CloudEvents are taken as they come (`meshhost.triggers.incoming`). Many messages are
stored in order, all or none. One large message goes to the disk as it comes; many are read into memory. A request with an
`Idempotency-Key` may be sent again when its answer was lost: each of its messages is stored once. Options of sending (`delay`,
`at`, `priority`, `key`, `ttl`) are in the query, for all messages of a request.
"""

from collections.abc import Sequence
from dataclasses import replace

from aiohttp import web

from meshhost.clock import Clock, SystemClock
from meshhost.errors import InvalidRequestError
from meshhost.queues.service import QueueService
from meshhost.server.http.access import Access
from meshhost.server.http.bodies import BodyReader
from meshhost.server.http.triggers.callers import room_caller
from meshhost.stores.queues import NewMessage, QueueKey
from meshhost.stores.shared.refusals import check_name
from meshhost.triggers.incoming import SendOptions, media_of, messages_in

__all__ = ["MessageRoutes"]

_MAX_NAME = 200
# Before a JSON value.
_SPACE = b" \t\r\n"


class MessageRoutes:
    """Serves sending. Bodies are read by `bodies`."""

    def __init__(self, access: Access, queues: QueueService, bodies: BodyReader, *, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._access = access
        self._queues = queues
        self._bodies = bodies

    def add_to(self, app: web.Application) -> None:
        """Register the route."""
        app.add_routes([web.post("/rooms/{room}/queues/{queue}/messages", self._send)])

    async def _send(self, request: web.Request) -> web.Response:
        caller = room_caller(self._access, request)
        queue = QueueKey(caller.room, request.match_info["queue"])
        if len(queue.name) > _MAX_NAME:
            raise InvalidRequestError("queue", f"expected a name of at most {_MAX_NAME} characters")
        check_name(queue)
        caller.check_send(queue.name)
        options = SendOptions.parse({name: value for name, value in request.query.items() if name != "token"})
        sent_by = caller.sends_as(queue.name)
        head = await self._bodies.head_of(request) if self._may_be_large(request) else b""
        if head and not head.lstrip(_SPACE).startswith(b"["):
            return await self._send_large(request, queue, options, head, sent_by)
        async with self._bodies.readable_body_of(request, caller.room.tenant, head) as body:
            messages, is_many = messages_in(request.headers, body, key=request.headers.get("Idempotency-Key"))
            messages = self._completed(messages, options, sent_by)
            if not is_many:
                return web.json_response({"id": str(await self._queues.send(queue, messages[0]))})
            ids = await self._queues.send_many(queue, messages)
        return web.json_response({"ids": [str(message_id) for message_id in ids]})

    def _completed(self, messages: Sequence[NewMessage], options: SendOptions, sent_by: str | None) -> list[NewMessage]:
        """The messages with the options of the request, and who sends them."""
        return [replace(each, sent_by=sent_by) for each in options.applied_to(messages, self._clock.time())]

    def _may_be_large(self, request: web.Request) -> bool:
        """Whether the body may be one large message: it is JSON, and said to be longer than what the database keeps."""
        if media_of(request.headers) not in {"", "application/json"} or "ce-specversion" in request.headers:
            return False
        return (request.content_length or 0) > self._queues.bodies.inline_bytes

    async def _send_large(
        self, request: web.Request, queue: QueueKey, options: SendOptions, head: bytes, sent_by: str | None
    ) -> web.Response:
        """Send one message, whose body goes to the disk as it comes."""
        messages, _ = messages_in(request.headers, b"null", key=request.headers.get("Idempotency-Key"))
        messages = self._completed(messages, options, sent_by)
        tenant = queue.room.tenant
        upload = self._queues.bodies.new_upload(tenant)
        try:
            upload.check_size(request.content_length or 0)
            await self._bodies.pass_on(request, tenant, upload.add, head)
            (message_id,) = await self._queues.send_many(queue, messages, uploads={0: upload})
        finally:
            upload.close()
        return web.json_response({"id": str(message_id)})

"""`POST /rooms/{room}/queues/{queue}/messages`: sends to a queue of a room without joining it.

The answer comes when the messages are stored, and their room wakes as for every message. One JSON value is one message, an
array or lines of JSON are many, and CloudEvents are taken as they come (`meshhost.triggers.incoming`). Many messages are stored
in order, one after the other: where one of them is refused, the answer says which, and what was stored before it stays. A
request with an `Idempotency-Key` may be sent again then, and each of its messages is stored once.
"""

from collections.abc import Sequence

from aiohttp import web

from meshhost.errors import InvalidRequestError, MeshhostError
from meshhost.queues.service import QueueService
from meshhost.server.http.access import Access
from meshhost.server.http.bodies import BodyReader
from meshhost.server.http.errors import INTERNAL_ERROR, error_response, status_of
from meshhost.server.http.triggers.callers import room_caller
from meshhost.stores.messages import NewMessage
from meshhost.stores.queues import QueueKey
from meshhost.stores.shared.refusals import check_name
from meshhost.triggers.incoming import messages_in

__all__ = ["MessageRoutes"]

_MAX_NAME = 200


class MessageRoutes:
    """Serves sending. Bodies are read by `bodies`."""

    def __init__(self, access: Access, queues: QueueService, bodies: BodyReader) -> None:
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
        async with self._bodies.body_of(request, caller.room.tenant) as body:
            found = messages_in(request.headers, body, key=request.headers.get("Idempotency-Key"))
            return await self._store(queue, found.messages, is_many=found.is_many)

    async def _store(self, queue: QueueKey, messages: Sequence[NewMessage], *, is_many: bool) -> web.Response:
        ids: list[str] = []
        for number, message in enumerate(messages):
            try:
                ids.append(str(await self._queues.send(queue, message)))
            except MeshhostError as error:
                if not is_many or status_of(error) == INTERNAL_ERROR:
                    raise
                more = {"error": f"messages[{number}]: {error}", "ids": ids}
                return error_response(error, status=status_of(error), more=more)
        return web.json_response({"ids": ids} if is_many else {"id": ids[0]})

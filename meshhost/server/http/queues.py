"""REST of a room's queues: what is in them, what became of messages, and how queues are changed (`/rooms/{room}/queues`).

For programs that join no room: nothing here opens or wakes one, except what makes messages ready again. An API key needs the
role that `permissions.py` says, a participant token the grants that the same requests need in the room. Contents of messages
belong to receivers: a viewer's key gets states, progress and results without them, and so does a token that may only send, of
the messages that it sent. Bodies are checked with the models of the room's own requests (`services/queue_bodies.py`). A wait
ends when its client is gone or the server stops.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any, TypeVar

from aiohttp import web
from pydantic import BaseModel, ValidationError

from meshhost.errors import AccessDeniedError, InvalidRequestError, LimitExceededError, NotFoundError
from meshhost.identity.grants import ApiScope
from meshhost.identity.tenant import TenantId
from meshhost.queues.activity.points import COARSE_SECONDS, FINE_SECONDS
from meshhost.queues.activity.series import QueueSeries
from meshhost.queues.service import QueueService
from meshhost.server.http.access import Access
from meshhost.server.http.bodies import json_object
from meshhost.server.http.files import streamed
from meshhost.server.http.triggers.callers import RoomCaller, room_caller
from meshhost.server.services import queue_bodies as bodies
from meshhost.server.services import queue_replies as replies
from meshhost.server.services.queue_access import not_sent_by_you
from meshhost.stores.bodies.reference import BodyReference, is_reference
from meshhost.stores.queues import MessageRecord, QueueKey
from meshhost.stores.shared.refusals import check_name
from meshhost.validation import invalid_request

__all__ = ["QueueRoutes"]

Model = TypeVar("Model", bound=BaseModel)

MAX_WAIT_SECONDS = 60.0
# Requests of one tenant that wait at the same time.
MAX_WAITING = 256
# How often a request that waits looks whether its client is still there, and the server goes on.
_LOOK_SECONDS = 0.5


class QueueRoutes:
    """Serves the queues of rooms. What waits is answered when the server `is_stopping`."""

    def __init__(
        self, access: Access, queues: QueueService, series: QueueSeries, *, is_stopping: Callable[[], bool]
    ) -> None:
        self._access = access
        self._series = series
        self._is_stopping = is_stopping
        self._queues = queues
        self._waiting: Counter[TenantId] = Counter()

    def add_to(self, app: web.Application) -> None:
        """Register the routes."""
        queue = "/rooms/{room}/queues/{queue}"
        app.add_routes(
            [
                web.get("/rooms/{room}/queues", self._list),
                web.get("/accounts/projects/{project}/queue-series", self._series_of_tenant),
                web.get("/rooms/{room}/queue-series", self._series_of_room),
                web.get(f"{queue}/series", self._series_of_queue),
                web.get(f"{queue}/messages", self._find),
                web.get(f"{queue}/messages/{{id}}", self._get),
                web.get(f"{queue}/messages/{{id}}/body", self._body),
                web.get(f"{queue}/messages/{{id}}/result", self._result),
                web.delete(f"{queue}/messages/{{id}}", self._cancel),
                web.get(f"{queue}/settings", self._settings),
                web.patch(f"{queue}/settings", self._configure),
                web.post(f"{queue}/pause", self._pause),
                web.post(f"{queue}/resume", self._resume),
                web.post(f"{queue}/purge", self._purge),
                web.post(f"{queue}/replay", self._replay),
            ]
        )

    async def _list(self, request: web.Request) -> web.Response:
        caller = room_caller(self._access, request)
        _check_list(caller)
        stats = await self._queues.stats(caller.room)
        return web.json_response({"queues": [replies.listed(queue) for queue in stats]})

    async def _series_of_tenant(self, request: web.Request) -> web.Response:
        tenant = self._access.project(request)
        if request.match_info["project"] != tenant:
            raise NotFoundError("no such project")
        step = _step(request)
        return web.json_response(replies.series(self._series.of_tenant(TenantId(tenant), step), step))

    async def _series_of_room(self, request: web.Request) -> web.Response:
        caller = room_caller(self._access, request)
        _check_list(caller)
        step = _step(request)
        return web.json_response(replies.series(await self._series.of_room(caller.room, step), step))

    async def _series_of_queue(self, request: web.Request) -> web.Response:
        caller, queue = self._asked(request)
        _check_list(caller)
        step = _step(request)
        return web.json_response(replies.series(await self._series.of_queue(queue, step), step))

    async def _find(self, request: web.Request) -> web.Response:
        caller, queue = self._asked(request)
        _check_receive(caller, queue)
        with_contents = _may_read(caller, queue)
        query: dict[str, Any] = {name: text for name, text in request.query.items() if name != "state"}
        if states := request.query.getall("state", None):
            query["states"] = states
        body = _checked(bodies.Find, query | {"name": queue.name})
        if body.text is not None and not with_contents:
            raise AccessDeniedError("search the contents of queue", queue.name)
        page = await self._queues.find(queue, body.query())
        return web.json_response(replies.page(page, with_contents=with_contents))

    async def _get(self, request: web.Request) -> web.Response:
        caller, queue = self._asked(request)
        if caller.scope is not None and not (_may_receive(caller.scope, queue) or caller.may_send(queue.name)):
            raise AccessDeniedError("use queue", queue.name)
        message_id = _message_id(request)
        await self._check_sender(caller, queue, message_id)
        if "wait" in request.query:
            body = _checked(bodies.Get, {"name": queue.name, "id": message_id, **request.query})
            found = await self._wait(request, queue, body)
        else:
            found = await self._queues.get(queue, message_id)
        if found is None:
            raise NotFoundError(f"nothing is known of message {message_id} of queue {queue.name!r}")
        return web.json_response(replies.record(found, with_contents=_may_read(caller, queue)))

    async def _check_sender(self, caller: RoomCaller, queue: QueueKey, message_id: int) -> None:
        """Raise AccessDeniedError when the caller may only send to the queue, and did not send this message."""
        sender = caller.sends_as(queue.name)
        if sender is not None and not await self._queues.is_sent_by(queue, message_id, sender):
            raise not_sent_by_you(queue.name)

    async def _body(self, request: web.Request) -> web.StreamResponse:
        caller, queue = self._asked(request)
        _check_receive(caller, queue)
        if not _may_read(caller, queue):
            raise AccessDeniedError("read the contents of queue", queue.name)
        found = await self._queues.get(queue, _message_id(request))
        return await self._whole(request, queue, None if found is None else found.body, "body")

    async def _result(self, request: web.Request) -> web.StreamResponse:
        caller, queue = self._asked(request)
        if caller.scope is not None and not (_may_receive(caller.scope, queue) or caller.may_send(queue.name)):
            raise AccessDeniedError("use queue", queue.name)
        message_id = _message_id(request)
        await self._check_sender(caller, queue, message_id)
        found = await self._queues.get(queue, message_id)
        return await self._whole(request, queue, None if found is None else found.result, "result")

    async def _whole(self, request: web.Request, queue: QueueKey, text: str | None, what: str) -> web.StreamResponse:
        """A body or result, however large: a large one is streamed."""
        if text is None:
            raise NotFoundError(f"message {request.match_info['id']} of queue {queue.name!r} has no {what} (any more)")
        headers = {"Content-Type": "application/json", "X-Content-Type-Options": "nosniff"}
        if not is_reference(text):
            return web.Response(body=text.encode(errors="surrogatepass"), headers=headers)
        reference = BodyReference.parse(text)
        response = web.StreamResponse(headers=headers)
        response.content_length = reference.size
        pieces = self._queues.bodies.stream(queue.room, reference)
        return await streamed(request, response, pieces, tenant=queue.room.tenant, room=queue.room.name)

    async def _wait(self, request: web.Request, queue: QueueKey, body: bodies.Get) -> MessageRecord | None:
        """What is known when the message has ended, or when the time is over or nobody waits for the answer any more."""
        tenant = queue.room.tenant
        if self._waiting[tenant] >= MAX_WAITING:
            raise LimitExceededError(f"over {MAX_WAITING} requests of this tenant wait for messages")
        self._waiting[tenant] += 1
        try:
            async with _until(lambda: self._is_stopping() or _is_gone(request)):
                return await self._queues.wait(queue, body.id, min(body.wait or 0.0, MAX_WAIT_SECONDS), seen=body.seen)
        except _CutShortError:
            if _is_gone(request):
                raise ConnectionResetError("the client is gone") from None
            return await self._queues.get(queue, body.id)
        finally:
            self._waiting[tenant] -= 1
            if not self._waiting[tenant]:
                del self._waiting[tenant]

    async def _cancel(self, request: web.Request) -> web.Response:
        queue = self._changed(request)
        message_id = _message_id(request)
        state = await self._queues.cancel(queue, message_id)
        if state is None:
            raise NotFoundError(f"nothing is known of message {message_id} of queue {queue.name!r}")
        return web.json_response({"state": state.value})

    async def _settings(self, request: web.Request) -> web.Response:
        queue = self._changed(request)
        return web.json_response(asdict(await self._queues.settings(queue)))

    async def _configure(self, request: web.Request) -> web.Response:
        queue = self._changed(request)
        changes = _checked(bodies.Settings, await json_object(request)).changes()
        return web.json_response(asdict(await self._queues.configure(queue, changes)))

    async def _pause(self, request: web.Request) -> web.Response:
        return web.json_response(asdict(await self._queues.configure(self._changed(request), {"paused": True})))

    async def _resume(self, request: web.Request) -> web.Response:
        return web.json_response(asdict(await self._queues.configure(self._changed(request), {"paused": False})))

    async def _purge(self, request: web.Request) -> web.Response:
        return web.json_response({"purged": await self._queues.drain(self._changed(request))})

    async def _replay(self, request: web.Request) -> web.Response:
        queue = self._changed(request)
        body = await json_object(request) if request.can_read_body else {}
        ids = _checked(bodies.Replay, {"name": queue.name, "ids": body.get("ids")}).ids
        return web.json_response({"replayed": await self._queues.replay(queue, ids)})

    def _asked(self, request: web.Request) -> tuple[RoomCaller, QueueKey]:
        caller = room_caller(self._access, request)
        queue = QueueKey(caller.room, request.match_info["queue"])
        _checked(bodies.Named, {"name": queue.name})
        check_name(queue)
        return caller, queue

    def _changed(self, request: web.Request) -> QueueKey:
        """The queue of a request that needs the right to receive from it."""
        caller, queue = self._asked(request)
        _check_receive(caller, queue)
        return queue


class _CutShortError(Exception):
    """A wait was cut short."""


@asynccontextmanager
async def _until(is_over: Callable[[], bool]) -> AsyncIterator[None]:
    """Cut short what is done inside when it is over, which is looked for now and then. Raises _CutShortError then."""
    loop, cut = asyncio.get_running_loop(), asyncio.timeout(None)

    def look() -> None:
        if is_over():
            cut.reschedule(loop.time())
        else:
            timer[0] = loop.call_later(_LOOK_SECONDS, look)

    timer = [loop.call_later(_LOOK_SECONDS, look)]
    try:
        async with cut:
            yield
    except TimeoutError:
        if not cut.expired():
            raise
        raise _CutShortError from None
    finally:
        timer[0].cancel()


def _is_gone(request: web.Request) -> bool:
    """Whether nobody waits for the answer any more."""
    return request.transport is None or request.transport.is_closing()


def _checked(model: type[Model], values: Mapping[str, Any]) -> Model:
    """The values as the model has them. Raises InvalidRequestError."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise invalid_request(error) from None


def _message_id(request: web.Request) -> int:
    """The id in the path. One that no message can have is not found, as one that no message has."""
    text = request.match_info["id"]
    if not (text.isascii() and text.isdecimal() and len(text) < 19):
        raise NotFoundError(f"no message {text!r}: expected a number, as sending answers it")
    return int(text)


def _step(request: web.Request) -> int:
    """The length of the points that are asked for."""
    text = request.query.get("step", str(FINE_SECONDS))
    if text not in (str(FINE_SECONDS), str(COARSE_SECONDS)):
        raise InvalidRequestError("step", f"expected {FINE_SECONDS} or {COARSE_SECONDS} (seconds)")
    return int(text)


def _check_list(caller: RoomCaller) -> None:
    if caller.scope is not None and (caller.scope.queues is None or not caller.scope.queues.list):
        raise AccessDeniedError("list queues")


def _may_receive(scope: ApiScope, queue: QueueKey) -> bool:
    return scope.queues is not None and scope.queues.can_receive(queue.name)


def _check_receive(caller: RoomCaller, queue: QueueKey) -> None:
    if caller.scope is not None and not _may_receive(caller.scope, queue):
        raise AccessDeniedError("receive from queue", queue.name)


def _may_read(caller: RoomCaller, queue: QueueKey) -> bool:
    """Whether the caller gets the contents of messages."""
    return caller.sees_contents if caller.scope is None else _may_receive(caller.scope, queue)

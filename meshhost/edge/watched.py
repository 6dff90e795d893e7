"""Which request of a connection is in progress, and whether its sender is known: for the listener, which sees only bytes.

`watch_requests` adds a middleware and a signal to an application, before all others; they report to the connection that the
listener registered for the request's transport. So nothing here depends on how aiohttp's handler keeps its requests.

Routes report with `know_sender` that a request showed a valid credential. A connection is kept for another request only after
such a one: what is sent by nobody known, or was refused, costs its sender a new connection, and the listener accepts those at a
bounded pace. Without this a flood of wrong tokens over a few connections would pass by all limits.
"""

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from aiohttp import web

__all__ = ["Watched", "Watchers", "connection_of", "know_sender", "watch_requests", "watchers_of"]

T = TypeVar("T")

# Refused though the credential may be valid: it was for something else, or its tenant sends too much.
_REFUSED = {401, 429}


class Watched(Protocol):
    """A connection that is told about its requests."""

    @property
    def is_known(self) -> bool:
        """Whether the sender of the present request is known."""
        ...

    def know(self, name: str | None = None) -> None:
        """The sender of the present request is known, by this name."""
        ...

    async def read_body(self, *, most_bytes: int) -> bytes:
        """The body of the present request, whole; the same again when it is asked for again (`edge/bodies.py`)."""
        ...

    def begin_request(self, request: web.BaseRequest) -> None:
        """The headers of a request are complete, and it is handled now."""
        ...

    def measured(self, handling: Awaitable[T]) -> Awaitable[T]:
        """What handles it, to be awaited instead of `handling`: its cost is measured until the sender is known or refused."""
        ...

    def begin_answer(self) -> None:
        """The answer to it begins: nothing else may be written any more."""
        ...

    def end_request(self) -> None:
        """It was handled."""
        ...

    def watch_data(self, feed: Callable[[bytes], bool]) -> bool:
        """Call `feed` with all data that comes after the request, before it is handled; False when some has come already.

        Data for which it returns False is dropped.
        """
        ...

    def hold_back(self, is_held_back: bool) -> None:
        """Read no more after the present data, or go on. What was read is passed on."""
        ...

    def is_reading(self) -> bool:
        """Whether data is read at the moment."""
        ...


Watchers = dict[object, Watched]
_WATCHERS: web.AppKey[Watchers] = web.AppKey("meshhost.edge.watchers", dict)


def watch_requests(app: web.Application) -> None:
    """Let listeners watch the requests of an application. Call it before the runner is set up."""
    watchers: Watchers = {}
    app[_WATCHERS] = watchers

    @web.middleware
    async def watch(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        connection = watchers.get(request.transport)
        if connection is None:
            return await handler(request)
        connection.begin_request(request)
        try:
            return await connection.measured(handler(request))
        finally:
            connection.end_request()

    async def answering(request: web.Request, response: web.StreamResponse) -> None:
        """Called for every answer, when its headers are complete and not sent yet."""
        connection = watchers.get(request.transport)
        if connection is not None:
            connection.begin_answer()
            is_refused = not connection.is_known or response.status in _REFUSED
            if is_refused and not isinstance(response, web.WebSocketResponse):
                response.force_close()
                # `force_close` comes too late for the headers; a client that is not told sends its next request into a
                # closed connection.
                response.headers["Connection"] = "close"

    app.middlewares.insert(0, watch)
    app.on_response_prepare.append(answering)


def connection_of(request: web.Request) -> Watched | None:
    """The connection of a request; None where no listener of ours watches it."""
    watchers = request.app.get(_WATCHERS)
    return None if watchers is None else watchers.get(request.transport)


def know_sender(request: web.Request, name: str | None = None) -> None:
    """Report that a request shows a valid credential. Its connection may be used for another one.

    `name` is that of its tenant, or whatever else tells who takes memory with it.
    """
    connection = connection_of(request)
    if connection is not None:
        connection.know(name)


def watchers_of(app: web.Application) -> Watchers:
    """Return the connections by transport, for a listener. Raises RuntimeError without `watch_requests`."""
    try:
        return app[_WATCHERS]
    except KeyError:
        raise RuntimeError("watch_requests must be called before the runner is set up") from None

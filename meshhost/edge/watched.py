"""Which request of a connection is in progress, and whether its answer has begun: for the listener, which sees only bytes.

`watch_requests` adds a middleware and a signal to an application, before all others; they report to the connection that the
listener registered for the request's transport. So nothing here depends on how aiohttp's handler keeps its requests.
"""

from collections.abc import Awaitable, Callable
from typing import Protocol

from aiohttp import web

__all__ = ["Watched", "Watchers", "watch_requests", "watchers_of"]


class Watched(Protocol):
    """A connection that is told about its requests."""

    def begin_request(self, request: web.BaseRequest) -> None:
        """The headers of a request are complete, and it is handled now."""
        ...

    def begin_answer(self) -> None:
        """The answer to it begins: nothing else may be written any more."""
        ...

    def end_request(self) -> None:
        """It was handled."""
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
            return await handler(request)
        finally:
            connection.end_request()

    async def answering(request: web.Request, _: web.StreamResponse) -> None:
        connection = watchers.get(request.transport)
        if connection is not None:
            connection.begin_answer()

    app.middlewares.insert(0, watch)
    app.on_response_prepare.append(answering)


def watchers_of(app: web.Application) -> Watchers:
    """Return the connections by transport, for a listener. Raises RuntimeError without `watch_requests`."""
    try:
        return app[_WATCHERS]
    except KeyError:
        raise RuntimeError("watch_requests must be called before the runner is set up") from None

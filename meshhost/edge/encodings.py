"""Refuses compressed request bodies, before anything of them is read.

A few kilobytes of gzip inflate to megabytes, and aiohttp inflates them before a route knows who sent them. No client of either
server compresses what it sends, so nothing is inflated: the runners are made with `auto_decompress=False`, and a request with a
`Content-Encoding` other than `identity` is answered with 415. (WebSockets are served without compression for the same reason.)
"""

from collections.abc import Awaitable, Callable

from aiohttp import web

__all__ = ["refuse_compressed"]

_PLAIN = {"", "identity"}


@web.middleware
async def refuse_compressed(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Raise HTTPUnsupportedMediaType for a compressed body."""
    codings = ",".join(request.headers.getall("Content-Encoding", [])).lower().split(",")
    if any(coding.strip() not in _PLAIN for coding in codings):
        raise web.HTTPUnsupportedMediaType(
            text="Content-Encoding: compressed bodies are not taken: send the body as it is"
        )
    return await handler(request)

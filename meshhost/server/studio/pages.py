"""Serves the Studio page and its files, with the headers that keep a browser from running anything else.

`/studio` and every address below it that is not a file or part of the API is the page, so that a link to a place in it works.
The page is checked again at each visit; its files have a version in their addresses and are kept by browsers for a year. The
policy of the page permits scripts and styles of this server only, no inline ones, and connections to this server only.
"""

import asyncio

from aiohttp import web

from meshhost.errors import NotFoundError
from meshhost.server.http.sessions import host_of
from meshhost.studio.files import ANY_VERSION, StudioFile, read_files

__all__ = ["HEADERS", "PageRoutes", "policy_for"]

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Permissions-Policy": (
        "camera=(), display-capture=(), geolocation=(), hid=(), microphone=(self), midi=(), payment=(), serial=(), usb=(), "
        "clipboard-read=(), clipboard-write=(self), fullscreen=(self)"
    ),
}
_YEAR = "public, max-age=31536000, immutable"


def policy_for(request: web.Request) -> str:
    """The content security policy of the page. Some browsers do not count WebSockets of this server among `'self'`."""
    host = host_of(request)
    sockets = f" ws://{host} wss://{host}" if host else ""
    return (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
        f"font-src 'self'; connect-src 'self'{sockets}; manifest-src 'self'; worker-src 'self'; frame-src 'self' blob:; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"
    )


class PageRoutes:
    """Serves `/studio`. Register it after the other routes below `/studio`."""

    def add_to(self, app: web.Application) -> None:
        """Register the routes."""
        app.add_routes(
            [
                web.get("/studio/static/{version}/{path:.+}", self._file),
                web.get("/studio", self._page),
                web.get("/studio/{rest:.*}", self._page),
            ]
        )

    async def _page(self, request: web.Request) -> web.Response:
        rest = request.match_info.get("rest", "")
        if rest.startswith(("api/", "static/")):
            raise NotFoundError("no such address")
        files = await asyncio.to_thread(read_files)
        return _answer(request, files.page, cache="no-cache", **{"Content-Security-Policy": policy_for(request)})

    async def _file(self, request: web.Request) -> web.Response:
        version = request.match_info["version"]
        found = (await asyncio.to_thread(read_files)).find(version, request.match_info["path"])
        if found is None:
            raise NotFoundError("no such file of Studio in this version: reload the page")
        # Opened by itself, as an address, a file must not run either.
        policy = {"Content-Security-Policy": "default-src 'none'; sandbox"}
        return _answer(request, found, cache="no-cache" if version == ANY_VERSION else _YEAR, **policy)


def _answer(request: web.Request, file: StudioFile, *, cache: str, **more: str) -> web.Response:
    headers = {**HEADERS, **more, "Cache-Control": cache, "ETag": f'"{file.tag}"', "Vary": "Accept-Encoding"}
    if file.tag in {tag.value for tag in request.if_none_match or ()}:
        return web.Response(status=304, headers=headers)
    body = file.content
    if file.compressed is not None and "gzip" in request.headers.get("Accept-Encoding", "").lower():
        headers["Content-Encoding"], body = "gzip", file.compressed
    charset = "utf-8" if file.content_type.startswith(("text/", "image/svg", "application/json")) else None
    return web.Response(body=body, headers=headers, content_type=file.content_type, charset=charset)

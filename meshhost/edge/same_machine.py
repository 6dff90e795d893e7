"""Whether a request was made by a program of this machine, for routes that trust the machine instead of a key.

A loopback address alone proves little: a reverse proxy on this machine forwards for the whole world, and a browser on it sends
what a foreign web page tells it to. So the request must name this machine in `Host` too (a page that rebinds its own name to
127.0.0.1 cannot), and carry no header of a proxy or of a page. Nor is it HTTP/1.0, which nginx speaks where it is not told
otherwise. A proxy that hides all that does pass, and so does another user of the same machine: what must be kept from them
needs a secret besides. Used by a host's calls without a secret, its admin routes, and the room server's loopback login.
"""

from aiohttp import HttpVersion11, web

from meshhost.loopback import is_loopback

__all__ = ["LOOPBACK_NAMES", "is_local_program"]

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_OF_A_PROXY = ("forwarded", "via", "x-forwarded", "x-real-ip", "x-client-ip", "cf-connecting-ip", "true-client-ip")


def is_local_program(request: web.Request, *, own_page: bool = False) -> bool:
    """Whether a program of this machine asks; with `own_page` also a browser on it that shows a page of this server."""
    if request.version < HttpVersion11 or any(name.lower().startswith(_OF_A_PROXY) for name in request.headers):
        return False
    origins = request.headers.getall("Origin", [])
    if origins and not (own_page and origins == [f"http://{request.headers.get('Host')}"]):
        return False
    try:
        name = request.url.host
    except ValueError:
        return False
    return is_loopback(request.remote) and name in LOOPBACK_NAMES

"""The HTTP forms that the gateway and its providers share: error bodies, paths, the end of a caller, the observed bytes.

All errors that a caller of the gateway sees have OpenAI's form, since its clients parse it. `observe` is how a provider shows
the bytes of a streamed answer to the meter without knowing it: `routes.py` sets the observer for the task of the request
(a context variable), and a provider that streams calls `observe` with each piece.
"""

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import ContextVar
from typing import Any

from aiohttp import web

from meshhost.clock import Clock, SystemClock
from meshhost.errors import InvalidRequestError
from meshhost.tasks import TaskOwner

__all__ = [
    "MAX_BODY_BYTES",
    "check_path",
    "ends_with_caller",
    "error_body",
    "error_response",
    "json_object",
    "observe",
    "observed",
]

# Of a request; images travel inside it as base64.
MAX_BODY_BYTES = 32 * 1024 * 1024
_PATH = re.compile(r"[A-Za-z0-9_~:@.-]+(?:/[A-Za-z0-9_~:@.-]+)*")


def _ignore(data: bytes) -> None:
    """The observer outside a measured request."""


_observer: ContextVar[Callable[[bytes], None]] = ContextVar("meshhost_gateway_observer", default=_ignore)


def check_path(path: str) -> str:
    """Return the path, which is appended to a provider's URL. Raises InvalidRequestError unless all segments are plain."""
    if _PATH.fullmatch(path) is None or any(segment in {".", ".."} for segment in path.split("/")):
        raise InvalidRequestError("path", "expected segments of letters, digits and _~:@.- without '..'")
    return path


def json_object(body: bytes) -> dict[str, Any] | None:
    """Return the JSON object in `body`, or None when it is something else."""
    with contextlib.suppress(ValueError, RecursionError):
        found = json.loads(body)
        if isinstance(found, dict):
            return found
    return None


def error_body(message: str, *, type: str, code: str | None = None) -> dict[str, Any]:
    """Return an error body in OpenAI's form."""
    return {"error": {"message": message, "type": type, "code": code or type, "param": None}}


def error_response(
    status: int,
    message: str,
    *,
    type: str,
    code: str | None = None,
    retry_after: float | None = None,
) -> web.Response:
    """Return an HTTP answer with an error in OpenAI's form; `retry_after` in seconds."""
    headers = {} if retry_after is None else {"Retry-After": str(max(1, round(retry_after)))}
    return web.json_response(error_body(message, type=type, code=code), status=status, headers=headers)


@contextlib.contextmanager
def observed(feed: Callable[[bytes], None]) -> Iterator[None]:
    """Let `feed` see the bytes that providers stream to callers, in this task and in those it starts inside the block."""
    token = _observer.set(feed)
    try:
        yield
    finally:
        _observer.reset(token)


def observe(data: bytes) -> None:
    """Show a piece of a streamed answer to the observer; providers call it for each piece."""
    _observer.get()(data)


@contextlib.asynccontextmanager
async def ends_with_caller(
    request: web.Request, *, every: float = 0.25, clock: Clock | None = None
) -> AsyncIterator[None]:
    """Cancel the block when the caller has disconnected, checked every `every` seconds; then raise ConnectionResetError.

    aiohttp does not cancel a handler when its client disconnects (unless the runner says so), and while the provider sends
    nothing there is no write that would fail.
    """
    watchers = TaskOwner("gateway caller")
    scope = asyncio.timeout(None)
    try:
        async with scope:
            watchers.spawn(_watch(request, scope, every, clock or SystemClock()), name="watch")
            yield
    except TimeoutError:
        if scope.expired():
            raise ConnectionResetError("the caller has disconnected") from None
        raise
    finally:
        await watchers.stop()


async def _watch(request: web.Request, scope: asyncio.Timeout, every: float, clock: Clock) -> None:
    while request.transport is not None and not request.transport.is_closing():
        await clock.sleep(every)
    scope.reschedule(asyncio.get_running_loop().time())

"""Sends the answer to one request, as JSON or as a stream of server-sent events.

Most answers are one JSON message with a status. One becomes a stream when there is something to say before it is complete: a
report of progress, or after KEEPALIVE_SECONDS a comment, so that no proxy takes a long call for a dead connection. A client
that does not take streams gets JSON only.

Two tasks: the request's own does the work, and a child of it writes what there is to write and looks whether the client is
still there. The child ends with the work. Where the generation of the request says so, a client that is gone cancels the work.
"""

import asyncio
import json
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from aiohttp import web

from meshhost.tasks import LightEvent, Stopped, until

__all__ = ["KEEPALIVE_SECONDS", "Answer", "EventStream", "is_gone"]

KEEPALIVE_SECONDS = 15.0
# How often a request that waits looks whether its client is still there.
LOOK_SECONDS = 0.5
# How long a reader may take for one message.
TAKE_SECONDS = 60.0
# Reports that wait to be written. They only show how far something got, so the oldest are dropped.
MAX_WAITING = 100


def is_gone(request: web.Request) -> bool:
    """Whether nobody waits for the answer any more."""
    return request.transport is None or request.transport.is_closing()


class EventStream:
    """An answer of server-sent events. Raises ConnectionError when its reader is gone, or takes nothing for TAKE_SECONDS."""

    def __init__(self, request: web.Request, headers: Mapping[str, str]) -> None:
        self._request = request
        self._written_at = 0.0
        self.response = web.StreamResponse(
            headers={
                **headers,
                "Content-Type": "text/event-stream",
                "Cache-Control": "no-cache, no-transform",
                "X-Accel-Buffering": "no",
            }
        )

    @property
    def is_open(self) -> bool:
        """Whether the answer began."""
        return self.response.prepared

    async def write(self, message: Mapping[str, Any]) -> None:
        """Send one message."""
        await self._write(f"event: message\ndata: {json.dumps(message)}\n\n")

    async def keep_alive(self) -> None:
        """Send a comment if nothing was sent for KEEPALIVE_SECONDS."""
        if asyncio.get_running_loop().time() - self._written_at >= KEEPALIVE_SECONDS:
            await self._write(": still here\n\n")

    async def open(self) -> None:
        """Begin the answer."""
        if not self.response.prepared:
            await self.response.prepare(self._request)

    async def _write(self, text: str) -> None:
        try:
            async with asyncio.timeout(TAKE_SECONDS):
                await self.open()
                await self.response.write(text.encode())
        except TimeoutError:
            if self._request.transport is not None:
                self._request.transport.abort()
            raise ConnectionResetError("the reader takes nothing") from None
        self._written_at = asyncio.get_running_loop().time()


class Answer:
    """The answer to one request, with these `headers`. With `ends_with_client` a client that is gone cancels the work."""

    def __init__(
        self, request: web.Request, *, takes_stream: bool, ends_with_client: bool, headers: Mapping[str, str]
    ) -> None:
        self._request = request
        self._takes_stream = takes_stream
        self._ends_with_client = ends_with_client
        self._headers = headers
        self._stream = EventStream(request, headers)
        self._waiting: deque[Mapping[str, Any]] = deque(maxlen=MAX_WAITING)
        self._noticed = asyncio.Event()
        self._over = LightEvent()

    def notify(self, method: str, params: Mapping[str, Any]) -> None:
        """Send a notification before the answer. Does not wait; dropped where the client takes no streams."""
        if self._takes_stream:
            self._waiting.append({"jsonrpc": "2.0", "method": method, "params": params})
            self._noticed.set()

    def give_up(self) -> None:
        """Cancel the work: the client does not wait for it any more."""
        self._over.set()

    async def of(
        self, work: Coroutine[Any, Any, dict[str, Any]], *, status_of: Callable[[Mapping[str, Any]], int]
    ) -> web.StreamResponse:
        """Send what the work returns; what it raises is raised. An empty answer when it was given up."""
        failure: Exception | None = None
        message: dict[str, Any] | None = None
        async with asyncio.TaskGroup() as tasks:
            writer = tasks.create_task(self._write(), name="writer of an MCP answer")
            try:
                won = await until(self._over, work)
                message = None if isinstance(won, Stopped) else won.result
            except Exception as error:  # noqa: BLE001 - raised below, not as a group
                failure = error
            finally:
                writer.cancel()
        if failure is not None:
            raise failure
        return await self._finish(message, status_of)

    async def _finish(
        self, message: dict[str, Any] | None, status_of: Callable[[Mapping[str, Any]], int]
    ) -> web.StreamResponse:
        stream = self._stream
        if not stream.is_open and not self._waiting:
            if message is None:
                return web.Response(status=202, headers=self._headers)
            return web.json_response(message, status=status_of(message), headers=self._headers)
        if not is_gone(self._request):
            await self._write_waiting()
            if message is not None:
                await stream.write(message)
            await stream.response.write_eof()
        return stream.response

    async def _write(self) -> None:
        begun = asyncio.get_running_loop().time()
        while True:
            try:
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._noticed.wait()
            except TimeoutError:
                pass
            self._noticed.clear()
            if is_gone(self._request):
                break
            try:
                await self._write_waiting()
                if self._takes_stream and asyncio.get_running_loop().time() - begun > KEEPALIVE_SECONDS:
                    await self._stream.keep_alive()
            except ConnectionError:
                break
        if self._ends_with_client:
            self._over.set()

    async def _write_waiting(self) -> None:
        while self._waiting:
            await self._stream.write(self._waiting.popleft())

"""Keeps a connection to an MCP server: connects, notices its end, connects again, and lists the tools when they change.

One task, `run`, opens and closes every connection, because the library's cancel scopes must be left by the task that entered
them; `stop` only asks it to end. Calls are made by other tasks, through `call_tool`: they wait some seconds for a connection
that is being made, and fail when the one they use ends. A call is never sent twice: whether a server did what it was asked
before it died is unknown. After a lost connection, and after each try that fails, the task waits with backoff.

A server that we started is known to have ended when its output does. One at an address has no connection of its own; it is
dialled again when a call finds it gone or its session over.
"""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any

import anyio
import httpx2
import mcp_types as types
from mcp import Client, MCPError
from mcp.client.auth import OAuthFlowError
from mcp.client.streamable_http import streamable_http_client
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from meshhost.backoff import Backoff
from meshhost.errors import RoomError, ToolError
from meshhost.mcp.program import StderrTail, started
from meshhost.mcp.servers import HttpServer, StdioServer
from meshhost.tasks import TaskOwner

__all__ = ["MAX_TOOLS", "Connection"]

logger = logging.getLogger(__name__)

MAX_TOOLS = 1000
# Of a list. A server could give empty pages for ever.
_MOST_PAGES = 200
# How long a call waits for a connection that is being made.
READY_SECONDS = 15.0
# How long `stop` waits: the library gives a server 2 s to end by itself, 2 s after SIGTERM and 2 s after SIGKILL.
STOP_SECONDS = 15.0
_HTTP_TIMES = httpx2.Timeout(30.0, read=300.0)
_REFUSED = 400
_BACKOFF = Backoff(first_delay=0.5, max_delay=30.0, jitter=0.5)


class Connection:
    """A connection to one server. `on_tools` is called with its tools after each connect and whenever they changed.

    `connect_seconds` bounds each request of connecting and listing.
    """

    def __init__(
        self,
        name: str,
        server: StdioServer | HttpServer,
        *,
        on_tools: Callable[[Sequence[types.Tool]], None],
        connect_seconds: float = 30.0,
        backoff: Backoff = _BACKOFF,
    ) -> None:
        self._name = name
        self._server = server
        self._on_tools = on_tools
        self._connect_seconds = connect_seconds
        self._backoff = backoff
        self._stderr = StderrTail(lambda: self._lose(self._lost))
        self._tasks = TaskOwner(f"MCP server {name}")
        self._client: Client | None = None
        self._why_lost, self._status = "", 0
        self._is_started = False
        self._stopping = asyncio.Event()
        # Set while connected, or when the first try has failed; calls wait for the former.
        self._tried, self._ready = asyncio.Event(), asyncio.Event()
        # The connection that is open now has ended, or its tools changed.
        self._lost, self._changed = asyncio.Event(), asyncio.Event()

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection now, as far as is known."""
        return self._client is not None and not self._lost.is_set()

    @property
    def protocol_version(self) -> str | None:
        """The version of the protocol that is spoken; None without a connection."""
        return None if self._client is None else self._client.protocol_version

    async def start(self) -> None:
        """Connect, and return when the tools are listed. Raises ToolError when that fails at first; later it is tried again."""
        if self._is_started:
            raise RoomError(f"the MCP server {self._name!r} is started already")
        self._is_started = True
        self._stopping.clear()
        self._tasks.spawn(self.run(), name="connection")
        try:
            await self._tried.wait()
        except BaseException:
            await self.stop()
            raise
        if not self._ready.is_set():
            why = self._why_lost
            await self.stop()
            raise ToolError(f"the MCP server {self._name!r} cannot be used: {why}")

    async def stop(self) -> None:
        """Close the connection; a server that we started has ended afterwards. Idempotent."""
        self._stopping.set()
        try:
            # A connection that is still being made has nothing to end in order: it is cancelled.
            if self._client is not None:
                async with asyncio.timeout(STOP_SECONDS):
                    await self._tasks.wait()
        except TimeoutError:
            logger.warning("MCP server did not close in time", extra={"server": self._name})
        finally:
            await self._tasks.stop(timeout=STOP_SECONDS)
            self._tried.clear()
            self._is_started = False

    async def call_tool(self, name: str, arguments: dict[str, Any], **options: Any) -> types.CallToolResult:
        """Call a tool; options are those of `mcp.Client.call_tool`. Raises MCPError, ToolError without a connection."""
        try:
            async with asyncio.timeout(READY_SECONDS):
                await self._ready.wait()
        except TimeoutError:
            raise ToolError(f"the MCP server {self._name!r} is not there: {self._why_lost}") from None
        client, lost = self._client, self._lost
        if client is None:
            raise ToolError(f"the MCP server {self._name!r} is not there: {self._why_lost}")
        try:
            return await client.call_tool(name, arguments, **options)
        except MCPError as error:
            if _is_of_connection(error):
                self._lose(lost)
                text = f"the MCP server {self._name!r} was lost during {name!r}, which may or may not have been done"
                raise ToolError(f"{text}; {self._reason(error)}") from None
            raise
        except (httpx2.HTTPError, OSError) as error:
            self._lose(lost)
            raise ToolError(f"the MCP server {self._name!r} was lost during {name!r}: {_text(error)}") from None

    async def run(self) -> None:
        """Be connected, until `stop`."""
        failed, has_connected = 0, False
        while not self._stopping.is_set():
            self._lost, self._why_lost = asyncio.Event(), self._why_lost or "it is being connected"
            self._status = 0
            try:
                async with Client(
                    self._transport(),
                    read_timeout_seconds=self._connect_seconds,
                    message_handler=self._take,
                    cache=None,
                ) as client:
                    await self._list(client)
                    self._client = client
                    self._why_lost = ""
                    self._ready.set()
                    self._tried.set()
                    failed, has_connected = 0, True
                    await self._stay(client)
                self._why_lost = self._reason(None)
            except Exception as error:  # noqa: BLE001 - the library raises groups of what its transports raise
                self._why_lost = self._reason(error)
            finally:
                self._client = None
                self._ready.clear()
                self._tried.set()
            if self._stopping.is_set() or not has_connected:  # `start` says why the first try failed
                return
            failed += 1
            fields = {"server": self._name, "reason": self._why_lost, "attempt": failed}
            logger.warning("MCP server lost or not reached; trying again", extra=fields)
            await _wait(self._stopping, self._backoff.delay(failed, random.random))

    def _lose(self, lost: asyncio.Event) -> None:
        """The connection that this event belongs to has ended: calls wait for the next one from now on."""
        lost.set()
        if lost is self._lost:
            self._ready.clear()

    async def _stay(self, client: Client) -> None:
        """Return when the connection is lost or to be closed; list the tools again when they changed."""
        async with asyncio.TaskGroup() as tasks:
            listening = tasks.create_task(self._listen(client), name="changes of an MCP server")
            waits = [tasks.create_task(event.wait()) for event in (self._stopping, self._lost)]
            while not (self._stopping.is_set() or self._lost.is_set()):
                changed = tasks.create_task(self._changed.wait())
                await asyncio.wait([changed, *waits], return_when=asyncio.FIRST_COMPLETED)
                changed.cancel()
                if self._changed.is_set():
                    self._changed.clear()
                    await self._list(client)
            for task in (listening, *waits):
                task.cancel()

    async def _listen(self, client: Client) -> None:
        """Learn of changes from a server without sessions; one with sessions sends them by itself."""
        tools = client.server_capabilities.tools
        if client.protocol_version not in MODERN_PROTOCOL_VERSIONS or tools is None or not tools.list_changed:
            return
        failed = 0
        while True:
            try:
                async with client.listen(tools_list_changed=True) as subscription:
                    if failed:  # the list may have changed unseen
                        self._changed.set()
                    async for _ in subscription:
                        failed = 0
                        self._changed.set()
                reason = "it ended"
            except (MCPError, RuntimeError, TimeoutError, anyio.ClosedResourceError, httpx2.HTTPError) as error:
                reason = _text(error)
                if isinstance(error, MCPError) and error.code == types.METHOD_NOT_FOUND:
                    logger.info("MCP server reports no changes", extra={"server": self._name, "reason": reason})
                    return
            # A proxy may end a stream after some time, or the server was restarted. A call finds out if it is gone.
            failed += 1
            logger.debug("changes of an MCP server broke off", extra={"server": self._name, "reason": reason})
            await asyncio.sleep(self._backoff.delay(failed, random.random))

    async def _list(self, client: Client) -> None:
        found: list[types.Tool] = []
        cursor: str | None = None
        for _ in range(_MOST_PAGES):
            page = await client.list_tools(cursor=cursor)
            found += page.tools
            if len(found) > MAX_TOOLS:
                raise ToolError(f"the MCP server {self._name!r} lists more than {MAX_TOOLS} tools")
            if page.next_cursor is None or page.next_cursor == cursor:
                self._on_tools(found)
                return
            cursor = page.next_cursor
        raise ToolError(f"the MCP server {self._name!r} lists its tools in more than {_MOST_PAGES} pages")

    async def _take(self, message: Any) -> None:
        if isinstance(message, types.ToolListChangedNotification):
            self._changed.set()

    def _transport(self) -> AbstractAsyncContextManager[Any]:
        return self._http(self._server) if isinstance(self._server, HttpServer) else self._stdio(self._server)

    @asynccontextmanager
    async def _http(self, server: HttpServer) -> AsyncIterator[Any]:
        async with (
            httpx2.AsyncClient(
                headers=dict(server.headers),
                timeout=_HTTP_TIMES,
                auth=server.auth,
                event_hooks={"response": [self._note_status]},
            ) as http,
            streamable_http_client(server.url, http_client=http) as streams,
        ):
            yield streams

    @asynccontextmanager
    async def _stdio(self, server: StdioServer) -> AsyncIterator[Any]:
        async with started(server, self._stderr) as (read, write):
            yield _Watched(read, partial(self._lose, self._lost)), write

    async def _note_status(self, response: httpx2.Response) -> None:
        self._status = response.status_code

    def _reason(self, error: BaseException | None) -> str:
        """Why a connection ended, in words for a model or a log."""
        what = "it ended" if error is None else _text(error)
        if isinstance(self._server, HttpServer):  # the library does not pass the status on
            return f"{what} (HTTP status {self._status})" if self._status >= _REFUSED else what
        said = str(self._stderr)
        return f"{what} (its last words: {said})" if said else what


class _Watched:
    """The library's stream of what a server sends, which calls `ended` at its end."""

    def __init__(self, stream: Any, ended: Callable[[], None]) -> None:
        self._stream = stream
        self._ended = ended

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    async def receive(self) -> Any:
        try:
            return await self._stream.receive()
        except (anyio.EndOfStream, anyio.ClosedResourceError):
            self._ended()
            raise

    def __aiter__(self) -> "_Watched":
        return self

    async def __anext__(self) -> Any:
        try:
            return await self.receive()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None

    async def __aenter__(self) -> "_Watched":
        await self._stream.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> Any:
        return await self._stream.__aexit__(*error)


def _is_of_connection(error: MCPError) -> bool:
    """Whether the connection or the session ended, and not the request alone failed."""
    return error.code == types.CONNECTION_CLOSED or "Session terminated" in error.message


def _text(error: BaseException) -> str:
    """What went wrong, in one line and without an address that may hold a secret."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    match error:
        case FileNotFoundError() | PermissionError():
            return f"the program {error.filename!r} cannot be started: {error.strerror}"
        case httpx2.HTTPStatusError():
            return f"it answered with status {error.response.status_code}"
        case MCPError() | RoomError() | OAuthFlowError():
            return str(error)
        case _:
            text = str(error).strip().splitlines()
            return f"{type(error).__name__}: {text[0][:200]}" if text else type(error).__name__


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass

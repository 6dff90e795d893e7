"""A provider of OpenAI's Realtime API on a local port that follows a script: for agents that people talk with.

Set OPENAI_BASE_URL, or a provider of the gateway, to `base_url`. It does what the service does as far as a client can tell: it
hears when a caller begins and stops speaking (by loudness), answers each turn with the next step of the script faster than it
is heard, cancels an answer when the caller speaks, keeps the conversation with its truncations, and refuses what the service
refuses. `sessions` has everything that was received and said, one entry for each connection.
"""

import asyncio
import contextlib
from collections import deque
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from meshhost.testing.realtime_connection import RealtimeConnection, RealtimeScript, RealtimeTurns

__all__ = ["RealtimeTurns", "ScriptedRealtime"]

Json = dict[str, Any]


class ScriptedRealtime:
    """Serves `{base_url}/realtime` on a loopback port inside `async with`. Each turn takes the next step of the script.

    `say`, `call_tool`, `fail`, `drop`, `hang` and `send` each add a step and return the object, so that they can be chained;
    a turn beyond the script is answered with `otherwise`, if it is set. `hears` is what the turns of the caller are transcribed
    as, in their order (None: one is not). `session_seconds` ends a session as the service does. `refuse` has the status for
    each of the next connections. While `reads` is not set, nothing is read from clients.
    """

    def __init__(
        self,
        *,
        hears: tuple[str | None, ...] = (),
        silence_ms: float = 200.0,
        session_seconds: float | None = None,
        otherwise: tuple[str, float] | None = None,
    ) -> None:
        self.base_url = ""
        self.sessions: list[RealtimeTurns] = []
        self.refuse: deque[int] = deque()
        self._script = RealtimeScript(deque(hears), silence_ms, otherwise)
        self.reads = self._script.reads
        self.reads.set()
        self._session_seconds = session_seconds
        self._live: set[RealtimeConnection] = set()
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_get("/v1/realtime", self._serve)
        self._runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        self.base_url = f"http://{host}:{port}/v1"
        return self

    async def __aexit__(
        self, type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.reads.set()
        self.cut()
        if self._runner is not None:
            await self._runner.cleanup()

    def say(self, text: str, *, ms: float = 400.0, hold: asyncio.Event | None = None) -> Self:
        """Answer with speech that lasts `ms`. With `hold`, it pauses after its first part until that is set."""
        self._script.steps.append(lambda connection: connection.say(text, ms, hold))
        return self

    def call_tool(self, name: str, arguments: Json, *also: tuple[str, Json]) -> Self:
        """Answer with a call of the tool `name`, and in the same answer with the calls in `also`."""
        self._script.steps.append(lambda connection: connection.call((name, arguments), *also))
        return self

    def fail(self, code: str = "server_error", message: str = "scripted failure") -> Self:
        """Let the answer fail, as for a quota that is used up."""
        self._script.steps.append(lambda connection: connection.fail(code, message))
        return self

    def drop(self) -> Self:
        """Lose the connection instead of answering."""
        self._script.steps.append(lambda connection: connection.lose())
        return self

    def hang(self) -> Self:
        """Begin an answer and never go on."""
        self._script.steps.append(lambda connection: connection.hang())
        return self

    def send(self, *texts: str) -> Self:
        """Send these texts instead of an answer, whatever they are."""
        self._script.steps.append(lambda connection: connection.send_raw(*texts))
        return self

    def cut(self) -> None:
        """Lose all connections now, without a close frame."""
        for connection in list(self._live):
            connection.abort()

    async def wait_for(self, type: str, *, count: int = 1, timeout: float = 10.0) -> list[Json]:
        """Wait until this many events of the type came in over all sessions; return them. Raises TimeoutError."""

        def found() -> list[Json]:
            return [event for turns in self.sessions for event in turns.received if event.get("type") == type]

        async with asyncio.timeout(timeout), self._script.changed:
            await self._script.changed.wait_for(lambda: len(found()) >= count)
        return found()

    async def wait_for_sessions(self, count: int, *, timeout: float = 10.0) -> None:
        """Wait until this many sessions were opened. Raises TimeoutError."""
        async with asyncio.timeout(timeout), self._script.changed:
            await self._script.changed.wait_for(lambda: len(self.sessions) >= count)

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        if self.refuse:
            return web.json_response({"error": {"message": "scripted refusal"}}, status=self.refuse.popleft())
        socket = web.WebSocketResponse(max_msg_size=16 * 1024 * 1024, timeout=1.0)
        await socket.prepare(request)
        turns = RealtimeTurns(dict(request.query), request.headers.get("Authorization", ""))
        self.sessions.append(turns)
        connection = RealtimeConnection(self._script, socket, request, turns, len(self.sessions))
        self._live.add(connection)
        try:
            async with asyncio.timeout(self._session_seconds):
                await connection.run()
        except TimeoutError:
            message = "Your session hit the maximum duration of 60 minutes."
            await connection.error("session_expired", message)
            await socket.close(code=1001)
        finally:
            turns.close_code = socket.close_code
            self._live.discard(connection)
            connection.stop()
            with contextlib.suppress(RuntimeError):
                await self._script.note()
        return socket

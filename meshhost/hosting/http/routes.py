"""The routes of a host: calls, health, metrics, description (room-protocol §18.1, design §3).

A call goes through the intake (does the host take calls), the guard (who sent it), `admit` (what it says) and then to
`HostedAgents.answer`; each step refuses with a `CallRefusedError`, which one middleware turns into JSON. Each request runs in
a task of aiohttp. A call by WebSocket upgrade keeps its request open as long as its agent lives: when the connection breaks,
aiohttp cancels the request, and the agent is aborted.

Nothing before the guard may cost much or trust the sender: bodies are bounded in size and time, and a refused body is not read
to its end.
"""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from aiohttp import WSCloseCode, web
from aiohttp.http_exceptions import HttpProcessingError

from meshhost.edge.encodings import refuse_compressed
from meshhost.edge.watched import watch_requests
from meshhost.errors import CallRefusedError
from meshhost.hosting.agents.assignment import CallRequest
from meshhost.hosting.calls.admission import AllowedRooms, admit, parse_event
from meshhost.hosting.calls.guard import CallGuard, Signed
from meshhost.hosting.calls.hosted_agents import HostedAgents
from meshhost.hosting.calls.intake import Intake
from meshhost.hosting.calls.route import Route, Routes
from meshhost.hosting.calls.specs import WELL_KNOWN_PATHS
from meshhost.hosting.http.admin import AdminRoutes
from meshhost.hosting.http.bodies import BROKEN_BODY, MAX_BODY_BYTES, body_of
from meshhost.hosting.observe.health import HealthAnswer
from meshhost.hosting.observe.load import Load
from meshhost.hosting.observe.metrics import HostMetrics
from meshhost.hosting.startup import StartUp
from meshhost.identity.webhooks import EVENT_HEADERS
from meshhost.supervision.state import TERMINAL
from meshhost.transport.websocket_server import InboundClientProtocol

__all__ = ["BODY_SECONDS", "HostRoutes", "http_logger"]

BODY_SECONDS = 30.0
"""How long the body of a call may take to arrive."""

_HEARTBEAT_SECONDS = 30.0
# The longest reason that fits into a close frame.
_MAX_REASON_BYTES = 123


@dataclass(slots=True)
class _Counted:
    """Facts for the count of a call; `tenant` is set once the call was admitted."""

    tenant: str | None = None


class HostRoutes:
    """The aiohttp application of one host.

    `describe` returns the service description, `live` the answer of /livez; `intake`, `startup`, `load` and `agents` decide
    what /readyz answers. `admin` are the operator's routes. A body has `body_seconds` to arrive.
    """

    def __init__(
        self,
        *,
        routes: Routes,
        intake: Intake,
        guard: CallGuard,
        allowed: AllowedRooms,
        agents: HostedAgents,
        metrics: HostMetrics,
        describe: Callable[[], dict[str, Any]],
        live: Callable[[], HealthAnswer],
        startup: StartUp,
        load: Callable[[], Load],
        admin: AdminRoutes,
        body_seconds: float = BODY_SECONDS,
    ) -> None:
        self._routes = routes
        self._intake = intake
        self._guard = guard
        self._allowed = allowed
        self._agents = agents
        self._metrics = metrics
        self._describe = describe
        self._live_answer = live
        self._startup = startup
        self._load = load
        self._admin = admin
        self._body_seconds = body_seconds

    def application(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[_refusals_as_json, refuse_compressed])
        watch_requests(app)
        app.router.add_get("/", self._ok)
        app.router.add_get("/livez", self._live)
        app.router.add_get("/readyz", self._ready)
        app.router.add_get("/metrics", self._show_metrics)
        for path in WELL_KNOWN_PATHS:
            app.router.add_get(path, self._show_description)
        self._admin.add_to(app.router)
        app.router.add_post("/{path:.*}", self._call)
        app.router.add_get("/{path:.*}", self._call_by_socket)
        return app

    async def _ok(self, _: web.Request) -> web.Response:
        return web.json_response({"ok": True})

    async def _live(self, _: web.Request) -> web.Response:
        # While the loop is blocked this does not answer; the health port does, with the same verdict.
        return _json(self._live_answer())

    async def _ready(self, _: web.Request) -> web.Response:
        return _json(self.readiness())

    def readiness(self) -> HealthAnswer:
        """What /readyz answers now. Only in the event loop. Its `missing` are the reasons that end with the start."""
        load, refuses = self._load(), self._intake.refuses
        missing = [*(["starting"] if refuses == "starting" else []), *self._startup.missing]
        reasons = (["draining"] if refuses == "draining" else []) + missing
        reasons += ["full"] if self._agents.is_full else []
        reasons += [reason for reason in load.reasons if reason != "agents"]
        if not reasons:
            return HealthAnswer(200, {"ok": True})
        body = {"ok": False, "reason": reasons[0], "reasons": reasons, "missing": missing, "load": load.as_json()}
        return HealthAnswer(503, body)

    async def _show_metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=self._metrics.render(), content_type="text/plain", charset="utf-8")

    async def _show_description(self, _: web.Request) -> web.Response:
        return web.json_response(self._describe())

    async def _call(self, request: web.Request) -> web.Response:
        route = self._route(request)
        with self._counted(route, accepted=200) as counted:
            call, signed = await self._admitted(request)
            if call is None:
                return web.json_response({"ok": True})
            counted.tenant = call.tenant
            with self._forgotten_if_refused(signed):
                if signed.is_repeated:
                    agent = self._agents.answer_again(route, call)
                else:
                    if self._routes.needs_process(route):
                        self._startup.check()
                    agent = await self._agents.answer(route, call, signature=signed.id)
            return web.json_response({"ok": True, "spawn_id": agent.id, "state": agent.state.value})

    async def _call_by_socket(self, request: web.Request) -> web.StreamResponse:
        """A call over a room connection that the room server opened (room-protocol §18.4); it lasts as long as the agent."""
        route = self._route(request)
        with self._counted(route, accepted=101) as counted:
            if request.headers.get("Upgrade", "").lower() != "websocket":
                raise CallRefusedError("a path takes POST, or a WebSocket upgrade", status=405)
            call, signed = await self._admitted(request)
            if call is None:
                raise CallRefusedError("event: expected room.call", status=400)
            counted.tenant = call.tenant
            if signed.is_repeated:
                raise CallRefusedError("this call was made before (the same signature)", status=409)
            with self._forgotten_if_refused(signed):
                self._agents.check_takes_sockets(route)
                # After the upgrade a refusal cannot have a status any more.
                self._agents.check_free()
                self._agents.check_tenant(route, call)
            socket = web.WebSocketResponse(
                heartbeat=_HEARTBEAT_SECONDS, max_msg_size=8 * MAX_BODY_BYTES, compress=False
            )
            await socket.prepare(request)
        protocol = InboundClientProtocol(socket, url=call.room_url, token=call.token)
        try:
            agent = await self._agents.answer(route, call, protocol=protocol, signature=signed.id)
        except CallRefusedError as error:
            await socket.close(code=WSCloseCode.TRY_AGAIN_LATER, message=str(error).encode()[:_MAX_REASON_BYTES])
            return socket
        try:
            await agent.wait_state(*TERMINAL)
        finally:
            agent.abort()
        return socket

    @contextmanager
    def _counted(self, route: Route, *, accepted: int) -> Iterator[_Counted]:
        status = 500
        counted = _Counted()
        try:
            yield counted
            status = accepted
        except (CallRefusedError, web.HTTPException) as error:
            status = error.status
            raise
        finally:
            self._metrics.count_call(route.path, status, counted.tenant)

    def _route(self, request: web.Request) -> Route:
        path = "/" + request.match_info["path"]
        route = self._routes.get(path)
        if route is None:
            raise CallRefusedError("no agent at this path", status=404)
        return route

    @contextmanager
    def _forgotten_if_refused(self, signed: Signed) -> Iterator[None]:
        """A proxy may send a refused call again: it has changed nothing, so it is no repetition."""
        try:
            yield
        except CallRefusedError:
            self._guard.forget(signed)
            raise

    async def _admitted(self, request: web.Request) -> tuple[CallRequest | None, Signed]:
        """The checked call (None for another event), and its signature. Raises CallRefusedError."""
        self._intake.check()
        self._guard.check_head(request)
        header = next((request.headers[name] for name in EVENT_HEADERS if name in request.headers), None)
        # aiohttp decodes header bytes that are no UTF-8 to surrogates.
        body = header.encode(errors="surrogateescape") if header is not None else await self._body(request)
        signed = self._guard.check(request, body)
        with self._forgotten_if_refused(signed):
            event = parse_event(body)
            return (admit(event.data, self._allowed) if event.event == "room.call" else None), signed

    async def _body(self, request: web.Request) -> bytes:
        """Raises CallRefusedError as `body_of` does, and 408 for a body that does not end."""
        try:
            async with asyncio.timeout(self._body_seconds):
                return await body_of(request)
        except TimeoutError:
            raise CallRefusedError(f"body: did not arrive within {self._body_seconds:g} s", status=408) from None


def http_logger() -> logging.Logger:
    """The logger for aiohttp's server of these routes. Leaves out errors of senders, who could fill the log with them."""
    logger = logging.getLogger(__name__)
    logger.addFilter(_is_fault_of_host)  # no effect when it is there already
    return logger


def _is_fault_of_host(record: logging.LogRecord) -> bool:
    error = None if record.exc_info is None else record.exc_info[1]
    return not isinstance(error, HttpProcessingError | web.RequestPayloadError | ConnectionError)


def _json(answer: HealthAnswer) -> web.Response:
    return web.json_response(answer.body, status=answer.status)


@web.middleware
async def _refusals_as_json(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except CallRefusedError as error:
        headers = {} if error.retry_after is None else {"Retry-After": str(math.ceil(error.retry_after))}
        refusal = web.json_response({"error": str(error)}, status=error.status, headers=headers)
    except (ConnectionError, web.RequestPayloadError):
        refusal = web.json_response({"error": BROKEN_BODY}, status=400)
    except web.HTTPClientError as error:
        # aiohttp's own refusals, such as of a method or of a broken upgrade.
        allow = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
        refusal = web.json_response({"error": error.text or error.reason}, status=error.status, headers=allow)
    if not request.content.is_eof():
        # The rest of the body is not read, so the connection must end; announced, so that the caller opens another one.
        refusal.force_close()
    return refusal

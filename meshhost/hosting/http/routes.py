"""The HTTP surface of a host (room-protocol §18.1, design §3)."""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from aiohttp import WSCloseCode, web
from aiohttp.http_exceptions import HttpProcessingError

from meshhost.errors import CallRefusedError
from meshhost.hosting.calls.admission import AllowedRooms, CallRequest, admit, parse_event
from meshhost.hosting.calls.guard import CallGuard
from meshhost.hosting.calls.spawns import RETRY_AFTER_SECONDS, Route, Spawns
from meshhost.hosting.calls.specs import WELL_KNOWN_PATHS
from meshhost.hosting.http.admin import AdminRoutes
from meshhost.hosting.observe.health import HealthAnswer, StartUp
from meshhost.hosting.observe.load import Load
from meshhost.hosting.observe.metrics import HostMetrics
from meshhost.supervision.state import TERMINAL
from meshhost.transport.websocket_server import InboundClientProtocol

__all__ = ["LINGER_SECONDS", "MAX_BODY_BYTES", "HostRoutes", "http_logger"]

http_logger = logging.getLogger(__name__)
"""What aiohttp's server of these routes logs to."""

LINGER_SECONDS = 1.0
"""So long the rest of a body that was refused unread is waited for, that its sender may read the refusal."""

MAX_BODY_BYTES = 1024 * 1024
_BODY_SECONDS = 30.0
_BROKEN_BODY = "body: it broke off, or is not encoded as its headers say"
# The event as JSON in a header, for calls that have no body (room-protocol §18.2).
_EVENT_HEADERS = ("Meshhost-Webhook", "Meshagent-Webhook")
_HEARTBEAT_SECONDS = 30.0
# A close frame carries at most so many bytes of reason.
_MAX_REASON_BYTES = 123


@dataclass(slots=True)
class _Counted:
    """What else is known of a call when it has been answered; `tenant` once it was admitted."""

    tenant: str | None = None


class HostRoutes:
    """Answers calls and questions of one host.

    `routes` may grow while the host runs. `describe` gives the service description, `live` what /livez answers, `load` and
    `startup` what /readyz decides by; `admin` are the operator's routes. `refuses` says why no call is taken: the host is
    `starting` or `draining`; None when calls are taken.
    """

    def __init__(
        self,
        *,
        routes: Mapping[str, Route],
        guard: CallGuard,
        allowed: AllowedRooms,
        spawns: Spawns,
        metrics: HostMetrics,
        describe: Callable[[], dict[str, Any]],
        live: Callable[[], HealthAnswer],
        startup: StartUp,
        load: Callable[[], Load] = Load,
        admin: AdminRoutes | None = None,
    ) -> None:
        self._routes = routes
        self._guard = guard
        self._allowed = allowed
        self._spawns = spawns
        self._metrics = metrics
        self._describe = describe
        self._live_answer = live
        self._startup = startup
        self._load = load
        self._admin = admin
        self.refuses: Literal["starting", "draining"] | None = "starting"

    @property
    def is_ready(self) -> bool:
        """Whether calls are taken."""
        return self.refuses is None

    def application(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[_refusals_as_json])
        app.router.add_get("/", self._ok)
        app.router.add_get("/livez", self._live)
        app.router.add_get("/readyz", self._ready)
        app.router.add_get("/metrics", self._show_metrics)
        for path in WELL_KNOWN_PATHS:
            app.router.add_get(path, self._show_description)
        if self._admin is not None:
            self._admin.add_to(app.router)
        app.router.add_post("/{path:.*}", self._call)
        app.router.add_get("/{path:.*}", self._call_by_socket)
        return app

    async def _ok(self, _: web.Request) -> web.Response:
        return web.json_response({"ok": True})

    async def _live(self, _: web.Request) -> web.Response:
        # While the loop is blocked nothing comes from here: then the health port answers, by the same verdict.
        return _json(self._live_answer())

    async def _ready(self, _: web.Request) -> web.Response:
        return _json(self.readiness())

    def readiness(self) -> HealthAnswer:
        """What /readyz answers now; for the loop only. `missing` are those of its reasons that end with the start."""
        load = self._load()
        missing = [*([self.refuses] if self.refuses == "starting" else []), *self._startup.missing]
        reasons = (["draining"] if self.refuses == "draining" else []) + missing
        reasons += ["full"] if self._spawns.is_full else []
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
            call = await self._admitted(request)
            if call is None:
                return web.json_response({"ok": True})
            counted.tenant = call.tenant
            if self._spawns.isolation_of(route) == "process":
                self._startup.check()
            spawn = await self._spawns.answer(route, call)
            return web.json_response({"ok": True, "spawn_id": spawn.id, "state": spawn.state.value})

    async def _call_by_socket(self, request: web.Request) -> web.StreamResponse:
        """The room server opened the room connection itself (room-protocol §18.4); it lasts as long as the agent."""
        route = self._route(request)
        with self._counted(route, accepted=101) as counted:
            if request.headers.get("Upgrade", "").lower() != "websocket":
                raise CallRefusedError("a path takes POST, or a WebSocket upgrade", status=405)
            call = await self._admitted(request)
            if call is None:
                raise CallRefusedError("event: expected room.call", status=400)
            counted.tenant = call.tenant
            self._spawns.check_takes_sockets(route)
            # After the upgrade nothing can be refused with a status any more.
            self._spawns.check_free()
            self._spawns.check_tenant(route, call)
            socket = web.WebSocketResponse(
                heartbeat=_HEARTBEAT_SECONDS, max_msg_size=8 * MAX_BODY_BYTES, compress=False
            )
            await socket.prepare(request)
        protocol = InboundClientProtocol(socket, url=call.room_url, token=call.token)
        try:
            spawn = await self._spawns.answer(route, call, protocol=protocol)
        except CallRefusedError as error:
            await socket.close(code=WSCloseCode.TRY_AGAIN_LATER, message=str(error).encode()[:_MAX_REASON_BYTES])
            return socket
        try:
            await spawn.wait_state(*TERMINAL)
        finally:
            spawn.abort()
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

    async def _admitted(self, request: web.Request) -> CallRequest | None:
        """The call, checked; None for another event. Raises CallRefusedError."""
        if self.refuses is not None:
            raise CallRefusedError(f"this host is {self.refuses}", status=503, retry_after=RETRY_AFTER_SECONDS)
        header = next((request.headers[name] for name in _EVENT_HEADERS if name in request.headers), None)
        # aiohttp decodes header bytes that are no UTF-8 to surrogates.
        body = header.encode(errors="surrogateescape") if header is not None else await _body(request)
        self._guard.check(request, body)
        event = parse_event(body)
        return admit(event.data, self._allowed) if event.event == "room.call" else None


async def _body(request: web.Request) -> bytes:
    """Raises CallRefusedError (400, 408) for a body that breaks off, is not encoded as it says, or does not end."""
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            return await request.read()
    except TimeoutError:
        raise CallRefusedError(f"body: did not arrive within {_BODY_SECONDS:g} s", status=408) from None
    except (ConnectionError, web.RequestPayloadError):
        raise CallRefusedError(_BROKEN_BODY, status=400) from None


def _is_of_the_host(record: logging.LogRecord) -> bool:
    """Not about a request that was no HTTP or broke off: its sender would else fill the log with tracebacks."""
    error = None if record.exc_info is None else record.exc_info[1]
    return not isinstance(error, HttpProcessingError | web.RequestPayloadError | ConnectionError)


http_logger.addFilter(_is_of_the_host)


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
        refusal = web.json_response({"error": _BROKEN_BODY}, status=400)
    except web.HTTPRequestEntityTooLarge:
        refusal = web.json_response({"error": f"body: at most {MAX_BODY_BYTES} bytes"}, status=413)
    except web.HTTPClientError as error:
        # aiohttp's own refusals, such as of a method or of a broken upgrade.
        allow = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
        refusal = web.json_response({"error": error.text or error.reason}, status=error.status, headers=allow)
    if not request.content.is_eof():
        # The connection ends with the body that nobody reads; told, so that the caller sends no other call there.
        refusal.force_close()
    return refusal

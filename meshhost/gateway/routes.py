"""Mounts the gateway in a room server: `/rooms/{room}/v1/*` for every method.

Each request is authenticated by the function that the server passes in, measured by the meter, and answered by the provider
of its model. The gateway knows no tokens, rooms or stores of its own; provider keys never reach a caller.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from aiohttp import web

from meshhost.errors import (
    AccessDeniedError,
    InvalidRequestError,
    LLMError,
    NotFoundError,
    QuotaExceededError,
    SettingsError,
    TokenError,
    TooLargeError,
)
from meshhost.gateway.http import MAX_BODY_BYTES, error_response, observed
from meshhost.gateway.meter import Meter
from meshhost.gateway.operations import (
    OperationError,
    ResponseIdReader,
    StoredResponses,
    check_operation,
    check_references,
    read_body,
)
from meshhost.gateway.provider import Caller, ProviderTable
from meshhost.gateway.realtime import CheckCaller, RealtimeLimits, RealtimeSessions
from meshhost.gateway.tokens import Tokens
from meshhost.protocol.json_values import has_few_parts

__all__ = ["add_gateway_routes"]

logger = logging.getLogger(__name__)

# What is shorter is read in some milliseconds, whatever it is.
_QUICK_BYTES = 128 * 1024

Authenticate = Callable[[web.Request], Awaitable[Caller]]
Hold = Callable[[web.Request, str, int], AbstractAsyncContextManager[web.Request]]
# Called when a request to a provider begins; what it returns is called with the status (None: it was broken off) and the
# tokens.
TraceCall = Callable[[web.Request, Caller, str], Callable[[int | None, Tokens | None], None] | None]


def _untraced(request: web.Request, caller: Caller, model: str) -> None:
    return


@asynccontextmanager
async def _uncounted(request: web.Request, _: str, most_bytes: int) -> AsyncIterator[web.Request]:
    yield request.clone(client_max_size=most_bytes)


def add_gateway_routes(
    app: web.Application,
    *,
    providers: ProviderTable,
    authenticate: Authenticate,
    meter: Meter,
    max_body_bytes: int = MAX_BODY_BYTES,
    hold: Hold = _uncounted,
    trace: TraceCall = _untraced,
    check: CheckCaller | None = None,
    realtime: RealtimeLimits | None = None,
) -> None:
    """Serve `/rooms/{room}/v1/{path}` for the operations that `operations.py` lists.

    `authenticate` returns the caller, or raises TokenError (answered with 401), AccessDeniedError (403) or QuotaExceededError
    (429). `max_body_bytes` bounds a request's body. `hold` counts it as bytes in flight of the tenant until the answer is sent,
    and yields the request to read it from; it raises TooLargeError (413) or QuotaExceededError. `trace` notes requests of
    recorded traces. `check` is asked again and again during a realtime session whether its caller may go on; it raises as
    `authenticate`, which is asked without it. `realtime` bounds these sessions. The caller of this function stops `providers`
    and `meter`.
    """
    sessions = RealtimeSessions(meter=meter, check=check or authenticate, limits=realtime)
    gateway = _Gateway(providers, authenticate, meter, max_body_bytes, hold, trace, sessions)
    app.on_shutdown.append(lambda _: sessions.close())
    app.router.add_route("*", "/rooms/{room}/v1/{path:.*}", gateway.handle)


class _Gateway:
    def __init__(
        self,
        providers: ProviderTable,
        authenticate: Authenticate,
        meter: Meter,
        max_body: int,
        hold: Hold,
        trace: TraceCall,
        sessions: RealtimeSessions,
    ) -> None:
        self._sessions = sessions
        self._providers = providers
        self._authenticate = authenticate
        self._meter = meter
        self._max_body = max_body
        self._hold = hold
        self._trace = trace
        self._stored = StoredResponses()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        try:
            caller = await self._authenticate(request)
            _check_room(caller, request.match_info["room"])
            return await self._answer(request, caller)
        except TooLargeError:
            return self._too_large()
        except TokenError as error:
            return error_response(401, str(error), type="authentication_error", code="invalid_token")
        except AccessDeniedError as error:
            return error_response(403, str(error), type="permission_error", code="permission_denied")
        except QuotaExceededError as error:
            return error_response(
                429, str(error), type="rate_limit_error", code="quota_exceeded", retry_after=error.retry_after
            )

    async def _answer(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        path = request.match_info["path"]
        try:
            check_operation(request.method, path, self._providers.extra_operations)
        except OperationError as error:
            return _not_offered(error)
        if request.method == "GET" and path == "models":
            return await self._list_models()
        if path == "realtime":
            return await self._answer_realtime(request, caller)
        async with self._hold(request, caller.tenant, self._max_body) as held:
            return await self._answer_held(held, path, caller)

    async def _answer_realtime(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        """Serve a realtime session. What passes on to the provider of its address is the model, and nothing else."""
        model = request.query.get("model", "")
        if not model:
            return error_response(400, "model: expected the name of a realtime model", type="invalid_request_error")
        end, status = self._trace(request, caller, model), None
        try:
            provider = await self._providers.pick(model)
            response = await self._sessions.handle(request, provider, model, caller)
            status = response.status
        except NotFoundError as error:
            response = error_response(404, str(error), type="invalid_request_error", code="model_not_found")
        except (SettingsError, LLMError) as error:
            response = error_response(503, str(error), type="provider_not_ready")
        finally:
            if end is not None:
                end(status, None)
        return response

    async def _answer_held(self, request: web.Request, path: str, caller: Caller) -> web.StreamResponse:
        try:
            body = await request.read()
            if len(body) > _QUICK_BYTES and not await asyncio.to_thread(has_few_parts, body):
                return self._too_large()
            model = self._requested_model(request, path, caller, body)
        except web.HTTPRequestEntityTooLarge:
            return self._too_large()
        except InvalidRequestError as error:
            return error_response(400, str(error), type="invalid_request_error")
        except NotFoundError as error:
            code = "previous_response_not_found" if path == "responses" else "not_found"
            return error_response(404, str(error), type="invalid_request_error", code=code)
        if request.method != "POST" or path != "responses":
            return await self._metered(request, path, caller, model)
        reader = ResponseIdReader()
        try:
            return await self._metered(request, path, caller, model, reader.feed)
        finally:
            # Also of an answer that was cut off: its caller has seen the id and may ask for the rest.
            if (response_id := reader.end()) is not None:
                self._stored.remember(caller, response_id, model)

    def _requested_model(self, request: web.Request, path: str, caller: Caller, body: bytes) -> str:
        """The model that the request is for ("" asks for the default).

        Raises InvalidRequestError, and NotFoundError for a stored response that is not known to be of the caller's tenant.
        """
        if request.method == "GET" and path.startswith("models/"):
            return path.removeprefix("models/")
        if (stored := self._stored.model_of(caller, path)) is not None:
            return stored
        if request.method != "POST" or path in self._providers.extra_operations:
            return ""
        found = read_body(body)
        check_references(found, body)
        self._stored.check_previous(caller, found)
        model = found.get("model")
        return model if isinstance(model, str) else ""

    async def _metered(
        self, request: web.Request, path: str, caller: Caller, model: str, *feeds: Callable[[bytes], None]
    ) -> web.StreamResponse:
        end, status = self._trace(request, caller, model), None
        with self._meter.measure(caller, model) as tokens:

            def feed(data: bytes) -> None:
                for take in (tokens.feed, *feeds):
                    take(data)

            try:
                with observed(feed):
                    response = await self._forward(request, path, caller, model)
                    # A streamed answer was shown to the reader piece by piece; one that was built as a whole is read here.
                    if isinstance(response, web.Response) and isinstance(response.body, bytes):
                        feed(response.body)
                status = response.status
            finally:
                if end is not None:
                    end(status, tokens.tokens())
        return response

    async def _forward(self, request: web.Request, path: str, caller: Caller, model: str) -> web.StreamResponse:
        try:
            provider = await self._providers.pick(model)
        except NotFoundError as error:
            return error_response(404, str(error), type="invalid_request_error", code="model_not_found")
        except (SettingsError, LLMError) as error:
            logger.warning("a model provider could not start", extra={"model": model[:128]}, exc_info=error)
            return error_response(503, str(error), type="provider_not_ready")
        return await provider.handle(request, path, caller)

    def _too_large(self) -> web.Response:
        return error_response(413, f"a request may have {self._max_body} bytes", type="request_too_large")

    async def _list_models(self) -> web.Response:
        names = await self._providers.models()
        data = [{"id": name, "object": "model", "created": 0, "owned_by": "meshhost"} for name in names]
        return web.json_response({"object": "list", "data": data})


def _check_room(caller: Caller, room: str) -> None:
    if caller.room.name != room:
        raise AccessDeniedError("use the model gateway of room", room)


def _not_offered(error: OperationError) -> web.Response:
    if not error.allowed:
        return error_response(404, str(error), type="invalid_request_error", code="unknown_path")
    answer = error_response(405, str(error), type="invalid_request_error", code="method_not_allowed")
    answer.headers["Allow"] = ", ".join(sorted(error.allowed))
    return answer

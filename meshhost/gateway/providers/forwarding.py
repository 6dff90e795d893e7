"""`ForwardingProvider`: what all providers have in common that forward requests to a service with the gateway's own key.

Bytes pass unchanged in both directions and as they arrive, so that new features of an API work without a new version of
meshhost. Only headers are filtered: the caller's token never reaches the service, and the service's account details never reach
the caller. Where caller and service speak different APIs, `translating.py` translates; a subclass says when (`_translation`).
Each request runs in the task of its HTTP handler and is cancelled when the caller disconnects.
"""

import asyncio
import io
import json
import logging
import re
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from typing import TypeAlias
from urllib.parse import unquote_plus

from aiohttp import (
    ClientError,
    ClientResponse,
    ClientSession,
    ClientTimeout,
    ClientWebSocketResponse,
    ConnectionTimeoutError,
    TCPConnector,
    WSServerHandshakeError,
    web,
)
from multidict import CIMultiDict
from yarl import URL

from meshhost.errors import InvalidRequestError, LLMError, NotFoundError, SecretsLockedError, SettingsError
from meshhost.gateway.http import MAX_BODY_BYTES, check_path, ends_with_caller, error_response, json_object, observe
from meshhost.gateway.provider import Caller
from meshhost.gateway.providers.misjudged import answer_set_right
from meshhost.gateway.providers.translating import Translation
from meshhost.identity.tenant import TenantId
from meshhost.llm.caller_forms import CallerForm
from meshhost.llm.dialects import Dialect

__all__ = ["ForwardingProvider", "TenantKey"]

TenantKey: TypeAlias = Callable[[TenantId], Awaitable[str | None]]
# The key that the tenant of the present request brought. Set by each request, since those of one connection share a context.
_own_key: ContextVar[str | None] = ContextVar("own_key", default=None)

logger = logging.getLogger(__name__)

# Of a WebSocket: for its handshake, and between the pings that keep it alive.
_DIAL_SECONDS = 15.0
_HEARTBEAT_SECONDS = 30.0

_HOP_BY_HOP = frozenset(
    [
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ]
)
_NOT_FORWARDED = _HOP_BY_HOP | {
    "accept-encoding",
    "api-key",
    "authorization",
    # aiohttp has unpacked the body already.
    "content-encoding",
    "content-length",
    "cookie",
    "cookie2",
    "expect",
    "forwarded",
    "host",
    "openai-organization",
    "openai-project",
    "x-api-key",
    "x-real-ip",
    # Traces are the operator's, and baggage may say anything about the callers' programs.
    "b3",
    "baggage",
    "traceparent",
    "tracestate",
}
# Credentials of other services, which a caller's program or a proxy before us may add.
_CREDENTIAL = re.compile(
    r"^key$|api[-_]?key|auth|cookie|credential|password|secret|session|signature|token", re.IGNORECASE
)
_NOT_RETURNED = _HOP_BY_HOP | {
    "anthropic-organization-id",
    "date",
    "openai-organization",
    "openai-project",
    "server",
    "set-cookie",
    "www-authenticate",
}


def _checked_key(key: str | None) -> str | None:
    """A tenant's key as a header can hold it. Raises SecretsLockedError, which does not show it."""
    if key is not None and not (key.isascii() and key.isprintable()):
        raise SecretsLockedError("a key of a provider is of printable ASCII characters, without line ends")
    return key or None


class ForwardingProvider:
    """Forwards requests to `base_url` (which ends with the API's version, as in https://api.openai.com/v1).

    A JSON request without a model gets `default_model`. `connect_timeout` bounds connecting and `idle_timeout` each wait for
    bytes, in seconds. Request bodies are also bounded by the app's client_max_size, which `add_gateway_routes` raises to its
    own limit. Connections are reused unless `keep_alive` is false. `tenant_key` returns the key that a tenant brings itself, or
    None for `api_key`; it may raise MeshhostError.
    """

    def __init__(
        self,
        *,
        name: str,
        base_url: str,
        api_key: str,
        default_model: str | None = None,
        max_body_bytes: int = MAX_BODY_BYTES,
        connect_timeout: float = 10.0,
        idle_timeout: float = 120.0,
        keep_alive: bool = True,
        tenant_key: TenantKey | None = None,
    ) -> None:
        base_url, api_key = base_url.strip(), api_key.strip()
        if URL(base_url).scheme not in {"http", "https"} or not URL(base_url).host or " " in base_url:
            raise SettingsError(f"base_url of provider {name}: expected an http:// or https:// address")
        # Each request would fail at its header, long after the start.
        if not api_key.isascii() or not api_key.isprintable():
            raise SettingsError(f"the key of provider {name}: expected printable ASCII characters, without line ends")
        self.name = name
        self._base_url = base_url.rstrip("/")
        self._api_key = api_key
        self._default_model = default_model
        self._max_body = max_body_bytes
        self._timeout = ClientTimeout(
            total=None, connect=connect_timeout, sock_connect=connect_timeout, sock_read=idle_timeout
        )
        self._keep_alive = keep_alive
        self._tenant_key = tenant_key
        self._session: ClientSession | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"

    async def start(self) -> None:
        """See Provider."""
        if self._session is None:
            # Compressed bytes are passed on as they are.
            self._session = ClientSession(
                timeout=self._timeout,
                auto_decompress=False,
                connector=TCPConnector(limit=1000, force_close=not self._keep_alive),
            )

    async def stop(self) -> None:
        """See Provider."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def models(self) -> list[str]:
        """See Provider."""
        try:
            async with asyncio.timeout(30), self._send("GET", "models") as upstream:
                body = json_object(await upstream.read())
        except (ClientError, OSError) as error:  # TimeoutError is an OSError
            raise LLMError(f"provider {self.name} cannot be reached") from error
        if upstream.status != 200 or body is None:
            raise LLMError(f"provider {self.name} did not list its models", status=upstream.status)
        data = body.get("data")
        items = data if isinstance(data, list) else []
        return [item["id"] for item in items if isinstance(item, dict) and isinstance(item.get("id"), str)]

    async def handle(self, request: web.Request, path: str, caller: Caller) -> web.StreamResponse:
        """See Provider."""
        try:
            body = self._with_model(await request.read())
            check_path(path)
            _own_key.set(await self._key_of(caller))
        except InvalidRequestError as error:
            return error_response(404, str(error), type="invalid_request_error", code="unknown_path")
        except SecretsLockedError as error:
            return error_response(503, str(error), type="upstream_unavailable")
        except web.HTTPRequestEntityTooLarge:
            body = None
        if body is None or len(body) > self._max_body:
            return error_response(413, f"a request may have {self._max_body} bytes", type="request_too_large")
        return await self._answer(request, path, body)

    async def _key_of(self, caller: Caller) -> str | None:
        """The key that the caller's tenant brought, if it did. Raises SecretsLockedError, and what a wrong one raises."""
        return None if self._tenant_key is None else _checked_key(await self._tenant_key(caller.tenant))

    async def _answer(self, request: web.Request, path: str, body: bytes) -> web.StreamResponse:
        """Answer the request; overridden by a provider that does not speak each API itself."""
        return await self._forward(request, path, body)

    async def _translate(
        self, request: web.Request, form: CallerForm, dialect: Dialect | None, body: bytes
    ) -> web.StreamResponse:
        """Answer a caller that speaks `form` by asking in `dialect`, or in the Responses API."""
        try:
            translation = Translation.begin(form, dialect, body, provider=self.name)
        except NotFoundError as error:
            return error_response(404, str(error), type="invalid_request_error", code="previous_response_not_found")
        except InvalidRequestError as error:
            return error_response(400, str(error), type="invalid_request_error")
        return await self._forward(request, translation.path, translation.sent, translation)

    async def _forward(
        self, request: web.Request, path: str, body: bytes, translation: Translation | None = None
    ) -> web.StreamResponse:
        response: web.StreamResponse | None = None
        query = _without_credentials(request.rel_url.raw_query_string)
        dropped = _NOT_FORWARDED | _named_by_connection(request.headers.getall("Connection", []))
        headers = _kept(
            ((name, value) for name, value in request.headers.items() if not _CREDENTIAL.search(name)), dropped
        )
        try:
            async with (
                ends_with_caller(request),
                self._send(request.method, path, query, headers, body, key=_own_key.get()) as upstream,
            ):
                examined = await self._examine(upstream, path)
                response = self._begin(upstream, examined)
                if not isinstance(response, web.Response):
                    headers = _kept(upstream.headers.items(), _NOT_RETURNED)
                    response = await answer_set_right(upstream, headers, provider=self.name) or response
                if translation is not None:
                    response = await translation.answer(request, upstream, response)
                elif not isinstance(response, web.Response):
                    await _stream(request, upstream, response)
        except (ClientError, OSError) as error:  # TimeoutError and ConnectionResetError are OSErrors
            begun = response if translation is None else translation.response
            if begun is not None and begun.prepared:
                return _cut(request, begun)
            return self._unreachable(error)
        return response

    def _authorise(self, headers: CIMultiDict[str], key: str) -> None:
        """Add the key: the gateway's, or the one that a tenant brought."""
        headers["Authorization"] = f"Bearer {key}"

    def _send(
        self,
        method: str,
        path: str,
        query: str = "",
        headers: CIMultiDict[str] | None = None,
        body: bytes | None = None,
        *,
        key: str | None = None,
    ) -> AbstractAsyncContextManager[ClientResponse]:
        if self._session is None:
            raise LLMError(f"provider {self.name} is not started")
        headers = headers if headers is not None else CIMultiDict()
        self._authorise(headers, key or self._api_key)
        headers["Accept-Encoding"] = "identity"
        url = URL(f"{self._base_url}/{path}{f'?{query}' if query else ''}", encoded=True)
        # Redirects are not followed: they would send the key to another server.
        return self._session.request(
            method, url, headers=headers, data=io.BytesIO(body) if body else None, allow_redirects=False
        )

    async def _examine(self, upstream: ClientResponse, path: str) -> bytes | None:
        """Look at an answer before it is passed on; return its body if that was read. Overridden by providers that learn by
        it."""
        return None

    def _begin(self, upstream: ClientResponse, body: bytes | None) -> web.StreamResponse:
        if upstream.status in {401, 403}:
            logger.error(
                "a model provider refused the gateway's key", extra={"provider": self.name, "status": upstream.status}
            )
            return error_response(
                502,
                f"provider {self.name} refused the gateway's provider key (HTTP {upstream.status}); tell the operator",
                type="upstream_refused_key",
            )
        if 300 <= upstream.status < 400:
            return error_response(502, f"provider {self.name} answered with a redirect", type="upstream_unavailable")
        headers = _kept(upstream.headers.items(), _NOT_RETURNED)
        if body is not None:
            headers.popall("Content-Length", None)
            return web.Response(status=upstream.status, headers=headers, body=body)
        return web.StreamResponse(status=upstream.status, headers=headers)

    async def _dial(
        self, path: str, query: dict[str, str], caller: Caller, *, max_event_bytes: int
    ) -> ClientWebSocketResponse:
        """Open a WebSocket to the service. Raises LLMError with the HTTP status that our caller gets."""
        if self._session is None:
            raise LLMError(f"provider {self.name} is not started")
        headers: CIMultiDict[str] = CIMultiDict()
        try:
            self._authorise(headers, await self._key_of(caller) or self._api_key)
        except (InvalidRequestError, SecretsLockedError) as error:
            raise LLMError(str(error), status=503) from None
        url = URL(f"{self._base_url}/{path}").with_query(query)
        try:
            async with asyncio.timeout(_DIAL_SECONDS):
                return await self._session.ws_connect(
                    url, headers=headers, heartbeat=_HEARTBEAT_SECONDS, max_msg_size=max_event_bytes
                )
        except WSServerHandshakeError as error:
            raise self._refused(error.status) from None
        except TimeoutError as error:
            raise LLMError(f"provider {self.name} did not answer in time", status=504) from error
        except (ClientError, OSError) as error:
            raise LLMError(f"provider {self.name} cannot be reached", status=502) from error

    def _refused(self, status: int) -> LLMError:
        """What the refusal of a WebSocket means to our caller, who has no part in the gateway's key."""
        logger.warning("a model provider refused a session", extra={"provider": self.name, "status": status})
        if status in {400, 404, 405, 429}:
            return LLMError(f"provider {self.name} refused the session (HTTP {status})", status=status)
        if status in {401, 403}:
            text = f"provider {self.name} refused the gateway's provider key (HTTP {status}); tell the operator"
            return LLMError(text, status=502)
        return LLMError(f"provider {self.name} gave no session (HTTP {status})", status=502)

    def _unreachable(self, error: Exception) -> web.Response:
        logger.warning("a model provider gave no answer", extra={"provider": self.name, "error": type(error).__name__})
        if isinstance(error, TimeoutError) and not isinstance(error, ConnectionTimeoutError):
            return error_response(504, f"provider {self.name} did not answer in time", type="upstream_timeout")
        return error_response(502, f"provider {self.name} cannot be reached", type="upstream_unavailable")

    def _with_model(self, body: bytes) -> bytes:
        if self._default_model is None or (found := json_object(body)) is None or found.get("model"):
            return body
        return json.dumps({**found, "model": self._default_model}).encode()


async def _stream(request: web.Request, upstream: ClientResponse, response: web.StreamResponse) -> None:
    await response.prepare(request)
    async for piece in upstream.content.iter_any():
        observe(piece)
        await response.write(piece)
    await response.write_eof()


def _cut(request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
    """Close the caller's connection in the middle of the body: after the headers, only that tells that it is incomplete."""
    if request.transport is not None:
        request.transport.close()
    return response


def _kept(headers: Iterable[tuple[str, str]], without: frozenset[str]) -> CIMultiDict[str]:
    return CIMultiDict(
        (name, value)
        for name, value in headers
        if name.lower() not in without and not name.lower().startswith("x-forwarded-")
    )


def _without_credentials(query: str) -> str:
    """The query string without parameters that carry credentials, such as the `token` that is meant for this server."""
    return "&".join(pair for pair in query.split("&") if not _CREDENTIAL.search(unquote_plus(pair.partition("=")[0])))


def _named_by_connection(values: Iterable[str]) -> frozenset[str]:
    return frozenset(name.strip().lower() for value in values for name in value.split(","))

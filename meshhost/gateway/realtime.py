"""Realtime sessions through the gateway: a WebSocket of a caller, relayed to a WebSocket of a provider.

`GET /rooms/{room}/v1/realtime?model=…` with an upgrade is OpenAI's Realtime API at the gateway's address, so a client of that
API works unchanged. The provider is dialled before the caller's upgrade: what fails is answered with an HTTP status, as in all
of the gateway. After that each event is passed on as it is, in its order, with one exception: an event that names an object
stored in the operator's account is answered with an `error` event. What usage the provider reports is counted as it passes.

Three tasks run per session, and the first to end ends the others: from caller to provider, from provider to caller, and one
that asks now and then whether the caller's token still opens this room, because a session may last an hour. Each side is read
only as fast as the other one takes it. One that takes nothing for `stall_seconds` ends the session.
"""

import asyncio
import contextlib
import json
import logging
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from aiohttp import ClientConnectionError, ClientWebSocketResponse, WSCloseCode, WSMsgType, web

from meshhost.errors import InvalidRequestError, LLMError, MeshhostError, QuotaExceededError
from meshhost.gateway.http import error_body, error_response, json_object
from meshhost.gateway.meter import Meter
from meshhost.gateway.operations import check_references, read_body
from meshhost.gateway.provider import Caller, Provider
from meshhost.gateway.tokens import Tokens, tokens_of
from meshhost.protocol.json_values import has_few_parts

__all__ = ["CheckCaller", "RealtimeLimits", "RealtimeProvider", "RealtimeSessions"]

logger = logging.getLogger(__name__)

# Raises what ends the session when the caller may not go on.
CheckCaller = Callable[[web.Request], Awaitable[object]]

# Of the provider's events: the longest that is usual has some hundred KiB of sound.
MAX_EVENT_BYTES = 4 * 1024 * 1024
_HEARTBEAT_SECONDS = 30.0
_MAX_MODEL = 128
# What is shorter is read in some milliseconds, whatever it is; longer events are sound or text, which have few parts.
_QUICK_BYTES = 128 * 1024
_MOST_PARTS = 50_000
_COUNTED = ('"response.done"', '"response.created"', "input_audio_transcription", '"session.')


@runtime_checkable
class RealtimeProvider(Provider, Protocol):
    """A provider with realtime sessions."""

    async def dial_realtime(self, model: str, caller: Caller, *, max_event_bytes: int) -> ClientWebSocketResponse:
        """Open a session, whose socket the caller of this closes.

        Raises LLMError with the HTTP status that the caller of the gateway gets.
        """
        ...


@dataclass(frozen=True, slots=True)
class RealtimeLimits:
    """Bounds of realtime sessions. `max_event_bytes` is of the events of callers; times are in seconds."""

    max_sessions: int = 1_000
    max_sessions_per_tenant: int = 200
    max_event_bytes: int = 1024 * 1024
    stall_seconds: float = 30.0
    check_seconds: float = 2.0


class RealtimeSessions:
    """Relays realtime sessions. `check` is asked every `check_seconds` of a session and raises when it must end."""

    def __init__(self, *, meter: Meter, check: CheckCaller, limits: RealtimeLimits | None = None) -> None:
        self._meter = meter
        self._check = check
        self._limits = limits or RealtimeLimits()
        self._counts: Counter[str] = Counter()
        self._open: set[web.WebSocketResponse] = set()

    async def close(self) -> None:
        """Tell all callers that the server goes away."""
        closing = [socket.close(code=WSCloseCode.GOING_AWAY, message=b"the server stops") for socket in self._open]
        await asyncio.gather(*closing, return_exceptions=True)

    async def handle(self, request: web.Request, provider: Provider, model: str, caller: Caller) -> web.StreamResponse:
        """Answer the request for a session with this model."""
        socket = web.WebSocketResponse(
            heartbeat=_HEARTBEAT_SECONDS,
            max_msg_size=self._limits.max_event_bytes,
            compress=False,
            protocols=("realtime",),
            timeout=5.0,
        )
        if not socket.can_prepare(request):
            return error_response(
                426, "realtime: expected a WebSocket", type="invalid_request_error", code="no_upgrade"
            )
        if not isinstance(provider, RealtimeProvider):
            text = f"provider {provider.name} has no realtime models"
            return error_response(404, text, type="invalid_request_error", code="unknown_path")
        with self._place(caller):
            try:
                upstream = await provider.dial_realtime(model, caller, max_event_bytes=MAX_EVENT_BYTES)
            except LLMError as error:
                return error_response(error.status or 502, str(error), type="upstream_unavailable")
            session = _Session(self._meter, self._limits, caller, model, socket, upstream)
            try:
                await socket.prepare(request)
                self._open.add(socket)
                await session.run(lambda: self._check(request))
            finally:
                self._open.discard(socket)
                await session.end()
        return socket

    @contextlib.contextmanager
    def _place(self, caller: Caller) -> Iterator[None]:
        """One of the tenant's places. Raises QuotaExceededError."""
        most = self._limits.max_sessions_per_tenant
        if self._counts[caller.tenant] >= most or self._counts.total() >= self._limits.max_sessions:
            text = f"realtime: a tenant may have {most} sessions at once"
            if self._counts[caller.tenant] < most:
                text = "realtime: the server has as many sessions as it may have"
            raise QuotaExceededError(text, quota="realtime_sessions", retry_after=5.0)
        self._counts[caller.tenant] += 1
        try:
            yield
        finally:
            self._counts[caller.tenant] -= 1
            if not self._counts[caller.tenant]:
                del self._counts[caller.tenant]


class _Ended(Exception):  # noqa: N818 - it is no error
    """The session is over; the caller is told this."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(slots=True)
class _Session:
    """One session: two sockets, and what was counted of it."""

    meter: Meter
    limits: RealtimeLimits
    caller: Caller
    model: str
    near: web.WebSocketResponse
    far: ClientWebSocketResponse
    _begun: dict[str, float] = field(default_factory=dict)
    _transcriber: str = "transcription"

    async def run(self, check: Callable[[], Awaitable[object]]) -> None:
        """Relay until one side has ended."""
        ended: _Ended | None = None
        try:
            async with asyncio.TaskGroup() as tasks:
                for part in (self._up(), self._down(), self._watch(check)):
                    tasks.create_task(part)
        except ExceptionGroup as group:
            ended = next((error for error in group.exceptions if isinstance(error, _Ended)), None)
            if ended is None:
                logger.warning("a realtime session failed", exc_info=group)
        ended = ended or _Ended(WSCloseCode.INTERNAL_ERROR, "the gateway failed")
        logger.info("realtime session ended", extra={"model": self.model, "reason": str(ended)})
        await self.near.close(code=ended.code, message=str(ended).encode()[:120])

    async def end(self) -> None:
        """Close the provider's side, and count answers that were cut off."""
        with contextlib.suppress(Exception):
            async with asyncio.timeout(5):
                await self.far.close()
        for response_id in list(self._begun):
            self._count_response(response_id, None)

    async def _up(self) -> None:
        while True:
            message = await self.near.receive()
            if message.type is WSMsgType.TEXT:
                refusal = await _refusal(message.data)
                if refusal is None:
                    await self._send(self.far, message.data, _Ended(1011, "the provider takes no more"))
                else:
                    await self._send(self.near, refusal, _Ended(1011, "the caller takes no more"))
            elif message.type is WSMsgType.BINARY:
                raise _Ended(WSCloseCode.UNSUPPORTED_DATA, "events are JSON texts")
            else:
                raise _Ended(WSCloseCode.OK, "the caller has left")

    async def _down(self) -> None:
        while True:
            message = await self.far.receive()
            if message.type is WSMsgType.TEXT:
                self._read(message.data)
                await self._send(self.near, message.data, _Ended(1011, "the caller takes no more"))
            elif message.type is not WSMsgType.BINARY:
                code = self.far.close_code or 0
                is_told = code in (1000, 1001) or 3000 <= code < 5000
                raise _Ended(code if is_told else 1011, "the provider ended the session")

    async def _send(self, socket: web.WebSocketResponse | ClientWebSocketResponse, text: str, slow: _Ended) -> None:
        try:
            async with asyncio.timeout(self.limits.stall_seconds):
                await socket.send_str(text)
        except TimeoutError:
            raise slow from None
        except (ConnectionError, ClientConnectionError, RuntimeError) as error:  # RuntimeError: it is closing
            raise _Ended(1011, "the connection was lost") from error

    async def _watch(self, check: Callable[[], Awaitable[object]]) -> None:
        while True:
            await asyncio.sleep(self.limits.check_seconds)
            try:
                await check()
            except QuotaExceededError:
                continue  # it sends too much elsewhere
            except MeshhostError as error:
                raise _Ended(WSCloseCode.POLICY_VIOLATION, str(error)) from None

    def _read(self, text: str) -> None:
        """Count what an event says of usage."""
        # Looked for as text first: most events are sound, and need not be parsed.
        if not any(name in text for name in _COUNTED) or (event := json_object(text.encode())) is None:
            return
        response = event.get("response")
        kind, response = event.get("type"), response if isinstance(response, dict) else {}
        if kind == "response.created":
            self._begun[str(response.get("id"))[:_MAX_MODEL]] = time.monotonic()
        elif kind == "response.done":
            self._count_response(str(response.get("id"))[:_MAX_MODEL], response.get("usage"))
        elif kind == "conversation.item.input_audio_transcription.completed":
            self._count_transcription(event.get("usage"))
        elif kind in ("session.created", "session.updated"):
            model = _within(event, "session", "audio", "input", "transcription", "model")
            self._transcriber = model[:_MAX_MODEL] if isinstance(model, str) else self._transcriber

    def _count_response(self, response_id: str, usage: Any) -> None:
        now = time.monotonic()
        tokens = tokens_of(usage) if isinstance(usage, dict) else None
        self.meter.count(self.caller, self.model, tokens, now - self._begun.pop(response_id, now))

    def _count_transcription(self, usage: Any) -> None:
        usage = usage if isinstance(usage, dict) else {}
        seconds = usage.get("seconds")
        is_time = usage.get("type") == "duration" and isinstance(seconds, int | float) and 0 <= seconds < 86_400
        tokens: Tokens | None = tokens_of(usage) if usage.get("type") == "tokens" else None
        self.meter.count(self.caller, self._transcriber, tokens, float(seconds) if is_time else 0.0)


async def _refusal(text: str) -> str | None:
    """The `error` event that answers an event which is not passed on; None for one that is."""
    raw = text.encode(errors="surrogatepass")
    try:
        await _check_parts(raw)
        check_references(read_body(raw), raw)
    except InvalidRequestError as error:
        body = error_body(str(error), type="invalid_request_error")["error"] | {"event_id": None}
        return json.dumps({"type": "error", "event_id": f"event_{uuid.uuid4().hex}", "error": body})
    return None


async def _check_parts(raw: bytes) -> None:
    # Before it is read: an event of a million parts would hold up all other sessions.
    if len(raw) > _QUICK_BYTES and not await asyncio.to_thread(has_few_parts, raw, most=_MOST_PARTS):
        raise InvalidRequestError("event", f"expected at most {_MOST_PARTS:,} texts, lists and members")


def _within(value: Any, *names: str) -> Any:
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value

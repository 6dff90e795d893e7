"""What a model provider is, and how one is picked by the requested model."""

import asyncio
import contextlib
import json
import logging
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol

from aiohttp import web

from meshhost.clock import Clock, SystemClock
from meshhost.errors import InvalidRequestError, NotFoundError, SettingsError
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.tasks import TaskOwner

__all__ = [
    "MAX_BODY_BYTES",
    "Caller",
    "Provider",
    "ProviderTable",
    "check_path",
    "ends_with_caller",
    "error_body",
    "error_response",
    "json_object",
    "observe",
    "observed",
]

logger = logging.getLogger(__name__)

MAX_BODY_BYTES = 32 * 1024 * 1024
_PATH = re.compile(r"[A-Za-z0-9_~:@.-]+(?:/[A-Za-z0-9_~:@.-]+)*")


def _nobody(data: bytes) -> None:
    """Nobody observes."""


_observer: ContextVar[Callable[[bytes], None]] = ContextVar("meshhost_gateway_observer", default=_nobody)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: the participant `identity` in a tenant's room."""

    tenant: TenantId
    room: RoomKey
    identity: str


class Provider(Protocol):
    """A way to models. `handle` answers any request below /v1; `path` is what follows `/v1/`, without a leading slash."""

    name: str

    async def start(self) -> None:
        """Make ready. Raises SettingsError when that cannot work with these settings."""
        ...

    async def stop(self) -> None:
        """Give everything back; may be called without a start."""
        ...

    async def models(self) -> list[str]:
        """The names of the models offered. Raises LLMError when they cannot be known now."""
        ...

    async def handle(self, request: web.Request, path: str, caller: Caller) -> web.StreamResponse:
        """Answer the request. Failures are OpenAI error bodies, not exceptions; streamed bytes are shown to `observe`."""
        ...


class ProviderTable:
    """Providers by model pattern: an exact name, a prefix `gpt-*` (the longest wins), or `*` for all others.

    A provider is started when it is first picked; a start that failed is tried again at the next pick. `extra_operations` are
    paths that callers may POST to besides those of every gateway (`operations.py`), such as `operations.AUDIO`.
    """

    def __init__(self, providers: Mapping[str, Provider], *, extra_operations: frozenset[str] = frozenset()) -> None:
        self.extra_operations = extra_operations
        for pattern in providers:
            if not pattern or "*" in pattern[:-1]:
                raise SettingsError(
                    f"model pattern {pattern!r}: expected a model name, a prefix with '*' at its end, or '*'"
                )
        self._providers = dict(providers)
        self._prefixes = sorted((p[:-1] for p in self._providers if p.endswith("*")), key=len, reverse=True)
        self._started: dict[int, Provider] = {}
        self._lock = asyncio.Lock()

    async def pick(self, model: str) -> Provider:
        """The started provider for `model` ("" asks for the default). Raises NotFoundError, and what its start raises."""
        provider = self._find(model)
        await self._start(provider)
        return provider

    async def models(self) -> list[str]:
        """The sorted names of all providers' models; a provider that fails is left out and logged."""
        found: set[str] = set()
        for provider in self._unique():
            try:
                await self._start(provider)
                found.update(await provider.models())
            except Exception as error:
                logger.warning(
                    "a provider could not list its models", extra={"provider": provider.name}, exc_info=error
                )
        return sorted(found)

    async def stop(self) -> None:
        """Stop all that were started, each also when another fails."""
        async with self._lock:
            started, self._started = list(self._started.values()), {}
            for provider in started:
                try:
                    await provider.stop()
                except Exception as error:
                    logger.warning("a provider did not stop", extra={"provider": provider.name}, exc_info=error)

    def _find(self, model: str) -> Provider:
        if (exact := self._providers.get(model)) is not None:
            return exact
        for prefix in self._prefixes:
            if model.startswith(prefix):
                return self._providers[f"{prefix}*"]
        raise NotFoundError(f"no provider for model {model[:128]!r}")

    async def _start(self, provider: Provider) -> None:
        async with self._lock:
            if id(provider) not in self._started:
                await provider.start()
                self._started[id(provider)] = provider

    def _unique(self) -> list[Provider]:
        return list({id(provider): provider for provider in self._providers.values()}.values())


def check_path(path: str) -> str:
    """Return `path` when it is plain segments of safe characters, else raise InvalidRequestError."""
    if _PATH.fullmatch(path) is None or any(segment in {".", ".."} for segment in path.split("/")):
        raise InvalidRequestError("path", "expected segments of letters, digits and _~:@.- without '..'")
    return path


def json_object(body: bytes) -> dict[str, Any] | None:
    """The JSON object in `body`, or None when it is something else."""
    with contextlib.suppress(ValueError, RecursionError):
        found = json.loads(body)
        if isinstance(found, dict):
            return found
    return None


def error_body(message: str, *, type: str, code: str | None = None) -> dict[str, Any]:
    """An error in OpenAI's form."""
    return {"error": {"message": message, "type": type, "code": code or type, "param": None}}


def error_response(
    status: int,
    message: str,
    *,
    type: str,
    code: str | None = None,
    retry_after: float | None = None,
) -> web.Response:
    """An HTTP answer with an error in OpenAI's form; `retry_after` in seconds."""
    headers = {} if retry_after is None else {"Retry-After": str(max(1, round(retry_after)))}
    return web.json_response(error_body(message, type=type, code=code), status=status, headers=headers)


@contextlib.contextmanager
def observed(feed: Callable[[bytes], None]) -> Iterator[None]:
    """Inside, in this task and those it starts, `feed` sees the bytes that providers stream to callers."""
    token = _observer.set(feed)
    try:
        yield
    finally:
        _observer.reset(token)


def observe(data: bytes) -> None:
    """For providers: show a piece of a streamed answer to whoever observes."""
    _observer.get()(data)


@contextlib.asynccontextmanager
async def ends_with_caller(
    request: web.Request, *, every: float = 0.25, clock: Clock | None = None
) -> AsyncIterator[None]:
    """Cancel the block when the caller's connection is gone, looking each `every` seconds; then raise ConnectionResetError.

    aiohttp does not cancel a handler then unless its runner is told to, and a silent upstream gives no write to fail.
    """
    watchers = TaskOwner("gateway caller")
    scope = asyncio.timeout(None)
    try:
        async with scope:
            watchers.spawn(_watch(request, scope, every, clock or SystemClock()), name="watch")
            yield
    except TimeoutError:
        if scope.expired():
            raise ConnectionResetError("the caller is gone") from None
        raise
    finally:
        await watchers.stop()


async def _watch(request: web.Request, scope: asyncio.Timeout, every: float, clock: Clock) -> None:
    while request.transport is not None and not request.transport.is_closing():
        await clock.sleep(every)
    scope.reschedule(asyncio.get_running_loop().time())

"""What a model provider is (`Provider`), and how one is picked by the requested model (`ProviderTable`).

A provider answers HTTP requests below `/v1` on its own: it forwards them (`providers/`) or generates the answer (`local/`).
`meshhost.app.embedded` makes the table from the configuration; `routes.py` picks from it; the table starts a provider at
its first use and stops it with the server.

To add a provider: a module in `providers/` with a class that has these members, and an entry for its kind in
`meshhost.app.config_file` and `meshhost.app.embedded`.
"""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from aiohttp import web

from meshhost.errors import MeshhostError, NotFoundError
from meshhost.gateway.patterns import ModelPatterns
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.logs import describe_error

__all__ = ["Caller", "Provider", "ProviderTable"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a request: the participant `identity` in a tenant's room."""

    tenant: TenantId
    room: RoomKey
    identity: str


class Provider(Protocol):
    """A source of models. Safe to call concurrently."""

    name: str

    async def start(self) -> None:
        """Get ready for requests. Raises SettingsError when that is impossible with these settings."""
        ...

    async def stop(self) -> None:
        """Release all resources. Idempotent; may be called without a start."""
        ...

    async def models(self) -> list[str]:
        """Return the names of the offered models. Raises LLMError when they cannot be known now."""
        ...

    async def handle(self, request: web.Request, path: str, caller: Caller) -> web.StreamResponse:
        """Answer any request below `/v1`; `path` is what follows `/v1/`.

        Failures are answered with error bodies in OpenAI's form, not raised. Streamed bytes are passed to `http.observe`.
        """
        ...


class ProviderTable:
    """Providers by model pattern (`ModelPatterns`).

    A provider is started when it is first picked; a failed start is tried again at the next pick. `extra_operations` are paths
    that callers may POST to besides those of every gateway (`operations.py`), such as `operations.AUDIO`.
    """

    def __init__(self, providers: Mapping[str, Provider], *, extra_operations: frozenset[str] = frozenset()) -> None:
        self.extra_operations = extra_operations
        self._providers = dict(providers)
        self._patterns = ModelPatterns(self._providers)
        self._started: dict[int, Provider] = {}
        # Why providers could not list their models when they were last asked.
        self._unlisted: dict[int, str] = {}
        self._lock = asyncio.Lock()

    async def pick(self, model: str) -> Provider:
        """Return the started provider for `model` ("" for the default). Raises NotFoundError, and what its start raises."""
        provider = self.find(model)
        await self._start(provider)
        return provider

    async def models(self) -> list[str]:
        """Return the sorted names of all providers' models; a provider that fails is left out, and logged when that is new."""
        found: set[str] = set()
        for provider in self._unique():
            try:
                await self._start(provider)
                found.update(await provider.models())
            except Exception as error:  # noqa: BLE001 - logged there
                self._log_unlisted(provider, error)
            else:
                self._unlisted.pop(id(provider), None)
        return sorted(found)

    async def stop(self) -> None:
        """Stop all started providers; a failure of one is logged and does not keep the others running."""
        async with self._lock:
            started, self._started = list(self._started.values()), {}
            for provider in started:
                try:
                    await provider.stop()
                except Exception as error:
                    logger.warning("a provider did not stop", extra={"provider": provider.name}, exc_info=error)

    def find(self, model: str) -> Provider:
        """The provider of this model, started or not. Raises NotFoundError."""
        if (found := self._patterns.find(model)) is None:
            raise NotFoundError(f"no provider for model {model[:128]!r}")
        return found

    async def _start(self, provider: Provider) -> None:
        async with self._lock:
            if id(provider) not in self._started:
                await provider.start()
                self._started[id(provider)] = provider

    def _log_unlisted(self, provider: Provider, error: Exception) -> None:
        """Log a failure once: agents and hosts ask often, and a server without a model is set up so."""
        text = describe_error(error)
        if self._unlisted.get(id(provider)) == text:
            return
        self._unlisted[id(provider)] = text
        # What is raised on purpose says what to do; only anything else needs its traceback.
        is_known = isinstance(error, MeshhostError | OSError)
        logger.warning(
            "a provider could not list its models",
            extra={"provider": provider.name, "error": text},
            exc_info=None if is_known else error,
        )

    def _unique(self) -> list[Provider]:
        return list({id(provider): provider for provider in self._providers.values()}.values())

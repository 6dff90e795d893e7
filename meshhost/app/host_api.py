"""What a service host says about itself over HTTP: the paths it serves, and whether it is ready.

Used by `service_runner` for the program that it has started. The host is another process, so all waiting here is polling.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

from meshhost.errors import SettingsError
from meshhost.hosting.calls.specs import WELL_KNOWN_PATHS, drain_seconds_of
from meshhost.identity.grants import ApiScope

__all__ = ["POLL_SECONDS", "Endpoint", "HostApi", "endpoints_of", "get_json"]

POLL_SECONDS = 0.05

_REQUEST_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A path that a host serves, and the identity and rights that its agents take part with."""

    path: str
    identity: str
    scope: ApiScope


class HostApi:
    """The service host at this URL, which may not be up yet."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self.url = url
        self._session = session

    async def described(self) -> tuple[list[Endpoint], float | None]:
        """Wait until the host describes itself; return its endpoints, and the seconds it may take to drain, if it says so.

        May wait forever. Raises SettingsError for a description that cannot be used.
        """
        url = self.url + WELL_KNOWN_PATHS[0]
        while (description := await get_json(self._session, url)) is None:  # noqa: ASYNC110 - another process
            await asyncio.sleep(POLL_SECONDS)
        return endpoints_of(description), drain_seconds_of(description)

    async def missing(self) -> list[str]:
        """Return what the host still waits for before it starts agents; empty when it waits for nothing or does not say."""
        return await self._reasons("missing")

    async def not_ready(self) -> list[str]:
        """Return why the host is not ready; empty when it is ready or does not say."""
        return await self._reasons("reasons")

    async def _reasons(self, member: str) -> list[str]:
        answer = await get_json(self._session, f"{self.url}/readyz", statuses=(200, 503))
        reasons = answer.get(member) if isinstance(answer, dict) else None
        return [str(reason) for reason in reasons] if isinstance(reasons, list) else []


async def get_json(
    session: aiohttp.ClientSession, url: str, headers: dict[str, str] | None = None, *, statuses: Sequence[int] = (200,)
) -> Any:
    """Return the JSON that a GET is answered with; None for another status, an answer that is not JSON, or no answer."""
    with contextlib.suppress(aiohttp.ClientError, OSError, ValueError, TimeoutError):
        timeout = aiohttp.ClientTimeout(total=_REQUEST_SECONDS)
        async with session.get(url, headers=headers, timeout=timeout) as response:
            if response.status in statuses:
                return await response.json()
    return None


def endpoints_of(description: Any) -> list[Endpoint]:
    """Return the endpoints in a service description. Raises SettingsError when it has none or cannot be read."""
    try:
        found = [
            Endpoint(
                path=endpoint["path"],
                identity=endpoint["meshagent"]["identity"],
                scope=_scope(endpoint["meshagent"]["api"]),
            )
            for port in description["ports"]
            for endpoint in port["endpoints"]
            if endpoint["meshagent"] is not None
        ]
    except (KeyError, TypeError, ValueError):
        raise SettingsError("the service description of the program is not one that meshhost can read") from None
    if not found:
        raise SettingsError("the program binds no path: decorate an agent class with @host.path(…)")
    return found


def _scope(described: Any) -> ApiScope:
    return ApiScope.agent_default() if described is None else ApiScope.model_validate(described)

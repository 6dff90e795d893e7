"""Service hosts, as their operator sees them from a room server: `/hosts`.

A service host is another process, with an API of its own for who has its admin key. A browser that is signed in at a room
server cannot ask it: it is another origin, and the key must not get into a page. So the room server asks in the operator's
name. It knows the hosts of its configured services, and those that `meshhost service run` of the same user started on this
machine; no other address is ever dialed. It shows the key of MESHHOST_ADMIN_KEY, which is then the same for all hosts; a host
without a key serves programs of its own machine. Only what the admin API of a host has is passed on (`_PASSED`).
"""

import asyncio
import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import aiohttp
from aiohttp import web
from yarl import URL

from meshhost.edge.bodies import read_body
from meshhost.errors import NotFoundError
from meshhost.server.calling.records import is_linked
from meshhost.server.config import ConfiguredService
from meshhost.server.fresh import Fresh
from meshhost.server.http.access import Access
from meshhost.server.studio.json_answers import json_object_of

__all__ = ["Hosts"]

_FRESH_SECONDS = 3.0
_LOOK_SECONDS = 3.0
_SECONDS = 15.0
_MAX_ANSWER = 8 * 1024 * 1024
_MAX_BODY = 64 * 1024
_NAME = r"[^/]{1,200}"
_PASSED = [
    (method, re.compile(path))
    for method, path in (
        ("GET", "agents|agents/logs|tenants"),
        ("GET", f"agents/{_NAME}"),
        ("DELETE", f"agents/{_NAME}"),
        ("POST", f"tenants/{_NAME}/(freeze|thaw)"),
        ("POST", "quarantine/release|drain"),
    )
]


@dataclass(frozen=True, slots=True)
class _Host:
    """A host that is known: its address, and the rooms that its agents are called into."""

    url: str
    rooms: str
    is_local: bool

    @property
    def id(self) -> str:
        """Names the host in addresses."""
        return hashlib.sha256(self.url.encode()).hexdigest()[:12]


class Hosts:
    """Serves `/hosts`; used as a context manager, which holds its HTTP client.

    `services` returns the configured services as they are now, `local` the hosts on this machine: their URLs, with the room
    that each was run for.
    """

    def __init__(
        self,
        access: Access,
        *,
        services: Callable[[], Iterable[ConfiguredService]],
        local: Callable[[], Mapping[str, str]],
        admin_key: str | None,
    ) -> None:
        self._access = access
        self._services = services
        self._local = local
        self._headers = {} if admin_key is None else {"Authorization": f"Bearer {admin_key}"}
        self._session: aiohttp.ClientSession | None = None
        self._fresh: Fresh[None, list[dict[str, Any]]] = Fresh(self._looked_at, seconds=_FRESH_SECONDS)

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(headers=self._headers, cookie_jar=aiohttp.DummyCookieJar())
        return self

    async def __aexit__(self, *_: object) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def add_to(self, app: web.Application) -> None:
        """Register the routes."""
        path = "/hosts/{host}/{path:.+}"
        app.add_routes(
            [
                web.get("/hosts", self._list),
                web.get(path, self._pass_on),
                web.post(path, self._pass_on),
                web.delete(path, self._pass_on),
            ]
        )

    async def _list(self, request: web.Request) -> web.Response:
        self._access.check_operator(request)
        return web.json_response({"hosts": (await self._fresh.of(None)).value})

    async def _pass_on(self, request: web.Request) -> web.Response:
        self._access.check_operator(request)
        host = {host.id: host for host in await self._known()}.get(request.match_info["host"])
        path = request.match_info["path"]
        if host is None:
            raise NotFoundError("no such host: see GET /hosts")
        if not any(request.method == method and passed.fullmatch(path) for method, passed in _PASSED):
            raise NotFoundError("the admin API of a host has no such route")
        body = await read_body(request, most_bytes=_MAX_BODY) if request.can_read_body else b""
        # As it was sent: the names in a path are quoted.
        raw = request.rel_url.raw_path.split("/", 3)[3]
        url = f"{host.url}/{raw}"
        try:
            status, answer = await self._ask(request.method, url, dict(request.query), body, seconds=_SECONDS)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return web.json_response({"error": f"the host cannot be reached: {_reason(error)}"}, status=502)
        # 401 is about our key and not about who asks: their session goes on.
        return web.json_response(answer, status=502 if status == 401 else status)

    async def _known(self) -> list[_Host]:
        configured = [
            _Host(url.rstrip("/"), each.rooms, False)
            for each in self._services()
            for url in each.all_urls
            if not is_linked(url)
        ]
        local = await asyncio.to_thread(self._local)
        hosts = [*configured, *(_Host(url.rstrip("/"), room, True) for url, room in local.items())]
        return list({host.id: host for host in reversed(hosts)}.values())[::-1]

    async def _looked_at(self, _: None) -> list[dict[str, Any]]:
        return list(await asyncio.gather(*(self._look(host) for host in await self._known())))

    async def _look(self, host: _Host) -> dict[str, Any]:
        """What a host says of itself, or why it says nothing."""
        shown: dict[str, Any] = {"id": host.id, "url": _shown(host.url), "rooms": host.rooms, "local": host.is_local}
        shown |= {"reachable": False, "ready": None, "reasons": [], "error": None, "tenants": [], "load": None}
        try:
            status, ready = await self._ask("GET", f"{host.url}/readyz", {}, b"", seconds=_LOOK_SECONDS)
            shown |= {"reachable": True, "ready": status == 200, "reasons": ready.get("reasons", [])}
            status, tenants = await self._ask("GET", f"{host.url}/tenants", {}, b"", seconds=_LOOK_SECONDS)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return {**shown, "error": _reason(error)}
        if status != 200:
            return {**shown, "error": str(tenants.get("error", f"it answered {status}"))[:500]}
        return {**shown, "tenants": tenants.get("tenants", []), "load": tenants.get("load")}

    async def _ask(
        self, method: str, url: str, query: Mapping[str, str], body: bytes, *, seconds: float
    ) -> tuple[int, dict[str, Any]]:
        """Status and answer; 502 for one that is no answer of a service host. Raises what the HTTP client raises."""
        if self._session is None:
            raise RuntimeError("the hosts are asked inside of the context manager only")
        headers = {"Content-Type": "application/json"} if body else {}
        # One way to prove who asks: HTTP has one header for both.
        url = _shown(url) if self._headers else url
        # No redirects: the key is for this host, and must not be sent to another one that it names.
        async with self._session.request(
            method,
            URL(url, encoded=True).update_query(query),
            data=body or None,
            headers=headers,
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=seconds),
        ) as response:
            answer = await json_object_of(response, most=_MAX_ANSWER)
        if answer is None:
            return 502, {"error": "the host did not answer with a JSON object: is it a service host?"}
        return response.status, answer


def _shown(url: str) -> str:
    """The address without user and password."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


def _reason(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    cause = getattr(error, "os_error", error)
    return str(getattr(cause, "strerror", None) or type(error).__name__)

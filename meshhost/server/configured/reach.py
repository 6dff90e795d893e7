"""Which addresses a tenant may let this server call: services and webhooks that tenants configured by themselves.

The server must not become a way into the operator's network. So a tenant's URL is called when it is below one of the operator's
`call_urls`, or when its host is on the public internet; the addresses are checked where the connection is made, so that a name
which resolves to another address a moment later gains nothing. A server that only its own machine reaches (a developer's) may
also call that machine: who can ask it for that can do so without it.

A tenant whose hosts do not answer holds up nobody else: it has a number of calls at once, and names are resolved in threads
that are for nothing else.

Used as a context manager, which holds two HTTP clients: one for what the operator listed, and the one that checks addresses.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, Self
from weakref import WeakValueDictionary

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from meshhost.errors import CallRefusedError, InvalidRequestError
from meshhost.identity.tenant import TenantId
from meshhost.loopback import is_loopback
from meshhost.server.calling.call_urls import CallUrls, parsed_call_url
from meshhost.server.calling.webhooks import WebhookSender
from meshhost.tools.fetch import GuardedResolver, IPAddress, check_url, is_public

__all__ = ["TenantReach"]

_EXPECTED = (
    "expected an http or https URL on the public internet; others are listed by the operator, "
    "as call_urls of [server] in meshhost.toml"
)
# Calls of one tenant at once; more wait for one to end, which each does within `calling.webhooks.TIMEOUT`.
MOST_AT_ONCE = 16
# A name that no server answers for takes a thread for up to half a minute.
_THREADS = 64


class TenantReach:
    """Sends to the URLs of tenants. `call_urls` are the operator's prefixes; `host` is what the server listens on, None if
    others than this machine reach it, too.
    """

    def __init__(self, call_urls: Sequence[str], *, host: str | None, sender: WebhookSender) -> None:
        self._listed = CallUrls(call_urls)
        self._may_call_itself = host is not None and is_loopback(host)
        self._trusted = sender
        self._resolver = GuardedResolver(_OwnThreads(), is_allowed=self._is_allowed)
        self._guarded = WebhookSender(connector=self._connector)
        self._turns: WeakValueDictionary[TenantId, asyncio.Semaphore] = WeakValueDictionary()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self._stack.push_async_callback(self._resolver.close)
        await self._stack.enter_async_context(self._guarded)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def check(self, field: str, url: str) -> str:
        """Return the URL as it is called. Raises InvalidRequestError for one that cannot be; names are resolved at the call."""
        if self._listed.allowed(url) is None and not self._may_be_public(url):
            raise InvalidRequestError(field, _EXPECTED)
        return url

    async def send(
        self, url: str, event: str, data: Mapping[str, Any], *, secret: str | None, tenant: TenantId
    ) -> dict[str, Any]:
        """Post as WebhookSender does, when it is the tenant's turn.

        Raises CallRefusedError, also for an address that may not be called (status 403).
        """
        turn = self._turns.setdefault(tenant, asyncio.Semaphore(MOST_AT_ONCE))
        try:
            self.check("url", url)
            sender = self._guarded if self._listed.allowed(url) is None else self._trusted
            async with turn:
                return await sender.send(url, event, data, secret=secret)
        except InvalidRequestError as error:
            raise CallRefusedError(str(error), status=403) from None

    def _may_be_public(self, url: str) -> bool:
        parsed = parsed_call_url(url)
        if parsed is None:
            return False
        if self._may_call_itself and parsed.host == "localhost":
            return True
        try:
            check_url(parsed, is_allowed=self._is_allowed)
        except InvalidRequestError:
            return False
        return parsed.host != "localhost"

    def _connector(self) -> aiohttp.TCPConnector:
        # No limit of all tenants together, which one of them could use up: each has its own.
        return aiohttp.TCPConnector(resolver=self._resolver, use_dns_cache=False, limit=0)

    def _is_allowed(self, address: IPAddress) -> bool:
        if self._may_call_itself and ipaddress.ip_address(address).is_loopback:
            return True
        return is_public(address)


class _OwnThreads(AbstractResolver):
    """Resolves names as the system does. Names that nobody answers for must not take the threads that files are read in."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="names of tenants")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        ask = partial(socket.getaddrinfo, host, port, family, socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
        found = await asyncio.get_running_loop().run_in_executor(self._threads, ask)
        flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        return [
            ResolveResult(hostname=host, host=str(at[0]), port=int(at[1]), family=kind, proto=protocol, flags=flags)
            for kind, _, protocol, _, at in found
        ]

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

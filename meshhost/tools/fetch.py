"""Downloads a file from the public internet for a participant or a model, without letting the URL reach our own network (SSRF).

The check of the address sits in the resolver, so the checked address is the one connected to: a name that resolves
differently a moment later (DNS rebinding) gains nothing. Redirects are followed here, each checked again. Size, time and
the number of redirects are bounded. Used by `SaveFileFromUrlTool`.
"""

import asyncio
import ipaddress
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from meshhost.errors import InvalidRequestError, LimitExceededError, RequestTimeoutError, ToolError

__all__ = ["FetchStatusError", "Fetched", "GuardedResolver", "check_url", "fetch", "is_public"]

IPAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
AddressCheck: TypeAlias = Callable[[IPAddress], bool]

MAX_REDIRECTS = 5
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
# Forms of an IPv4 address that inet_aton accepts although ipaddress does not: 127.1, 0x7f000001, 0177.0.0.1
_NUMERIC = re.compile(r"(\d+|0[xX][0-9a-fA-F]*)(\.(\d+|0[xX][0-9a-fA-F]*))*\.?")
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


@dataclass(frozen=True, slots=True)
class Fetched:
    """A downloaded file: its bytes, its MIME type without parameters, and the address that redirects led to."""

    data: bytes
    mime_type: str
    url: str = ""
    charset: str | None = None


class FetchStatusError(ToolError):
    """The other server answered with this HTTP status instead of a file."""

    def __init__(self, status: int) -> None:
        super().__init__(f"the address answered with status {status}")
        self.status = status


def is_public(address: IPAddress) -> bool:
    """Whether the address is on the public internet. An IPv6 address that embeds an IPv4 address counts as that."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = _embedded_ipv4(address)
        if inner is not None:
            return is_public(inner)
    return address.is_global and not address.is_multicast


def _embedded_ipv4(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    if int(address) >> 32 == 0 and int(address) > 1:  # the "compatible" addresses of old, such as ::127.0.0.1
        return ipaddress.IPv4Address(int(address))
    return address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)


def check_url(url: str | URL, *, is_allowed: AddressCheck = is_public) -> URL:
    """Return the URL if it is http(s) and its host is no forbidden address. Raises InvalidRequestError."""
    try:
        parsed = URL(url)
        host = parsed.host  # decoded here, which fails for some names that begin with xn--
    except (ValueError, TypeError):
        raise InvalidRequestError("url", "is not a URL") from None
    if parsed.scheme not in {"http", "https"} or not host:
        raise InvalidRequestError("url", "must be an http or https address")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        if _NUMERIC.fullmatch(host):
            raise InvalidRequestError("url", "the host is an address in an unusual form") from None
    else:
        _require(address, is_allowed)
    return parsed


def _require(address: IPAddress, is_allowed: AddressCheck) -> None:
    if not is_allowed(address):
        raise InvalidRequestError("url", "the host is not on the public internet")


class GuardedResolver(AbstractResolver):
    """Resolves with `inner` and refuses a name any of whose addresses is not allowed (InvalidRequestError)."""

    def __init__(self, inner: AbstractResolver, *, is_allowed: AddressCheck = is_public) -> None:
        self._inner = inner
        self._is_allowed = is_allowed

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return the addresses of the host."""
        found = await self._inner.resolve(host, port, family)
        for entry in found:
            _require(ipaddress.ip_address(entry["host"]), self._is_allowed)
        return found

    async def close(self) -> None:
        """Close the inner resolver."""
        await self._inner.close()


async def fetch(
    url: str, *, limit: int, timeout: float, is_allowed: AddressCheck = is_public, user_agent: str | None = None
) -> Fetched:
    """GET the URL: at most `limit` bytes, `timeout` seconds and 5 redirects.

    Raises InvalidRequestError for an address that is not allowed, LimitExceededError, RequestTimeoutError, and ToolError when
    the other server fails.
    """
    try:
        async with asyncio.timeout(timeout), _session(is_allowed, user_agent) as session:
            return await _follow(session, check_url(url, is_allowed=is_allowed), limit, is_allowed)
    except TimeoutError:
        raise RequestTimeoutError(f"the file did not arrive within {timeout:g} s") from None
    except (aiohttp.ClientError, ValueError) as error:
        raise ToolError(f"the file could not be fetched: {type(error).__name__}") from None


def _session(is_allowed: AddressCheck, user_agent: str | None) -> aiohttp.ClientSession:
    resolver = GuardedResolver(aiohttp.ThreadedResolver(), is_allowed=is_allowed)
    # No proxy, which would resolve the name again without our check, and no cookies.
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(resolver=resolver, use_dns_cache=False),
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        headers=None if user_agent is None else {"User-Agent": user_agent},
    )


async def _follow(session: aiohttp.ClientSession, url: URL, limit: int, is_allowed: AddressCheck) -> Fetched:
    for _ in range(MAX_REDIRECTS + 1):
        async with session.get(url, allow_redirects=False) as response:
            target = response.headers.get("Location")
            if response.status not in _REDIRECTS or not target:
                return await _read(response, limit)
        url = check_url(url.join(URL(target)), is_allowed=is_allowed)
    raise ToolError(f"the address redirects more than {MAX_REDIRECTS} times")


async def _read(response: aiohttp.ClientResponse, limit: int) -> Fetched:
    if response.status != 200:
        raise FetchStatusError(response.status)
    too_large = LimitExceededError(f"the file is larger than {limit} bytes")
    if (response.content_length or 0) > limit:
        raise too_large
    data = bytearray()
    async for chunk in response.content.iter_chunked(65536):
        data += chunk
        if len(data) > limit:
            raise too_large
    return Fetched(bytes(data), response.content_type, str(response.url), response.charset)

"""Reads the parts of a REST request: a JSON object, a form, texts, numbers. What is wrong is named by an InvalidRequestError.

Bodies are read as bytes: which encoding a request claims for its text is up to its sender, and need not be one that exists.
"""

import asyncio
import json
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qsl

from aiohttp import web

from meshhost.edge.bodies import MAX_BODY_BYTES, read_body
from meshhost.errors import InvalidRequestError, QuotaExceededError, TooLargeError
from meshhost.protocol.json_values import has_few_parts
from meshhost.quotas.in_flight import Account, InFlight
from meshhost.triggers.incoming import is_readable

__all__ = [
    "UNKNOWN_SENDER_BYTES",
    "BodyReader",
    "BodyTooLargeError",
    "form_of",
    "json_object",
    "query_number",
    "reserve_room",
    "text_of",
    "time_of",
]

UNKNOWN_SENDER_BYTES = 16 * 1024
"""What is read of who has shown no credential yet: it is in the body."""

# What is shorter is read in some milliseconds, whatever it is.
_QUICK_BYTES = 128 * 1024
_FEW_PARTS = 100_000
_MAX_DIGITS = 15
_PIECE = 64 * 1024
_MAX_FIELDS = 100
_ROOM_SECONDS = 10.0


class BodyTooLargeError(TooLargeError):
    """The body of a request is larger than its route takes."""


class BodyReader:
    """Reads bodies of at most `most_bytes`, and counts them as bytes in flight of their tenant.

    Each has `seconds` to arrive, and another one for every `bytes_per_second` of it.
    """

    def __init__(
        self, in_flight: InFlight, *, most_bytes: int, seconds: float = 30.0, bytes_per_second: float = math.inf
    ) -> None:
        self._bytes_per_second = bytes_per_second
        self._in_flight = in_flight
        self._most_bytes = most_bytes
        self._seconds = seconds

    @asynccontextmanager
    async def body_of(self, request: web.Request, tenant: str, head: bytes = b"") -> AsyncIterator[bytes]:
        """The body, held until the block ends. While others hold too much, nothing of it is read but the `head` that was.

        Raises BodyTooLargeError, QuotaExceededError without room, InvalidRequestError when it does not arrive in time.
        """
        account = self._in_flight.account(tenant, max_bytes=self._most_bytes)
        try:
            seconds = self._seconds + (request.content_length or self._most_bytes) / self._bytes_per_second
            try:
                async with asyncio.timeout(seconds):
                    body = await self._read(request, account, head)
            except TimeoutError:
                raise InvalidRequestError("body", f"expected it within {seconds:.0f} s") from None
            yield body
        finally:
            account.close()

    async def head_of(self, request: web.Request) -> bytes:
        """The first bytes of a body; none of an empty one. Raises InvalidRequestError when they do not arrive in time."""
        try:
            async with asyncio.timeout(self._seconds):
                return await request.content.readany()
        except TimeoutError:
            raise InvalidRequestError("body", f"expected it within {self._seconds:.0f} s") from None

    async def pass_on(
        self, request: web.Request, tenant: str, add: Callable[[bytes], Awaitable[None]], head: bytes
    ) -> None:
        """Pass the body on in pieces, after its `head`: only one is in memory. Raises as `body_of`, and what `add` raises."""
        account = self._in_flight.account(tenant, max_bytes=2 * _PIECE)
        seconds = self._seconds + (request.content_length or self._most_bytes) / self._bytes_per_second
        try:
            async with asyncio.timeout(seconds):
                await reserve_room(account, _PIECE)
                await add(head)
                async for piece in request.content.iter_chunked(_PIECE):
                    await add(piece)
        except TimeoutError:
            raise InvalidRequestError("body", f"expected it within {seconds:.0f} s") from None
        finally:
            account.close()

    @asynccontextmanager
    async def readable_body_of(self, request: web.Request, tenant: str, head: bytes = b"") -> AsyncIterator[bytes]:
        """As `body_of`, for who reads all of the body at once. Raises BodyTooLargeError for one with too many parts."""
        async with self.body_of(request, tenant, head) as body:
            if len(body) > _QUICK_BYTES and not await asyncio.to_thread(is_readable, request.headers, body):
                raise BodyTooLargeError("the body has too many parts: send less at once")
            yield body

    @asynccontextmanager
    async def held(self, request: web.Request, tenant: str, most_bytes: int) -> AsyncIterator[web.Request]:
        """The request with its body read, held until the block ends: for handlers that read requests themselves.

        A body that does not say how long it is takes the room of `most_bytes` until it is there. Raises BodyTooLargeError,
        QuotaExceededError without room.
        """
        account = self._in_flight.account(tenant, max_bytes=most_bytes)
        error = BodyTooLargeError(f"the body is too large: at most {most_bytes} bytes are taken")
        size = request.content_length
        if size is None:
            size = account.most if request.can_read_body else 0
        try:
            if size > most_bytes:
                raise error
            await reserve_room(account, size)
            whole = request.clone(client_max_size=most_bytes)
            try:
                body = await whole.read()
            except web.HTTPRequestEntityTooLarge:
                raise error from None
            account.give_back(size - len(body))
            yield whole
        finally:
            account.close()

    async def _read(self, request: web.Request, account: Account, head: bytes) -> bytes:
        error = BodyTooLargeError(f"the body is too large: at most {self._most_bytes} bytes are taken")
        expected = request.content_length or 0
        if expected > self._most_bytes:
            raise error
        await reserve_room(account, expected)
        found = bytearray(head)
        async for chunk in request.content.iter_any():
            found += chunk
            if len(found) > self._most_bytes:
                raise error
            if len(found) > expected:  # it did not say how long it is
                await reserve_room(account, len(found) - expected)
                expected = len(found)
        return bytes(found)


async def reserve_room(account: Account, size: int) -> None:
    """Hold `size` more bytes, waiting some seconds for room. Raises QuotaExceededError without it, TooLargeError if never."""
    try:
        async with asyncio.timeout(_ROOM_SECONDS):
            await account.reserve(size)
    except TimeoutError:
        name = "max_in_flight_bytes"
        text = f"over the tenant's quota {name}, or the server's: no room for {size} bytes now; try again later"
        raise QuotaExceededError(text, quota=name) from None


async def json_object(request: web.Request, *, most_bytes: int = MAX_BODY_BYTES) -> dict[str, Any]:
    """The body, which must be a JSON object."""
    try:
        found = await read_body(request, most_bytes=most_bytes)
        if len(found) > _QUICK_BYTES and not await asyncio.to_thread(has_few_parts, found, most=_FEW_PARTS):
            raise BodyTooLargeError("the body has too many parts: send less at once")
        body = json.loads(found)
    except (ValueError, RecursionError):
        raise InvalidRequestError("body", "expected JSON") from None
    if not isinstance(body, dict):
        raise InvalidRequestError("body", "expected a JSON object")
    return body


async def form_of(request: web.Request) -> Mapping[str, str]:
    """The fields of a form as a browser or an OAuth client sends it; none of another kind of body."""
    if request.content_type != "application/x-www-form-urlencoded":
        return {}
    text = (await read_body(request, most_bytes=UNKNOWN_SENDER_BYTES)).decode(errors="replace")
    try:
        return dict(parse_qsl(text, keep_blank_values=True, max_num_fields=_MAX_FIELDS))
    except ValueError:
        raise InvalidRequestError("body", f"expected a form of at most {_MAX_FIELDS} fields") from None


def text_of(body: dict[str, Any], name: str, default: str | None = None) -> str:
    """The text of this name, or the default. Lone surrogates, which JSON can hold and no store takes, are refused."""
    value = body.get(name) or default
    if not isinstance(value, str) or any("\ud800" <= character <= "\udfff" for character in value):
        raise InvalidRequestError(name, "expected a text")
    return value


def time_of(body: dict[str, Any], name: str) -> float | None:
    """The time of this name in seconds since 1970; None when it is null or missing."""
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InvalidRequestError(name, "expected seconds since 1970, or null")
    return float(value)


def query_number(request: web.Request, name: str, default: int) -> int:
    """The number of this name in the query, or the default."""
    text = request.query.get(name, str(default))
    if not text.isdecimal() or len(text) > _MAX_DIGITS:
        raise InvalidRequestError(name, "expected a number")
    return int(text)

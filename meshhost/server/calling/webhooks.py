"""Sends signed webhooks: calls to service hosts, and room events to the URLs that an operator configured.

A `WebhookSender` posts JSON over one aiohttp session, which its owner passes in or which the sender opens itself when it is
used as an async context manager. Every failure is a `CallRefusedError` with an HTTP status, so callers handle a host that
refuses and a host that cannot be reached alike. Error texts name the URL without credentials.
"""

import json
import os
import time
from collections.abc import Callable, Mapping
from typing import Any, Self
from urllib.parse import urlsplit

import aiohttp
import jwt

from meshhost.errors import CallRefusedError
from meshhost.identity.webhooks import CALL_HEADER, SIGNATURE_HEADERS, sign_webhook, webhook_body

__all__ = ["WebhookSender", "can_sign"]

TIMEOUT = 15.0
_MAX_ANSWER = 64 * 1024
# What a host may ask to wait: one that says infinity must not be left alone for ever.
_MAX_RETRY_AFTER = 24 * 3600.0


class WebhookSender:
    """Posts signed webhooks. Without a `session` use it as a context manager, which opens one and closes it.

    `connector` makes what that session connects with, where not every address may be reached.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession | None = None,
        *,
        connector: Callable[[], aiohttp.BaseConnector] | None = None,
    ) -> None:
        self._session = session
        self._connector = connector

    async def __aenter__(self) -> Self:
        if self._session is not None:
            raise RuntimeError("this sender has a session already")
        # No cookies: what a host sets in one tenant's call must not come back to it, or to its neighbour, with another's.
        connector = None if self._connector is None else self._connector()
        self._session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())
        return self

    async def __aexit__(self, *_: object) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def send(self, url: str, event: str, data: Mapping[str, Any], *, secret: str | None) -> dict[str, Any]:
        """Post, and return the JSON object that the host answered, or {} for any other answer.

        Raises CallRefusedError with the status and `retry_after` that the host gave, 503 when it cannot be reached, or 400 when
        the secret cannot sign.
        Redirects are not followed: a signed token must not reach another host than the one that was named.
        """
        if self._session is None:
            raise RuntimeError("this sender has no session: use it as a context manager")
        body = webhook_body(event, data)
        headers = {"Content-Type": "application/json", CALL_HEADER: event}
        if secret is not None:
            # The same signature under both names: a MeshAgent host knows the second only.
            headers |= dict.fromkeys(SIGNATURE_HEADERS, _signature(body, secret))
        parts = urlsplit(url)
        origin = parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()
        try:
            async with self._session.post(
                url, data=body, headers=headers, allow_redirects=False, timeout=aiohttp.ClientTimeout(total=TIMEOUT)
            ) as response:
                answer = await response.content.read(_MAX_ANSWER)
                status, retry_after = response.status, _seconds(response.headers.get("Retry-After"))
        # UnicodeError: a name that is none in DNS, such as one with a part of 64 letters.
        except (TimeoutError, aiohttp.ClientError, OSError, UnicodeError) as error:
            raise CallRefusedError(f"{origin} cannot be reached: {_cause(error)}", status=503) from None
        if not 200 <= status < 300:
            text = answer[:500].decode(errors="replace")
            raise CallRefusedError(f"{origin} answered {status}: {text}", status=status, retry_after=retry_after)
        return _object(answer)


def can_sign(secret: str) -> bool:
    """Whether calls can be signed with this secret: not with an empty one, nor with a public key."""
    try:
        sign_webhook(b"", secret=secret, now=0.0)
    except (jwt.InvalidKeyError, UnicodeError):
        return False
    return True


def _signature(body: bytes, secret: str) -> str:
    if not can_sign(secret):
        raise CallRefusedError("the secret cannot sign a call: expected a random text, no public key", status=400)
    return sign_webhook(body, secret=secret, now=time.time())


def _cause(error: Exception) -> str:
    """Why a host cannot be reached. aiohttp repeats the address, twice."""
    if isinstance(error, UnicodeError):
        return "its name is none that can be resolved"
    number = error.os_error.errno if isinstance(error, aiohttp.ClientConnectorError) else None
    if number is not None and number > 0:  # names that cannot be resolved have numbers of their own
        return os.strerror(number)
    return str(error) or type(error).__name__


def _seconds(value: str | None) -> float | None:
    return min(float(value), _MAX_RETRY_AFTER) if value is not None and value.isdecimal() else None


def _object(answer: bytes) -> dict[str, Any]:
    try:
        parsed = json.loads(answer)
    except (ValueError, RecursionError):
        return {}
    return parsed if isinstance(parsed, dict) else {}

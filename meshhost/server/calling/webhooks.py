"""Sends webhooks: calls to service hosts and room events."""

import json
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from meshhost.errors import CallRefusedError
from meshhost.identity.webhooks import SIGNATURE_HEADERS, sign_webhook, webhook_body

__all__ = ["WebhookSender"]

TIMEOUT = 15.0
_MAX_ANSWER = 64 * 1024


class WebhookSender:
    """Posts signed webhooks. The session is opened and closed by whoever owns this."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def send(self, url: str, event: str, data: Mapping[str, Any], *, secret: str | None) -> dict[str, Any]:
        """Post, and return the JSON object that was answered ({} when it was none).

        Raises CallRefusedError with the status and `retry_after` that the host gave, or 503 when it cannot be reached.
        Redirects are not followed: the host is the one that was named.
        """
        body = webhook_body(event, data)
        headers = {"Content-Type": "application/json"}
        if secret is not None:
            # Both names, one signature: a MeshAgent host knows the second only.
            headers |= dict.fromkeys(SIGNATURE_HEADERS, sign_webhook(body, secret=secret, now=time.time()))
        parts = urlsplit(url)
        origin = parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()
        try:
            async with self._session.post(
                url, data=body, headers=headers, allow_redirects=False, timeout=aiohttp.ClientTimeout(total=TIMEOUT)
            ) as response:
                answer = await response.content.read(_MAX_ANSWER)
                status, retry_after = response.status, _seconds(response.headers.get("Retry-After"))
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise CallRefusedError(
                f"{origin} cannot be reached: {str(error) or type(error).__name__}", status=503
            ) from None
        if not 200 <= status < 300:
            text = answer[:500].decode(errors="replace")
            raise CallRefusedError(f"{origin} answered {status}: {text}", status=status, retry_after=retry_after)
        return _object(answer)


def _seconds(value: str | None) -> float | None:
    return float(value) if value is not None and value.isdecimal() else None


def _object(answer: bytes) -> dict[str, Any]:
    try:
        parsed = json.loads(answer)
    except (ValueError, RecursionError):
        return {}
    return parsed if isinstance(parsed, dict) else {}

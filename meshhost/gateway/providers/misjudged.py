"""Answers of a provider whose status does not tell what they are: an error with status 200, a web page instead of JSON.

A proxy before a provider answers with HTML, some services put the error of an overload into a body with status 200. Callers
judge by the status and retry by it, so that the gateway sets it right before the headers leave. Streams are never looked
into: an error inside one is passed on, and the adapter knows it (`meshhost.openai.tools.retry`).
"""

import re
from collections.abc import Mapping
from typing import Any

from aiohttp import ClientResponse, web
from multidict import CIMultiDict

from meshhost.gateway.http import error_response, json_object

__all__ = ["answer_set_right", "status_of_error"]

# An error is short. A longer body is an answer, and is passed on as it arrives.
_MAX_ERROR_BYTES = 16 * 1024
_STATUS_BY_WORD = {
    re.compile(r"quota|rate.?limit|too.?many|exhausted"): 429,
    re.compile(r"invalid|context.?length"): 400,
    re.compile(r"not.?found"): 404,
    re.compile(r"overload|unavailable|capacity|server.?error|internal.?error|try again"): 503,
}


async def answer_set_right(
    upstream: ClientResponse, headers: CIMultiDict[str], *, provider: str
) -> web.Response | None:
    """Return the answer to give instead, or None when this one is passed on as it is. Raises ClientError, OSError."""
    if upstream.content_type in ("text/html", "application/xhtml+xml"):
        status = upstream.status if upstream.status >= 400 else 502
        text = f"provider {provider} answered with a web page (HTTP {upstream.status}); is its base_url right?"
        answer = error_response(status, text, type="upstream_unavailable")
        if "Retry-After" in headers:
            answer.headers["Retry-After"] = headers["Retry-After"]
        return answer
    length = upstream.content_length
    if (
        upstream.status != 200
        or upstream.content_type != "application/json"
        or not 0 < (length or 0) <= _MAX_ERROR_BYTES
    ):
        return None
    body = await upstream.read()
    error = _error_in(json_object(body) or {})
    return web.Response(
        status=200 if error is None else status_of_error(error), body=body, headers=_without_length(headers)
    )


def status_of_error(error: Mapping[str, Any]) -> int:
    """Return the HTTP status that an error object stands for; 502 when it does not say."""
    for given in (error.get("code"), error.get("status")):
        text = str(given)
        if text.isascii() and text.isdecimal() and 400 <= int(text) <= 599:
            return int(text)
    # The code or the type says it; the message is read only when both are missing.
    words = [str(error[name]).lower() for name in ("code", "type") if error.get(name)] or [
        str(error.get("message", "")).lower()
    ]
    return next((status for word, status in _STATUS_BY_WORD.items() if any(map(word.search, words))), 502)


def _error_in(body: Mapping[str, Any]) -> Mapping[str, Any] | None:
    if body.get("object") == "error":
        return body
    error = body.get("error")
    if not error or body.get("output") or body.get("choices"):
        return None
    return error if isinstance(error, dict) else {"message": error}


def _without_length(headers: CIMultiDict[str]) -> CIMultiDict[str]:
    kept = headers.copy()
    kept.popall("Content-Length", None)
    return kept

"""Reads the JSON object with which a foreign server answers, of bounded size.

`StreamReader.read(n)` of aiohttp returns what has come so far, which may be only the beginning of an answer, and without `n` it
reads without a bound. Callers are those of this package who ask others: service hosts, providers of OpenID Connect.
"""

import json
from typing import Any

import aiohttp

__all__ = ["json_object_of"]


async def json_object_of(response: aiohttp.ClientResponse, *, most: int) -> dict[str, Any] | None:
    """The object, or None for what is no JSON object or has more than `most` bytes. Raises what the HTTP client raises."""
    content = bytearray()
    async for piece in response.content.iter_any():
        content += piece
        if len(content) > most:
            return None
    try:
        parsed = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return parsed if isinstance(parsed, dict) else None

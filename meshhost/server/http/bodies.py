"""Reads the parts of a REST request: a JSON object, a form, texts, numbers. What is wrong is named by an InvalidRequestError.

Bodies are read as bytes: which encoding a request claims for its text is up to its sender, and need not be one that exists.
"""

import json
import math
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from aiohttp import web

from meshhost.errors import InvalidRequestError

__all__ = ["form_of", "json_object", "query_number", "text_of", "time_of"]

_MAX_DIGITS = 15
_MAX_FIELDS = 100


async def json_object(request: web.Request) -> dict[str, Any]:
    """The body, which must be a JSON object."""
    try:
        body = json.loads(await request.read())
    except (ValueError, RecursionError):
        raise InvalidRequestError("body", "expected JSON") from None
    if not isinstance(body, dict):
        raise InvalidRequestError("body", "expected a JSON object")
    return body


async def form_of(request: web.Request) -> Mapping[str, str]:
    """The fields of a form as a browser or an OAuth client sends it; none of another kind of body."""
    if request.content_type != "application/x-www-form-urlencoded":
        return {}
    text = (await request.read()).decode(errors="replace")
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

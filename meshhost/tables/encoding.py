"""Encodes rows as JSON for the process that stores them, a page at a time: a large insert must not hold up the event loop."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from meshhost.protocol.json_values import dump_json

__all__ = ["encode_rows"]

_PAGE = 100


async def encode_rows(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Return the rows as JSON. Raises InvalidRequestError for NaN and Infinity."""
    pages: list[str] = []
    for start in range(0, len(rows), _PAGE):
        if start:
            await asyncio.sleep(0)
        pages.append(dump_json(list(rows[start : start + _PAGE]))[1:-1])
    return f"[{', '.join(pages)}]".encode()

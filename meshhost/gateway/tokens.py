"""Finds the token counts in a model's answer while its bytes pass by, without keeping the answer.

The gateway forwards answers untouched; a `TokenReader` sees a copy of each piece (`provider.observe`) and looks for the
`usage` object of the Responses API or the chat API, in a stream of events or in one JSON document. It never raises and
never delays the answer: what it cannot read simply counts as no usage.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from meshhost.gateway.http import json_object
from meshhost.gateway.sse import DataLines

__all__ = ["TokenReader", "Tokens"]

# Bytes kept of one line or one whole document; the usage of a longer one is not read.
_MAX_DOCUMENT = 1024 * 1024
# More than any answer costs, and small enough that sums stay within 64 bits whatever a provider claims.
_MAX_COUNT = 10**9


class Tokens(NamedTuple):
    """What one answer cost. `cached` is a part of `input`."""

    input: int
    cached: int
    output: int


class TokenReader:
    """Feed it one answer in pieces of any size, then ask for `tokens`. Holds at most 1 MiB."""

    def __init__(self) -> None:
        self._lines = DataLines(max_line=_MAX_DOCUMENT)
        self._document = bytearray()
        self._is_document: bool | None = None  # None until the first byte that is not white space
        self._tokens: Tokens | None = None

    def feed(self, data: bytes) -> None:
        """Take the next piece of the answer."""
        if self._is_document is None and (start := data.lstrip()):
            self._is_document = start.startswith(b"{")
        if not self._is_document:
            for value in self._lines.feed(data):
                self._read(value)
        elif len(self._document) <= _MAX_DOCUMENT:
            self._document += data

    def tokens(self) -> Tokens | None:
        """Return the counts, or None when the answer named none. Call it after the last piece."""
        if 0 < len(self._document) <= _MAX_DOCUMENT:
            self._read(bytes(self._document))
        return self._tokens

    def _read(self, value: bytes) -> None:
        # Looked for as bytes first: most events of a stream carry no usage and need not be parsed.
        if b'"usage"' not in value or (found := json_object(value)) is None:
            return
        response = found.get("response")
        usage = found.get("usage") or (response.get("usage") if isinstance(response, dict) else None)
        if isinstance(usage, dict):
            details = usage.get("input_tokens_details") or usage.get("prompt_tokens_details")
            self._tokens = Tokens(
                _count(usage, "input_tokens", "prompt_tokens"),
                _count(details, "cached_tokens") if isinstance(details, dict) else 0,
                _count(usage, "output_tokens", "completion_tokens"),
            )


def _count(usage: Mapping[str, Any], *names: str) -> int:
    for name in names:
        value = usage.get(name)
        if isinstance(value, int) and value >= 0:
            return min(value, _MAX_COUNT)
    return 0

"""Finds the token counts in a model's answer while its bytes pass by, without keeping the answer.

The gateway forwards answers untouched; a `TokenReader` sees a copy of each piece (`provider.observe`) and looks for the
`usage` object of the Responses API, the chat API or the Messages API, in a stream of events or in one JSON document. The
Messages API counts in parts: the input where a message begins, the output where it ends; elsewhere the last count is the whole.
It never raises and never delays the answer: what it cannot read simply counts as no usage.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from meshhost.gateway.http import json_object
from meshhost.llm.sse import DataLines

__all__ = ["TokenReader", "Tokens", "tokens_of"]

# Bytes kept of one line or one whole document; the usage of a longer one is not read.
_MAX_DOCUMENT = 1024 * 1024
# More than any answer costs, and small enough that sums stay within 64 bits whatever a provider claims.
_MAX_COUNT = 10**9
_PARTS = frozenset({"message_start", "message_delta"})


class Tokens(NamedTuple):
    """What one answer cost. `cached` is the part of `input` read from a cache, `cache_write` the part written to one."""

    input: int
    cached: int
    output: int
    cache_write: int = 0


class TokenReader:
    """Feed it one answer in pieces of any size, then ask for `tokens`. Holds at most 1 MiB."""

    def __init__(self) -> None:
        self._lines = DataLines(max_line=_MAX_DOCUMENT)
        self._document = bytearray()
        self._is_document: bool | None = None  # None until the first byte that is not white space
        self._tokens: Tokens | None = None
        self.model = ""
        """The model that the answer names, beside its counts."""

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
        response = found.get("response") or found.get("message")
        model = found.get("model") or (response.get("model") if isinstance(response, dict) else None)
        self.model = model if isinstance(model, str) else self.model
        usage = found.get("usage") or (response.get("usage") if isinstance(response, dict) else None)
        if isinstance(usage, dict):
            self._tokens = _later(self._tokens, usage) if found.get("type") in _PARTS else tokens_of(usage)


def tokens_of(usage: Mapping[str, Any]) -> Tokens:
    """The counts in the `usage` object of any of the APIs."""
    names = ("input_tokens_details", "prompt_tokens_details", "input_token_details")
    details = next((found for name in names if (found := usage.get(name))), None)
    if not isinstance(details, dict):
        details = {}
    # The Messages API counts neither what it read from its cache nor what it wrote there as input.
    read, written = _count(usage, "cache_read_input_tokens"), _count(usage, "cache_creation_input_tokens")
    return Tokens(
        _count(usage, "input_tokens", "prompt_tokens") + read + written,
        _count(details, "cached_tokens") or read,
        _count(usage, "output_tokens", "completion_tokens"),
        _count(details, "cache_write_tokens") or written,
    )


def _later(before: Tokens | None, usage: Mapping[str, Any]) -> Tokens:
    now = tokens_of(usage)
    return now if before is None else Tokens(*map(max, before, now))


def _count(usage: Mapping[str, Any], *names: str) -> int:
    for name in names:
        value = usage.get(name)
        if isinstance(value, int) and value >= 0:
            return min(value, _MAX_COUNT)
    return 0

"""Counts what callers use: requests, tokens and seconds."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from meshhost.clock import Clock, SystemClock
from meshhost.gateway.provider import Caller, json_object
from meshhost.gateway.sse import DataLines

__all__ = ["Meter", "MeterCounts", "MeterKey", "UsageReader"]

_MAX_MODEL_NAME = 128
_MAX_DOCUMENT = 1024 * 1024


@dataclass(frozen=True, slots=True)
class MeterKey:
    """Whose use of which model. All fields are "other" for what came after the table was full."""

    tenant: str
    room: str
    identity: str
    model: str


@dataclass(frozen=True, slots=True)
class MeterCounts:
    """Sums since the start. `unmeasured` requests carried no usage that could be read; their tokens are not in the sums."""

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    seconds: float = 0.0
    unmeasured: int = 0

    def plus(self, other: "MeterCounts") -> "MeterCounts":
        """The sum."""
        return MeterCounts(
            self.requests + other.requests,
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.seconds + other.seconds,
            self.unmeasured + other.unmeasured,
        )


OTHER = MeterKey("other", "other", "other", "other")


class UsageReader:
    """Finds the usage in an answer of the Responses or chat API that passes by in pieces, SSE or one JSON document.

    Holds at most one line or document of 1 MiB; what is longer is not read.
    """

    def __init__(self) -> None:
        self._lines = DataLines(max_line=_MAX_DOCUMENT)
        self._document = bytearray()
        self._is_document: bool | None = None
        self._usage: tuple[int, int] | None = None

    def feed(self, data: bytes) -> None:
        """Take the next piece of the answer."""
        if self._is_document is None and (start := data.lstrip()):
            self._is_document = start.startswith(b"{")
        if not self._is_document:
            for value in self._lines.feed(data):
                self._read(value)
        elif len(self._document) <= _MAX_DOCUMENT:
            self._document += data

    def usage(self) -> tuple[int, int] | None:
        """Input and output tokens, or None when the answer named none. Call it after the last piece."""
        if 0 < len(self._document) <= _MAX_DOCUMENT:
            self._read(bytes(self._document))
        return self._usage

    def _read(self, value: bytes) -> None:
        if b'"usage"' not in value or (found := json_object(value)) is None:
            return
        response = found.get("response")
        usage = found.get("usage") or (response.get("usage") if isinstance(response, dict) else None)
        if isinstance(usage, dict):
            self._usage = (
                _count(usage, "input_tokens", "prompt_tokens"),
                _count(usage, "output_tokens", "completion_tokens"),
            )


class Meter:
    """Sums by (tenant, room, identity, model). When `max_keys` are in use, new ones are counted together as "other"."""

    def __init__(self, *, max_keys: int = 10_000, clock: Clock | None = None) -> None:
        self._max_keys = max_keys
        self._clock = clock or SystemClock()
        self._counts: dict[MeterKey, MeterCounts] = {}

    @contextlib.contextmanager
    def measure(self, caller: Caller, model: str) -> Iterator[UsageReader]:
        """Count one request; feed its answer to the reader."""
        reader, begin = UsageReader(), self._clock.monotonic()
        try:
            yield reader
        finally:
            usage = reader.usage()
            tokens_in, tokens_out = usage or (0, 0)
            self._add(
                MeterKey(caller.tenant, caller.room.name, caller.identity, model[:_MAX_MODEL_NAME]),
                MeterCounts(1, tokens_in, tokens_out, self._clock.monotonic() - begin, int(usage is None)),
            )

    def snapshot(self) -> Mapping[MeterKey, MeterCounts]:
        """The sums at this moment."""
        return MappingProxyType(dict(self._counts))

    def _add(self, key: MeterKey, counts: MeterCounts) -> None:
        if key not in self._counts and len(self._counts) >= self._max_keys:
            key = OTHER
        self._counts[key] = self._counts.get(key, MeterCounts()).plus(counts)


def _count(usage: Mapping[str, Any], *names: str) -> int:
    for name in names:
        value = usage.get(name)
        if isinstance(value, int) and value >= 0:
            return value
    return 0

"""A finished span: a piece of work with a name, a beginning and a length, and its place in a trace.

Spans come from code of participants and are shown to people, so everything about them is bounded: `bounded` cuts names, texts
and the number of attributes where a span is made, and `Span.read` refuses what is over the bounds where one arrives. Attributes
say what was worked on, such as the name of a queue or a model; contents of messages and secrets do not belong in them.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from meshhost.errors import InvalidRequestError

__all__ = ["MAX_ATTRIBUTES", "MAX_BATCH", "MAX_KEY", "MAX_NAME", "MAX_TEXT", "Span", "Value", "bounded"]

MAX_NAME, MAX_KEY, MAX_TEXT, MAX_ATTRIBUTES = 120, 64, 300, 24
MAX_BATCH = 100
"""Spans of one report."""

_IDS = {"trace": re.compile("[0-9a-f]{32}"), "id": re.compile("[0-9a-f]{16}"), "parent": re.compile("([0-9a-f]{16})?")}
_MOST_SECONDS = 10 * 365 * 86400.0
_MOST_NUMBER = 2**53

Value: TypeAlias = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Span:
    """A span. `trace`, `id` and `parent` are hexadecimal ids of W3C's lengths; an empty `parent` is none.

    `begin` is wall clock, seconds since the epoch, and `seconds` how long it took. `error` says why it failed; empty: it did
    not. `agent` is who did the work: the room server writes it, from the participant that reported the span.
    """

    trace: str
    id: str
    parent: str
    name: str
    begin: float
    seconds: float
    error: str = ""
    agent: str = ""
    attributes: Mapping[str, Value] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Make every text storable, wherever it comes from: one that is not would fail the batch it is stored with."""
        for name in ("name", "error", "agent"):
            text = getattr(self, name)
            if not text.isascii():
                object.__setattr__(self, name, _storable(text))

    @property
    def end(self) -> float:
        """When it ended, wall clock."""
        return self.begin + self.seconds

    @property
    def size(self) -> int:
        """About how many bytes it takes when it is stored."""
        texts = sum(
            _bytes(key) + (_bytes(value) if isinstance(value, str) else 8) for key, value in self.attributes.items()
        )
        return 160 + _bytes(self.name) + _bytes(self.error) + _bytes(self.agent) + texts

    def as_json(self) -> dict[str, Any]:
        """The form on the wire and in the store; without `trace`, which it is kept under, and without what is empty."""
        shown: dict[str, Any] = {
            "id": self.id,
            "parent": self.parent,
            "name": self.name,
            "begin": self.begin,
            "seconds": self.seconds,
        }
        others = {"error": self.error, "agent": self.agent, "attributes": dict(self.attributes)}
        return shown | {key: value for key, value in others.items() if value}

    @classmethod
    def read(cls, found: Any, *, trace: str | None = None, path: str = "span") -> "Span":
        """Read what `as_json` made, with the trace beside it. Raises InvalidRequestError that names what is wrong."""
        if not isinstance(found, dict):
            raise InvalidRequestError(path, "expected a JSON object")
        values = {"trace": trace, **found} if trace is not None else found
        for name, pattern in _IDS.items():
            text = values.get(name, "" if name == "parent" else None)
            if not isinstance(text, str) or pattern.fullmatch(text) is None:
                raise InvalidRequestError(f"{path}.{name}", "expected an id of lower-case hexadecimal digits")
        return cls(
            trace=values["trace"],
            id=values["id"],
            parent=values.get("parent", ""),
            name=_text(values.get("name"), f"{path}.name", MAX_NAME, least=1),
            begin=_number(values.get("begin"), f"{path}.begin"),
            seconds=_number(values.get("seconds"), f"{path}.seconds"),
            error=_text(values.get("error", ""), f"{path}.error", MAX_TEXT),
            agent=_text(values.get("agent", ""), f"{path}.agent", MAX_TEXT),
            attributes=_attributes(values.get("attributes", {}), f"{path}.attributes"),
        )


def bounded(attributes: Mapping[str, Any]) -> dict[str, Value]:
    """The first attributes, with keys and texts cut. What is neither text, number nor truth value is left out."""
    kept: dict[str, Value] = {}
    for key, value in attributes.items():
        if len(kept) == MAX_ATTRIBUTES:
            break
        if isinstance(value, str):
            kept[_storable(key[:MAX_KEY])] = _storable(value[:MAX_TEXT])
        elif isinstance(value, bool) or (isinstance(value, int | float) and _is_plain(value)):
            kept[_storable(key[:MAX_KEY])] = value
    return kept


def _attributes(found: Any, path: str) -> dict[str, Value]:
    if not isinstance(found, dict) or len(found) > MAX_ATTRIBUTES:
        raise InvalidRequestError(path, f"expected a JSON object of at most {MAX_ATTRIBUTES} members")
    for key, value in found.items():
        if len(key) > MAX_KEY:
            raise InvalidRequestError(path, f"expected names of at most {MAX_KEY} characters")
        if isinstance(value, str):
            _text(value, f"{path}.{key}", MAX_TEXT)
        elif not isinstance(value, bool | int | float) or not _is_plain(value):
            raise InvalidRequestError(f"{path}.{key}", "expected a text, a number or a truth value")
    return {_storable(key): _storable(value) if isinstance(value, str) else value for key, value in found.items()}


def _text(value: Any, path: str, most: int, *, least: int = 0) -> str:
    if not isinstance(value, str) or not least <= len(value) <= most:
        raise InvalidRequestError(path, f"expected a text of {least} to {most} characters")
    return _storable(value)


def _number(value: Any, path: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _MOST_SECONDS * 10:
        raise InvalidRequestError(path, "expected a number of seconds")
    return float(value)


def _is_plain(value: float) -> bool:
    # Also false for NaN, and, unlike `math.isfinite`, defined for integers that no float can hold.
    return abs(value) <= _MOST_NUMBER


def _bytes(text: str) -> int:
    # As JSON, in which a control character takes six bytes, and one outside ASCII up to twelve.
    return len(text) if text.isascii() and text.isprintable() else len(json.dumps(text))


def _storable(text: str) -> str:
    # JSON can hold lone surrogates; no store takes those.
    return text.encode(errors="replace").decode()

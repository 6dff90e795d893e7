"""Reads the messages of a file, one JSON value a line, for `meshhost queue send --file`.

A file with one JSON value is one message, however many lines it takes; a file whose first line is a whole value, and which goes
on after that, has a message on each line. The id of a line comes from the contents of the file up to it, and its number: the
same file sent again has the same ids, a longer one those of the part before, and a corrected line changes no id before it. So
a run that ended in the middle is finished by another one. Nothing is read ahead but one batch. Pure, except for reading.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from meshhost.errors import InvalidRequestError
from meshhost.protocol.json_values import load_json
from meshhost.room.services.queues import NewMessage

__all__ = ["Batch", "Line", "Source", "batches", "source_of"]

# As many as the server takes at once, in a size that stays below its 1 MiB for a request, however characters are escaped.
MAX_BATCH = 1000
MAX_BATCH_BYTES = 256 * 1024
_BOM = b"\xef\xbb\xbf"
_LINES = (".jsonl", ".ndjson")
_OPTIONS = frozenset({"message", "headers", "id", "delay", "at", "priority", "key", "ttl"})
_TIMES = frozenset({"delay", "at"})


@dataclass(frozen=True, slots=True)
class Line:
    """A line that is not empty. `digest` is that of the file up to its end; `end` is how many bytes that is."""

    number: int
    data: bytes
    digest: str
    end: int


@dataclass(frozen=True, slots=True)
class Source:
    """What a file holds: the text of one message, or lines."""

    one: bytes | None
    lines: Iterable[Line] = ()


@dataclass(frozen=True, slots=True)
class Batch:
    """Messages to be sent at once, with the numbers of their lines; `end` is how many bytes of the file are read by then."""

    messages: list[NewMessage]
    numbers: list[int]
    end: int


def source_of(stream: BinaryIO, *, name: str, is_lines: bool) -> Source:
    """Look at the beginning of a file. With `is_lines`, or when its name ends with .jsonl or .ndjson, it holds lines."""
    lines = _lines(stream)
    if is_lines or name.lower().endswith(_LINES):
        return Source(None, lines)
    first = next(lines, None)
    if first is None:
        return Source(b"")
    if not _is_json(first.data):
        return Source(b"\n".join([first.data, *(line.data for line in lines)]))
    second = next(lines, None)
    return Source(first.data) if second is None else Source(None, itertools.chain((first, second), lines))


def batches(
    lines: Iterable[Line], options: dict[str, Any], *, prefix: str | None = None, with_options: bool = False
) -> Iterator[Batch]:
    """Make messages of lines, with `options` (those of NewMessage) for all; with `with_options` a line may have its own.

    `prefix` takes the place of the digest in the ids. Raises InvalidRequestError that names the line which is wrong, after the
    lines before it were yielded.
    """
    messages: list[NewMessage] = []
    numbers: list[int] = []
    size, end, wrong = 0, 0, None
    for line in lines:
        try:
            message = _message(line, options, prefix, with_options=with_options)
        except InvalidRequestError as error:
            wrong = error
            break
        if messages and (len(messages) >= MAX_BATCH or size + len(line.data) > MAX_BATCH_BYTES):
            yield Batch(messages, numbers, end)
            messages, numbers, size = [], [], 0
        messages.append(message)
        numbers.append(line.number)
        size, end = size + len(line.data), line.end
    if messages:
        yield Batch(messages, numbers, end)
    if wrong is not None:
        raise wrong


def _lines(stream: BinaryIO) -> Iterator[Line]:
    digest, end = hashlib.sha256(), 0
    for number, read in enumerate(stream, 1):
        end += len(read)
        data = (read.removeprefix(_BOM) if number == 1 else read).rstrip(b"\r\n")
        digest.update(data + b"\n")
        if data.strip():
            yield Line(number, data, digest.hexdigest()[:32], end)


def _is_json(data: bytes) -> bool:
    try:
        load_json(data.decode())
    except (ValueError, RecursionError):
        return False
    return True


def _message(line: Line, options: dict[str, Any], prefix: str | None, *, with_options: bool) -> NewMessage:
    where = f"line {line.number}"
    value = _parsed(line, where)
    own = {"id": f"{line.digest if prefix is None else prefix}-{line.number}"}
    if not with_options:
        return NewMessage(value, **options | own)
    if not isinstance(value, dict) or "message" not in value:
        raise InvalidRequestError(where, 'expected an object with a message, such as {"message": 1, "priority": 5}')
    unknown = sorted(value.keys() - _OPTIONS)
    if unknown:
        raise InvalidRequestError(where, f"expected {', '.join(sorted(_OPTIONS))}; got {unknown[0]!r}")
    given = {name: each for name, each in value.items() if name != "message" and each is not None}
    if not isinstance(given.get("headers", {}), dict):
        raise InvalidRequestError(where, "headers: expected an object with texts")
    if _TIMES & given.keys():  # its own time replaces the other one
        options = {name: each for name, each in options.items() if name not in _TIMES}
    return NewMessage(value["message"], **options | own | given)


def _parsed(line: Line, where: str) -> Any:
    try:
        return load_json(line.data.decode())
    except UnicodeDecodeError as error:
        raise InvalidRequestError(where, f"not UTF-8 at byte {error.start + 1}") from None
    except json.JSONDecodeError as error:
        raise InvalidRequestError(where, f"not JSON: {error.msg} at column {error.colno}") from None
    except RecursionError:
        raise InvalidRequestError(where, "the JSON is nested too deeply") from None
    except ValueError as error:
        raise InvalidRequestError(where, f"not JSON: {error}") from None

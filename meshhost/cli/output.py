"""Prints for people, for pipes, or as JSON.

On a terminal a list is a table; in a pipe it is one line per row with tabs. Names and messages come from other people, so
everything is printed without control characters, which a terminal would obey. rich is loaded only for a terminal.
"""

from __future__ import annotations

import errno
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

__all__ = [
    "counting",
    "last_line",
    "need_stdout",
    "note",
    "one_line",
    "print_json",
    "print_line",
    "print_table",
    "print_text",
    "printable",
    "shown_age",
    "shown_time",
    "to_json",
    "use_safe_streams",
    "working",
]

# A smaller copy is finished before a progress bar could be read.
_PROGRESS_BYTES = 8 * 1024 * 1024

# C0, DEL, C1 and changes of the writing direction: characters that a terminal may obey. Line ends become spaces.
_SPACES = re.compile(r"\s+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


_closed: set[str] = set()


def use_safe_streams() -> None:
    """Let stdout and stderr print characters that their encoding lacks as `\\x…` instead of raising.

    One that is closed (`>&-`) is replaced by the null device, as if nobody wanted to read it.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            _closed.add(name)
            setattr(sys, name, open(os.devnull, "w"))  # noqa: PTH123, SIM115 - lives as long as the process
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def need_stdout() -> None:
    """For commands that exist for their output. Raises OSError when standard output is closed."""
    if "stdout" in _closed:
        raise OSError(errno.EBADF, "it is closed", "standard output")


def one_line(text: str) -> str:
    """Return the text on one line, without control characters."""
    return _CONTROL.sub("", _SPACES.sub(" ", text)).strip()


def printable(text: str) -> str:
    """Return the text with its lines and tabs, without other control characters."""
    return _CONTROL.sub(lambda match: match[0] if match[0] in "\n\t" else "", text)


def to_json(value: Any) -> str:
    """Return one line of JSON, in characters that stdout can print."""
    is_unicode = (sys.stdout.encoding or "").lower().replace("-", "").startswith("utf")
    text = json.dumps(value, ensure_ascii=not is_unicode, default=_plain)
    # json.dumps escapes C0 but none of the others. They can only be inside of strings, where an escape means the same.
    return _CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def print_json(value: Any) -> None:
    """Print one line of JSON and flush."""
    print(to_json(value), flush=True)


def print_line(text: str) -> None:
    """Print one line for people and flush."""
    print(one_line(text), flush=True)


def print_text(text: str) -> None:
    """Print a text of several lines for people, line by line, and flush. Of no text nothing is printed."""
    for line in text.rstrip().splitlines():
        print(_CONTROL.sub("", line.expandtabs()))
    sys.stdout.flush()


def note(text: str) -> None:
    """Print a remark that is not an error on stderr."""
    print(one_line(text), file=sys.stderr, flush=True)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, empty: str) -> None:
    """Print a table on a terminal, else one line per row, with tabs and no heading. Without rows, print `empty` on stderr."""
    if not rows:
        note(empty)
        return
    texts = [["" if cell is None else one_line(str(cell)) for cell in row] for row in rows]
    if sys.stdout.isatty():
        _print_columns(columns, texts)
        return
    for row in texts:
        print("\t".join(row))
    sys.stdout.flush()


@contextmanager
def working(description: str, *, total: int | None) -> Iterator[Callable[[int], None]]:
    """Show the progress of a copy of `total` bytes on a terminal; call what is yielded with the number of bytes just copied."""
    if not sys.stderr.isatty() or (total is not None and total < _PROGRESS_BYTES):
        yield lambda _: None
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(escape(one_line(description)), total=total)
        yield lambda done: progress.advance(task, done)


@contextmanager
def counting(description: str, *, total: int | None) -> Iterator[Callable[[int, int], None]]:
    """Show on a terminal how much of a file of `total` bytes is done; call what is yielded with the bytes and the messages."""
    if not sys.stderr.isatty():
        yield lambda done, count: None
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[count]}"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(escape(one_line(description)), total=total, count=0)
        yield lambda done, count: progress.update(task, completed=done, count=count)


def last_line(text: str) -> str:
    """Return the last line of a text, such as that of a traceback."""
    lines = text.strip().splitlines()
    return lines[-1] if lines else ""


def shown_time(moment: datetime | float | None) -> str:
    """Return a time (seconds since the epoch, or an aware datetime) in UTC, to the second; "" for None."""
    if moment is None:
        return ""
    if not isinstance(moment, datetime):
        moment = datetime.fromtimestamp(moment, UTC)
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def shown_age(seconds: float | None) -> str:
    """Return a duration in its largest unit, such as `5m`; "" for None."""
    if seconds is None:
        return ""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f}{unit}"
    return f"{max(seconds, 0):.0f}s"


_GAP = 1


def _print_columns(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    # Not by rich.table, which takes 5 ms for a row: seconds for a thousand agents. The result looks the same.
    import shutil
    import textwrap

    from rich.cells import cell_len

    available = max(shutil.get_terminal_size().columns, len(columns) * 2)
    lines = [list(columns), *rows]
    widths = _fitted([max(cell_len(line[n]) for line in lines) for n in range(len(columns))], available)

    def folded(text: str, width: int) -> list[str]:
        if cell_len(text) <= width:
            return [text]
        # Wide characters take two cells each.
        most = width if text.isascii() else max(width // 2, 1)
        return textwrap.wrap(text, most, drop_whitespace=True) or [""]

    printed = []
    for number, line in enumerate(lines):
        parts = [folded(text, width) for text, width in zip(line, widths, strict=True)]
        for row in range(max(map(len, parts))):
            cells = [part[row] if row < len(part) else "" for part in parts]
            padded = [cell + " " * (width - cell_len(cell)) for cell, width in zip(cells, widths, strict=True)]
            text = (" " * _GAP).join(padded).rstrip()
            printed.append(f"\x1b[1m{text}\x1b[0m" if number == 0 else text)
    print("\n".join(printed), flush=True)


def _fitted(widths: list[int], available: int) -> list[int]:
    """The widths, the largest of them cut until the sum with the gaps fits."""
    widths = [max(width, 1) for width in widths]
    while sum(widths) + _GAP * (len(widths) - 1) > available and max(widths) > 1:
        largest = widths.index(max(widths))
        second = max([width for n, width in enumerate(widths) if n != largest], default=1)
        over = sum(widths) + _GAP * (len(widths) - 1) - available
        widths[largest] = max(widths[largest] - over, min(second, widths[largest] - 1), 1)
    return widths


def _plain(value: object) -> object:
    return value.isoformat() if isinstance(value, datetime) else str(value)

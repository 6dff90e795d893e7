"""Prints for people, for pipes, or as JSON.

On a terminal a list is a table; in a pipe it is one line per row with tabs. Names and messages come from other people, so
everything is printed without control characters, which a terminal would obey. rich is loaded only for a terminal.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

__all__ = [
    "note",
    "one_line",
    "print_json",
    "print_line",
    "print_table",
    "shown_age",
    "shown_time",
    "to_json",
    "use_safe_streams",
    "working",
]

# A smaller copy is finished before a progress bar could be read.
_PROGRESS_BYTES = 8 * 1024 * 1024

# C0, DEL and C1: characters that a terminal may obey. Line ends become spaces.
_SPACES = re.compile(r"\s+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def use_safe_streams() -> None:
    """Let stdout and stderr print characters that their encoding lacks as `\\x…` instead of raising."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def one_line(text: str) -> str:
    """Return the text on one line, without control characters."""
    return _CONTROL.sub("", _SPACES.sub(" ", text)).strip()


def to_json(value: Any) -> str:
    """Return one line of JSON, in characters that stdout can print."""
    is_unicode = (sys.stdout.encoding or "").lower().replace("-", "").startswith("utf")
    text = json.dumps(value, ensure_ascii=not is_unicode, default=_plain)
    # json.dumps escapes C0 but not DEL and C1. They can only be inside of strings, where an escape means the same.
    return _CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def print_json(value: Any) -> None:
    """Print one line of JSON and flush."""
    print(to_json(value), flush=True)


def print_line(text: str) -> None:
    """Print one line for people and flush."""
    print(one_line(text), flush=True)


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
        _print_rich(columns, texts)
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


def _print_rich(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        # As Text: a name such as "[red]" is a name, not markup.
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)


def _plain(value: object) -> object:
    return value.isoformat() if isinstance(value, datetime) else str(value)

"""Follows a message that was sent until it has ended, and shows its progress on the way, for `meshhost queue send --wait`.

On a terminal there is one line that changes; elsewhere each change is a line on stderr, so that stdout has nothing but the
result. The message does not depend on the command: interrupted, it goes on.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from meshhost.room.client import RoomClient
    from meshhost.room.services.queues import MessageRecord

__all__ = ["note_paused", "result_of"]

_SHOWN_CHARS = 60


async def note_paused(client: RoomClient, queue: str, *, where: str) -> None:
    """Say when the queue is paused, since a wait could be long. Nothing is said to who may not read its settings."""
    import contextlib

    from meshhost.cli.output import note
    from meshhost.errors import RoomError

    with contextlib.suppress(RoomError):
        if (await client.queues.settings(queue)).paused:
            note(f"queue {queue} is paused: `meshhost queue resume {where}` lets its messages go on")


async def result_of(client: RoomClient, queue: str, message_id: str, *, timeout: float | None, where: str) -> Any:
    """Return the result of a message when it is done. `where` are the options that name its queue in suggested commands.

    Raises MessageFailedError when it ended otherwise, RequestTimeoutError when it has not ended after `timeout` seconds.
    """
    from meshhost.cli.output import last_line
    from meshhost.errors import MessageFailedError, RequestTimeoutError

    with _shown(message_id) as show:
        record = await client.queues.wait(
            queue, message_id, timeout=timeout, on_progress=lambda seen: show(_line(seen))
        )
    if record is None:
        raise MessageFailedError(message_id, state=None)
    if record.state == "done":
        return record.result
    if record.has_ended:
        reason = last_line(record.reason or "")
        if reason != (record.reason or "").strip():
            reason += f" (`meshhost queue get {where} {message_id}` shows the whole reason)"
        raise MessageFailedError(message_id, state=record.state, reason=reason)
    raise RequestTimeoutError(
        f"message {message_id} has not ended after {timeout:g} s, and goes on: "
        f"`meshhost queue get {where} {message_id}` shows it"
    )


def _line(record: MessageRecord) -> str:
    text: str = "being cancelled" if record.is_cancelling else record.state
    if record.state == "leased" and record.by:
        text += f" by {record.by}"
    if record.failures:
        text += f", {record.failures} {'attempt' if record.failures == 1 else 'attempts'} failed"
    return text if record.progress is None else f"{text}: {_progress(record.progress)}"


def _progress(progress: Any) -> str:
    """A fraction as a percentage, a text as it is, anything else as JSON."""
    from meshhost.cli.output import to_json

    if isinstance(progress, float | int) and not isinstance(progress, bool) and 0 <= progress <= 1:
        return f"{progress:.0%}"
    text = progress if isinstance(progress, str) else to_json(progress)
    return text if len(text) <= _SHOWN_CHARS else f"{text[: _SHOWN_CHARS - 1]}…"


@contextmanager
def _shown(message_id: str) -> Iterator[Callable[[str], None]]:
    from meshhost.cli.output import note, one_line

    if not sys.stderr.isatty():
        yield lambda text: note(f"message {message_id}: {text}")
        return
    from rich.console import Console
    from rich.markup import escape

    with Console(stderr=True).status(f"message {message_id}") as status:
        yield lambda text: status.update(f"message {message_id}: {escape(one_line(text))}")

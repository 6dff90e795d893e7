"""`meshhost queue get`, `search`, `peek` and `cancel`: what became of messages, and ending one.

Looking leases nothing and does not wake the room. Ids are those that `meshhost queue send` printed. In a table a message is
shown on one line and cut; `--json` prints everything that is known.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from meshhost.cli.commands.queue.checks import YesOption
from meshhost.cli.options import JsonOption, QueueOption, RoomOption

if TYPE_CHECKING:
    from meshhost.room.client import RoomClient
    from meshhost.room.services.queues import LargeBody, MessageRecord

__all__ = ["cancel", "get", "peek", "search"]

# Of a message in a row; its whole text is in the JSON. At a terminal, what the other columns mostly leave of a line.
_SHOWN_CHARS = 120
_OTHER_CHARS = 46
_LEAST_CHARS = 20
# Ids have at most so many digits.
_MAX_DIGITS = 18


def get(
    message_id: Annotated[str, typer.Argument(metavar="ID", help="Id of the message.")],
    queue: QueueOption,
    room: RoomOption = None,
    body: Annotated[
        bool, typer.Option("--body", help="Print the contents as JSON and nothing else, however large.")
    ] = False,
    result: Annotated[bool, typer.Option("--result", help="Print the result as JSON and nothing else.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show what is known of a message: its state, attempts, progress and result.

    Of contents or a result of over 256 KiB only the beginning is shown: --body and --result print all. How a message ended is
    known for an hour, or the time that `meshhost queue configure --result-ttl` set.
    """
    from meshhost.cli.commands.queue.checks import queue_named
    from meshhost.cli.connect import run_in_room
    from meshhost.cli.output import last_line, print_json, print_line, print_table, print_text, shown_time
    from meshhost.errors import NotFoundError

    _check_id(message_id)
    if body or result:
        if body and result:
            raise typer.BadParameter("expected --body or --result, not both", param_hint="--result")
        print_json(
            run_in_room(room, lambda client: _whole(client, queue, message_id, of_result=result), only_looks=True)
        )
        return

    async def use(client: RoomClient) -> MessageRecord:
        async with queue_named(client, queue):
            record = await client.queues.get(queue, message_id)
            if record is None:
                raise NotFoundError(f"nothing is known of message {message_id} of queue {queue!r} (any more)")
            return record

    record = run_in_room(room, use, only_looks=True)
    if as_json:
        print_json(asdict(record))
        return
    for name, value in _facts(record):
        print_line(f"{name}: {value}")
    if record.history:
        rows = [
            (shown_time(each.began_at), shown_time(each.ended_at), each.by, each.reason, last_line(each.error))
            for each in record.history
        ]
        print_table(("BEGAN", "ENDED", "BY", "REASON", "ERROR"), rows, empty="")
    print_text(_traceback(record))


def search(
    queue: QueueOption,
    room: RoomOption = None,
    states: Annotated[
        list[str] | None,
        typer.Option(
            "--state", metavar="STATE", help="Only in this state, such as ready or dead; several are allowed."
        ),
    ] = None,
    key: Annotated[str | None, typer.Option("--key", metavar="KEY", help="Only with this key.")] = None,
    text: Annotated[
        str | None, typer.Option("--text", metavar="TEXT", help="Only with this in the message or the reason.")
    ] = None,
    since: Annotated[
        str | None, typer.Option("--since", metavar="TIME", help="Only sent since then: 2026-12-01T08:00, or 2h ago.")
    ] = None,
    until: Annotated[str | None, typer.Option("--until", metavar="TIME", help="Only sent until then.")] = None,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="Show at most this many, the newest ones.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """List the messages that fit everything that is given, the newest first.

    Also those that ended, while it is known how. States are delayed, ready, blocked (behind another of its key), leased
    (worked on), failed (waits for its next attempt), done, dead, cancelled, expired.
    """
    from meshhost.cli.commands.queue.checks import queue_named
    from meshhost.cli.connect import run_in_room
    from meshhost.cli.output import note, print_json, print_table, shown_time
    from meshhost.cli.times import past_moment_of

    bounds = {
        "since": None if since is None else past_moment_of(since, option="--since"),
        "until": None if until is None else past_moment_of(until, option="--until"),
    }
    wanted = _checked_states(states)

    async def use(client: RoomClient) -> list[MessageRecord]:
        async with queue_named(client, queue):
            # One more than wanted shows whether there are more.
            found = client.queues.find(queue, states=wanted, key=key, text=text, limit=limit + 1, **bounds)
            return [record async for record in found]

    found = run_in_room(room, use, only_looks=True)
    shown = found[:limit]
    if as_json:
        print_json([asdict(record) for record in shown])
    else:
        columns = ("ID", "STATE", "SENT", "KEY", "MESSAGE")
        rows = [(each.id, each.state, shown_time(each.sent_at), each.key, _shown_message(each)) for each in shown]
        print_table(columns, rows, empty="no such message in this queue")
    if len(found) > limit:
        note(f"meshhost: there are more than {limit}: --limit N shows more, --until TIME older ones")


def peek(
    queue: QueueOption,
    room: RoomOption = None,
    limit: Annotated[int, typer.Option(min=1, max=50, metavar="N", help="Show at most this many.")] = 10,
    as_json: JsonOption = False,
) -> None:
    """Show the messages that are delivered next, in their order, without taking them."""
    from meshhost.cli.commands.queue.checks import queue_named
    from meshhost.cli.connect import run_in_room
    from meshhost.cli.output import print_json, print_table, shown_time

    async def use(client: RoomClient) -> list[MessageRecord]:
        async with queue_named(client, queue):
            return await client.queues.peek(queue, limit=limit)

    found = run_in_room(room, use, only_looks=True)
    if as_json:
        print_json([asdict(record) for record in found])
        return
    columns = ("ID", "PRIORITY", "SENT", "KEY", "MESSAGE")
    rows = [(each.id, each.priority, shown_time(each.sent_at), each.key, _shown_message(each)) for each in found]
    print_table(columns, rows, empty="no message is ready in this queue")


def cancel(
    message_ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Ids of the messages.")],
    queue: QueueOption,
    room: RoomOption = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Cancel messages and print their states.

    One that nobody has begun is gone. The worker of one that was begun is told, and its state is leased until the worker has
    stopped. Several are cancelled after a question.
    """
    from meshhost.cli.commands.queue.checks import confirm, queue_named
    from meshhost.cli.connect import run_in_room
    from meshhost.cli.output import print_json, print_line
    from meshhost.errors import NotFoundError

    for message_id in message_ids:
        _check_id(message_id)
    if len(message_ids) > 1:
        confirm(f"Cancel {len(message_ids)} messages of queue {queue} for good?", yes=yes)

    async def use(client: RoomClient) -> dict[str, str | None]:
        async with queue_named(client, queue):
            return {message_id: await _cancelled(client, queue, message_id) for message_id in message_ids}

    states = run_in_room(room, use, only_looks=True)
    if as_json:
        print_json([{"id": message_id, "state": state} for message_id, state in states.items()])
    else:
        for message_id, state in states.items():
            if state is not None:
                print_line(state if len(message_ids) == 1 else f"{message_id}: {state}")
    missing = [message_id for message_id, state in states.items() if state is None]
    if missing:
        raise NotFoundError(f"nothing is known of message {', '.join(missing)} of queue {queue!r} (any more)")


async def _cancelled(client: RoomClient, queue: str, message_id: str) -> str | None:
    """The state of the message after it was cancelled; None when nothing is known of it."""
    from meshhost.errors import NotFoundError

    try:
        return await client.queues.cancel(queue, message_id)
    except NotFoundError:
        # Of the message, or of the queue, which this asks.
        await client.queues.settings(queue)
        return None


def _check_id(text: str) -> None:
    if not text.isascii() or not text.isdecimal() or len(text) > _MAX_DIGITS:
        raise typer.BadParameter(
            f"{text!r} is not a message id: `meshhost queue send` prints it, `meshhost queue search` shows ids",
            param_hint="ID",
        )


def _checked_states(given: list[str] | None) -> Any:
    from meshhost.room.services.queues import MessageState

    known = get_args(MessageState)
    for state in given or ():
        if state not in known:
            raise typer.BadParameter(f"expected one of {', '.join(known)}, got {state!r}", param_hint="--state")
    return given or None


async def _whole(client: RoomClient, queue: str, message_id: str, *, of_result: bool) -> Any:
    """The contents of a message, or its result."""
    from meshhost.cli.commands.queue.checks import queue_named

    async with queue_named(client, queue):
        return await client.queues.body(queue, message_id, part="result" if of_result else "body")


def _shown(value: Any, large: LargeBody | None) -> str:
    """What a line shows of a message or result."""
    from meshhost.cli.output import to_json

    if large is None:
        return to_json(value)
    return f"{large.beginning[:_SHOWN_CHARS]}… ({large.size} bytes)"


def _facts(record: MessageRecord) -> Iterator[tuple[str, str]]:
    """What is worth a line, by its name."""
    from meshhost.cli.output import last_line, shown_time, to_json

    yield "id", record.id
    yield "state", f"{record.state}{', being cancelled' if record.is_cancelling else ''}"
    if record.reason:
        yield "reason", last_line(record.reason)
    times = {"sent": record.sent_at, "due": record.due_at, "expires": record.expires_at, "begun": record.began_at}
    for name, moment in (times | {"leased until": record.lease_until, "ended": record.ended_at}).items():
        if moment is not None:
            yield name, shown_time(moment)
    if record.by:
        yield "by", record.by
    if record.priority:
        yield "priority", str(record.priority)
    if record.key is not None:
        yield "key", record.key
    yield "failed attempts", str(record.failures)
    if record.progress is not None:
        yield "progress", to_json(record.progress)
    if record.result is not None or record.state == "done":
        yield "result", _shown(record.result, record.result_body)
    if record.message is not None or record.body is not None:
        yield "message", _shown(record.message, record.body)


def _traceback(record: MessageRecord) -> str:
    """The whole of what a message died of, when that has more than the line that is shown above."""
    reason = record.reason or ""
    return reason if len(reason.strip().splitlines()) > 1 else ""


def _shown_message(record: MessageRecord) -> str:
    """The message, or what is known instead of one that ended."""
    import shutil
    import sys

    from meshhost.cli.output import last_line, to_json

    if record.state == "dead":
        text = last_line(record.reason or "")
    elif record.state == "done":
        large = record.result_body
        text = large.beginning if large else "" if record.result is None else to_json(record.result)
    else:
        large = record.body
        text = large.beginning if large else "" if record.message is None else to_json(record.message)
    most = _SHOWN_CHARS
    if sys.stdout.isatty():
        most = max(shutil.get_terminal_size().columns - _OTHER_CHARS, _LEAST_CHARS)
    return text if len(text) <= most else f"{text[: most - 1]}…"

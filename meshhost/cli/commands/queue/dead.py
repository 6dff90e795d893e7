"""`meshhost queue dead` and `replay`: the messages that failed at their last attempt, and putting them back.

A dead message stays until it is replayed or cancelled, or its queue is deleted; `purge` leaves it where it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from meshhost.cli.options import JsonOption, QueueOption, RoomOption

if TYPE_CHECKING:
    from meshhost.room.client import RoomClient
    from meshhost.room.services.queues import DeadMessage

__all__ = ["dead", "replay"]


def dead(
    queue: QueueOption,
    room: RoomOption = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Show at most this many, the newest ones.")] = 100,
    as_json: JsonOption = False,
) -> None:
    """List the dead messages: those that failed at their last attempt.

    With --json they are printed in full.
    """
    from dataclasses import asdict

    from meshhost.cli.commands.queue.checks import need_queue
    from meshhost.cli.connect import run_in_room
    from meshhost.cli.output import last_line, print_json, print_table, shown_time

    async def use(client: RoomClient) -> list[DeadMessage]:
        await need_queue(client, queue)
        return await client.queues.dead(name=queue, limit=limit)

    letters = run_in_room(room, use, only_looks=True)
    if as_json:
        print_json([asdict(letter) for letter in letters])
        return
    rows = [(entry.id, entry.attempts, shown_time(entry.died_at), last_line(entry.reason)) for entry in letters]
    print_table(("ID", "ATTEMPTS", "DIED", "REASON"), rows, empty="no dead messages in this queue")


def replay(
    queue: QueueOption,
    room: RoomOption = None,
    ids: Annotated[
        list[str] | None,
        typer.Option("--id", metavar="ID", help="Replay only this message; may be given several times."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Put dead messages back into the queue, and print how many.

    Without --id, all dead messages of the queue are replayed.
    """
    from meshhost.cli.commands.queue.checks import need_queue
    from meshhost.cli.connect import run_in_room
    from meshhost.cli.output import print_json, print_line
    from meshhost.errors import NotFoundError

    wrong = next((text for text in ids or () if not text.isdecimal()), None)
    if wrong is not None:
        raise typer.BadParameter(
            f"{wrong!r} is not a message id: `meshhost queue dead` shows the ids", param_hint="--id"
        )

    async def use(client: RoomClient) -> int:
        await need_queue(client, queue)
        return await client.queues.replay(name=queue, ids=ids or None)

    replayed = run_in_room(room, use)
    missing = len(set(ids or ())) - replayed
    if as_json:
        print_json({"queue": queue, "replayed": replayed})
    else:
        print_line(str(replayed))
    if missing > 0:
        raise NotFoundError(
            f"{missing} of the ids are not dead messages of queue {queue!r}: `meshhost queue dead` shows them"
        )

"""`meshhost queue list`, `size`, `purge` and `delete`: the queues of a room as wholes.

What deletes asks first (`checks.confirm`), but for `drain`, the former name of `purge`: scripts that use it were never asked.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from meshhost.cli.commands.queue.checks import YesOption
from meshhost.cli.options import JsonOption, QueueOption, RoomOption

if TYPE_CHECKING:
    from meshhost.room.client import RoomClient

__all__ = ["delete", "drain", "list_queues", "purge", "size"]


def list_queues(room: RoomOption = None, as_json: JsonOption = False) -> None:
    """List the queues of the room and how many messages they have."""
    from meshhost.cli.connect import run_in_room
    from meshhost.cli.output import print_json, print_table, shown_age

    queues = run_in_room(room, lambda client: client.queues.list(), only_looks=True)
    if as_json:
        print_json([asdict(entry) for entry in queues])
        return
    # In a pipe, programs count columns: new ones come last.
    columns = ("NAME", "SIZE", "READY", "LEASED", "DELAYED", "DEAD", "OLDEST", "BLOCKED", "STATE")
    rows = [
        (q.name, q.size, q.ready, q.leased, q.delayed, q.dead, shown_age(q.oldest_age), q.blocked, _state(q.paused))
        for q in queues
    ]
    print_table(columns, rows, empty="no queues in this room yet")


def size(queue: QueueOption, room: RoomOption = None, as_json: JsonOption = False) -> None:
    """Print how many messages are in the queue."""
    from meshhost.cli.commands.queue.checks import need_queue
    from meshhost.cli.connect import run_in_room
    from meshhost.cli.output import print_json, print_line

    found = run_in_room(room, lambda client: need_queue(client, queue), only_looks=True)
    if as_json:
        print_json(asdict(found))
    else:
        print_line(str(found.size))


def purge(queue: QueueOption, room: RoomOption = None, yes: YesOption = False, as_json: JsonOption = False) -> None:
    """DELETE all messages of the queue. They cannot be restored.

    Dead messages are kept. To process the messages instead, run a worker; to stop delivering them for a while, use
    `meshhost queue pause`.
    """
    from meshhost.cli.commands.queue.checks import confirm
    from meshhost.cli.output import print_json, print_line

    confirm(f"Delete all messages of queue {queue} for good?", yes=yes)
    purged = _purge(room, queue)
    if as_json:
        print_json({"queue": queue, "purged": purged})
    elif purged is None:
        print_line(f"all messages of queue {queue} were deleted")
    else:
        print_line(f"{purged} {'message' if purged == 1 else 'messages'} of queue {queue} deleted")


def delete(queue: QueueOption, room: RoomOption = None, yes: YesOption = False, as_json: JsonOption = False) -> None:
    """DELETE the queue with all its messages, the dead ones too, and its settings."""
    from meshhost.cli.commands.queue.checks import confirm, need_queue
    from meshhost.cli.connect import run_in_room
    from meshhost.cli.output import print_json, print_line

    confirm(f"Delete queue {queue} with all its messages for good?", yes=yes)

    async def use(client: RoomClient) -> None:
        await need_queue(client, queue)
        await client.queues.close(name=queue)

    run_in_room(room, use, only_looks=True)
    if as_json:
        print_json({"queue": queue, "deleted": True})
    else:
        print_line(f"queue {queue} deleted")


def drain(queue: QueueOption, room: RoomOption = None, as_json: JsonOption = False) -> None:
    """DELETE all messages of the queue: the former name of `meshhost queue purge --yes`."""
    from meshhost.cli.output import note, print_json, print_line

    note("meshhost: queue drain is deprecated: use `meshhost queue purge`, which asks before it deletes")
    _purge(room, queue)
    if as_json:
        print_json({"queue": queue, "drained": True})
    else:
        print_line(f"all messages of queue {queue} were deleted")


def _purge(room: str | None, queue: str) -> int | None:
    from meshhost.cli.commands.queue.checks import need_queue
    from meshhost.cli.connect import run_in_room

    async def use(client: RoomClient) -> int | None:
        await need_queue(client, queue)
        return await client.queues.purge(queue)

    return run_in_room(room, use, only_looks=True)


def _state(paused: bool | None) -> str:
    return "paused" if paused else ""

"""`meshhost queue receive`: takes the next message and prints it.

A message is acked after it was printed, so that one which could not be printed stays in the queue.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from meshhost.cli.options import JsonOption, QueueOption, RoomOption

if TYPE_CHECKING:
    from meshhost.room.client import RoomClient
    from meshhost.room.services.queues import LeasedMessage

__all__ = ["receive"]

# How long a message is leased for: it is acked as soon as it is printed.
_LEASE_SECONDS = 30.0


def receive(
    queue: QueueOption,
    room: RoomOption = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until there is a message.")] = False,
    timeout: Annotated[
        float | None, typer.Option(min=0, metavar="SECONDS", help="Wait at most this long; implies --wait.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Take the next message and print it as one line of JSON.

    The exit code is 1 when there is no message. The message is acked once it is printed; if printing fails, it stays in the
    queue. With --json it is printed together with its attempt, delivery, headers and time.
    """
    from meshhost.cli.connect import run_in_room
    from meshhost.cli.output import need_stdout, note

    need_stdout()  # before a message is taken that nobody would see

    async def use(client: RoomClient) -> bool:
        leased = await _lease(client, queue, wait=wait, timeout=timeout)
        if leased is not None:
            _print_message(leased, as_json=as_json)
            await leased.ack()
        return leased is not None

    if not run_in_room(room, use):
        note(f"meshhost: no message in queue {queue}{'' if wait or timeout else ': --wait waits for one'}")
        raise typer.Exit(1)


async def _lease(client: RoomClient, queue: str, *, wait: bool, timeout: float | None) -> LeasedMessage | None:
    import asyncio
    import contextlib

    from meshhost.cli.commands.queue.checks import queue_named

    if not wait and timeout is None:
        # Not created: a misspelt name must not make a queue. Who waits may wait for a queue that does not exist yet.
        async with queue_named(client, queue):
            return await client.queues.lease(name=queue, create=False, wait=False, seconds=_LEASE_SECONDS)
    # The server answers with nothing after some seconds, so ask again. A message that it leases to a request which timed out
    # here becomes ready again when the connection closes.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout):
            while True:
                leased = await client.queues.lease(name=queue, seconds=_LEASE_SECONDS)
                if leased is not None:
                    return leased
    return None


def _print_message(leased: LeasedMessage, *, as_json: bool) -> None:
    from meshhost.cli.output import print_json

    if not as_json:
        print_json(leased.message)
        return
    fields = ("message", "attempt", "delivery", "headers", "sent_at")
    print_json({name: getattr(leased, name) for name in fields})

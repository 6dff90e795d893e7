"""`meshhost queue`: sends to, receives from and manages the durable queues of a room.

Each command joins the room by `run_in_room` and asks its `queues`. Sending makes a queue, every other command fails for one
that does not exist, since its name may be misspelt. A message is acked after it was printed, so that one which could not be
printed stays in the queue. Libraries are imported inside the functions, since this module is loaded for every `--help`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from meshhost.cli.options import JsonOption, QueueOption, RoomOption

if TYPE_CHECKING:
    from meshhost.room.client import RoomClient
    from meshhost.room.services.queues import DeadMessage, LeasedMessage, Queue

__all__ = ["app"]

app = typer.Typer(help="Send to, receive from and manage the queues of a room.")

# How long a message is leased for: it is acked as soon as it is printed.
_LEASE_SECONDS = 30.0
_MAX_NAMED = 10
# How long a command may wait for the collector of its traces.
_FLUSH_SECONDS = 1.0


@app.command()
def send(
    queue: QueueOption,
    room: RoomOption = None,
    message: Annotated[str | None, typer.Option("--json", metavar="JSON", help="Message, any JSON value.")] = None,
    file: Annotated[
        str | None, typer.Option("--file", "-f", metavar="FILE", help="File with the message; - is standard input.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Do not print the id of the message.")] = False,
) -> None:
    """Send a message and print its id.

    The id is printed once the message is on the disk of the server.
    """
    from opentelemetry import trace

    from meshhost.cli.connect import run_in_room
    from meshhost.cli.json_input import parse_json, read_text
    from meshhost.cli.output import print_line

    if (message is None) == (file is None):
        raise typer.BadParameter("give the message with either --json or --file", param_hint="--json")
    text = message if message is not None else read_text(str(file), source="--file")
    value = parse_json(text, source="--json" if message is not None else "--file")
    _export_traces()

    async def use(client: RoomClient) -> str | None:
        attributes = {"messaging.operation.type": "send", "messaging.destination.name": queue}
        tracer = trace.get_tracer("meshhost.cli.commands.queue")
        with tracer.start_as_current_span("queue send", kind=trace.SpanKind.PRODUCER, attributes=attributes):
            return await client.queues.send(name=queue, message=value)

    message_id = run_in_room(room, use)
    if not quiet and message_id is not None:
        print_line(message_id)


@app.command()
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


@app.command("list")
def list_queues(room: RoomOption = None, as_json: JsonOption = False) -> None:
    """List the queues of the room and how many messages they have."""
    from meshhost.cli.connect import run_in_room
    from meshhost.cli.output import print_json, print_table, shown_age

    queues = run_in_room(room, lambda client: client.queues.list(), only_looks=True)
    if as_json:
        print_json([_queue_json(entry) for entry in queues])
        return
    rows = [(q.name, q.size, q.ready, q.leased, q.delayed, q.dead, shown_age(q.oldest_age)) for q in queues]
    columns = ("NAME", "SIZE", "READY", "LEASED", "DELAYED", "DEAD", "OLDEST")
    print_table(columns, rows, empty="no queues in this room yet")


@app.command()
def size(queue: QueueOption, room: RoomOption = None, as_json: JsonOption = False) -> None:
    """Print how many messages are in the queue."""
    from meshhost.cli.connect import run_in_room
    from meshhost.cli.output import print_json, print_line

    found = run_in_room(room, lambda client: _need_queue(client, queue), only_looks=True)
    if as_json:
        print_json(_queue_json(found))
    else:
        print_line(str(found.size))


@app.command()
def drain(queue: QueueOption, room: RoomOption = None, as_json: JsonOption = False) -> None:
    """DELETE all messages of the queue. They cannot be restored.

    Dead messages are kept. To process the messages instead, run a worker.
    """
    from meshhost.cli.connect import run_in_room
    from meshhost.cli.output import print_json, print_line

    async def use(client: RoomClient) -> None:
        await _need_queue(client, queue)
        await client.queues.drain(name=queue)

    run_in_room(room, use)
    if as_json:
        print_json({"queue": queue, "drained": True})
    else:
        print_line(f"all messages of queue {queue} were deleted")


@app.command()
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

    from meshhost.cli.connect import run_in_room
    from meshhost.cli.output import print_json, print_table, shown_time

    async def use(client: RoomClient) -> list[DeadMessage]:
        await _need_queue(client, queue)
        return await client.queues.dead(name=queue, limit=limit)

    letters = run_in_room(room, use, only_looks=True)
    if as_json:
        print_json([asdict(letter) for letter in letters])
        return
    rows = [(entry.id, entry.attempts, shown_time(entry.died_at), _last_line(entry.reason)) for entry in letters]
    print_table(("ID", "ATTEMPTS", "DIED", "REASON"), rows, empty="no dead messages in this queue")


@app.command()
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
    from meshhost.cli.connect import run_in_room
    from meshhost.cli.output import print_json, print_line
    from meshhost.errors import NotFoundError

    wrong = next((text for text in ids or () if not text.isdecimal()), None)
    if wrong is not None:
        raise typer.BadParameter(
            f"{wrong!r} is not a message id: `meshhost queue dead` shows the ids", param_hint="--id"
        )

    async def use(client: RoomClient) -> int:
        await _need_queue(client, queue)
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


def _export_traces() -> None:
    """Configure OpenTelemetry, whose packages take long to load, only when the environment names an endpoint."""
    from meshhost.settings import read_settings

    if read_settings().otel_endpoint is not None:
        from meshhost.otel import otel_config

        otel_config(service_name="meshhost-cli", flush_seconds=_FLUSH_SECONDS)


async def _need_queue(client: RoomClient, name: str) -> Queue:
    """The queue of this name. Raises NotFoundError, which names the queues that there are: a name may be misspelt."""
    from meshhost.errors import NotFoundError

    queues = await client.queues.list()
    found = next((queue for queue in queues if queue.name == name), None)
    if found is not None:
        return found
    names = [queue.name for queue in queues[:_MAX_NAMED]] + (["…"] if len(queues) > _MAX_NAMED else [])
    raise NotFoundError(f"no queue {name!r} in room {client.room_name}; there are: {', '.join(names) or 'none'}")


async def _lease(client: RoomClient, queue: str, *, wait: bool, timeout: float | None) -> LeasedMessage | None:
    import asyncio
    import contextlib

    from meshhost.errors import NotFoundError

    if not wait and timeout is None:
        # Not created: a misspelt name must not make a queue. Who waits may wait for a queue that does not exist yet.
        try:
            return await client.queues.lease(name=queue, create=False, wait=False, seconds=_LEASE_SECONDS)
        except NotFoundError:
            await _need_queue(client, queue)  # says which queues there are
            return None
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


def _queue_json(queue: Queue) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(queue)


def _last_line(reason: str) -> str:
    lines = reason.strip().splitlines()
    return lines[-1] if lines else ""

"""`meshhost queue send`: sends one message, or those of a file, and may wait for the result.

Many messages go in batches, each stored as a whole or not at all. The server stores a line once (see `lines`), so after a kill,
a lost connection or a refusal the same command sends the rest. Standard input is read in a thread of its own: its end may be
far away, and the connection to the room lives on meanwhile.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, TypeVar

import typer

from meshhost.cli.options import QueueOption, RoomOption, check_short

if TYPE_CHECKING:
    from meshhost.cli.commands.queue.lines import Batch, Source
    from meshhost.errors import RoomError
    from meshhost.room.client import RoomClient
    from meshhost.room.services.queues import SentIds

__all__ = ["send", "sent_line"]

T = TypeVar("T")

STANDARD_INPUT = 0
# How long a command may wait for the collector of its traces.
_FLUSH_SECONDS = 1.0
# The place of a message in a batch, as the server names it.
_PLACE = re.compile(r"^messages(?:\[(?P<a>\d+)\]|\.(?P<b>\d+))\.?")


def send(
    queue: QueueOption,
    room: RoomOption = None,
    message: Annotated[str | None, typer.Option("--json", metavar="JSON", help="Message, any JSON value.")] = None,
    text: Annotated[str | None, typer.Option("--text", metavar="TEXT", help="Message, a text.")] = None,
    file: Annotated[
        str | None,
        typer.Option("--file", "-f", metavar="FILE", help="File with one message, or one a line; - is standard input."),
    ] = None,
    delay: Annotated[str | None, typer.Option(metavar="TIME", help="Deliver it after this time, such as 10m.")] = None,
    at: Annotated[str | None, typer.Option(metavar="TIME", help="Deliver it then: 2026-12-01T08:00.")] = None,
    priority: Annotated[
        int, typer.Option(min=-100, max=100, metavar="N", help="From -100 to 100, higher ones first.")
    ] = 0,
    key: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="Messages of one key go one at a time, in order.", callback=check_short),
    ] = None,
    message_id: Annotated[
        str | None,
        typer.Option(
            "--id",
            metavar="ID",
            help="Your own name for it: sent again within a day, stored once.",
            callback=check_short,
        ),
    ] = None,
    ttl: Annotated[str | None, typer.Option(metavar="TIME", help="Drop it if nobody has begun it by then.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it is done and print its result.")] = False,
    timeout: Annotated[str | None, typer.Option(metavar="TIME", help="Wait at most this long; implies --wait.")] = None,
    with_options: Annotated[
        bool, typer.Option("--with-options", help='Each line of FILE is {"message": …, "priority": …, "key": …}.')
    ] = False,
    id_prefix: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Name the lines of FILE so, not by their contents.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Do not print the id or number of messages.")] = False,
) -> None:
    """Send a message, or each line of a file, and print its id.

    The id is printed once the message is on the disk of the server. A queue that does not exist is created.

    A FILE of lines is sent in batches of up to 1000. Each line is stored once within a day: a run that was interrupted is
    finished by the same command, which says how many were sent before. A wrong line is named, and those before it are stored.

    With --wait, progress is shown and the result is printed as JSON; the exit code is 1 when the message is dead, expired or
    cancelled. A TIME is such as 90s, 10m, 2h or 1d.
    """
    from meshhost.cli.commands.queue.lines import source_of
    from meshhost.cli.json_input import parse_json
    from meshhost.cli.times import LONGEST_SECONDS, moment_of, seconds_of

    if sum(given is not None for given in (message, text, file)) != 1:
        raise typer.BadParameter("give the message with one of --json, --text and --file", param_hint="--json")
    if delay is not None and at is not None:
        raise typer.BadParameter("give --delay or --at, not both", param_hint="--at")
    options = {
        "delay": None if delay is None else seconds_of(delay, option="--delay", most=LONGEST_SECONDS),
        "at": None if at is None else moment_of(at, option="--at"),
        "priority": priority or None,
        "key": key,
        "ttl": None if ttl is None else seconds_of(ttl, option="--ttl", needs_some=True, most=LONGEST_SECONDS),
    }
    sending = _Sending(
        queue,
        room,
        {name: value for name, value in options.items() if value is not None},
        wait=wait or timeout is not None,
        timeout=None if timeout is None else seconds_of(timeout, option="--timeout"),
        is_quiet=quiet,
    )
    if file is None:
        _need_file(with_options=with_options, id_prefix=id_prefix)
        sending.send_one(text if message is None else parse_json(message, source="--json"), message_id)
        return
    with _opened(file) as (stream, total):
        source = source_of(stream, name=file, is_lines=with_options or id_prefix is not None)
        if source.one is not None:
            sending.send_one(parse_json(_decoded(source.one), source="--file"), message_id)
            return
        if message_id is not None or sending.wait:
            raise typer.BadParameter("this is for one message, and FILE has many", param_hint="--id or --wait")
        sending.send_lines(source, total=total, prefix=id_prefix, with_options=with_options, in_thread=file == "-")


@dataclass(frozen=True)
class _Sending:
    """What is common to the messages of a command. `options` are those of NewMessage."""

    queue: str
    room: str | None
    options: dict[str, Any]
    wait: bool
    timeout: float | None
    is_quiet: bool

    def send_one(self, message: Any, message_id: str | None) -> None:
        from meshhost.cli.connect import run_in_room
        from meshhost.cli.output import note, print_json, print_line

        _export_traces()

        async def use(client: RoomClient) -> Any:
            named = self.options if message_id is None else self.options | {"id": message_id}
            with _span(self.queue):
                sent = await self._creating(
                    lambda create: client.queues.send(name=self.queue, message=message, create=create, **named)
                )
            if not self.wait or sent is None:
                return sent
            if not self.is_quiet:
                note(f"message {sent} is in queue {self.queue}")
            from meshhost.cli.commands.queue.following import note_paused, result_of

            where = self._where()
            await note_paused(client, self.queue, where=where)
            return await result_of(client, self.queue, sent, timeout=self.timeout, where=where)

        answer = run_in_room(self.room, use)
        if self.wait:
            print_json(answer)
        elif not self.is_quiet and answer is not None:
            print_line(answer)

    def _where(self) -> str:
        """The options that name this queue; the room's only when it was given and is not in the environment."""
        import shlex

        given = {"--room": self.room, "--queue": self.queue}
        return " ".join(f"{option} {shlex.quote(value)}" for option, value in given.items() if value is not None)

    def send_lines(
        self, source: Source, *, total: int | None, prefix: str | None, with_options: bool, in_thread: bool
    ) -> None:
        from meshhost.cli.commands.queue.lines import batches
        from meshhost.cli.connect import run_in_room
        from meshhost.cli.output import counting, print_line
        from meshhost.errors import RoomError

        _export_traces()
        found = batches(source.lines, self.options, prefix=prefix, with_options=with_options)

        async def use(client: RoomClient) -> tuple[int, int | None]:
            count = 0
            before: int | None = 0
            with _span(self.queue), counting(f"sending to {self.queue}", total=total) as show:
                while True:
                    try:
                        batch = await _in_thread(lambda: next(found, None)) if in_thread else next(found, None)
                        if batch is None:
                            return count, before
                        sent = await self._send_batch(client, batch, may_create=count == 0)
                    except RoomError as error:
                        raise _after(count, error) from None
                    count += len(batch.numbers)
                    before = None if before is None or sent.before is None else before + sent.before
                    show(batch.end, count)

        count, before = run_in_room(self.room, use)
        if not self.is_quiet:
            print_line(sent_line(self.queue, count, before))

    async def _send_batch(self, client: RoomClient, batch: Batch, *, may_create: bool) -> SentIds:
        from meshhost.errors import RoomError

        def call(create: bool) -> Awaitable[SentIds]:
            return client.queues.send_many(self.queue, batch.messages, create=create)

        try:
            return await (self._creating(call) if may_create else call(True))
        except RoomError as error:
            raise _with_line(error, batch) from None

    async def _creating(self, call: Callable[[bool], Awaitable[T]]) -> T:
        """Do a call that may create the queue, and say when it did: a name may be misspelt."""
        from meshhost.cli.output import note
        from meshhost.errors import NotFoundError

        try:
            return await call(False)
        except NotFoundError:
            answer = await call(True)
        if not self.is_quiet:
            note(f"meshhost: created queue {self.queue}")
        return answer


def sent_line(queue: str, count: int, before: int | None) -> str:
    """What became of the messages of a file; `before` of them were sent earlier (None: the server does not say how many)."""
    new = count - (before or 0)
    text = f"{new} {'message' if new == 1 else 'messages'} sent to queue {queue}"
    if before is None:
        return f"{text}, now or before"
    return f"{text}; {before} {'was' if before == 1 else 'were'} sent before" if before else text


def _need_file(*, with_options: bool, id_prefix: str | None) -> None:
    if with_options or id_prefix is not None:
        raise typer.BadParameter("this is for the lines of a file", param_hint="--with-options or --id-prefix")


@contextmanager
def _opened(path: str) -> Iterator[tuple[BinaryIO, int | None]]:
    """The file and its size; standard input has none."""
    import os
    from pathlib import Path

    if path == "-":
        # Not `sys.stdin`, and never closed: both would wait for a thread that reads.
        yield open(STANDARD_INPUT, "rb", closefd=False), None  # noqa: SIM115
        return
    with Path(path).open("rb") as stream:
        yield stream, os.fstat(stream.fileno()).st_size


def _decoded(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise typer.BadParameter(f"not UTF-8 at byte {error.start}", param_hint="--file") from None


async def _in_thread(call: Callable[[], T]) -> T:
    """What `call` returns, from a thread that does not hold up the end of the process: it may read for ever."""
    import asyncio
    import contextlib
    import threading

    loop = asyncio.get_running_loop()
    result: asyncio.Future[T] = loop.create_future()

    def settle(value: Any, error: Exception | None) -> None:
        if not result.done():
            if error is None:
                result.set_result(value)
            else:
                result.set_exception(error)

    def work() -> None:
        value, failed = None, None
        try:
            value = call()
        except Exception as error:  # noqa: BLE001 - raised again by who waits
            failed = error
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle, value, failed)

    threading.Thread(target=work, name="standard input", daemon=True).start()
    return await result


def _with_line(error: RoomError, batch: Batch) -> RoomError:
    """The error with the number of its line: where the server named the place in the batch, or there is only one."""
    from meshhost.errors import InvalidRequestError, LimitExceededError

    found, text = _PLACE.match(str(error)), str(error)
    if found is not None and (number := int(found["a"] or found["b"])) < len(batch.numbers):
        return InvalidRequestError(f"line {batch.numbers[number]}", text[found.end() :].removeprefix(": "))
    if isinstance(error, LimitExceededError) and len(batch.numbers) == 1:
        return LimitExceededError(f"line {batch.numbers[0]}: {text}")
    return error


def _after(count: int, error: RoomError) -> RoomError:
    """The error, with what to do when messages were stored before."""
    from meshhost.errors import RoomError

    if not count:
        return error
    stored = "the message" if count == 1 else f"the {count} messages"
    return RoomError(
        f"{error}; {stored} before it {'is' if count == 1 else 'are'} stored, and the same command sends the rest"
    )


@contextmanager
def _span(queue: str) -> Iterator[None]:
    if "opentelemetry.trace" not in sys.modules:  # nobody traces: see `_export_traces`
        yield
        return
    from opentelemetry import trace

    attributes = {"messaging.operation.type": "send", "messaging.destination.name": queue}
    tracer = trace.get_tracer("meshhost.cli.commands.queue")
    with tracer.start_as_current_span("queue send", kind=trace.SpanKind.PRODUCER, attributes=attributes):
        yield


def _export_traces() -> None:
    """Configure OpenTelemetry, whose packages take long to load, only when the environment names an endpoint."""
    from meshhost.client_settings import read_client_settings

    if read_client_settings().otel_endpoint is not None:
        from meshhost.otel import otel_config

        otel_config(service_name="meshhost-cli", flush_seconds=_FLUSH_SECONDS)

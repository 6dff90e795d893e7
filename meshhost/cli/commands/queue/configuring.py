"""`meshhost queue configure`, `pause` and `resume`: the settings of a queue.

Only what is given changes. Settings of this release are named here one by one, so that `--help` explains each.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from meshhost.cli.options import JsonOption, QueueOption, RoomOption

if TYPE_CHECKING:
    from meshhost.room.client import RoomClient
    from meshhost.room.services.queues import QueueSettings

__all__ = ["configure", "pause", "resume"]

_SECONDS = ("retry_seconds", "max_retry_seconds", "deadline", "result_ttl")
# What `--reset` takes: the options without their dashes.
_SETTINGS = {
    "max-attempts": "max_attempts",
    "retry": "retry_seconds",
    "max-retry": "max_retry_seconds",
    "max-depth": "max_depth",
    "deadline": "deadline",
    "concurrency": "concurrency",
    "result-ttl": "result_ttl",
    "rate": "rate",
    "burst": "burst",
    "key-rate": "key_rate",
}

# What it means when a setting has no value, where the server has no default.
_UNSET = {"rate": "no limit", "key_rate": "no limit", "burst": "what the rate allows in one second"}


def configure(
    queue: QueueOption,
    room: RoomOption = None,
    max_attempts: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="After so many failed attempts a message is dead.")
    ] = None,
    retry: Annotated[
        str | None, typer.Option(metavar="TIME", help="First retry after about this time; each later one takes double.")
    ] = None,
    max_retry: Annotated[str | None, typer.Option(metavar="TIME", help="Longest time before a retry.")] = None,
    max_depth: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Most messages; a full queue refuses new ones.")
    ] = None,
    deadline: Annotated[
        str | None, typer.Option(metavar="TIME", help="How long a worker may take for one message.")
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Most messages worked on at once, over all workers.")
    ] = None,
    result_ttl: Annotated[
        str | None, typer.Option(metavar="TIME", help="How long it is known how a message ended; 0 keeps nothing.")
    ] = None,
    rate: Annotated[
        str | None,
        typer.Option(metavar="RATE", help="Most starts per time over all workers, such as 10/s, 600/m or 100/h."),
    ] = None,
    burst: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Most starts at once after a pause; without it as many as in a second."),
    ] = None,
    key_rate: Annotated[
        str | None, typer.Option(metavar="RATE", help="Most starts per time of the messages of one key.")
    ] = None,
    reset: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Set this one, such as max-attempts, back to the server's default."),
    ] = None,
    create: Annotated[bool, typer.Option("--create", help="Create the queue if it does not exist.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Change settings of a queue and show all; without options, only show them.

    A TIME is such as 90s, 10m, 2h or 1d. What is not given stays as it is.
    """
    from meshhost.cli.commands.queue.checks import queue_named
    from meshhost.cli.connect import run_in_room
    from meshhost.cli.times import LONGEST_SECONDS, seconds_of

    given = {"retry": retry, "max-retry": max_retry, "deadline": deadline, "result-ttl": result_ttl}
    changes: dict[str, Any] = {
        _SETTINGS[name]: seconds_of(text, option=f"--{name}", needs_some=name != "result-ttl", most=LONGEST_SECONDS)
        for name, text in given.items()
        if text is not None
    }
    others: dict[str, Any] = {
        "max_attempts": max_attempts,
        "max_depth": max_depth,
        "concurrency": concurrency,
        "rate": rate,
        "burst": burst,
        "key_rate": key_rate,
    }
    changes |= {name: value for name, value in others.items() if value is not None}
    changes |= _resets(reset or (), changes)

    async def use(client: RoomClient) -> QueueSettings:
        if create:
            await client.queues.open(name=queue)
        async with queue_named(client, queue):
            return await (client.queues.configure(queue, **changes) if changes else client.queues.settings(queue))

    _print_settings(run_in_room(room, use, only_looks=True), as_json=as_json)


def pause(queue: QueueOption, room: RoomOption = None, as_json: JsonOption = False) -> None:
    """Deliver nothing of the queue until it is resumed.

    Messages that are worked on may be finished, and new ones are still accepted.
    """
    _set_paused(queue, room, paused=True, as_json=as_json)


def resume(queue: QueueOption, room: RoomOption = None, as_json: JsonOption = False) -> None:
    """Deliver the messages of a paused queue again."""
    _set_paused(queue, room, paused=False, as_json=as_json)


def _resets(names: list[str] | tuple[()], changes: dict[str, Any]) -> dict[str, Any]:
    """The settings of `--reset` with their defaults. Raises BadParameter."""
    from meshhost.room.services.queues import QueueSettings

    found: dict[str, Any] = {}
    for name in names:
        setting = _SETTINGS.get(name.replace("_", "-"))
        if setting is None:
            raise typer.BadParameter(f"expected one of {', '.join(_SETTINGS)}, got {name!r}", param_hint="--reset")
        if setting in changes:
            raise typer.BadParameter(f"{name} is set and reset", param_hint="--reset")
        found[setting] = getattr(QueueSettings(), setting)
    return found


def _set_paused(queue: str, room: str | None, *, paused: bool, as_json: bool) -> None:
    from meshhost.cli.commands.queue.checks import queue_named
    from meshhost.cli.connect import run_in_room
    from meshhost.cli.output import print_json, print_line

    async def use(client: RoomClient) -> None:
        async with queue_named(client, queue):
            await (client.queues.pause(queue) if paused else client.queues.resume(queue))

    run_in_room(room, use, only_looks=True)
    if as_json:
        print_json({"queue": queue, "paused": paused})
    else:
        print_line(f"queue {queue} is {'paused' if paused else 'delivered again'}")


def _print_settings(settings: QueueSettings, *, as_json: bool) -> None:
    from meshhost.cli.output import print_json, print_line

    if as_json:
        print_json(asdict(settings))
        return
    print_line(f"paused: {'yes' if settings.paused else 'no'}")
    for name, setting in _SETTINGS.items():
        value = getattr(settings, setting)
        print_line(f"{name}: {_shown(setting, value)}")


def _shown(setting: str, value: float | str | None) -> str:
    if value is None:
        return _UNSET.get(setting, "the default of the server")
    if isinstance(value, str):
        return value
    return f"{value:g} s" if setting in _SECONDS else f"{value:g}"

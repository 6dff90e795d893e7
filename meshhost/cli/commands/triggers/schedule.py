"""`meshhost schedule`: makes, shows and changes the schedules of a room.

What a schedule says is checked here before anything is sent, with the code of the server (`meshhost.triggers`), so that a wrong
option is named at once; `preview` needs no server at all. Libraries are imported inside the functions, since this module is
loaded for every `--help`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from meshhost.cli.options import JsonOption, QueueOption, RoomOption

if TYPE_CHECKING:
    from meshhost.triggers.schedules import ScheduleSpec

__all__ = ["app"]

app = typer.Typer(help="Send messages at certain times: cron lines, intervals and single times.")

_PAGE = 1000
_Schedule = Annotated[str, typer.Argument(metavar="SCHEDULE", help="Id or name of the schedule.")]
_Cron = Annotated[
    str | None,
    typer.Option("--cron", metavar="LINE", help="Minute, hour, day, month, weekday: '30 8 * * 1-5'; or @daily."),
]
_Every = Annotated[str | None, typer.Option("--every", metavar="TIME", help="Interval such as 90s, 15m, 2h or 1d.")]
_At = Annotated[
    str | None, typer.Option("--at", metavar="TIME", help="One time, such as 2026-12-24T18:00, in --timezone.")
]
_Zone = Annotated[str, typer.Option("--timezone", metavar="ZONE", help="Time zone such as Europe/Berlin.")]


@app.command()
def add(
    queue: QueueOption,
    room: RoomOption = None,
    message: Annotated[str | None, typer.Option("--message", metavar="JSON", help="Message, any JSON value.")] = None,
    file: Annotated[
        str | None, typer.Option("--file", "-f", metavar="FILE", help="File with the message; - is standard input.")
    ] = None,
    cron: _Cron = None,
    every: _Every = None,
    at: _At = None,
    timezone: _Zone = "UTC",
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="A name for people.")] = "",
    missed: Annotated[
        str, typer.Option("--missed", metavar="skip|once|all", help="What is sent for times when no server ran.")
    ] = "once",
    no_overlap: Annotated[
        bool, typer.Option("--no-overlap", help="Send nothing while the message before is undone.")
    ] = False,
    once: Annotated[bool, typer.Option("--once", help="End after the first time.")] = False,
    paused: Annotated[bool, typer.Option("--paused", help="Send nothing until it is resumed.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Make a schedule: a message that is sent to a queue at certain times."""
    from meshhost.cli.commands.triggers.asking import ask, message_of
    from meshhost.cli.connect import resolve_room
    from meshhost.cli.output import print_json, print_line

    values = {"queue": queue, "message": message_of(message, file), "name": name, "missed": missed, "once": once}
    spec = _checked(values | {"overlap": not no_overlap}, cron, every, at, timezone)
    made = ask("POST", f"/rooms/{resolve_room(room)}/schedules", spec.model_dump() | {"paused": paused})
    if as_json:
        print_json(made)
    else:
        print_line(f"{made['id']}, next: {_state(made)}")


@app.command("list")
def list_schedules(
    room: Annotated[
        str | None, typer.Option("--room", metavar="NAME", help="Only this room's (default: all rooms of the project).")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List schedules, the oldest first."""
    from meshhost.cli.output import print_json, print_table

    schedules = _all(room)
    if as_json:
        print_json(schedules)
        return
    rows = [
        (each["name"] or each["id"], each["room"], each["queue"], _when(each), _state(each), each["sent"])
        for each in schedules
    ]
    print_table(("SCHEDULE", "ROOM", "QUEUE", "WHEN", "NEXT", "SENT"), rows, empty="no schedules yet")


@app.command()
def show(schedule: _Schedule, room: RoomOption = None, as_json: JsonOption = False) -> None:
    """Show a schedule and what happened at its last times."""
    from meshhost.cli.commands.triggers.asking import ask
    from meshhost.cli.output import print_json, print_table, shown_time

    shown = ask("GET", _path(schedule, room))
    if as_json:
        print_json(shown)
        return
    facts = [("id", shown["id"]), ("name", shown["name"]), ("queue", shown["queue"]), ("when", _when(shown))]
    facts += [("made by", shown["made_by"] or "an API key"), ("next", _state(shown))]
    facts += [("missed", shown["missed"]), ("overlap", "yes" if shown["overlap"] else "no")]
    print_table(("", ""), [*facts, ("error", shown["error"])], empty="")
    rows = [
        (shown_time(run["at"]), run["outcome"], run.get("message_id"), run.get("error") or run.get("left_out"))
        for run in shown["runs"]
    ]
    print_table(("AT", "OUTCOME", "MESSAGE", "LEFT OUT"), rows, empty="nothing was sent yet")


@app.command()
def pause(schedule: _Schedule, room: RoomOption = None, as_json: JsonOption = False) -> None:
    """Send nothing until the schedule is resumed."""
    _change(schedule, room, {"paused": True}, "paused", as_json=as_json)


@app.command()
def resume(schedule: _Schedule, room: RoomOption = None, as_json: JsonOption = False) -> None:
    """Send again, from the next time on.

    A schedule that stopped because the key with which it was made has ended goes on with yours.
    """
    _change(schedule, room, {"paused": False}, "resumed", as_json=as_json)


@app.command()
def remove(schedule: _Schedule, room: RoomOption = None, as_json: JsonOption = False) -> None:
    """Delete a schedule; messages that it sent stay."""
    from meshhost.cli.commands.triggers.asking import ask
    from meshhost.cli.output import print_json, print_line

    path = _path(schedule, room)
    ask("DELETE", path)
    if as_json:
        print_json({"deleted": path.rpartition("/")[2]})
    else:
        print_line(f"removed schedule {schedule}")


@app.command("run-now")
def run_now(schedule: _Schedule, room: RoomOption = None, as_json: JsonOption = False) -> None:
    """Send the message of a schedule now, and print its id."""
    from meshhost.cli.commands.triggers.asking import ask
    from meshhost.cli.output import print_json, print_line

    answer = ask("POST", f"{_path(schedule, room)}/run")
    if as_json:
        print_json(answer)
    else:
        print_line(answer["id"])


@app.command()
def preview(
    cron: _Cron = None,
    every: _Every = None,
    at: _At = None,
    timezone: _Zone = "UTC",
    count: Annotated[int, typer.Option("--count", min=1, max=1000, metavar="N", help="How many times to show.")] = 5,
    as_json: JsonOption = False,
) -> None:
    """Show when a schedule would send next.

    Asks no server.
    """
    import time

    from meshhost.cli.output import print_json, print_line
    from meshhost.triggers.schedules import timing_of
    from meshhost.triggers.timing import next_times

    now = time.time()
    timing = timing_of(_checked({"queue": "x", "message": None}, cron, every, at, timezone), created_at=now)
    times = next_times(timing, now, count)
    if as_json:
        print_json(times)
        return
    for each in times:
        print_line(_shown(each, timezone))
    if not times:
        raise typer.BadParameter("this time has passed", param_hint="--at")


def _checked(
    values: dict[str, Any], cron: str | None, every: str | None, at: str | None, timezone: str
) -> ScheduleSpec:
    """The spec that the options give. Raises BadParameter, which names the option."""
    from meshhost.cli.commands.triggers.asking import wrong_option
    from meshhost.cli.times import seconds_of
    from meshhost.errors import InvalidRequestError
    from meshhost.triggers.schedules import ScheduleSpec

    seconds = None if every is None else seconds_of(every, option="--every")
    try:
        return ScheduleSpec.parse(values | {"cron": cron, "every": seconds, "at": at, "timezone": timezone})
    except InvalidRequestError as error:
        raise wrong_option(error) from None


def _all(room: str | None) -> list[dict[str, Any]]:
    from meshhost.cli.commands.triggers.asking import ask
    from meshhost.cli.connect import resolve_room

    path = "/schedules" if room is None else f"/rooms/{resolve_room(room)}/schedules"
    schedules: list[dict[str, Any]] = []
    while page := ask("GET", path, limit=_PAGE, after=schedules[-1]["id"] if schedules else "")["schedules"]:
        schedules += page
        if len(page) < _PAGE:
            break
    return schedules


def _path(given: str, room: str | None) -> str:
    from meshhost.cli.commands.triggers.asking import found
    from meshhost.cli.connect import resolve_room

    name = resolve_room(room)
    return f"/rooms/{name}/schedules/{found(_all(name), given, 'schedule')['id']}"


def _change(given: str, room: str | None, body: dict[str, Any], what: str, *, as_json: bool) -> None:
    from meshhost.cli.commands.triggers.asking import ask
    from meshhost.cli.output import print_json, print_line

    changed = ask("PATCH", _path(given, room), body)
    if as_json:
        print_json(changed)
    else:
        is_paused = bool(changed["paused"])
        print_line(f"{what} schedule {given}" + ("" if is_paused else f", next: {_state(changed)}"))


def _when(schedule: dict[str, Any]) -> str:
    if schedule["cron"] is not None:
        zone = schedule["timezone"]
        return str(schedule["cron"]) if zone == "UTC" else f"{schedule['cron']} {zone}"
    if schedule["every"] is not None:
        seconds = schedule["every"]
        unit, size = next(((u, s) for u, s in (("d", 86400), ("h", 3600), ("m", 60)) if seconds % s == 0), ("s", 1))
        return f"every {seconds / size:g}{unit}"
    return "once"


def _state(schedule: dict[str, Any]) -> str:
    if schedule["paused"]:
        return "paused"
    return "ended" if schedule["next_at"] is None else _shown(schedule["next_at"], schedule["timezone"])


def _shown(time: float, zone: str) -> str:
    from datetime import datetime

    from meshhost.triggers.timing import zone_of

    moment = datetime.fromtimestamp(time, zone_of(zone))
    return f"{moment:%a %Y-%m-%d} {moment:%H:%M:%S %Z}" if moment.second else f"{moment:%a %Y-%m-%d %H:%M %Z}"

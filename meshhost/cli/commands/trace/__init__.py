"""`meshhost trace`: shows the traces that a room server keeps: a list of those of a room, and one of them as a waterfall.

Both ask the server over REST, with the API key of the project; they join no room.
"""

from typing import Annotated, Any

import typer

from meshhost.cli.options import JsonOption, RoomOption

__all__ = ["app"]

app = typer.Typer(help="Show where the time of messages went: traces of a room.")

_MOST_ROWS = 1000
_PAGE = 200
_COLUMNS, _MOST_COLUMNS = 80, 160


@app.command("list")
def list_traces(
    room: RoomOption = None,
    queue: Annotated[str, typer.Option("--queue", metavar="NAME", help="Only of messages of this queue.")] = "",
    message: Annotated[str, typer.Option("--message", metavar="ID", help="Only of the message with this id.")] = "",
    agent: Annotated[str, typer.Option("--agent", metavar="NAME", help="Only those this agent worked on.")] = "",
    failed: Annotated[bool, typer.Option("--failed", help="Only those in which something failed.")] = False,
    longer: Annotated[
        float,
        typer.Option("--longer", min=0, metavar="SECONDS", help="Only those that took at least this many seconds."),
    ] = 0.0,
    limit: Annotated[int, typer.Option("--limit", min=1, max=_MOST_ROWS, help="Most traces to list.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """List traces of a room, the newest first."""
    from meshhost.cli.commands.trace.waterfall import shown_seconds
    from meshhost.cli.log_output import log_for_command
    from meshhost.cli.output import note, print_json, print_table, shown_time

    log_for_command()
    query: dict[str, str | int] = {"queue": queue, "message": message, "agent": agent, "longer": str(longer)}
    traces, is_recording = _traces(room, {**query, "failed": str(failed).lower()}, limit)
    if not is_recording:
        note("this room server records no traces: see [traces] of its configuration file")
    if as_json:
        print_json(traces)
        return
    rows = [
        (
            each["trace"],
            shown_time(each["began_at"]),
            shown_seconds(each["seconds"]),
            "failed" if each["failed"] else "",
            each["name"],
            ", ".join(each["messages"]),
            ", ".join(each["agents"]),
            each["span_count"],
        )
        for each in traces
    ]
    columns = ("TRACE", "BEGAN", "TOOK", "STATE", "NAME", "MESSAGES", "AGENTS", "SPANS")
    print_table(columns, rows, empty="no such traces: of many messages only some are recorded, and those that fail")


@app.command("show")
def show(
    trace: Annotated[str, typer.Argument(metavar="TRACE", help="Id of the trace, as `trace list` shows it.")],
    room: RoomOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a trace as a waterfall: what was done for a message, when, and for how long."""
    from urllib.parse import quote

    from meshhost.cli.connect import get_json, resolve_room, server_access
    from meshhost.cli.log_output import log_for_command
    from meshhost.cli.output import print_json

    log_for_command()
    path = f"/rooms/{resolve_room(room)}/traces/{quote(trace.strip().lower(), safe='')}"
    found = get_json(server_access(), path)
    if as_json:
        print_json(found)
    else:
        _print_waterfall(found)


def _traces(room: str | None, query: dict[str, str | int], limit: int) -> tuple[list[dict[str, Any]], bool]:
    """The newest traces that fit, and whether any are recorded."""
    from meshhost.cli.connect import resolve_room, send_json, server_access

    path, access = f"/rooms/{resolve_room(room)}/traces", server_access()
    found: list[dict[str, Any]] = []
    before: dict[str, str | int] = {}
    while True:
        asked = {**query, **before, "limit": min(limit - len(found), _PAGE)}
        page = send_json(access.api_url, access.api_key, "GET", path, None, asked)
        found += page["traces"]
        if page["next"] is None or len(found) >= limit:
            return found[:limit], page["recording"]
        before = {"before": page["next"]}


def _print_waterfall(found: dict[str, Any]) -> None:
    import shutil
    import sys

    from meshhost.cli.commands.trace.waterfall import shown_seconds, waterfall
    from meshhost.cli.output import note, print_line, shown_time

    print_line(f"{found['name']}, {shown_time(found['began_at'])}, took {shown_seconds(found['seconds'])}")
    for kind in ("queues", "messages", "agents"):
        if found[kind]:
            print_line(f"{kind}: {', '.join(found[kind])}")
    print()
    columns = shutil.get_terminal_size((_COLUMNS, 24)).columns if sys.stdout.isatty() else _COLUMNS
    is_unicode = (sys.stdout.encoding or "").lower().replace("-", "").startswith("utf")
    for line in waterfall(found["spans"], width=max(min(columns, _MOST_COLUMNS), 40), is_unicode=is_unicode):
        print(line)
    sys.stdout.flush()
    if found["dropped"]:
        note(f"{found['dropped']} more spans did not fit into the trace")

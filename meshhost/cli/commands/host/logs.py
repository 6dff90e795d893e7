"""`meshhost logs`: prints the last log records of a service host, and follows them.

The host keeps them in memory and shows them over its admin API, so they are there also when its stderr is on another machine or
goes nowhere. To follow is to ask again each second for what came after the last answer. Other people's agents write the texts:
they are printed without control characters.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from meshhost.cli.commands.host.client import ask, check_prefix
from meshhost.cli.commands.host.options import PathOption, RoomOption, TenantOption, UrlOption
from meshhost.cli.options import JsonOption

__all__ = ["logs"]

_SECONDS = 1.0


def logs(
    agent_id: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="Id of an agent, or six or more characters of its beginning.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is logged, until Ctrl-C.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, max=10_000, help="Begin with at most so many.")] = 100,
    tenant: TenantOption = None,
    path: PathOption = None,
    room: RoomOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a service host and its agents have logged, from the last 2000 records that it keeps.

    Records below INFO are not kept, nor those that the program's own level leaves out.
    """
    import time

    if agent_id is not None:
        check_prefix(agent_id)
    wanted = {"id": agent_id, "tenant": tenant, "path": path, "room": room}
    query = {name: value for name, value in wanted.items() if value is not None}
    answer = ask(url, "GET", "/agents/logs", query={**query, "limit": str(lines)})
    while True:
        for record in answer["records"]:
            _print(record, as_json=as_json)
        if not follow:
            return
        time.sleep(_SECONDS)
        answer = ask(url, "GET", "/agents/logs", query={**query, "after": str(answer["next"])})


def _print(record: dict[str, Any], *, as_json: bool) -> None:
    from datetime import datetime

    from meshhost.cli.output import one_line, print_json
    from meshhost.logs import line_of

    if as_json:
        print_json(record)
        return
    rest = {name: value for name, value in record.items() if name != "number"}
    created = datetime.fromisoformat(rest.pop("time")).timestamp()
    level, logger, message = (str(rest.pop(name)) for name in ("level", "logger", "message"))
    trace = str(rest.pop("traceback", ""))
    print(one_line(line_of(created, f"{level:<7}", logger, message, rest)), flush=True)
    for line in trace.splitlines():
        # Keep the indentation: without it a traceback cannot be read.
        print(" " * (len(line) - len(line.lstrip())) + one_line(line), flush=True)

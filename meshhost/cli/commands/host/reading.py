"""The commands of `meshhost host` that only look: ps, describe, tenants, top.

Each asks the host by `client` and prints the answer by `tables`, or as it came with --json. `top` asks again at an interval.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from meshhost.cli.commands.host.client import PAGE, agents_of, ask, full_id, quoted
from meshhost.cli.commands.host.options import (
    AgentArgument,
    PathOption,
    RoomOption,
    StateOption,
    TenantOption,
    UrlOption,
)
from meshhost.cli.commands.host.tables import (
    AGENT_COLUMNS,
    TENANT_COLUMNS,
    agent_row,
    agent_table,
    print_agent,
    print_look,
    screen,
    tenant_row,
)
from meshhost.cli.options import JsonOption

__all__ = ["describe", "ps", "tenants", "top"]


def ps(
    url: UrlOption = None,
    tenant: TenantOption = None,
    path: PathOption = None,
    state: StateOption = None,
    room: RoomOption = None,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit", metavar="N", min=1, help="Show at most N agents (default: 1000 on a terminal, else all)."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List the agents on the host, oldest first, and then those that failed for good within the last hour."""
    import sys

    from meshhost.cli.output import note, print_json

    if limit is None and sys.stdout.isatty() and not as_json:
        limit = PAGE
    filters = _filters(tenant=tenant, path=path, state=state, room=room)
    agents, are_more = agents_of(url, filters, limit)
    if as_json:
        print_json(agents)
    else:
        _print_agents(agents, empty="no agents match on this host" if filters else "no agents on this host")
    if are_more:
        note(f"there are more than {len(agents)}: see --limit")


def describe(agent_id: AgentArgument, url: UrlOption = None, as_json: JsonOption = False) -> None:
    """Show everything about an agent, with the end of its last traceback."""
    from meshhost.cli.output import print_json

    agent = ask(url, "GET", f"/agents/{quoted(full_id(url, agent_id))}")
    if as_json:
        print_json(agent)
    else:
        print_agent(agent)


def tenants(url: UrlOption = None, as_json: JsonOption = False) -> None:
    """List the tenants that have agents, or are frozen or in quarantine."""
    from meshhost.cli.output import print_json, print_table

    found = ask(url, "GET", "/tenants")["tenants"]
    if as_json:
        print_json(found)
    else:
        print_table(TENANT_COLUMNS, [tenant_row(one) for one in found], empty="no tenant has agents on this host")


def top(
    url: UrlOption = None,
    interval: Annotated[float, typer.Option("--interval", min=0.1, help="Seconds between two updates.")] = 2.0,
    tenant: TenantOption = None,
    path: PathOption = None,
    state: StateOption = None,
    room: RoomOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show load, tenants and agents until Ctrl-C.

    Prints once and ends when the output is not a terminal.
    """
    import sys

    from meshhost.cli.output import print_json

    filters = _filters(tenant=tenant, path=path, state=state, room=room)
    if as_json:
        print_json(_look(url, filters))
    elif sys.stdout.isatty():
        _watch(url, filters, interval)
    else:
        print_look(_look(url, filters))


def _print_agents(agents: list[dict[str, Any]], *, empty: str) -> None:
    import shutil
    import sys

    from meshhost.cli.output import note, print_table

    if not (agents and sys.stdout.isatty()):
        # For programs: all columns, in this order.
        print_table(AGENT_COLUMNS, [agent_row(agent) for agent in agents], empty=empty)
        return
    columns, rows, left_out = agent_table(agents, shutil.get_terminal_size().columns)
    print_table(columns, rows, empty=empty)
    if left_out:
        note(f"left out of the table, to fit: {', '.join(left_out).lower()}; --json has all")


def _filters(**given: str | None) -> dict[str, str]:
    return {name: value for name, value in given.items() if value is not None}


def _look(url: str | None, filters: dict[str, str]) -> dict[str, Any]:
    return {**ask(url, "GET", "/tenants"), "agents": agents_of(url, filters)[0]}


def _watch(url: str | None, filters: dict[str, str], interval: float) -> None:
    import time

    from rich.console import Console
    from rich.live import Live

    console = Console()
    with Live(screen(_look(url, filters), console.width), console=console, screen=True, auto_refresh=False) as live:
        while True:
            time.sleep(interval)
            live.update(screen(_look(url, filters), console.width), refresh=True)

"""What a host answers about agents and tenants, as tables and text for people.

An agent has more columns than a terminal of 80 characters holds. `agent_table` leaves out those that say nothing, and then the
least needed ones until a line fits; what it left out is said. Texts of agents are printed without control characters, and never
as markup. Libraries are imported inside the functions, since this module is loaded for every `--help`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "AGENT_COLUMNS",
    "TENANT_COLUMNS",
    "agent_row",
    "agent_table",
    "print_agent",
    "print_look",
    "screen",
    "tenant_row",
]

AGENT_COLUMNS = (
    "ID",
    "STATE",
    "TENANT",
    "ROOM",
    "IDENTITY",
    "PATH",
    "ISOLATION",
    "AGE",
    "RESTARTS",
    "MEMORY",
    "WAITS FOR",
)
TENANT_COLUMNS = ("TENANT", "AGENTS", "WAITING", "MEMORY", "FROZEN SINCE", "REASON", "QUARANTINE", "QUOTA")

# Enough to tell agents apart, and for `host describe ID`.
_SHOWN_ID = 12
_SHORT_TENANT = 9
# What is left out of a table that is too wide, in this order.
_LEFT_OUT = ("ISOLATION", "MEMORY", "PATH", "WAITS FOR", "TENANT", "AGE")


def agent_table(agents: Sequence[dict[str, Any]], width: int) -> tuple[list[str], list[list[str]], list[str]]:
    """Return columns and rows that fit into `width` characters as far as possible, and the columns that were left out."""
    from meshhost.cli.output import one_line

    rows = [["" if cell is None else one_line(str(cell)) for cell in agent_row(agent)] for agent in agents]
    table = {name: [row[n] for row in rows] for n, name in enumerate(AGENT_COLUMNS)}
    shown = {name: cells for name, cells in table.items() if any(cells)}
    if _width(shown) > width and "TENANT" in shown:
        # An id of 36 characters takes half of a line; its beginning tells tenants apart.
        shown["TENANT"] = [_shortened(cell) for cell in shown["TENANT"]]
    left_out: list[str] = []
    for name in [one for one in _LEFT_OUT if one in shown]:
        if _width(shown) <= width:
            break
        del shown[name]
        left_out += [name]
    return list(shown), [list(row) for row in zip(*shown.values(), strict=True)], left_out


def _width(table: dict[str, list[str]]) -> int:
    return sum(max(len(name), *map(len, cells)) + 1 for name, cells in table.items()) - 1


def _shortened(tenant: str) -> str:
    return f"{tenant[: _SHORT_TENANT - 1]}…" if len(tenant) == 36 and tenant.count("-") == 4 else tenant


def print_look(look: dict[str, Any]) -> None:
    """Print one look of `host top`: a headline, then the agents."""
    from meshhost.cli.output import print_line, print_table

    print_line(_headline(look))
    print_table(AGENT_COLUMNS, [agent_row(agent) for agent in look["agents"]], empty="no agents on this host")


def screen(look: dict[str, Any], width: int) -> Any:
    """What `host top` shows on a terminal of this width: the headline, the tenants, then the agents, problems first."""
    from rich.console import Group
    from rich.text import Text

    tenants = [
        (_tenant(one), one["agents"], one["waiting"], _condition(one))
        for one in sorted(look["tenants"], key=lambda one: -one["agents"])
    ]
    agents = sorted(look["agents"], key=lambda agent: (agent["state"] == "running", -agent["restarts"]))
    columns, rows, _ = agent_table(agents[:100], width)
    return Group(
        Text(_headline(look), style="bold"),
        _table(("TENANT", "AGENTS", "WAITING", "CONDITION"), tenants[:10]),
        _table(columns, rows),
    )


def _table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Any:
    from rich.table import Table
    from rich.text import Text

    from meshhost.cli.output import one_line

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, no_wrap=True)
    for row in rows:
        # As Text: a name such as "[red]" is a name, not markup.
        table.add_row(*(Text("" if cell is None else one_line(str(cell))) for cell in row))
    return table


def _headline(look: dict[str, Any]) -> str:
    load = look["load"]
    parts = ", ".join(f"{name} {part:.0%}" for name, part in load.items() if name != "value")
    starts, agents = look["starts"], sum(tenant["agents"] for tenant in look["tenants"])
    return (
        f"load {load['value']:.0%} ({parts}); {agents} agents of {len(look['tenants'])} tenants; "
        f"{starts['running']} starting, {starts['waiting']} waiting to start"
    )


def _condition(tenant: dict[str, Any]) -> str:
    words = ["frozen"] if tenant["frozen"] else []
    words += [f"quarantine of {hold}" for hold in _held(tenant)]
    return ", ".join(words)


def _held(tenant: dict[str, Any]) -> list[str]:
    return [f"{hold['path'] or 'all'}: {hold['reason']}" for hold in tenant["quarantine"]]


def tenant_row(tenant: dict[str, Any]) -> tuple[object, ...]:
    """Return the cells of a tenant, for TENANT_COLUMNS."""
    from meshhost.cli.output import shown_time

    freeze = tenant["freeze"] or {"since": None, "reason": None, "until_restart": False}
    return (
        _tenant(tenant),
        *(tenant[name] for name in ("agents", "waiting")),
        _shown_memory(tenant["memory_bytes"]),
        shown_time(freeze["since"]) + (" (until this host restarts)" if freeze["until_restart"] else ""),
        freeze["reason"],
        ", ".join(_held(tenant)),
        " ".join(f"{name}={value}" for name, value in tenant["quota"].items() if value is not None),
    )


def agent_row(agent: dict[str, Any]) -> tuple[object, ...]:
    """Return the cells of an agent, for AGENT_COLUMNS."""
    from meshhost.cli.output import shown_age

    return (
        agent["id"][:_SHOWN_ID],
        agent["state"],
        _tenant(agent),
        *(agent[name] for name in ("room", "identity", "path", "isolation")),
        shown_age(agent["age_seconds"]),
        agent["restarts"],
        _shown_memory(agent["memory_bytes"]),
        agent["waits_for"],
    )


def print_agent(agent: dict[str, Any]) -> None:
    """Print everything about an agent, a line each, and its last error with the traceback."""
    from meshhost.cli.output import one_line, print_line, shown_age

    error = agent["last_error"]
    shown = {name: value for name, value in agent.items() if name != "last_error" and not name.endswith("_seconds")}
    shown |= {"age": shown_age(agent["age_seconds"]), "in this state for": shown_age(agent["state_seconds"])}
    shown["memory_bytes"] = _shown_memory(agent["memory_bytes"])
    for name, value in shown.items():
        if value not in (None, ""):
            print_line(f"{name.removesuffix('_bytes').replace('_', ' ')}: {value}")
    if error is not None:
        print_line(f"last error: {error['type']}: {error['text']}")
        for line in error["traceback"].splitlines():
            # Keep the indentation: without it a traceback cannot be read.
            print(" " * (len(line) - len(line.lstrip())) + one_line(line), flush=True)


def _tenant(shown: dict[str, Any]) -> str:
    """The tenant's name, or its id where the host does not know the name or is of an older release."""
    return str(shown.get("tenant_name") or shown["tenant"])


def _shown_memory(size: int | None) -> str:
    return "" if size is None else f"{size / 1024**2:.0f} MB"

"""`meshhost host`: look at a running service host and steer it, as its operator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from meshhost.cli.options import JsonOption

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["app"]

app = typer.Typer(help="Look at a service host and steer it.")

UrlOption = Annotated[
    str | None,
    typer.Option(
        "--url", metavar="URL", help="The host (default: MESHHOST_HOST_URL, or MESHHOST_PORT of this machine)."
    ),
]
SpawnArgument = Annotated[str, typer.Argument(metavar="ID", help="The agent's id, or enough of its beginning.")]
TenantOption = Annotated[str | None, typer.Option("--tenant", metavar="TENANT", help="Only this tenant's.")]
PathOption = Annotated[str | None, typer.Option("--path", metavar="PATH", help="Only those of this path.")]
StateOption = Annotated[str | None, typer.Option("--state", metavar="STATE", help="Only those in this state.")]
RoomOption = Annotated[str | None, typer.Option("--room", metavar="NAME", help="Only those of rooms of this name.")]
TenantArgument = Annotated[str, typer.Argument(metavar="TENANT", help="The tenant's id.")]

_COLUMNS = ("ID", "STATE", "TENANT", "ROOM", "IDENTITY", "PATH", "ISOLATION", "AGE", "RESTARTS", "MEMORY", "WAITS FOR")
_TENANT_COLUMNS = ("TENANT", "AGENTS", "WAITING", "MEMORY", "FROZEN SINCE", "REASON", "QUARANTINE", "QUOTA")
_SHOWN_ID = 12
_ID_LENGTH = 32
_MIN_PREFIX = 6
_MAX_CANDIDATES = 5
_PAGE = 1000
_TIMEOUT = 30.0


@app.command()
def ps(
    url: UrlOption = None,
    tenant: TenantOption = None,
    path: PathOption = None,
    state: StateOption = None,
    room: RoomOption = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", metavar="N", min=1, help="At most so many (default: 1000 at a terminal, else all)."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List the agents that live on the host, oldest first."""
    import sys

    from meshhost.cli.output import note, print_json, print_table

    if limit is None and sys.stdout.isatty() and not as_json:
        limit = _PAGE
    filters = _filters(tenant=tenant, path=path, state=state, room=room)
    agents, are_more = _agents(url, filters, limit)
    if as_json:
        print_json(agents)
    else:
        empty = "no such agents live here" if filters else "no agents live here"
        print_table(_COLUMNS, [_row(agent) for agent in agents], empty=empty)
    if are_more:
        note(f"there are more than {len(agents)}: see --limit")


@app.command()
def describe(spawn: SpawnArgument, url: UrlOption = None, as_json: JsonOption = False) -> None:
    """Show all about an agent, with the end of its last traceback."""
    from meshhost.cli.output import print_json

    agent = _ask(url, "GET", f"/agents/{_quoted(_full_id(url, spawn))}")
    if as_json:
        print_json(agent)
    else:
        _print_agent(agent)


@app.command()
def stop(spawn: SpawnArgument, url: UrlOption = None, as_json: JsonOption = False) -> None:
    """Dismiss an agent: it finishes what it does, and is not started again."""
    answer = _ask(url, "DELETE", f"/agents/{_quoted(_full_id(url, spawn))}")
    _say(answer, as_json, f"agent {answer['spawn_id']} is asked to leave")


@app.command()
def kill(spawn: SpawnArgument, url: UrlOption = None, as_json: JsonOption = False) -> None:
    """Cut an agent short."""
    answer = _ask(url, "DELETE", f"/agents/{_quoted(_full_id(url, spawn))}", query={"abort": "1"})
    _say(answer, as_json, f"agent {answer['spawn_id']} is aborted")


@app.command()
def tenants(url: UrlOption = None, as_json: JsonOption = False) -> None:
    """List the tenants of whom there is something to say: agents, a freeze, a quarantine."""
    from meshhost.cli.output import print_json, print_table

    found = _ask(url, "GET", "/tenants")["tenants"]
    if as_json:
        print_json(found)
    else:
        print_table(_TENANT_COLUMNS, [_tenant_row(one) for one in found], empty="no tenant has agents here")


@app.command()
def freeze(
    tenant: TenantArgument,
    reason: Annotated[
        str | None, typer.Option("--reason", metavar="TEXT", help="For operators only: callers do not see it.")
    ] = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Refuse a tenant's calls from now on, over restarts of a host with a ledger; its agents live on."""
    body = None if reason is None else {"reason": reason}
    answer = _ask(url, "POST", f"/tenants/{_quoted(tenant)}/freeze", body=body)
    # A host that does not say so keeps freezes in memory.
    ends = answer.get("freeze", {}).get("until_restart", True)
    _say(answer, as_json, f"tenant {tenant} is frozen{' until this host restarts: it has no ledger' if ends else ''}")


@app.command()
def thaw(tenant: TenantArgument, url: UrlOption = None, as_json: JsonOption = False) -> None:
    """Take a frozen tenant's calls again."""
    answer = _ask(url, "POST", f"/tenants/{_quoted(tenant)}/thaw")
    _say(answer, as_json, f"tenant {tenant} is not frozen")


@app.command()
def release(
    tenant: TenantArgument,
    path: Annotated[
        str | None, typer.Option("--path", metavar="PATH", help="Only this path (default: all that is held).")
    ] = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """End a tenant's quarantine. Fails when nothing is held."""
    body = {"tenant": tenant} if path is None else {"tenant": tenant, "path": path}
    answer = _ask(url, "POST", "/quarantine/release", body=body)
    released = ", ".join(hold["path"] or "all of it" for hold in answer["released"])
    _say(answer, as_json, f"tenant {tenant} is released from quarantine: {released}")


@app.command()
def drain(
    url: UrlOption = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Return when all have left, or at once.")] = True,
    timeout: Annotated[
        float | None,
        typer.Option("--timeout", min=0.0, help="Seconds to wait at most (default: what its agents may take, and 10)."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Take no more calls and let all agents finish; the host's process goes on, empty.

    Waits until all have left and tells on stderr who is still there and why. The exit code is 0 when nobody is left, 1 when
    somebody still was at the timeout; the host goes on draining then. A host whose process ends meanwhile, so that its address
    refuses connections or another one answers there, counts as drained.
    """
    from meshhost.cli.commands import host_drain

    answer = _ask(url, "POST", "/drain")
    if not wait:
        _say(answer, as_json, f"the host drains its agents ({answer['agents']})")
        return
    outcome = host_drain.wait_until_empty(
        lambda: _ask(url, "GET", "/agents", query={"limit": str(host_drain.LOOKED_AT)}),
        lambda: host_drain.nothing_listens_at(_base_url(url)),
        timeout=answer["seconds"] + host_drain.MARGIN_SECONDS if timeout is None else timeout,
    )
    facts = {"ok": outcome.is_done, "agents": answer["agents"], "gone": outcome.is_gone, "left": outcome.left}
    _say({**facts, "seconds": round(outcome.seconds, 1)}, as_json, outcome.sentence)
    if not outcome.is_done:
        raise typer.Exit(1)


@app.command()
def top(
    url: UrlOption = None,
    interval: Annotated[float, typer.Option("--interval", min=0.1, help="Seconds between two looks.")] = 2.0,
    tenant: TenantOption = None,
    path: PathOption = None,
    state: StateOption = None,
    room: RoomOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show load, tenants and agents until Ctrl-C; once when stdout is no terminal."""
    import sys

    from meshhost.cli.output import print_json

    filters = _filters(tenant=tenant, path=path, state=state, room=room)
    if as_json:
        print_json(_look(url, filters))
    elif sys.stdout.isatty():
        _watch(url, filters, interval)
    else:
        _print_look(_look(url, filters))


def _filters(**given: str | None) -> dict[str, str]:
    return {name: value for name, value in given.items() if value is not None}


def _agents(url: str | None, query: dict[str, str], most: int | None = None) -> tuple[list[dict[str, Any]], bool]:
    """The agents that the query is about, at most so many, page by page; and whether there are more."""
    agents: list[dict[str, Any]] = []
    while True:
        limit = _PAGE if most is None else min(_PAGE, most - len(agents))
        page = _ask(url, "GET", "/agents", query={**query, "limit": str(limit)})
        agents += page["agents"]
        cursor = page.get("next")
        if cursor is None or (most is not None and len(agents) >= most):
            return agents, cursor is not None
        query = {**query, "after": cursor}


def _look(url: str | None, filters: dict[str, str]) -> dict[str, Any]:
    return {**_ask(url, "GET", "/tenants"), "agents": _agents(url, filters)[0]}


def _print_look(look: dict[str, Any]) -> None:
    from meshhost.cli.output import print_line, print_table

    print_line(_headline(look))
    print_table(_COLUMNS, [_row(agent) for agent in look["agents"]], empty="no agents live here")


def _watch(url: str | None, filters: dict[str, str], interval: float) -> None:
    import time

    from rich.console import Console
    from rich.live import Live

    with Live(_screen(_look(url, filters)), console=Console(), screen=True, auto_refresh=False) as live:
        while True:
            time.sleep(interval)
            live.update(_screen(_look(url, filters)), refresh=True)


def _screen(look: dict[str, Any]) -> Any:
    """What fits a terminal: the headline, the tenants, then the agents, those with something wrong first."""
    from rich.console import Group
    from rich.text import Text

    tenants = [
        (one["tenant"], one["agents"], one["waiting"], _condition(one))
        for one in sorted(look["tenants"], key=lambda one: -one["agents"])
    ]
    agents = sorted(look["agents"], key=lambda agent: (agent["state"] == "running", -agent["restarts"]))
    return Group(
        Text(_headline(look), style="bold"),
        _table(("TENANT", "AGENTS", "WAITING", "CONDITION"), tenants[:10]),
        _table(_COLUMNS, [_row(agent) for agent in agents[:100]]),
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
        f"{starts['running']} starting, {starts['waiting']} waiting for their turn"
    )


def _condition(tenant: dict[str, Any]) -> str:
    words = ["frozen"] if tenant["frozen"] else []
    words += [f"quarantine of {hold}" for hold in _held(tenant)]
    return ", ".join(words)


def _held(tenant: dict[str, Any]) -> list[str]:
    return [f"{hold['path'] or 'all'}: {hold['reason']}" for hold in tenant["quarantine"]]


def _tenant_row(tenant: dict[str, Any]) -> tuple[object, ...]:
    from meshhost.cli.output import shown_time

    freeze = tenant["freeze"] or {"since": None, "reason": None, "until_restart": False}
    return (
        *(tenant[name] for name in ("tenant", "agents", "waiting")),
        _shown_memory(tenant["memory_bytes"]),
        shown_time(freeze["since"]) + (" (until this host restarts)" if freeze["until_restart"] else ""),
        freeze["reason"],
        ", ".join(_held(tenant)),
        " ".join(f"{name}={value}" for name, value in tenant["quota"].items() if value is not None),
    )


def _row(agent: dict[str, Any]) -> tuple[object, ...]:
    from meshhost.cli.output import shown_age

    return (
        agent["id"][:_SHOWN_ID],
        *(agent[name] for name in ("state", "tenant", "room", "identity", "path", "isolation")),
        shown_age(agent["age_seconds"]),
        agent["restarts"],
        _shown_memory(agent["memory_bytes"]),
        agent["waits_for"],
    )


def _print_agent(agent: dict[str, Any]) -> None:
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
            # Its indentation is what makes a traceback readable.
            print(" " * (len(line) - len(line.lstrip())) + one_line(line), flush=True)


def _shown_memory(size: int | None) -> str:
    return "" if size is None else f"{size / 1024**2:.0f} MB"


def _say(answer: dict[str, Any], as_json: bool, sentence: str) -> None:
    from meshhost.cli.output import print_json, print_line

    if as_json:
        print_json(answer)
    else:
        print_line(sentence)


def _full_id(url: str | None, spawn: str) -> str:
    """The id of the one agent that lives whose id begins so; a whole id may also be of one that has ended."""
    if len(spawn) >= _ID_LENGTH:
        return spawn
    if len(spawn) < _MIN_PREFIX:
        raise typer.BadParameter(f"expected at least {_MIN_PREFIX} characters of the agent's id", param_hint="ID")
    agents, are_more = _agents(url, {"id": spawn}, _MAX_CANDIDATES)
    # Looked at again: a host that does not know the filter would name just anybody.
    found = [agent for agent in agents if agent["id"].startswith(spawn)]
    if len(found) == 1 and not are_more:
        return str(found[0]["id"])
    if not found:
        raise typer.BadParameter("no agent with an id that begins so; see `meshhost host ps`", param_hint="ID")
    names = [f"{agent['id']} ({agent['identity']} in {agent['room']})" for agent in found]
    raise typer.BadParameter(
        f"several agents have an id that begins so: {', '.join([*names, '…'] if are_more else names)}", param_hint="ID"
    )


def _quoted(text: str) -> str:
    from urllib.parse import quote

    return quote(text, safe="")


def _ask(
    url: str | None,
    method: str,
    path: str,
    *,
    query: dict[str, str] | None = None,
    body: dict[str, str] | None = None,
) -> Any:
    """What the host answers. Raises MeshhostError with what to do about it, BadParameter for a wrong URL."""
    import asyncio

    from meshhost.cli.log_output import log_for_command

    log_for_command()
    return asyncio.run(_request(_base_url(url), method, path, query or {}, body))


def _base_url(given: str | None) -> str:
    from urllib.parse import urlsplit

    from meshhost.settings import read_settings

    settings = read_settings()
    url = given or settings.host_url
    if url is None:
        if not settings.port:
            raise typer.BadParameter("name the host, or set MESHHOST_HOST_URL or MESHHOST_PORT", param_hint="--url")
        return f"http://127.0.0.1:{settings.port}"
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        raise typer.BadParameter("expected a URL such as http://127.0.0.1:8081", param_hint="--url")
    return url.rstrip("/")


async def _request(base: str, method: str, path: str, query: dict[str, str], body: dict[str, str] | None) -> Any:
    import json

    import aiohttp

    from meshhost.cli.connect import _reason
    from meshhost.errors import ConnectionLostError, RoomRefusedError
    from meshhost.settings import read_settings

    key = read_settings().admin_key
    headers = {} if key is None else {"Authorization": f"Bearer {key.get_secret_value()}"}
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_TIMEOUT)) as session,
            # The key is for this host, not for where it may point to.
            session.request(
                method, f"{base}{path}", params=query, json=body, headers=headers, allow_redirects=False
            ) as response,
        ):
            status, content = response.status, await response.read()
    except (aiohttp.ClientError, TimeoutError) as error:
        text = f"cannot reach the service host at {base}: is it running? see MESHHOST_HOST_URL ({_reason(error)})"
        raise ConnectionLostError(text) from None
    try:
        answer = json.loads(content)
    except ValueError:
        answer = None
    if not isinstance(answer, dict) or status >= 300:
        text = answer.get("error", "") if isinstance(answer, dict) else "is it a service host?"
        hint = "; see MESHHOST_ADMIN_KEY" if status == 401 else ""
        raise RoomRefusedError(f"{base} answered {status}: {text}{hint}", status=status)
    return answer

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
TenantArgument = Annotated[str, typer.Argument(metavar="TENANT", help="The tenant's id.")]

_COLUMNS = ("ID", "STATE", "TENANT", "ROOM", "IDENTITY", "PATH", "ISOLATION", "AGE", "RESTARTS", "MEMORY", "WAITS FOR")
_SHOWN_ID = 12
_TIMEOUT = 30.0


@app.command()
def ps(
    url: UrlOption = None,
    tenant: Annotated[str | None, typer.Option("--tenant", metavar="TENANT", help="Only this tenant's.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List the agents that live on the host."""
    from meshhost.cli.output import print_json, print_table

    agents = _ask(url, "GET", "/agents", query={"tenant": tenant} if tenant else {})["agents"]
    if as_json:
        print_json(agents)
    else:
        print_table(_COLUMNS, [_row(agent) for agent in agents], empty="no agents live here")


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
def freeze(tenant: TenantArgument, url: UrlOption = None, as_json: JsonOption = False) -> None:
    """Refuse a tenant's calls from now on; its agents live on."""
    answer = _ask(url, "POST", f"/tenants/{_quoted(tenant)}/freeze")
    _say(answer, as_json, f"tenant {tenant} is frozen")


@app.command()
def thaw(tenant: TenantArgument, url: UrlOption = None, as_json: JsonOption = False) -> None:
    """Take a frozen tenant's calls again."""
    answer = _ask(url, "POST", f"/tenants/{_quoted(tenant)}/thaw")
    _say(answer, as_json, f"tenant {tenant} is not frozen")


@app.command()
def drain(url: UrlOption = None, as_json: JsonOption = False) -> None:
    """Take no more calls and let all agents finish; the host's process goes on, empty."""
    answer = _ask(url, "POST", "/drain")
    _say(answer, as_json, f"the host drains its agents ({answer['agents']})")


@app.command()
def top(
    url: UrlOption = None,
    interval: Annotated[float, typer.Option("--interval", min=0.1, help="Seconds between two looks.")] = 2.0,
    as_json: JsonOption = False,
) -> None:
    """Show load, tenants and agents until Ctrl-C; once when stdout is no terminal."""
    import sys

    from meshhost.cli.output import print_json

    if as_json:
        print_json(_look(url))
    elif sys.stdout.isatty():
        _watch(url, interval)
    else:
        _print_look(_look(url))


def _look(url: str | None) -> dict[str, Any]:
    return {**_ask(url, "GET", "/tenants"), **_ask(url, "GET", "/agents")}


def _print_look(look: dict[str, Any]) -> None:
    from meshhost.cli.output import print_line, print_table

    print_line(_headline(look))
    print_table(_COLUMNS, [_row(agent) for agent in look["agents"]], empty="no agents live here")


def _watch(url: str | None, interval: float) -> None:
    import time

    from rich.console import Console
    from rich.live import Live

    with Live(_screen(_look(url)), console=Console(), screen=True, auto_refresh=False) as live:
        while True:
            time.sleep(interval)
            live.update(_screen(_look(url)), refresh=True)


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
    starts = look["starts"]
    return (
        f"load {load['value']:.0%} ({parts}); {len(look['agents'])} agents of {len(look['tenants'])} tenants; "
        f"{starts['running']} starting, {starts['waiting']} waiting for their turn"
    )


def _condition(tenant: dict[str, Any]) -> str:
    words = ["frozen"] if tenant["frozen"] else []
    words += [f"quarantine of {hold['path'] or 'all'}: {hold['reason']}" for hold in tenant["quarantine"]]
    return ", ".join(words)


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
    if len(spawn) >= 32:
        return spawn
    found = [agent["id"] for agent in _ask(url, "GET", "/agents")["agents"] if agent["id"].startswith(spawn)]
    if len(found) != 1:
        what = "no agent" if not found else f"{len(found)} agents"
        raise typer.BadParameter(f"{what} with an id that begins so; see `meshhost host ps`", param_hint="ID")
    return str(found[0])


def _quoted(text: str) -> str:
    from urllib.parse import quote

    return quote(text, safe="")


def _ask(url: str | None, method: str, path: str, *, query: dict[str, str] | None = None) -> Any:
    """What the host answers. Raises MeshhostError with what to do about it, BadParameter for a wrong URL."""
    import asyncio

    from meshhost.cli.log_output import log_for_command

    log_for_command()
    return asyncio.run(_request(_base_url(url), method, path, query or {}))


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


async def _request(base: str, method: str, path: str, query: dict[str, str]) -> Any:
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
            session.request(method, f"{base}{path}", params=query, headers=headers, allow_redirects=False) as response,
        ):
            status, body = response.status, await response.read()
    except (aiohttp.ClientError, TimeoutError) as error:
        text = f"cannot reach the service host at {base}: is it running? see MESHHOST_HOST_URL ({_reason(error)})"
        raise ConnectionLostError(text) from None
    try:
        answer = json.loads(body)
    except ValueError:
        answer = None
    if not isinstance(answer, dict) or status >= 300:
        text = answer.get("error", "") if isinstance(answer, dict) else "is it a service host?"
        hint = "; see MESHHOST_ADMIN_KEY" if status == 401 else ""
        raise RoomRefusedError(f"{base} answered {status}: {text}{hint}", status=status)
    return answer

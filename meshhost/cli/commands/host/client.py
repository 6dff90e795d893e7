"""Requests to the admin API of a service host, with errors that say what to do.

Every command of `meshhost host` goes through `ask`. The key comes from MESHHOST_ADMIN_KEY. Libraries are imported inside the
functions, since this module is loaded for every `--help`.
"""

from __future__ import annotations

from typing import Any

import typer

__all__ = ["PAGE", "agents_of", "ask", "base_url", "check_prefix", "full_id", "quoted"]

PAGE = 1000
"""The largest page of agents that a host returns."""

_ID_LENGTH = 32
_MIN_PREFIX = 6
_MAX_CANDIDATES = 5
_TIMEOUT = 30.0
# USUAL_PORT of `hosting.service_host`, which would take half a second to load.
_USUAL_URL = "http://127.0.0.1:8081"
# What a server of ours says of a route that it does not have.
_NO_ROUTE = "404: Not Found"


def ask(
    url: str | None,
    method: str,
    path: str,
    *,
    query: dict[str, str] | None = None,
    body: dict[str, str] | None = None,
) -> Any:
    """Return the JSON that the host answers. Raises MeshhostError with what to do about it, BadParameter for an invalid URL."""
    from meshhost.cli.log_output import log_for_command

    log_for_command()
    return request(base_url(url), method, path, query or {}, body)


def agents_of(url: str | None, query: dict[str, str], most: int | None = None) -> tuple[list[dict[str, Any]], bool]:
    """Return at most `most` agents that match the query, read page by page, and whether there are more.

    Those that live come first, then those that failed for good, which a host keeps for a while.
    """
    agents, are_more = _pages(url, query, most)
    if "state" in query or are_more or (most is not None and len(agents) >= most):
        return agents, are_more
    left = None if most is None else most - len(agents)
    failed, are_more = _pages(url, {**query, "state": "failed"}, left)
    # Of an agent that failed between the two questions the host has told both.
    known = {agent["id"] for agent in agents}
    return agents + [agent for agent in failed if agent["id"] not in known], are_more


def _pages(url: str | None, query: dict[str, str], most: int | None) -> tuple[list[dict[str, Any]], bool]:
    agents: list[dict[str, Any]] = []
    while True:
        limit = PAGE if most is None else min(PAGE, most - len(agents))
        page = ask(url, "GET", "/agents", query={**query, "limit": str(limit)})
        agents += page["agents"]
        cursor = page.get("next")
        if cursor is None or (most is not None and len(agents) >= most):
            return agents, cursor is not None
        query = {**query, "after": cursor}


def full_id(url: str | None, given: str) -> str:
    """Return the id of the one agent, living or failed for good, whose id begins with `given`.

    A whole id is returned as it is: it may be that of an agent that has ended. Raises BadParameter unless exactly one is found.
    """
    if len(given) >= _ID_LENGTH:
        return given
    check_prefix(given)
    agents, are_more = agents_of(url, {"id": given}, _MAX_CANDIDATES)
    # Checked here too: an older host ignores the filter and would return other agents.
    found = [agent for agent in agents if agent["id"].startswith(given)]
    if len(found) == 1 and not are_more:
        return str(found[0]["id"])
    if not found:
        raise typer.BadParameter(
            "no agent with an id that begins like this; `meshhost host ps` lists the agents", param_hint="ID"
        )
    names = [f"{agent['id']} ({agent['identity']} in {agent['room']})" for agent in found]
    listed = ", ".join([*names, "…"] if are_more else names)
    raise typer.BadParameter(f"several agents have an id that begins like this: {listed}", param_hint="ID")


def check_prefix(given: str) -> None:
    """Raise BadParameter when this is too little of an agent's id."""
    if len(given) < _MIN_PREFIX:
        raise typer.BadParameter(f"expected at least {_MIN_PREFIX} characters of the agent's id", param_hint="ID")


def quoted(text: str) -> str:
    """Return the text as one segment of a URL's path."""
    from urllib.parse import quote

    return quote(text, safe="")


def base_url(given: str | None) -> str:
    """Return the URL of the host. Raises BadParameter for an invalid one, or when several could be meant.

    It is the given one, else that of MESHHOST_HOST_URL, of MESHHOST_PORT, of the host that `meshhost service run` has started,
    and at last the one where `host.run()` listens by default.
    """
    from meshhost.app.running_hosts import running_hosts
    from meshhost.client_settings import checked_url, read_client_settings

    settings = read_client_settings()
    url = given or settings.host_url
    if url is None and settings.port:
        return f"http://127.0.0.1:{settings.port}"
    if url is None:
        found = running_hosts(settings.config_dir)
        if len(found) > 1:
            listed = ", ".join(f"{one} (for room {room})" for one, room in found.items())
            raise typer.BadParameter(f"several hosts run here: {listed}", param_hint="--url")
        return next(iter(found), _USUAL_URL)
    try:
        checked = checked_url(url)
    except ValueError:
        checked = ""
    if not checked.lower().startswith("http"):
        raise typer.BadParameter("expected a URL such as http://127.0.0.1:8081", param_hint="--url")
    return checked


def request(base: str, method: str, path: str, query: dict[str, str], body: dict[str, str] | None) -> Any:
    """Send one request. Raises ConnectionLostError when the host cannot be reached, RoomRefusedError for an error status."""
    import json

    from meshhost.cli import rest
    from meshhost.cli.connect import reason_of
    from meshhost.client_settings import read_client_settings
    from meshhost.errors import ConnectionLostError, RoomRefusedError

    key = read_client_settings().admin_key
    bearer = None if key is None else key.get_secret_value()
    try:
        status, content = rest.ask(method, f"{base}{path}", bearer=bearer, query=query, body=body, timeout=_TIMEOUT)
    except OSError as error:
        text = f"cannot reach the service host at {base}: is it running? see MESHHOST_HOST_URL ({reason_of(error)})"
        raise ConnectionLostError(text) from None
    try:
        answer = json.loads(content)
    except ValueError:
        answer = None
    if not isinstance(answer, dict) or status >= 300:
        text = answer.get("error", "") if isinstance(answer, dict) else _NO_ROUTE
        if text == _NO_ROUTE:  # which every host has
            text = "is it a service host?"
        hint = "; see MESHHOST_ADMIN_KEY" if status == 401 else ""
        raise RoomRefusedError(f"{base} answered {status}: {text}{hint}", status=status)
    return answer

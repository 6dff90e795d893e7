"""The commands of `meshhost host` that change something: stop, kill, freeze, thaw, release, drain.

Each sends one request through `client`; `drain` then waits with `draining`. The host accepts any name, so that a tenant can be
frozen before it comes; a person who types one that the host does not know has mistyped it, so `full_id` and `_need_tenant` ask
the host first. Libraries are imported inside the functions,
since this module is loaded for every `--help`.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from meshhost.cli.commands.host.client import ask, base_url, full_id, quoted
from meshhost.cli.commands.host.options import AgentArgument, TenantArgument, UrlOption
from meshhost.cli.options import JsonOption

__all__ = ["drain", "freeze", "kill", "release", "stop", "thaw"]

_MAX_NAMED = 10


def stop(
    agent_id: AgentArgument,
    pause: Annotated[
        str | None,
        typer.Option(
            "--for", metavar="TIME", help="Refuse its calls for this time, such as 30m, 12h or 7d; 0 ends that."
        ),
    ] = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Dismiss an agent: it finishes its work in progress and leaves.

    A room server calls an agent of a configured service again, unless --for keeps it away. The host forgets that when it
    restarts.
    """
    query = {} if pause is None else {"for": str(_pause_seconds(pause))}
    answer = ask(url, "DELETE", f"/agents/{quoted(full_id(url, agent_id))}", query=query)
    if pause is not None:
        end = f"; its calls are refused for {pause}" if query["for"] != "0" else "; its calls are accepted"
    elif answer.get("called_again", False):  # older hosts do not say it
        end = "; its room server will call it again: --for TIME keeps it away"
    else:
        end = ""
    _say(answer, as_json, f"agent {answer['spawn_id']} was asked to leave{end}")


def kill(agent_id: AgentArgument, url: UrlOption = None, as_json: JsonOption = False) -> None:
    """Abort an agent: it leaves for good, without finishing its work."""
    answer = ask(url, "DELETE", f"/agents/{quoted(full_id(url, agent_id))}", query={"abort": "1"})
    _say(answer, as_json, f"agent {answer['spawn_id']} was aborted")


def freeze(
    tenant: TenantArgument,
    reason: Annotated[
        str | None, typer.Option("--reason", metavar="TEXT", help="Why; shown to operators, never to callers.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Freeze a tenant that has no agents on this host, too.")
    ] = False,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Refuse all calls of a tenant until it is thawed.

    Its agents keep running. A host with a ledger keeps the freeze over restarts.
    """
    if not force:
        _need_tenant(url, tenant, "; --force freezes it before it has any")
    body = None if reason is None else {"reason": reason}
    answer = ask(url, "POST", f"/tenants/{quoted(tenant)}/freeze", body=body)
    # Older hosts do not say it; they keep freezes in memory only.
    ends = answer.get("freeze", {}).get("until_restart", True)
    _say(answer, as_json, f"tenant {tenant} is frozen{' until this host restarts: it has no ledger' if ends else ''}")


def thaw(tenant: TenantArgument, url: UrlOption = None, as_json: JsonOption = False) -> None:
    """Accept the calls of a frozen tenant again."""
    _need_tenant(url, tenant)
    answer = ask(url, "POST", f"/tenants/{quoted(tenant)}/thaw")
    _say(answer, as_json, f"tenant {tenant} is not frozen")


def release(
    tenant: TenantArgument,
    path: Annotated[
        str | None,
        typer.Option("--path", metavar="PATH", help="Release only this path (default: everything of the tenant)."),
    ] = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """End the quarantine of a tenant.

    It is an error when nothing of the tenant is in quarantine.
    """
    body = {"tenant": tenant} if path is None else {"tenant": tenant, "path": path}
    answer = ask(url, "POST", "/quarantine/release", body=body)
    released = ", ".join(hold["path"] or "all paths" for hold in answer["released"])
    _say(answer, as_json, f"tenant {tenant} was released from quarantine: {released}")


def drain(
    url: UrlOption = None,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Wait until all agents have left, or return at once.")
    ] = True,
    timeout: Annotated[
        float | None,
        typer.Option(
            "--timeout", min=0.0, help="Wait at most this many seconds (default: what the agents may take, plus 10)."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Accept no more calls and let all agents finish their work and leave.

    The process of the host keeps running, without agents. While it waits, the command reports on stderr which agents are still
    there, and why. The exit code is 0 when all have left and 1 after the timeout; the host then continues to drain. A host that
    is gone, because its address refuses connections or another host answers there, counts as drained.
    """
    from meshhost.cli.commands.host import draining

    answer = ask(url, "POST", "/drain")
    if not wait:
        _say(answer, as_json, f"the host is draining; agents: {answer['agents']}")
        return
    outcome = draining.wait_until_empty(
        lambda: ask(url, "GET", "/agents", query={"limit": str(draining.LOOKED_AT)}),
        lambda: draining.nothing_listens_at(base_url(url)),
        timeout=answer["seconds"] + draining.MARGIN_SECONDS if timeout is None else timeout,
    )
    facts = {"ok": outcome.is_done, "agents": answer["agents"], "gone": outcome.is_gone, "left": outcome.left}
    _say({**facts, "seconds": round(outcome.seconds, 1)}, as_json, outcome.sentence)
    if not outcome.is_done:
        raise typer.Exit(1)


def _need_tenant(url: str | None, tenant: str, more: str = "") -> None:
    """Raise NotFoundError unless the host knows the tenant: it has agents, or is frozen or in quarantine."""
    from meshhost.errors import NotFoundError

    names = [str(one["tenant"]) for one in ask(url, "GET", "/tenants")["tenants"]]
    if tenant not in names:
        known = ", ".join([*names[:_MAX_NAMED], *(["…"] if len(names) > _MAX_NAMED else [])]) or "none"
        raise NotFoundError(f"no tenant {tenant!r} has agents on this host; there are: {known}{more}")


def _say(answer: dict[str, Any], as_json: bool, sentence: str) -> None:
    from meshhost.cli.output import print_json, print_line

    if as_json:
        print_json(answer)
    else:
        print_line(sentence)


def _pause_seconds(text: str) -> int:
    from meshhost.cli.lifetime import lifetime_seconds

    seconds = 0 if text == "0" else lifetime_seconds(text, option="--for")
    if seconds is None:
        raise typer.BadParameter("expected a time such as 30m, 12h or 7d", param_hint="--for")
    return seconds

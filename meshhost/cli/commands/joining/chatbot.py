"""`meshhost chatbot`: runs a chat bot in a room with a model and rules from flags."""

from __future__ import annotations

from typing import Annotated

import typer

from meshhost.cli.commands.joining.joining import (
    AgentName,
    HiddenOn,
    Mcp,
    Model,
    Rules,
    RulesFile,
    Storage,
    Toolkits,
    WebSearch,
)
from meshhost.cli.options import JsonOption, RoomOption

__all__ = ["app"]

app = typer.Typer(help="Run a chat bot in a room, without a program.")


@app.callback()
def _group() -> None:
    # Without a callback, typer would make the only command the group itself.
    pass


@app.command("join")
def join_room(
    room: RoomOption = None,
    name: AgentName = None,
    rule: Rules = None,
    rules_file: RulesFile = None,
    model: Model = None,
    toolkit: Toolkits = None,
    web_search: WebSearch = False,
    storage: Storage = False,
    mcp_url: Mcp = None,
    _mcp: HiddenOn = False,
    channel: Annotated[list[str] | None, typer.Option("--channel", hidden=True)] = None,
    greet: Annotated[
        str | None, typer.Option("--auto-greet-message", metavar="TEXT", help="Said first in each thread.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Run a chat bot in the room until Ctrl-C; talk with it by `meshhost chat`."""
    from meshhost.cli.commands.joining.joining import join

    if set(channel or ["chat"]) != {"chat"}:
        text = "this is for chat: `meshhost mailbot join` and `taskrunner join` are for mail and toolkits"
        raise typer.BadParameter(text, param_hint="--channel")
    join(
        "chatbot",
        name,
        room=room,
        rules=rule,
        rules_file=rules_file,
        as_json=as_json,
        model=model,
        required=toolkit,
        web_search=web_search,
        storage=storage,
        mcp_urls=mcp_url,
        greet=greet,
    )

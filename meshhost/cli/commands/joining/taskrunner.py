"""`meshhost taskrunner`: runs an agent that answers prompts in a room, with a model and rules from flags."""

from __future__ import annotations

import typer

from meshhost.cli.commands.joining.joining import AgentName, Mcp, Model, Rules, RulesFile, Storage, Toolkits, WebSearch
from meshhost.cli.options import JsonOption, RoomOption

__all__ = ["app"]

app = typer.Typer(help="Run an agent that answers prompts in a room, without a program.")


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
    as_json: JsonOption = False,
) -> None:
    """Run the agent in the room until Ctrl-C; ask it by `meshhost agents ask`."""
    from meshhost.cli.commands.joining.joining import join

    join(
        "taskrunner",
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
    )

"""`meshhost voicebot`: runs an agent that people talk with, with a model and rules from flags."""

from __future__ import annotations

from typing import Annotated

import typer

from meshhost.cli.commands.joining.joining import AgentName, Model, Rules, RulesFile, Storage, Toolkits
from meshhost.cli.options import JsonOption, RoomOption

__all__ = ["app"]

app = typer.Typer(help="Run an agent that people talk with in a room, without a program.")


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
    storage: Storage = False,
    greet: Annotated[
        str | None, typer.Option("--auto-greet-message", metavar="TEXT", help="Said first in each call.")
    ] = None,
    greet_prompt: Annotated[
        str | None,
        typer.Option("--auto-greet-prompt", metavar="TEXT", help="What the model is told to greet a caller."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Hold voice calls in the room until Ctrl-C; talk with it in Studio.

    It hears and speaks offline where the extra `voice` is installed, around the model of `--model`; else it is a realtime
    model of the room's gateway.
    """
    from meshhost.cli.commands.joining.joining import join

    join(
        "voicebot",
        name,
        room=room,
        rules=rule,
        rules_file=rules_file,
        as_json=as_json,
        model=model,
        required=toolkit,
        storage=storage,
        greet=greet,
        greet_prompt=greet_prompt,
    )

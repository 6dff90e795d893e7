"""`meshhost mailbot`: runs an agent that answers the mail of an address, with a model and rules from flags."""

from __future__ import annotations

from typing import Annotated

import typer

from meshhost.cli.commands.joining.joining import AgentName, Model, Rules, RulesFile, Storage, Toolkits
from meshhost.cli.options import JsonOption, RoomOption

__all__ = ["app"]

app = typer.Typer(help="Run an agent that answers mail in a room, without a program.")


@app.callback()
def _group() -> None:
    # Without a callback, typer would make the only command the group itself.
    pass


@app.command("join")
def join_room(
    email_address: Annotated[
        str, typer.Option("--email-address", metavar="ADDRESS", help="The address that the agent answers as.")
    ],
    room: RoomOption = None,
    name: AgentName = None,
    queue: Annotated[
        str | None, typer.Option("--queue", metavar="NAME", help="Queue of the mailbox (default: the address).")
    ] = None,
    rule: Rules = None,
    rules_file: RulesFile = None,
    model: Model = None,
    toolkit: Toolkits = None,
    storage: Storage = False,
    as_json: JsonOption = False,
) -> None:
    """Answer the mail of an address until Ctrl-C; `meshhost mailbox create` lets mail go to its queue."""
    from meshhost.cli.commands.joining.joining import join

    join(
        "mailbot",
        name,
        room=room,
        rules=rule,
        rules_file=rules_file,
        as_json=as_json,
        model=model,
        required=toolkit,
        storage=storage,
        email_address=email_address,
        queue=queue,
    )

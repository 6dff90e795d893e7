"""`meshhost chat`: talk with an agent of a room."""

from __future__ import annotations

from typing import Annotated

import typer

from meshhost.cli.options import JsonOption, RoomOption

__all__ = ["chat"]


def chat(
    agent: Annotated[str, typer.Option("--agent", metavar="NAME", help="The agent's name.")],
    room: RoomOption = None,
    thread: Annotated[
        str | None, typer.Option("--thread", metavar="PATH", help="The thread to go on with (default: a new one).")
    ] = None,
    message: Annotated[
        str | None, typer.Option("--message", metavar="TEXT", help="Say this, print the answer, and end.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Talk with an agent; without --message line by line until the end of the input, where Ctrl-C stops an answer."""
    from meshhost.cli.commands.chat_session import ask_once, new_path, talk
    from meshhost.cli.connect import run_in_room
    from meshhost.cli.output import print_json

    if message is not None and not message.strip():
        raise typer.BadParameter("say something", param_hint="--message")
    path = thread or new_path()
    if message is None:
        run_in_room(room, lambda client: talk(client, agent=agent, path=path, as_json=as_json))
        return
    answer = run_in_room(room, lambda client: ask_once(client, agent=agent, path=path, text=message, quiet=as_json))
    if as_json:
        print_json(answer)

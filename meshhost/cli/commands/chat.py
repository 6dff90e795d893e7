"""`meshhost chat`: talks with a chat bot of a room; the conversation itself is in `chat_session`."""

from __future__ import annotations

from typing import Annotated

import typer

from meshhost.cli.options import JsonOption, RoomOption

__all__ = ["chat"]


def chat(
    agent: Annotated[str, typer.Option("--agent", metavar="NAME", help="Name of the agent.")],
    room: RoomOption = None,
    thread: Annotated[
        str | None, typer.Option("--thread", metavar="PATH", help="Thread to continue (default: a new one).")
    ] = None,
    message: Annotated[
        str | None, typer.Option("--message", metavar="TEXT", help="Send this message, print the answer, and exit.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Talk with an agent.

    Without --message, each line of the input is a message, until the input ends. Ctrl-C stops an answer; a second one exits.
    """
    from meshhost.cli.commands.chat_session import ask_once, new_path, talk
    from meshhost.cli.connect import run_in_room
    from meshhost.cli.output import print_json

    if message is not None and not message.strip():
        raise typer.BadParameter("expected a text", param_hint="--message")
    path = thread or new_path()
    if message is None:
        run_in_room(room, lambda client: talk(client, agent=agent, path=path, as_json=as_json))
        return
    answer = run_in_room(room, lambda client: ask_once(client, agent=agent, path=path, text=message, quiet=as_json))
    if as_json:
        print_json(answer)

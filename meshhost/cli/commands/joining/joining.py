"""Options that the commands for agents of flags have in common, and what runs `program.py` with them."""

from __future__ import annotations

from typing import Annotated, Any

import typer

__all__ = [
    "AgentName",
    "HiddenOn",
    "Mcp",
    "Model",
    "Rules",
    "RulesFile",
    "Storage",
    "Toolkits",
    "WebSearch",
    "join",
]

AgentName = Annotated[
    str | None, typer.Option("--agent-name", "--name", metavar="NAME", help="Name of the agent in the room.")
]
Model = Annotated[
    str | None, typer.Option("--model", metavar="NAME", help="The model (default: the one of the room's gateway).")
]
Rules = Annotated[
    list[str] | None, typer.Option("--rule", "-r", metavar="TEXT", help="What the agent is told. May be repeated.")
]
RulesFile = Annotated[
    str | None, typer.Option("--rules-file", metavar="FILE", help="A text file with a rule on each line.")
]
Toolkits = Annotated[
    list[str] | None,
    typer.Option(
        "--toolkit", "-t", "--require-toolkit", metavar="NAME", help="A toolkit of the room. May be repeated."
    ),
]
WebSearch = Annotated[bool, typer.Option("--web-search", help="Let the model search the web, if the provider can.")]
Storage = Annotated[bool, typer.Option("--storage", help="Let the model read and write files of the room.")]
Mcp = Annotated[
    list[str] | None,
    typer.Option("--mcp-url", metavar="URL", help="An MCP server whose tools it has. May be repeated."),
]
HiddenOn = Annotated[bool, typer.Option("--mcp/--no-mcp", hidden=True)]


def join(
    kind: str,
    name: str | None,
    *,
    room: str | None,
    rules: list[str] | None,
    rules_file: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Run an agent of this kind in a room until it ends or a signal stops it.

    Raises BadParameter, MeshhostError, or typer.Exit with the exit code of the program.
    """
    import json
    import shlex
    from pathlib import Path

    from meshhost.cli.commands.service import run
    from meshhost.cli.connect import resolve_room
    from meshhost.cli.json_input import read_text

    given = [*(rules or [])]
    if rules_file is not None:
        given += [line for line in read_text(rules_file, source="--rules-file").splitlines() if line.strip()]
    settings = {"kind": kind, "name": name or kind, "rules": given} | {
        option: value for option, value in options.items() if value not in (None, [], False)
    }
    program = Path(__file__).with_name("program.py")
    run(file=f"{program} {shlex.quote(json.dumps(settings))}", room=resolve_room(room), json=as_json)

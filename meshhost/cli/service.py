"""`meshhost service`: the arguments of the command that runs a program's agents; `commands/service.py` does the work.

Loaded for its help, so it imports nothing heavy: see the docstring of the package.
"""

from typing import Annotated

import typer

from meshhost.cli.options import JsonOption, RoomOption

__all__ = ["app"]

app = typer.Typer(help="Run the agents of a program.")


@app.callback()
def _service_group() -> None:
    # Without a callback, typer would make the only command the group itself.
    pass


@app.command("run")
def _run_service(
    file: Annotated[
        str,
        typer.Argument(metavar="FILE", help='The program with its arguments, such as main.py or "main.py --verbose".'),
    ],
    room: RoomOption = None,
    reload: Annotated[
        bool, typer.Option("--reload", help="Restart the program when a Python file in its folder changes.")
    ] = False,
    port: Annotated[
        int,
        typer.Option(
            min=0, max=65535, help="The port of the program's host, if it sets one itself as ServiceHost(port=…)."
        ),
    ] = 0,
    link: Annotated[
        bool,
        typer.Option("--link", help="Let the program's host dial in to the room server, and be called over this link."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Run the program in FILE and call the agent of each of its paths into the room."""
    from meshhost.cli.commands.service import run as run_service
    from meshhost.cli.connect import resolve_room

    run_service(file=file, room=resolve_room(room), json=as_json, reload=reload, port=port, link=link)

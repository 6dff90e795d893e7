"""`meshhost service`: runs a program's agents, and configures services on a room server while that runs.

`commands/service.py` runs programs; `commands/configured/service.py` asks the room server. Both are imported when they are
used.

Loaded for its help, so it imports nothing heavy: see the docstring of the package.
"""

from typing import Annotated

import typer

from meshhost.cli.options import JsonOption, RoomOption

__all__ = ["app"]

app = typer.Typer(help="Run the agents of a program, and have a room server call those of others.")

_File = Annotated[
    str | None, typer.Option("--file", "-f", metavar="FILE", help="YAML or JSON file with a spec; - is standard input.")
]
_Url = Annotated[str | None, typer.Option("--url", metavar="URL", help="Instead of a file: where the host is reached.")]
_Name = Annotated[str | None, typer.Option("--name", metavar="NAME", help="Name of the service, with --url.")]
_Path = Annotated[
    list[str] | None,
    typer.Option("--path", metavar="PATH=NAME", help="A path of the host, and the agent's name; may be repeated."),
]
_Secret = Annotated[
    str | None, typer.Option("--secret", metavar="SECRET", help="The secret that signs calls, with --url.")
]
_Room = Annotated[
    str | None, typer.Option("--room", "-r", metavar="NAME", help="For this room only (default: for all rooms).")
]
_Service = Annotated[str | None, typer.Argument(metavar="SERVICE", help="Id or name of the service.")]
_Global = Annotated[bool, typer.Option("--global", help="For all rooms, which is the default.", hidden=True)]


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


@app.command("create")
def _create_service(
    file: _File = None,
    url: _Url = None,
    name: _Name = None,
    path: _Path = None,
    secret: _Secret = None,
    room: _Room = None,
    image: Annotated[str | None, typer.Option("--image", hidden=True)] = None,
    _env: Annotated[list[str] | None, typer.Option("--env", hidden=True)] = None,
    _port: Annotated[list[str] | None, typer.Option("--port", hidden=True)] = None,
    mcp: Annotated[str | None, typer.Option("--mcp", hidden=True)] = None,
    _all_rooms: _Global = False,
    as_json: JsonOption = False,
) -> None:
    """Have the room server call the agents of a service into rooms, from now on."""
    from meshhost.cli.commands.configured.service import Given, create, refuse_what_is_out

    refuse_what_is_out(image=image, mcp=mcp)
    create(Given(file, url, name, path or [], secret), room=room, as_json=as_json)


@app.command("update")
def _update_service(
    service: _Service = None,
    service_id: Annotated[str | None, typer.Option("--id", metavar="SERVICE", help="The same.", hidden=True)] = None,
    file: _File = None,
    url: _Url = None,
    name: _Name = None,
    path: _Path = None,
    secret: _Secret = None,
    can_create: Annotated[
        bool, typer.Option("--create", help="Make the service if there is none of this name.")
    ] = False,
    room: _Room = None,
    _all_rooms: _Global = False,
    as_json: JsonOption = False,
) -> None:
    """Replace a service: the one that is named, else the one that has the name of the spec."""
    from meshhost.cli.commands.configured.service import Given, update

    given = Given(file, url, name, path or [], secret)
    update(service or service_id, given, room=room, can_create=can_create, as_json=as_json)


@app.command("validate")
def _validate_service(file: _File = None, as_json: JsonOption = False) -> None:
    """Say whether a spec can be used, without using it."""
    from meshhost.cli.commands.configured.service import Given, validate

    validate(Given(file), as_json=as_json)


@app.command("list")
def _list_services(room: _Room = None, _all_rooms: _Global = False, as_json: JsonOption = False) -> None:
    """List the services for all rooms, or those for one room."""
    from meshhost.cli.commands.configured.service import list_services

    list_services(room=room, as_json=as_json)


@app.command("show")
def _show_service(
    service: _Service = None,
    name: Annotated[str | None, typer.Option("--name", metavar="NAME", help="The same.", hidden=True)] = None,
    room: _Room = None,
    as_json: JsonOption = False,
) -> None:
    """Print the spec of a service."""
    from meshhost.cli.commands.configured.service import show

    show(service or name, room=room, as_json=as_json)


@app.command("enable")
def _enable_service(service: _Service = None, room: _Room = None, as_json: JsonOption = False) -> None:
    """Have the agents of a service called that was disabled."""
    from meshhost.cli.commands.configured.service import enable

    enable(service, room=room, is_enabled=True, as_json=as_json)


@app.command("disable")
def _disable_service(service: _Service = None, room: _Room = None, as_json: JsonOption = False) -> None:
    """Have no agents of a service called until it is enabled: those that are there are told to leave."""
    from meshhost.cli.commands.configured.service import enable

    enable(service, room=room, is_enabled=False, as_json=as_json)


@app.command("delete")
def _delete_service(
    service: _Service = None,
    name: Annotated[str | None, typer.Option("--name", metavar="NAME", help="The same.", hidden=True)] = None,
    room: _Room = None,
    as_json: JsonOption = False,
) -> None:
    """Delete a service: its agents are told to leave."""
    from meshhost.cli.commands.configured.service import delete

    delete(service or name, room=room, as_json=as_json)

"""`meshhost room`: runs a room server; lists, exports, imports and deletes its rooms; shows the calls of configured services.

`serve` runs the server in this process (`meshhost.cli.serving`) with the options of the command line and the server's file. The
other commands ask a running server over REST, with the API key of the project; they join no room.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from meshhost.cli.options import JsonOption

__all__ = ["app"]

app = typer.Typer(help="Run a room server, list its rooms and their services.")

_PAGE = 1000
_Tenant = Annotated[
    str | None,
    typer.Option("--tenant", metavar="NAME", help="Its tenant, by name or id (default: that of the key)."),
]


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8080,
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder for data (default: MESHHOST_DATA_DIR, else ./.meshhost).")
    ] = None,
    database_url: Annotated[
        str | None,
        typer.Option(help="Database for queues (default: MESHHOST_DATABASE_URL, else a file in the data folder)."),
    ] = None,
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="Configuration file (meshhost.toml).")] = None,
    links: Annotated[
        bool, typer.Option("--links", help="Let service hosts dial in (the same as links.enabled in the file).")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Run the room server until SIGTERM or Ctrl-C.

    A second signal ends it at once. SIGHUP reads the services of the configuration file again.
    """
    from meshhost.app.config_file import read_server_file
    from meshhost.app.embedded import ServerOptions
    from meshhost.cli.serving import serve_rooms
    from meshhost.settings import read_settings

    settings = read_settings()
    options = ServerOptions(
        host=host,
        port=port,
        data_dir=(data_dir or settings.data_dir).expanduser(),
        database_url=database_url or settings.database_url,
        file=read_server_file(config),
        links=links,
    )
    serve_rooms(options, as_json=as_json, config=config)


@app.command("list")
def list_rooms(as_json: JsonOption = False) -> None:
    """List the rooms of the project, and the participants of those that are open."""
    from meshhost.cli.connect import server_access
    from meshhost.cli.log_output import log_for_command
    from meshhost.cli.output import print_json, print_table

    log_for_command()
    rooms = _rooms(server_access())
    if as_json:
        print_json(rooms)
        return
    rows = [
        (
            room["name"],
            "open" if room["is_open"] else "closed",
            ", ".join(f"{p['name']} ({p['role']})" for p in room["participants"]),
        )
        for room in rooms
    ]
    print_table(
        ("NAME", "STATE", "PARTICIPANTS"), rows, empty="no rooms yet: a room is created when a participant joins it"
    )


@app.command()
def create(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Name of the room.")] = None,
    named: Annotated[str | None, typer.Option("--name", hidden=True)] = None,
    if_not_exists: Annotated[
        bool, typer.Option("--if-not-exists", help="End well when the room is there already.")
    ] = False,
    _no_owner: Annotated[bool, typer.Option("--no-owner", hidden=True)] = False,
    as_json: JsonOption = False,
) -> None:
    """Make a room. Rooms need not be made: one opens when somebody joins it."""
    from meshhost.cli.commands.configured.asking import ask_project, say
    from meshhost.cli.connect import resolve_room

    body = {"name": resolve_room(name or named), "if_not_exists": if_not_exists, "metadata": None}
    made = ask_project("POST", "rooms", body)
    say(made, f"made room {made['name']}", as_json=as_json)


@app.command("get", hidden=True)
def get_room(
    name: Annotated[str | None, typer.Argument(metavar="NAME")] = None,
    named: Annotated[str | None, typer.Option("--name")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show the record of a room; MeshAgent's spelling."""
    from meshhost.cli.commands.configured.asking import ask_project, quoted, say
    from meshhost.cli.connect import resolve_room

    found = ask_project("GET", f"rooms/{quoted(resolve_room(name or named))}")
    say(found, f"{found['name']} ({found['id']})", as_json=as_json)


@app.command("services")
def list_services(name: Annotated[str, typer.Argument(help="Name of the room.")], as_json: JsonOption = False) -> None:
    """Show the configured services of an open room.

    For each: when it was called, with which result, and when it is called next.
    """
    from meshhost.cli.connect import get_json, resolve_room, server_access
    from meshhost.cli.log_output import log_for_command
    from meshhost.cli.output import print_json, print_table, shown_time

    log_for_command()
    room, access = resolve_room(name), server_access()
    answer = get_json(access, f"/accounts/projects/{access.project_id}/rooms/{room}/calls")
    if as_json:
        print_json(answer["calls"])
        return
    rows = [
        (
            call["identity"],
            _call_state(call),
            call["url"],
            shown_time(call["called_at"]),
            shown_time(call["next_call_at"]),
            call["error"],
        )
        for call in answer["calls"]
    ]
    columns = ("IDENTITY", "STATE", "URL", "CALLED", "NEXT CALL", "ERROR")
    print_table(columns, rows, empty="no service is called into this room, or it is not open")


@app.command()
def delete(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the room.")],
    tenant: _Tenant = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Delete a room with its queues, files and documents, as the operator or with an admin's key.

    Tokens and file addresses of the room stop working at once, also for a room that is made again under the name.
    """
    from meshhost.cli.connect import resolve_room, server_access
    from meshhost.cli.managing import confirm, delete_all_of, tenant_path
    from meshhost.cli.output import print_json, print_line

    room = resolve_room(name)
    owner = tenant or server_access().project_id
    confirm(f"room {room}", yes=yes)
    answer = delete_all_of(tenant_path(owner, "rooms", room), f"room {room}")
    if as_json:
        print_json(answer)
    else:
        print_line(f"deleted room {room} of tenant {answer['name']}")


@app.command("export")
def export_room(
    name: Annotated[str, typer.Argument(metavar="ROOM", help="Name of the room.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="File to write; it must not exist.")],
    tenant: _Tenant = None,
    as_json: JsonOption = False,
) -> None:
    """Write everything that a room keeps to a file, as the operator or with an admin's key.

    The room may be in use meanwhile; messages that are being worked on are written as ready.
    """
    from meshhost.cli.connect import resolve_room, server_access
    from meshhost.cli.managing import tenant_path
    from meshhost.cli.output import print_json, print_line
    from meshhost.cli.transfers.archiving import export_to

    room = resolve_room(name)
    owner = tenant or server_access().project_id
    result = export_to(file, tenant_path(owner, "rooms", room, "archive"), f"room {room}")
    if as_json:
        print_json(result)
    else:
        print_line(f"exported room {room} to {file}")


@app.command("import")
def import_room(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An archive of a room.")],
    new_name: Annotated[
        str | None, typer.Option("--as", metavar="NAME", help="Name of the room (default: as it was).")
    ] = None,
    tenant: _Tenant = None,
    as_json: JsonOption = False,
) -> None:
    """Make a room from an archive, as the operator or with an admin's key.

    The room must not be there. All of it is imported, or nothing.
    """
    from meshhost.cli.connect import resolve_room, server_access
    from meshhost.cli.managing import tenant_path
    from meshhost.cli.output import print_json, print_line
    from meshhost.cli.transfers.archiving import import_from, manifest_of

    room = resolve_room(manifest_of(file).name if new_name is None else new_name)
    owner = tenant or server_access().project_id
    answer = import_from(file, tenant_path(owner, "rooms", room, "archive"), f"room {room}")
    if as_json:
        print_json(answer)
    else:
        print_line(f"imported room {room}: {answer['messages']} messages, {answer['files']} files")


def _call_state(call: dict[str, Any]) -> str:
    if call["is_present"]:
        return "present"
    return "gone" if call["outcome"] == "joined" else call["outcome"] or "not called yet"


def _rooms(access: Any) -> list[dict[str, Any]]:
    """Return all rooms that the server knows, open or closed, sorted by name. A room that was never stored has no id."""
    from meshhost.cli.connect import get_json

    project = f"/accounts/projects/{access.project_id}"
    rooms: dict[str, dict[str, Any]] = {}
    while True:
        page = get_json(access, f"{project}/rooms", all=1, limit=_PAGE, offset=len(rooms))["rooms"]
        rooms |= {room["name"]: room | {"open": False, "is_open": False, "participants": []} for room in page}
        if len(page) < _PAGE:
            break
    for session in get_json(access, f"{project}/sessions/active")["sessions"]:
        room = rooms.setdefault(session["room_name"], {"id": None, "name": session["room_name"], "metadata": {}})
        room |= {"open": True, "is_open": True, "participants": session["participants"]}
    return [rooms[name] for name in sorted(rooms)]

"""`meshhost tenant`: makes, lists, renames, suspends, exports, imports and deletes the tenants of a running server.

Requests go through `meshhost.cli.managing` to `/tenants` of the server, so that changes take effect at once. A tenant is named
by its name or its id.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from meshhost.cli.options import JsonOption

__all__ = ["app"]

app = typer.Typer(help="Manage the tenants of a room server, as its operator.")

_PAGE = 1000
_LIMIT = "N|none|default"
_Name = Annotated[str, typer.Argument(metavar="NAME", help="Name or id of the tenant.")]


@app.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the tenant: letters, digits, '-', '_' and '.'.")],
    as_json: JsonOption = False,
) -> None:
    """Make a tenant.

    Then make a key for it with `meshhost key create`.
    """
    from meshhost.cli.managing import manage

    _print(manage("POST", "/tenants", {"name": name}), "created", as_json=as_json)


@app.command("list")
def list_tenants(as_json: JsonOption = False) -> None:
    """List the tenants by name."""
    from meshhost.cli.managing import manage
    from meshhost.cli.output import print_json, print_table

    tenants: list[dict[str, Any]] = []
    while len(page := manage("GET", "/tenants", limit=_PAGE, offset=len(tenants))["tenants"]) == _PAGE:
        tenants += page
    tenants += page
    if as_json:
        print_json(tenants)
        return
    rows = [(tenant["name"], _state(tenant), tenant["id"]) for tenant in tenants]
    print_table(("NAME", "STATE", "ID"), rows, empty="no tenants yet: `meshhost tenant create NAME` makes one")


@app.command()
def show(name: _Name, as_json: JsonOption = False) -> None:
    """Show a tenant, its limits, and how much of them it uses."""
    from meshhost.cli.managing import manage, tenant_path

    _print_with_quota(manage("GET", tenant_path(name)), as_json=as_json)


@app.command()
def limit(
    name: _Name,
    rooms: Annotated[str | None, typer.Option("--rooms", metavar=_LIMIT, help="Open rooms.")] = None,
    connections: Annotated[str | None, typer.Option("--connections", metavar=_LIMIT, help="Open connections.")] = None,
    agents: Annotated[
        str | None, typer.Option("--agents", metavar=_LIMIT, help="Connected agents, over all hosts.")
    ] = None,
    queues: Annotated[str | None, typer.Option("--queues", metavar=_LIMIT, help="Queues.")] = None,
    messages: Annotated[
        str | None, typer.Option("--messages", metavar=_LIMIT, help="Messages in queues, dead ones included.")
    ] = None,
    stored_bytes: Annotated[
        str | None, typer.Option("--stored-bytes", metavar=_LIMIT, help="Bytes of stored files and tables.")
    ] = None,
    files: Annotated[str | None, typer.Option("--files", metavar=_LIMIT, help="Stored files.")] = None,
    documents: Annotated[str | None, typer.Option("--documents", metavar=_LIMIT, help="Documents.")] = None,
    tables: Annotated[str | None, typer.Option("--tables", metavar=_LIMIT, help="Tables.")] = None,
    keys: Annotated[str | None, typer.Option("--keys", metavar=_LIMIT, help="API keys.")] = None,
    uploads: Annotated[str | None, typer.Option("--uploads", metavar=_LIMIT, help="Uploads in progress.")] = None,
    in_flight_bytes: Annotated[
        str | None, typer.Option("--in-flight-bytes", metavar=_LIMIT, help="Bytes of messages in memory.")
    ] = None,
    requests_per_second: Annotated[
        str | None,
        typer.Option("--requests-per-second", metavar=_LIMIT, help="Requests of REST and in rooms per second."),
    ] = None,
    weight: Annotated[
        str | None,
        typer.Option(metavar="N", help="Turns in the stores while others want them, 1 by default; not a limit."),
    ] = None,
    connections_per_second: Annotated[
        str | None,
        typer.Option("--connections-per-second", metavar=_LIMIT, help="Participants that join per second."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Set limits of a tenant, and show them with their use.

    A limit is a number, `none` for no limit, or `default` for the server's own default. Limits that are not named stay.
    """
    from meshhost.cli.managing import manage, tenant_path

    given = {
        "max_rooms": rooms,
        "max_connections": connections,
        "max_agents": agents,
        "max_queues": queues,
        "max_messages": messages,
        "max_stored_bytes": stored_bytes,
        "max_files": files,
        "max_documents": documents,
        "max_tables": tables,
        "max_keys": keys,
        "max_uploads": uploads,
        "max_in_flight_bytes": in_flight_bytes,
        "requests_per_second": requests_per_second,
        "weight": weight,
        "connections_per_second": connections_per_second,
    }
    body = {limit: _parsed(limit, text) for limit, text in given.items() if text is not None}
    path = tenant_path(name, "quota") if body else tenant_path(name)
    _print_with_quota(manage("PATCH", path, body) if body else manage("GET", path), as_json=as_json)


@app.command()
def rename(
    name: _Name,
    new_name: Annotated[str, typer.Argument(metavar="NEW_NAME", help="The new name.")],
    as_json: JsonOption = False,
) -> None:
    """Give a tenant another name; its id, keys and rooms stay."""
    from meshhost.cli.managing import manage, tenant_path

    _print(manage("PATCH", tenant_path(name), {"name": new_name}), "renamed", as_json=as_json)


@app.command()
def suspend(
    name: _Name,
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="What the tenant's users are told.")
    ] = "by the operator",
    as_json: JsonOption = False,
) -> None:
    """Refuse all keys and tokens of a tenant and end its open rooms.

    What it keeps stays.
    """
    from meshhost.cli.managing import manage, tenant_path

    _print(manage("POST", tenant_path(name, "suspend"), {"reason": reason}), "suspended", as_json=as_json)


@app.command()
def resume(name: _Name, as_json: JsonOption = False) -> None:
    """End the suspension of a tenant."""
    from meshhost.cli.managing import manage, tenant_path

    _print(manage("POST", tenant_path(name, "resume"), {}), "resumed", as_json=as_json)


@app.command()
def delete(
    name: _Name,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Delete a tenant with its keys, rooms, queues, files, documents and usage.

    Its tokens and file addresses stop working at once and its rooms end. Its id is never used again.
    """
    from meshhost.cli.managing import confirm, delete_all_of, manage, tenant_path

    tenant = manage("GET", tenant_path(name))
    confirm(f"tenant {tenant['name']} ({tenant['id']})", yes=yes)
    _print(delete_all_of(tenant_path(tenant["id"]), f"tenant {tenant['name']}"), "deleted", as_json=as_json)


@app.command("export")
def export_tenant(
    name: _Name,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="File to write; it must not exist.")],
    as_json: JsonOption = False,
) -> None:
    """Write everything that a tenant keeps to a file, except its API keys.

    The tenant may be in use meanwhile; suspend it first for an exact copy.
    """
    from meshhost.cli.managing import tenant_path
    from meshhost.cli.output import print_json, print_line
    from meshhost.cli.transfers.archiving import export_to

    result = export_to(file, tenant_path(name, "archive"), f"tenant {name}")
    if as_json:
        print_json(result)
    else:
        print_line(f"exported tenant {name} to {file}")


@app.command("import")
def import_tenant(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An archive of a tenant.")],
    new_name: Annotated[
        str | None, typer.Option("--as", metavar="NAME", help="Name of the new tenant (default: as it was).")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a tenant from an archive.

    It has no API keys: make one with `meshhost key create`. All of it is imported, or nothing.
    """
    from meshhost.cli.managing import tenant_path
    from meshhost.cli.transfers.archiving import import_from, manifest_of

    name = manifest_of(file).name if new_name is None else new_name
    _print(import_from(file, tenant_path(name, "archive"), f"tenant {name}"), "imported", as_json=as_json)


def _print(tenant: dict[str, Any], what: str, *, as_json: bool) -> None:
    from meshhost.cli.output import print_json, print_line

    if as_json:
        print_json(tenant)
    else:
        print_line(f"{what} tenant {tenant['name']} ({tenant['id']})")


def _parsed(limit: str, text: str) -> float | str | None:
    """The limit as the REST API takes it. Raises typer.BadParameter."""
    if text in ("none", "default"):
        return None if text == "none" else text
    try:
        return float(text) if "." in text else int(text)
    except ValueError:
        option = limit.removeprefix("max_").replace("_", "-")
        raise typer.BadParameter(f"--{option}: expected a number, none or default") from None


def _print_with_quota(tenant: dict[str, Any], *, as_json: bool) -> None:
    from meshhost.cli.output import print_json, print_table

    if as_json:
        print_json(tenant)
        return
    print_table(("", ""), [("name", tenant["name"]), ("id", tenant["id"]), ("state", _state(tenant))], empty="")
    use = tenant["use"]
    rows = [
        (
            name,
            use.get(name.removeprefix("max_")),
            "no limit" if limit is None else f"{limit:g}" if limit % 1 else int(limit),
        )
        for name, limit in tenant["quota"].items()
    ]
    print_table(("LIMIT", "USED", "AT MOST"), rows, empty="")


def _state(tenant: dict[str, Any]) -> str:
    return "active" if tenant["suspended"] is None else f"suspended: {tenant['suspended']}"

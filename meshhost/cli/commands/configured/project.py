"""`meshhost project`: MeshAgent's spelling; a project is a tenant here, and the user has the one of the key."""

from __future__ import annotations

import typer

from meshhost.cli.options import JsonOption

__all__ = ["app"]

app = typer.Typer(help="Show the project whose key is used.")


@app.callback()
def _group() -> None:
    # Without a callback, typer would make the only command the group itself.
    pass


@app.command("list")
def list_projects(as_json: JsonOption = False) -> None:
    """List the projects that the key opens: its own."""
    from meshhost.cli.connect import get_json, server_access
    from meshhost.cli.output import print_json, print_table

    projects = get_json(server_access(), "/accounts/projects")["projects"]
    if as_json:
        print_json(projects)
        return
    print_table(("ID", "NAME"), [(each["id"], each["name"]) for each in projects], empty="no projects")

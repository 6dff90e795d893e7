"""`meshhost api-key`: MeshAgent's spelling for the API keys of the user's own project; ours is `meshhost key`.

`meshhost key` is for operators and admins, and names a tenant. This group asks for the project of the key that is used, and can
store another key in the project file, which commands of this user then use.
"""

from __future__ import annotations

from typing import Annotated

import typer

from meshhost.cli.options import JsonOption, check_short

__all__ = ["app"]

app = typer.Typer(help="Make, list and revoke API keys of the own project.")


@app.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the key.", callback=check_short)],
    activate: Annotated[str | None, typer.Argument(hidden=True)] = None,
    is_activated: Annotated[bool, typer.Option("--activate", help="Use this key from now on.")] = False,
    description: Annotated[str, typer.Option("--description", help="What it is for.")] = "",
    service_account: Annotated[str | None, typer.Option("--service-account", hidden=True)] = None,
    as_json: JsonOption = False,
) -> None:
    """Make an API key and print it: it is shown only now."""
    from meshhost.cli.commands.configured.asking import ask_project, say

    made = ask_project("POST", "api-keys", {"name": name, "description": description})
    if is_activated or activate == "activate":
        _activate(made["value"])
    say(made, made["value"], as_json=as_json)


@app.command("activate")
def activate_key(key: Annotated[str, typer.Argument(metavar="KEY", help="The key.")]) -> None:
    """Use a key from now on, for commands of this user."""
    from meshhost.cli.output import print_line

    _activate(key)
    print_line("the key is in use")


@app.command("list")
def list_keys(
    service_account: Annotated[str | None, typer.Option("--service-account", hidden=True)] = None,
    as_json: JsonOption = False,
) -> None:
    """List the API keys, without the keys themselves."""
    from meshhost.cli.commands.configured.asking import ask_project
    from meshhost.cli.output import print_json, print_table

    keys = ask_project("GET", "api-keys")["keys"]
    if as_json:
        print_json(keys)
        return
    print_table(
        ("ID", "NAME", "DESCRIPTION"),
        [(each["id"], each["name"], each["description"]) for each in keys],
        empty="no keys",
    )


@app.command()
def delete(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="Id of the key.")],
    service_account: Annotated[str | None, typer.Option("--service-account", hidden=True)] = None,
    as_json: JsonOption = False,
) -> None:
    """Revoke an API key."""
    from meshhost.cli.commands.configured.asking import ask_project, quoted, say

    ask_project("DELETE", f"api-keys/{quoted(key_id)}")
    say({"deleted": key_id}, f"revoked key {key_id}", as_json=as_json)


@app.command()
def get() -> None:
    """Print the key that is in use."""
    from meshhost.cli.connect import server_access
    from meshhost.cli.output import print_line

    print_line(server_access().api_key)


@app.command()
def env() -> None:
    """Print the key that is in use as a line for a shell."""
    from meshhost.cli.connect import server_access
    from meshhost.cli.output import print_line

    print_line(f"export MESHHOST_API_KEY={server_access().api_key}")


def _activate(key: str) -> None:
    from meshhost.app.project import use_key
    from meshhost.cli.output import note
    from meshhost.client_settings import read_client_settings

    settings = read_client_settings()
    use_key(settings, key)
    if settings.api_key is not None:
        note("MESHHOST_API_KEY is set and goes before the stored key")

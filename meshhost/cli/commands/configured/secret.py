"""`meshhost secret`: keeps secrets of a tenant on the room server, which encrypts them and never shows them again.

Services get the members of a secret as variables, and providers a key (`api_key_secret` in meshhost.toml). MeshAgent's spelling
`secret keys create` is the same command.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from meshhost.cli.options import JsonOption, check_short

__all__ = ["app"]

app = typer.Typer(help="Keep secrets of a tenant for its services and providers.")

_Data = Annotated[
    list[str] | None,
    typer.Option(
        "--data", metavar="KEY=VALUE", help="A member of the secret; several with spaces between, or repeated."
    ),
]
_More = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="More members.")]
_File = Annotated[
    str | None,
    typer.Option(
        "--file", metavar="FILE", help="JSON file with the members as an object, instead; - is standard input."
    ),
]
_Secret = Annotated[str, typer.Argument(metavar="SECRET", help="Id or name of the secret.", callback=check_short)]


@app.command()
def create(
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="Name of the secret.", callback=check_short)
    ] = None,
    data: _Data = None,
    more: _More = None,
    file: _File = None,
    value: Annotated[str | None, typer.Option("--value", hidden=True)] = None,
    _type: Annotated[str | None, typer.Option("--type", hidden=True)] = None,
    as_json: JsonOption = False,
) -> None:
    """Store a secret.

    What is in --data is seen by who lists the processes of this machine meanwhile: --file is not.
    """
    from meshhost.cli.commands.configured.asking import ask_project, say

    if value is not None and more and "=" not in more[0]:  # MeshAgent 0.50: secret create NAME --value VALUE
        name, more = more[0], [f"value={value}", *more[1:]]
    if name is None:
        raise typer.BadParameter("expected a name for the secret", param_hint="--name")
    made = ask_project("POST", "secrets", {"name": name, "type": "keys", "data": _members(data, more, file)})
    say(made, f"stored secret {made['name']} ({made['id']})", as_json=as_json)


@app.command()
def update(
    secret: Annotated[str, typer.Option("--secret-id", "--secret", metavar="SECRET", help="Id or name of the secret.")],
    name: Annotated[str | None, typer.Option("--name", metavar="NAME", help="Its new name.")] = None,
    data: _Data = None,
    more: _More = None,
    file: _File = None,
    as_json: JsonOption = False,
) -> None:
    """Replace all members of a secret."""
    from meshhost.cli.commands.configured.asking import ask_project, found, say

    present = found("secrets", "secrets", secret)
    body = {"name": name or present["name"], "type": "keys", "data": _members(data, more, file)}
    changed = ask_project("PUT", f"secrets/{present['id']}", body)
    say(changed, f"replaced secret {changed['name']}", as_json=as_json)


@app.command("list")
def list_secrets(as_json: JsonOption = False) -> None:
    """List the secrets: names and times."""
    from meshhost.cli.commands.configured.asking import ask_project
    from meshhost.cli.output import print_json, print_table, shown_time

    secrets = [
        {name: value for name, value in each.items() if name != "data"}
        for each in ask_project("GET", "secrets")["secrets"]
    ]
    if as_json:
        print_json(secrets)
        return
    rows = [(each["id"], each["name"], each["type"], shown_time(each["changed_at"])) for each in secrets]
    print_table(("ID", "NAME", "TYPE", "CHANGED"), rows, empty="no secrets yet")


@app.command()
def delete(secret: _Secret, as_json: JsonOption = False) -> None:
    """Delete a secret. Services that use it are not called any more."""
    from meshhost.cli.commands.configured.asking import ask_project, found, say

    present = found("secrets", "secrets", secret)
    ask_project("DELETE", f"secrets/{present['id']}")
    say({"deleted": present["id"]}, f"deleted secret {present['name']}", as_json=as_json)


def _members(data: list[str] | None, more: list[str] | None, file: str | None) -> dict[str, Any]:
    from meshhost.cli.json_input import parse_object, read_text

    pairs = [pair for text in data or [] for pair in text.split()] + [*(more or [])]
    if (file is None) == (not pairs):
        raise typer.BadParameter("give the members with either --data or --file", param_hint="--data")
    if file is not None:
        return parse_object(read_text(file, source="--file"), source="--file")
    for pair in pairs:
        if "=" not in pair:
            raise typer.BadParameter("expected KEY=VALUE", param_hint="--data")
    return {name: value for name, _, value in (pair.partition("=") for pair in pairs)}

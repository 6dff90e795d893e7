"""`meshhost hook`: makes, shows, tests and deletes the hooks of a room, which foreign services post to.

A secret is never an argument, which other users of the machine could read: it comes from a file or standard input. One that
is made is printed once. Libraries are imported inside the functions, since this module is loaded for every `--help`.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from meshhost.cli.options import JsonOption, QueueOption, RoomOption

__all__ = ["app"]

app = typer.Typer(help="Let foreign services, such as GitHub or Stripe, send to a queue.")

_PAGE = 1000
_Hook = Annotated[str, typer.Argument(metavar="HOOK", help="Id or name of the hook.")]
_SecretFile = Annotated[
    str | None,
    typer.Option("--secret-file", metavar="FILE", help="File with the signing secret; - is standard input."),
]


@app.command()
def create(
    queue: QueueOption,
    room: RoomOption = None,
    verify: Annotated[
        str,
        typer.Option(
            "--verify",
            metavar="SCHEME",
            help="How deliveries are signed: standard-webhooks, github, stripe, slack or none.",
        ),
    ] = "standard-webhooks",
    secret_file: _SecretFile = None,
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="A name for people and messages.")] = "",
    header: Annotated[
        list[str] | None, typer.Option("--header", metavar="NAME", help="A header that messages keep; repeatable.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a hook, and print its address and its secret.

    The secret is made where the receiver chooses it, and printed only now. Stripe and Slack show theirs: give it with
    --secret-file.
    """
    from meshhost.cli.commands.triggers.asking import ask, wrong_option
    from meshhost.cli.connect import resolve_room
    from meshhost.cli.output import print_json, print_line
    from meshhost.errors import InvalidRequestError
    from meshhost.triggers.hooks import HookSpec

    try:
        spec = HookSpec.parse({"queue": queue, "verify": verify, "name": name, "headers": header or []})
    except InvalidRequestError as error:
        raise wrong_option(error) from None
    body = spec.model_dump(mode="json") | {"secret": _secret(secret_file, spec.verify)}
    made = ask("POST", f"/rooms/{resolve_room(room)}/hooks", body)
    if as_json:
        print_json(made)
        return
    print_line(f"url: {made['url']}")
    if made["secret"] is not None and secret_file is None:
        print_line(f"secret: {made['secret']}")


@app.command("list")
def list_hooks(room: RoomOption = None, as_json: JsonOption = False) -> None:
    """List the hooks of a room, the oldest first."""
    from meshhost.cli.output import print_json, print_table

    hooks = _all(room)
    if as_json:
        print_json(hooks)
        return
    rows = [
        (each["name"], each["queue"], each["verify"] if each["ready"] else "no secret", each["id"]) for each in hooks
    ]
    print_table(("NAME", "QUEUE", "VERIFY", "ID"), rows, empty="no hooks yet")


@app.command()
def show(hook: _Hook, room: RoomOption = None, as_json: JsonOption = False) -> None:
    """Show a hook, its address and its last deliveries."""
    from meshhost.cli.commands.triggers.asking import ask
    from meshhost.cli.output import print_json, print_line, print_table, shown_time

    shown = ask("GET", _path(hook, room))
    if as_json:
        print_json(shown)
        return
    print_line(f"url: {shown['url']}")
    print_line(f"made by: {shown['made_by'] or 'an API key'}")
    if shown["error"] is not None:
        print_line(f"error: {shown['error']}")
    rows = [
        (
            shown_time(each["at"]),
            each["outcome"],
            each.get("message_id"),
            each["bytes"],
            each.get("error") or each.get("delivery"),
        )
        for each in shown["deliveries"]
    ]
    print_table(("AT", "OUTCOME", "MESSAGE", "BYTES", "DELIVERY"), rows, empty="nothing was delivered yet")


@app.command("test")
def send_test(hook: _Hook, room: RoomOption = None, as_json: JsonOption = False) -> None:
    """Deliver a signed test message to a hook, and print the id of the message."""
    from meshhost.cli.commands.triggers.asking import ask
    from meshhost.cli.output import print_json, print_line

    answer = ask("POST", f"{_path(hook, room)}/test")
    if as_json:
        print_json(answer)
    else:
        print_line(answer["id"])


@app.command()
def rotate(hook: _Hook, room: RoomOption = None, secret_file: _SecretFile = None, as_json: JsonOption = False) -> None:
    """Give a hook another secret, a new one by default; the old one is worth nothing at once.

    A hook that stopped because the key with which it was made has ended goes on with yours.
    """
    from meshhost.cli.commands.triggers.asking import ask
    from meshhost.cli.output import print_json, print_line

    path = _path(hook, room)
    changed = ask("POST", f"{path}/secret", {"secret": None if secret_file is None else _read(secret_file)})
    if as_json:
        print_json(changed)
    else:
        print_line(f"secret: {changed['secret']}" if secret_file is None else f"changed the secret of hook {hook}")


@app.command()
def delete(hook: _Hook, room: RoomOption = None, as_json: JsonOption = False) -> None:
    """Delete a hook: its address is gone, and messages that it sent stay."""
    from meshhost.cli.commands.triggers.asking import ask
    from meshhost.cli.output import print_json, print_line

    path = _path(hook, room)
    ask("DELETE", path)
    if as_json:
        print_json({"deleted": path.rpartition("/")[2]})
    else:
        print_line(f"deleted hook {hook}")


def _secret(file: str | None, scheme: str) -> str | None:
    if file is not None:
        return _read(file)
    if scheme in {"stripe", "slack"}:
        raise typer.BadParameter(f"give the signing secret that {scheme} shows", param_hint="--secret-file")
    return None


def _read(file: str) -> str:
    from meshhost.cli.json_input import read_text

    return read_text(file, source="--secret-file").strip()


def _all(room: str | None) -> list[dict[str, Any]]:
    from meshhost.cli.commands.triggers.asking import ask
    from meshhost.cli.connect import resolve_room

    path = f"/rooms/{resolve_room(room)}/hooks"
    hooks: list[dict[str, Any]] = []
    while page := ask("GET", path, limit=_PAGE, after=hooks[-1]["id"] if hooks else "")["hooks"]:
        hooks += page
        if len(page) < _PAGE:
            break
    return hooks


def _path(given: str, room: str | None) -> str:
    from meshhost.cli.commands.triggers.asking import found
    from meshhost.cli.connect import resolve_room

    name = resolve_room(room)
    return f"/rooms/{name}/hooks/{found(_all(name), given, 'hook')['id']}"

"""`meshhost webhook`: sends events of the project's rooms to a URL, as MeshAgent 0.6 does.

The operator has webhooks of its own (`[webhooks]` of meshhost.toml); these belong to a tenant. `update` sends the whole
webhook, since that is what the server takes: what is not given stays as it is.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from meshhost.cli.options import JsonOption, check_short

__all__ = ["app"]

app = typer.Typer(help="Send events of rooms to a URL.")

_Webhook = Annotated[str, typer.Argument(metavar="WEBHOOK", help="Id or name of the webhook.", callback=check_short)]
_Event = Annotated[
    list[str] | None,
    typer.Option("--event", "-e", metavar="EVENT", help="What is sent: room.started, room.ended. May be repeated."),
]
_Payload = Annotated[
    str | None, typer.Option("--payload", metavar="JSON", help="An object whose members are added to what is sent.")
]


@app.command()
def create(
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="Name of the webhook.", callback=check_short)],
    url: Annotated[str, typer.Option("--url", metavar="URL", help="Where events are sent.")],
    event: _Event = None,
    description: Annotated[str, typer.Option("--description", metavar="TEXT", help="What it is for.")] = "",
    action: Annotated[str | None, typer.Option("--action", metavar="NAME", help="Sent as `action`.")] = None,
    payload: _Payload = None,
    as_json: JsonOption = False,
) -> None:
    """Make a webhook, and print the secret that signs what it sends: it is shown only now."""
    from meshhost.cli.commands.configured.asking import ask_project, say

    body = {
        "name": name,
        "url": url,
        "events": event or ["room.started", "room.ended"],
        "description": description,
        "action": action,
        "payload": _object(payload),
    }
    made = ask_project("POST", "webhooks", body)
    say(made, f"made webhook {made['name']} ({made['id']})\nsecret: {made['secret']}", as_json=as_json)


@app.command()
def update(
    webhook: _Webhook,
    name: Annotated[str | None, typer.Option("--name", metavar="NAME", help="Its new name.")] = None,
    url: Annotated[str | None, typer.Option("--url", metavar="URL", help="Where events are sent.")] = None,
    event: _Event = None,
    description: Annotated[str | None, typer.Option("--description", metavar="TEXT", help="What it is for.")] = None,
    action: Annotated[str | None, typer.Option("--action", metavar="NAME", help="Sent as `action`.")] = None,
    payload: _Payload = None,
    as_json: JsonOption = False,
) -> None:
    """Change what is given of a webhook; the rest stays."""
    from meshhost.cli.commands.configured.asking import ask_project, found, say

    present = found("webhooks", "webhooks", webhook)
    given: dict[str, Any] = {"name": name, "url": url, "events": event, "description": description, "action": action}
    given["payload"] = _object(payload)
    body = {member: value for member, value in present.items() if member != "id"}
    body |= {member: value for member, value in given.items() if value is not None}
    changed = ask_project("PUT", f"webhooks/{present['id']}", body)
    say(changed, f"changed webhook {changed['name']}", as_json=as_json)


@app.command("list")
def list_webhooks(as_json: JsonOption = False) -> None:
    """List the webhooks."""
    from meshhost.cli.commands.configured.asking import ask_project
    from meshhost.cli.output import print_json, print_table

    webhooks = ask_project("GET", "webhooks")["webhooks"]
    if as_json:
        print_json(webhooks)
        return
    rows = [(each["id"], each["name"], ", ".join(each["events"]), each["url"]) for each in webhooks]
    print_table(("ID", "NAME", "EVENTS", "URL"), rows, empty="no webhooks yet")


@app.command()
def show(webhook: _Webhook, as_json: JsonOption = False) -> None:
    """Show a webhook and its last deliveries."""
    from meshhost.cli.commands.configured.asking import ask_project, quoted
    from meshhost.cli.output import print_json, print_line, print_table, shown_time

    shown = ask_project("GET", f"webhooks/{quoted(webhook)}")
    if as_json:
        print_json(shown)
        return
    print_line(f"url: {shown['url']}")
    print_line(f"events: {', '.join(shown['events'])}")
    rows = [
        (shown_time(each["at"]), each["event"], each["room"], each["outcome"], each["attempt"], each["error"])
        for each in shown["deliveries"]
    ]
    print_table(("AT", "EVENT", "ROOM", "OUTCOME", "TRY", "ERROR"), rows, empty="nothing was sent yet")


@app.command()
def delete(webhook: _Webhook, as_json: JsonOption = False) -> None:
    """Delete a webhook."""
    from meshhost.cli.commands.configured.asking import ask_project, found, say

    present = found("webhooks", "webhooks", webhook)
    ask_project("DELETE", f"webhooks/{present['id']}")
    say({"deleted": present["id"]}, f"deleted webhook {present['name']}", as_json=as_json)


def _object(payload: str | None) -> dict[str, Any] | None:
    from meshhost.cli.json_input import parse_object

    return None if payload is None else parse_object(payload, source="--payload")

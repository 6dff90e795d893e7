"""`meshhost mailbox`: makes, shows, changes and deletes the mailboxes of a project: addresses whose mail goes to a queue.

Libraries are imported inside the functions, since this module is loaded for every `--help`.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from meshhost.cli.options import JsonOption, QueueOption, RoomOption

__all__ = ["app"]

app = typer.Typer(help="Let mail for an address go to a queue.")

_PAGE = 1000
_Address = Annotated[str, typer.Argument(metavar="ADDRESS", help="Mail address, such as support@example.com.")]
_Public = Annotated[bool, typer.Option("--public", help="MeshAgent's mark of a public mailbox; it changes nothing.")]


@app.command()
def create(
    address: _Address,
    queue: QueueOption,
    room: RoomOption = None,
    public: _Public = False,
    as_json: JsonOption = False,
) -> None:
    """Make a mailbox. Its address belongs to it alone, on the whole server."""
    from meshhost.cli.connect import resolve_room

    made = _ask("POST", "mailboxes", _body(queue, resolve_room(room), public=public) | {"address": address})
    _say(made, f"mail for {made['address']} goes to queue {made['queue']} of room {made['room']}", as_json=as_json)


@app.command()
def update(
    address: _Address,
    queue: QueueOption,
    room: RoomOption = None,
    public: _Public = False,
    as_json: JsonOption = False,
) -> None:
    """Let the mail of a mailbox go to another queue or room. One whose key has ended goes on with yours."""
    from meshhost.cli.connect import resolve_room

    changed = _ask("PUT", _path(address), _body(queue, resolve_room(room), public=public))
    text = f"mail for {changed['address']} goes to queue {changed['queue']} of room {changed['room']}"
    _say(changed, text, as_json=as_json)


@app.command("list")
def list_mailboxes(
    room: Annotated[str | None, typer.Option("--room", metavar="ROOM", help="Only those of this room.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List the mailboxes of the project, or of one room."""
    from meshhost.cli.connect import resolve_room
    from meshhost.cli.output import print_json, print_table

    path = "mailboxes" if room is None else f"rooms/{resolve_room(room)}/mailboxes"
    found: list[dict[str, Any]] = []
    while page := _ask("GET", path, limit=_PAGE, after=found[-1]["address"] if found else "")["mailboxes"]:
        found += page
        if len(page) < _PAGE:
            break
    if as_json:
        print_json(found)
        return
    rows = [(each["address"], each["room"], each["queue"], each["error"]) for each in found]
    print_table(("ADDRESS", "ROOM", "QUEUE", "ERROR"), rows, empty="no mailboxes yet")


@app.command()
def show(address: _Address, as_json: JsonOption = False) -> None:
    """Show a mailbox and its last mails, without their contents."""
    from meshhost.cli.output import print_json, print_line, print_table, shown_time

    shown = _ask("GET", _path(address))
    deliveries = _ask("GET", f"{_path(address)}/deliveries")["deliveries"]
    if as_json:
        print_json(shown | {"deliveries": deliveries})
        return
    print_line(f"room: {shown['room']}")
    print_line(f"queue: {shown['queue']}")
    print_line(f"made by: {shown['made_by'] or 'an API key'}")
    if shown["error"] is not None:
        print_line(f"error: {shown['error']}")
    rows = [
        (
            shown_time(each["at"]),
            each["outcome"],
            each.get("message_id"),
            each["bytes"],
            each.get("error") or each["from"],
        )
        for each in deliveries
    ]
    print_table(("AT", "OUTCOME", "MESSAGE", "BYTES", "FROM"), rows, empty="no mail yet")


@app.command()
def delete(address: _Address, as_json: JsonOption = False) -> None:
    """Delete a mailbox: mail for it is refused. Mails that are in the queue stay."""
    _ask("DELETE", _path(address))
    _say({"deleted": address}, f"deleted mailbox {address}", as_json=as_json)


def _say(answer: dict[str, Any], text: str, *, as_json: bool) -> None:
    from meshhost.cli.output import print_json, print_line

    if as_json:
        print_json(answer)
    else:
        print_line(text)


def _body(queue: str, room: str, *, public: bool) -> dict[str, Any]:
    return {"room": room, "queue": queue, "public": public}


def _path(address: str) -> str:
    from urllib.parse import quote

    return f"mailboxes/{quote(address, safe='@')}"


def _ask(method: str, path: str, body: dict[str, Any] | None = None, **query: str | int) -> Any:
    from meshhost.cli.connect import send_json, server_access
    from meshhost.cli.log_output import log_for_command

    log_for_command()
    access = server_access()
    whole = f"/accounts/projects/{access.project_id}/{path}"
    return send_json(access.api_url, access.api_key, method, whole, body, query)

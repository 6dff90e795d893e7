"""`meshhost messaging`: lists participants of a room and sends them messages.

A recipient is named by its name or its id. Names are looked up among the participants that receive messages, so a name needs
messaging to be enabled first; an id works for every participant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from meshhost.cli.options import JsonOption, RoomOption

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meshhost.room.client import RoomClient
    from meshhost.room.participants import Participant, RemoteParticipant

__all__ = ["app"]

app = typer.Typer(help="List the participants of a room, and send messages.")

TypeOption = Annotated[str, typer.Option("--type", help="Type of the message.")]
MessageOption = Annotated[str, typer.Option("--message", "--data", metavar="JSON", help="The message, a JSON object.")]


@app.command()
def send(
    to: Annotated[
        str, typer.Option("--to", "--to-participant-id", metavar="NAME_OR_ID", help="Name or id of the recipient.")
    ],
    type: TypeOption,
    message: MessageOption,
    room: RoomOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send a message to one participant."""
    from meshhost.cli.connect import run_in_room
    from meshhost.cli.json_input import parse_object
    from meshhost.cli.output import print_json, print_line

    body = parse_object(message, source="--message")

    async def use(client: RoomClient) -> Participant:
        await client.messaging.enable()
        target = _target(client.messaging.remote_participants, to)
        await client.messaging.send_message(to=target, type=type, message=body)
        return target

    target = run_in_room(room, use)
    if as_json:
        print_json({"to": target.id, "type": type})
    else:
        print_line(f"sent to {target.get_attribute('name') or target.id}")


@app.command()
def broadcast(
    type: TypeOption,
    message: MessageOption,
    room: RoomOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send a message to all participants that receive messages."""
    from meshhost.cli.connect import run_in_room
    from meshhost.cli.json_input import parse_object
    from meshhost.cli.output import print_json, print_line

    body = parse_object(message, source="--message")
    run_in_room(room, lambda client: client.messaging.broadcast_message(type=type, message=body))
    if as_json:
        print_json({"type": type})
    else:
        print_line("sent to all participants that receive messages")


@app.command("list")
def list_participants(room: RoomOption = None, as_json: JsonOption = False) -> None:
    """List the participants that receive messages."""
    from meshhost.cli.connect import run_in_room
    from meshhost.cli.output import print_json, print_table

    async def use(client: RoomClient) -> Sequence[RemoteParticipant]:
        await client.messaging.enable()
        return client.messaging.remote_participants

    participants = run_in_room(room, use)
    if as_json:
        print_json([{"id": one.id, "role": one.role, "attributes": dict(one.attributes)} for one in participants])
        return
    rows = [(one.get_attribute("name"), one.role, one.id) for one in participants]
    print_table(("NAME", "ROLE", "ID"), rows, empty="no participant of this room receives messages now")


def _target(participants: Sequence[RemoteParticipant], to: str) -> Participant:
    """Return the participant with this id or name. One that has not enabled messaging can only be named by its id."""
    from uuid import UUID

    from meshhost.errors import InvalidRequestError, NotFoundError
    from meshhost.room.participants import Participant

    by_name = [one for one in participants if one.get_attribute("name") == to]
    found = [one for one in participants if one.id == to] or by_name
    if len(found) > 1:
        ids = ", ".join(one.id for one in found)
        raise InvalidRequestError("--to", f"{len(found)} participants have the name {to!r}; use an id: {ids}")
    if found:
        return found[0]
    try:
        return Participant(id=str(UUID(to)))
    except ValueError:
        raise NotFoundError(
            f"no participant {to!r} receives messages: `meshhost messaging list` shows those that do"
        ) from None

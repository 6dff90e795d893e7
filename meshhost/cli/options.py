"""Options that several command groups have, so that they have one name and one text everywhere.

A command takes one by annotating a parameter with it: `room: RoomOption = None`.
"""

from typing import Annotated

import typer

__all__ = ["JsonOption", "QueueOption", "RoomOption", "check_short"]

# The server takes no longer name, key or id.
_MOST_CHARS = 200


def check_short(value: str | None) -> str | None:
    """Return the value of an option that is sent as a name, key or id. Raises BadParameter; typer names the option."""
    if value is not None and not 1 <= len(value) <= _MOST_CHARS:
        raise typer.BadParameter(f"expected 1 to {_MOST_CHARS} characters, got {len(value) or 'none'}")
    return value


RoomOption = Annotated[
    str | None, typer.Option("--room", metavar="NAME", help="Name of the room (default: MESHHOST_ROOM).")
]
QueueOption = Annotated[str, typer.Option("--queue", metavar="NAME", help="Name of the queue.", callback=check_short)]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
